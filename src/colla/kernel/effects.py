"""What a step asks the world to do. Values, compared and printed in transcripts; performed by the shell.

Every request effect (one with an `id`) ends in exactly one event that carries the same id. `Send`, `WakeAt`,
`Answer`, `Notify`, `AcceptPeer` and `CloseLink` have no outcome.
"""

from __future__ import annotations

from typing import Any

import msgspec

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId, ObjectId, ReplicaId, ServiceId
from colla.model.record import SignedRecord
from colla.model.secret import Hidden
from colla.model.service import Specification


class Effect(msgspec.Struct, frozen=True, tag=True):
    """Anything that a step asks for."""


class Send(Effect, frozen=True):
    """Send a message to a node; the router loops it back when the node is this one. It may be lost.

    It leaves only after earlier `Persist` effects are durable, unless `unbarriered` (presence, heartbeats).
    A `datagram` may overtake and be overtaken.
    """

    to: NodeId
    message: Message
    datagram: bool = False
    unbarriered: bool = False


class WakeAt(Effect, frozen=True):
    """Give the timer back as `TimerDue` once the boot clock reads `at_s`. Timers are never cancelled."""

    at_s: float
    timer: Timer


class StoreRecord(msgspec.Struct, frozen=True, tag=True):
    """Write: hold this record. `slot` names its place (one per log and key): it replaces what stood there."""

    topic: str
    slot: bytes
    record: SignedRecord


class DropRecord(msgspec.Struct, frozen=True, tag=True):
    """Write: the record in this slot is no longer live."""

    topic: str
    slot: bytes


class StoreCell(msgspec.Struct, frozen=True, tag=True):
    """Write: a small named value of one mechanism (a frontier, a ballot floor, a chosen replica id)."""

    name: str
    value: bytes


class DropCell(msgspec.Struct, frozen=True, tag=True):
    """Write: forget a named value."""

    name: str


Write = StoreRecord | DropRecord | StoreCell | DropCell


class Persist(Effect, frozen=True):
    """Make the writes durable, all or none, in the order of the effects. Ends in Persisted or PersistFailed."""

    id: int
    writes: tuple[Write, ...]


class LaunchReplica(Effect, frozen=True):
    """Prepare and start a replica; idempotent by its id. Ends in ReplicaLaunched or LaunchFailed.

    The object's files are on this node's disk already. Readiness, ill health and exit come later, as events
    without an id. `secrets` go to the program's environment and to no disk.
    """

    id: int
    replica: ReplicaId
    service: ServiceId
    specification: Specification
    secrets: tuple[tuple[str, Hidden], ...] = ()


class StopReplica(Effect, frozen=True):
    """Stop a replica and delete what it left. Ends in ReplicaStopped or StopFailed; unknown ids are stopped."""

    id: int
    replica: ReplicaId
    grace_s: float


class SurveyReplicas(Effect, frozen=True):
    """List what the execution environments run. Ends in ReplicasSurveyed or SurveyFailed."""

    id: int


class FetchObject(Effect, frozen=True):
    """Bring an object onto this node's disk from any of the holders. Ends in ObjectFetched or FetchFailed."""

    id: int
    object: ObjectId
    holders: tuple[NodeId, ...]


class ForgetObject(Effect, frozen=True):
    """Remove an object from this node's disk. Ends in ObjectForgotten, or in ObjectKept while it is in use."""

    id: int
    object: ObjectId


class Dial(Effect, frozen=True):
    """Try to open a link at any of the addresses. Ends in Dialled or DialFailed; LinkOpened comes besides."""

    id: int
    node: NodeId
    addresses: tuple[str, ...]


class AcceptPeer(Effect, frozen=True):
    """The peer is a member's node: let it open streams, lift the limits of strangers."""

    peer: NodeId


class CloseLink(Effect, frozen=True):
    """Close the link; the reason is shown to the peer."""

    peer: NodeId
    reason: str


class NoteAddresses(Effect, frozen=True):
    """Where a node may be reached, for links that `Send` opens by itself."""

    node: NodeId
    addresses: tuple[str, ...]


class KeepLinks(Effect, frozen=True):
    """The nodes whose links must stay open; others may be closed when idle."""

    nodes: tuple[NodeId, ...]


class Answer(Effect, frozen=True):
    """The outcome of a request from the API: a result, or a `Refusal`."""

    id: int
    result: Any


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """Why a request was not carried out; becomes a `CollaError` at the API."""

    code: str
    message: str
    hint: str = ""


class Notice(msgspec.Struct, frozen=True):
    """Something that a person or a log wants to know: `kind` is stable (`replica_ready`, `took_over`, …)."""

    kind: str
    text: str
    service: ServiceId = ServiceId(b"")
    node: NodeId = NodeId(b"")


class Notify(Effect, frozen=True):
    """Tell whoever listens on this node: log, event stream of the API, demo."""

    notice: Notice
