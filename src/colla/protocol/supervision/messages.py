"""What masters and executors say to each other, and the timers of both.

`nonce` and `echo` belong to `election.echoes.Echoes`: an executor obeys only a master that hears it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId, ReplicaId, ServiceId, digest
from colla.model.location import Ballot, Replica

NO_REPLICA = ReplicaId(b"")
DIGEST_BYTES = 8


class Capacity(msgspec.Struct, frozen=True, array_like=True):
    """What an executor's owner gives and what replicas have reserved of it. `disk_free_bytes` for objects."""

    cpus: float
    cpus_reserved: float
    memory_bytes: int
    memory_reserved_bytes: int
    disk_free_bytes: int
    replicas: int
    replicas_max: int

    @property
    def load(self) -> float:
        """The larger share that is reserved, of CPU or memory (0 to 1)."""
        cpu = self.cpus_reserved / self.cpus if self.cpus > 0 else 1.0
        memory = self.memory_reserved_bytes / self.memory_bytes if self.memory_bytes > 0 else 1.0
        return min(1.0, max(cpu, memory))


class InventoryQuery(Message, frozen=True, tag="inv?"):
    """What runs there of these services? Binds to nothing; asked before claiming, and again before launching."""

    services: tuple[ServiceId, ...]
    nonce: int
    echo: int


class InventoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """One service on one executor: its replica there, the ballot obeyed, how long ago that master was heard
    (negative: never, or it does not hear the executor), and whether the service's object is on disk.
    """

    service: ServiceId
    ballot: Ballot
    heard_s: float
    holds: bool
    replica: Replica | None = None


class InventoryAnswer(Message, frozen=True, tag="inv!"):
    """Every executor answers, also one that runs nothing. `ready` is false until it has surveyed its replicas.

    Also sent unasked, to all dispatchers, for replicas that no master supervises: so their master learns of them.
    """

    entries: tuple[InventoryEntry, ...]
    capacity: Capacity
    ready: bool
    nonce: int
    echo: int


class Offer(Message, frozen=True, tag="offer"):
    """Run a replica of this version. `living` replicas run elsewhere (the executor starts those with fewest first);
    `holders` have the object. It carries nothing of the specification: the executor reads its own catalogue.
    """

    service: ServiceId
    ballot: Ballot
    version: int
    offer: int
    living: int
    holders: tuple[NodeId, ...]
    nonce: int
    echo: int


class OfferAnswer(Message, frozen=True, tag="offer!"):
    """Accepted and reserved as `replica`, or refused with a stable `code`, a reason for people, and when to ask again.

    With the code `lower_ballot`, `ballot` is the one that the executor obeys.
    """

    service: ServiceId
    offer: int
    replica: ReplicaId
    ballot: Ballot
    code: str
    reason: str
    retry_s: float
    capacity: Capacity
    nonce: int
    echo: int

    @property
    def accepted(self) -> bool:
        return not self.code


class StopOrder(Message, frozen=True, tag="stop"):
    """Stop this replica after `drain_s`, in which no new requests are sent to it."""

    service: ServiceId
    replica: ReplicaId
    ballot: Ballot
    drain_s: float
    why: str
    nonce: int
    echo: int


class StopAnswer(Message, frozen=True, tag="stop!"):
    """The order is carried out (empty `code`), or refused; `ballot` is the one that the executor obeys."""

    service: ServiceId
    replica: ReplicaId
    ballot: Ballot
    code: str
    nonce: int
    echo: int


class SupervisionEntry(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A service that the sender masters and of which it knows a replica at the receiver."""

    service: ServiceId
    ballot: Ballot


class Supervision(Message, frozen=True, tag="sup"):
    """From a master's node to an executor's, once per interval and on changes. Answered by `ReplicaReport`.

    `entries` is empty when they are those of the last message with the same `digest`; `reports` is the digest of the
    replicas as the master knows them: when it is the executor's own, the answer needs no entries.
    """

    digest: bytes
    entries: tuple[SupervisionEntry, ...]
    reports: bytes
    nonce: int
    echo: int


class ReportEntry(msgspec.Struct, frozen=True, array_like=True):
    """A replica as it is now, and the ballot that the executor obeys for its service."""

    replica: Replica
    ballot: Ballot


class ReplicaReport(Message, frozen=True, tag="rep"):
    """From an executor to a master: on every change, and as the answer to `Supervision`.

    `entries` are all replicas of the services that the master masters there, unless `unchanged`. `refused` lists
    services whose executor obeys a higher ballot. `unknown`: send the entries of your `Supervision`. `covers` is the
    digest of the `Supervision` entries that the executor had: what they name and `entries` lack does not run there.
    """

    entries: tuple[ReportEntry, ...]
    unchanged: bool
    refused: tuple[SupervisionEntry, ...]
    unknown: bool
    covers: bytes
    capacity: Capacity
    nonce: int
    echo: int


class Preseed(Message, frozen=True, tag="seed"):
    """This node is a likely next place of the service: fetch its object ahead, if the owner's contribution allows."""

    service: ServiceId
    version: int
    holders: tuple[NodeId, ...]


TO_DISPATCHERS: tuple[type[Message], ...] = (InventoryAnswer, OfferAnswer, StopAnswer, ReplicaReport)
TO_EXECUTORS: tuple[type[Message], ...] = (InventoryQuery, Offer, StopOrder, Supervision, Preseed)


def digest_of_supervision(entries: Iterable[SupervisionEntry]) -> bytes:
    """The same on both sides for the same services and ballots."""
    return digest(msgspec.msgpack.encode(sorted(entries)))[:DIGEST_BYTES]


def digest_of_reports(entries: Iterable[ReportEntry]) -> bytes:
    """The same on both sides for the same replicas, phases and ballots."""
    ordered = sorted(entries, key=lambda entry: (entry.replica.service, entry.replica.id))
    return digest(msgspec.msgpack.encode(ordered))[:DIGEST_BYTES]


class CheckDue(Timer, frozen=True):
    """Look at the services that this node masters; stale when `epoch` is not the newest."""

    epoch: int


class SupervisionDue(Timer, frozen=True):
    """Tell executors what this node masters there; stale when `epoch` is not the newest."""

    epoch: int


class HeldOfferDue(Timer, frozen=True):
    """An offer waited long enough for the executor's own catalogue to know its version."""

    service: ServiceId
    offer: int


class DrainDue(Timer, frozen=True):
    """No new requests were sent to the replica for a while: stop it."""

    replica: ReplicaId


class StopRetryDue(Timer, frozen=True):
    """Try once more to stop the replica; stale unless it stands at this attempt."""

    replica: ReplicaId
    attempt: int


class StartSlotDue(Timer, frozen=True):
    """A starting replica has kept others waiting long enough."""

    replica: ReplicaId


class SurveyDue(Timer, frozen=True):
    """Ask the environments what they run; stale when `epoch` is not the newest."""

    epoch: int


class OrphansDue(Timer, frozen=True):
    """Look whether a replica here is supervised by nobody; stale when `epoch` is not the newest."""

    epoch: int
