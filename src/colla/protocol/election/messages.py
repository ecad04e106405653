"""What dispatchers say to each other about who masters which service, and the timers of the elections.

`nonce` and `echo` belong to `echoes.Echoes`: what they prove decides whether a message about mastership counts.
"""

from __future__ import annotations

import msgspec

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot, Replica


class Claim(Message, frozen=True, tag="claim"):
    """I master the service by this ballot; `running` replicas are ready under me. Told to all present dispatchers
    at a take-over and to another master when two meet. Answered by `ClaimAnswer`.
    """

    service: ServiceId
    ballot: Ballot
    running: int
    nonce: int
    echo: int


class ClaimAnswer(Message, frozen=True, tag="claim!"):
    """`ballot` is the highest that the answering dispatcher knows of, `mastering` whether it is its own and acting;
    `counted` is false when the claim lacked a fresh echo: then it is repeated with one.
    """

    service: ServiceId
    ballot: Ballot
    mastering: bool
    counted: bool
    nonce: int
    echo: int


class MasterQuery(Message, frozen=True, tag="mas?"):
    """Did you hear the service's master lately? A question to witnesses before claiming."""

    service: ServiceId
    nonce: int
    echo: int


class MasterAnswer(Message, frozen=True, tag="mas!"):
    """`heard_s` ago this node heard the master with this ballot (negative: never, or it does not hear me)."""

    service: ServiceId
    ballot: Ballot
    heard_s: float
    nonce: int
    echo: int


class MasteryEntry(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One mastered service. `revision` is that of the knowledge which its secondaries should have."""

    service: ServiceId
    ballot: Ballot
    revision: int = 0


class Mastership(Message, frozen=True, tag="rule"):
    """From a master's node to a secondary's, once per interval, for all services that the two share.

    `entries` is empty when they are those of the last message with the same `digest`.
    """

    digest: bytes
    entries: tuple[MasteryEntry, ...]
    nonce: int
    echo: int


class MastershipAnswer(Message, frozen=True, tag="rule!"):
    """Sent when something is amiss: the digest is `unknown` here, the secondary `wants` the knowledge of some
    services, or knows higher ballots (`refused`).
    """

    unknown: bool
    wants: tuple[ServiceId, ...]
    refused: tuple[MasteryEntry, ...]
    nonce: int
    echo: int


class MasterKnowledge(Message, frozen=True, tag="know"):
    """What a master tells its secondaries, on every change: who they are and what runs where."""

    service: ServiceId
    ballot: Ballot
    revision: int
    secondaries: tuple[NodeId, ...]
    replicas: tuple[Replica, ...]
    nonce: int
    echo: int


class HandOver(Message, frozen=True, tag="hand"):
    """Take this service over from me. With a `fingerprint`, only if your catalogue has the same."""

    service: ServiceId
    ballot: Ballot
    fingerprint: bytes
    nonce: int
    echo: int


class Bequest(Message, frozen=True, tag="left"):
    """I master this service no more, and had replicas started on these nodes: whoever masters it should ask them.

    Who does not master it either passes it on, once, to the master that it knows.
    """

    service: ServiceId
    nodes: tuple[NodeId, ...]
    nonce: int
    echo: int
    passed_on: bool = False


class Contention(Message, frozen=True, tag="cont"):
    """I contend for a service without a master and wait `wait_s`; only a smaller (wait, node id) silences."""

    service: ServiceId
    wait_s: float
    nonce: int
    echo: int


class MasterSummary(Message, frozen=True, tag="who?"):
    """A digest over all that this dispatcher knows of who masters what. Unequal: answered by `MasterDelta`."""

    digest: bytes
    nonce: int
    echo: int


class MasterDelta(Message, frozen=True, tag="who!"):
    """The ballots known, or, when `mine`, those that the sender masters by now. `reply` asks for the others'."""

    entries: tuple[MasteryEntry, ...]
    mine: bool
    reply: bool
    nonce: int
    echo: int


ELECTION_MESSAGES: tuple[type[Message], ...] = (
    Claim,
    ClaimAnswer,
    MasterQuery,
    MasterAnswer,
    Mastership,
    MastershipAnswer,
    MasterKnowledge,
    HandOver,
    Bequest,
    Contention,
    MasterSummary,
    MasterDelta,
)


class ReviewDue(Timer, frozen=True):
    """Look whether a service lacks its master; stale when `epoch` is not the newest."""

    epoch: int


class MastershipDue(Timer, frozen=True):
    """Tell partners what this node masters; stale when `epoch` is not the newest."""

    epoch: int


class GossipDue(Timer, frozen=True):
    """Compare with a random dispatcher who masters what; stale when `epoch` is not the newest."""

    epoch: int
