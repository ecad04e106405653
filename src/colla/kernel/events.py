"""What can happen to a node: the only input of the agents. Past tense; values that transcripts print."""

from __future__ import annotations

from typing import Any

import msgspec

from colla.kernel.messages import Message, Timer
from colla.model.contribution import Contribution
from colla.model.ids import NodeId, ObjectId, ReplicaId, ServiceId


class Event(msgspec.Struct, frozen=True, tag=True):
    """Anything that happens."""


class MessageReceived(Event, frozen=True):
    """A message arrived over the authenticated link of `peer` (or from an agent of this node)."""

    peer: NodeId
    message: Message


class TimerDue(Event, frozen=True):
    """A timer asked for by `WakeAt` is due; `late_s` tells by how much the loop was late."""

    timer: Timer
    late_s: float = 0.0


class Resumed(Event, frozen=True):
    """The computer slept, or the process was stopped, for `gap_s`: all soft knowledge is stale."""

    gap_s: float


class LinkOpened(Event, frozen=True):
    """A link to `peer` is up; its key is proven, its membership is not. `addresses`: where it is seen."""

    peer: NodeId
    addresses: tuple[str, ...]


class LinkClosed(Event, frozen=True):
    """The link to `peer` is gone."""

    peer: NodeId
    reason: str


class PeerFound(Event, frozen=True):
    """LAN discovery, a ticket or the owner (`colla connect`) names a node (or b"" for unknown) at addresses."""

    node: NodeId
    addresses: tuple[str, ...]


class AddressesChanged(Event, frozen=True):
    """Where this node can be reached now; `reachable` when anybody gets through there unasked."""

    addresses: tuple[str, ...]
    reachable: bool = False


class DialSlow(Event, frozen=True):
    """A dial has not got through at once: perhaps a router stands before the node, and it should dial too."""

    node: NodeId


class Persisted(Event, frozen=True):
    """The writes of that `Persist` are durable."""

    id: int


class PersistFailed(Event, frozen=True):
    """The writes are not on disk; nothing that waited for them left. The shell restarts the agents from disk."""

    id: int
    why: str


class ReplicaLaunched(Event, frozen=True):
    """The environment started the replica; it is not necessarily ready."""

    id: int
    replica: ReplicaId


class LaunchFailed(Event, frozen=True):
    """The environment could not start the replica, or it ended before it was ready."""

    id: int
    replica: ReplicaId
    why: str


class ReplicaReady(Event, frozen=True):
    """The replica's endpoint serves."""

    replica: ReplicaId


class ReplicaUnhealthy(Event, frozen=True):
    """The replica runs but its health check fails."""

    replica: ReplicaId
    why: str


class ReplicaExited(Event, frozen=True):
    """The replica ended without being asked."""

    replica: ReplicaId
    why: str


class ReplicaStopped(Event, frozen=True):
    """The replica is stopped and its scratch folder is gone."""

    id: int
    replica: ReplicaId


class StopFailed(Event, frozen=True):
    """The replica could not be stopped."""

    id: int
    replica: ReplicaId
    why: str


class SurveyedReplica(msgspec.Struct, frozen=True):
    """One replica that an environment runs."""

    replica: ReplicaId
    service: ServiceId
    version: int
    ready: bool


class ReplicasSurveyed(Event, frozen=True):
    """All that the environments run."""

    id: int
    replicas: tuple[SurveyedReplica, ...]


class SurveyFailed(Event, frozen=True):
    """The environments could not be asked."""

    id: int
    why: str


class EnvironmentsChanged(Event, frozen=True):
    """Which kinds of environment are attached and healthy now, and how those that say so isolate what they run."""

    kinds: tuple[str, ...]
    isolation: tuple[tuple[str, str], ...] = ()


class ObjectFetched(Event, frozen=True):
    """The object is on this node's disk, verified and durable."""

    id: int
    object: ObjectId
    size_bytes: int = 0


class FetchProgressed(Event, frozen=True):
    """A fetch goes on: so many bytes of the object are on this node's disk."""

    id: int
    object: ObjectId
    done_bytes: int


class FetchFailed(Event, frozen=True):
    """The object could not be fetched from any of the holders."""

    id: int
    object: ObjectId
    why: str


class ObjectForgotten(Event, frozen=True):
    """The object is gone from this node's disk."""

    id: int
    object: ObjectId


class ObjectKept(Event, frozen=True):
    """The object stays on this node's disk for now: something here reads or fetches it."""

    id: int
    object: ObjectId


class RemnantLeft(Event, frozen=True):
    """A part of the object is on this node's disk: bringing the whole, for somebody here, broke off."""

    object: ObjectId


class ObjectStored(Event, frozen=True):
    """A member of this node put an object: it is on this node's disk, durable."""

    object: ObjectId
    size_bytes: int


class ObjectDamaged(Event, frozen=True):
    """A read found the object's bytes corrupt; the bad bytes are put aside."""

    object: ObjectId
    why: str


class Dialled(Event, frozen=True):
    """The link is up."""

    id: int
    node: NodeId


class DialFailed(Event, frozen=True):
    """Nobody answered at these addresses in time."""

    id: int
    node: NodeId
    why: str


class ContributionChanged(Event, frozen=True):
    """The owner decided anew what this node gives."""

    contribution: Contribution


class Requested(Event, frozen=True):
    """The API asks for something; the agents answer with `Answer(id, …)` exactly once."""

    id: int
    request: Any


class StopRequested(Event, frozen=True):
    """The node is about to stop: say goodbye."""
