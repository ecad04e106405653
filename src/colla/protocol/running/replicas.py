"""The replicas of this node: their life, and the cells that remember which ids this node chose.

Transitions of one replica:

    -                           an offer is accepted            -> reserving        its id is being persisted
    -                           surveyed, with a matching cell  -> starting, ready  adopted
    reserving                   Persisted                       -> queued           few start at a time
    reserving                   Persisted, without its secrets  -> entrusting       their keys are asked for
    entrusting                  all keys of its secrets came    -> queued
    entrusting                  they did not come in time       -> -                failed, backed off
    queued                      a start slot, no object here    -> fetching
    queued                      a start slot, object here       -> launching
    queued                      nobody holds the object         -> -                failed, backed off
    fetching                    ObjectFetched                   -> launching
    queued, fetching            a secret was changed just now   -> entrusting
    fetching                    FetchFailed                     -> -                failed, backed off
    launching                   ReplicaLaunched                 -> starting
    launching                   LaunchFailed                    -> -                failed, backed off
    launching, starting         ReplicaReady                    -> ready
    unhealthy                   ReplicaReady                    -> ready
    launching, starting, ready  ReplicaUnhealthy                -> unhealthy
    starting, ready, unhealthy  ReplicaExited, or not surveyed  -> -                failed, backed off
    launching                   ReplicaExited                   -> -                failed, backed off
    reserving, queued, fetching  told to stop                   -> -                nothing was launched yet
    entrusting                  told to stop                    -> -                nothing was launched yet
    launching, starting         told to stop                    -> leaving          drains for `drain_s`
    ready, unhealthy            told to stop                    -> leaving          drains for `drain_s`
    leaving                     DrainDue, or nothing to drain   -> stopping         once a launch has ended
    leaving                     ReplicaExited                   -> -
    stopping                    ReplicaStopped, or not surveyed  -> -               its cell is dropped

Invariants: one replica per service; the id is on disk before `LaunchReplica`, and its cell leaves the disk only after
the replica is known not to run. So a crash between any two effects leaves either a cell that the survey does not find
(dropped) or a replica with its cell (adopted); a replica that the survey finds without a cell is stopped.
"""

from __future__ import annotations

import enum

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell, Write
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.location import Replica, ReplicaPhase
from colla.model.service import Specification

CELL_PREFIX = "replica/"


class ReplicaCell(msgspec.Struct, frozen=True, array_like=True):
    """What is on disk of a replica."""

    service: ServiceId
    specification: Specification


class Stage(enum.StrEnum):
    """Where a replica stands; see the transitions above."""

    RESERVING = "reserving"
    ENTRUSTING = "entrusting"
    QUEUED = "queued"
    FETCHING = "fetching"
    LAUNCHING = "launching"
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    LEAVING = "leaving"
    STOPPING = "stopping"


PHASES = {
    Stage.RESERVING: ReplicaPhase.PREPARING,
    Stage.ENTRUSTING: ReplicaPhase.PREPARING,
    Stage.QUEUED: ReplicaPhase.PREPARING,
    Stage.FETCHING: ReplicaPhase.PREPARING,
    Stage.LAUNCHING: ReplicaPhase.STARTING,
    Stage.STARTING: ReplicaPhase.STARTING,
    Stage.READY: ReplicaPhase.READY,
    Stage.UNHEALTHY: ReplicaPhase.UNHEALTHY,
    Stage.LEAVING: ReplicaPhase.STOPPING,
    Stage.STOPPING: ReplicaPhase.STOPPING,
}
UNLAUNCHED = (Stage.RESERVING, Stage.ENTRUSTING, Stage.QUEUED, Stage.FETCHING)
IN_SLOT = (Stage.FETCHING, Stage.LAUNCHING, Stage.STARTING)


class Own(msgspec.Struct):
    """One replica of this node. `order`: its place by age; `pending`: the id of the effect under way.

    `launched`: LaunchReplica was asked for, so that it must be stopped; `slot_until_s`: until when it counts as starting.
    """

    id: ReplicaId
    service: ServiceId
    specification: Specification
    stage: Stage
    order: int
    living: int = 0
    holders: tuple[NodeId, ...] = ()
    pending: int = 0
    launched: bool = False
    ready_since_s: float | None = None
    slot_until_s: float = 0.0
    detail: str = ""
    why: str = ""
    stop_attempts: int = 0
    stop_due: bool = False

    @property
    def version(self) -> int:
        return self.specification.version

    @property
    def going(self) -> bool:
        """Whether it was told to stop."""
        return self.stage in (Stage.LEAVING, Stage.STOPPING)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ReplicaCell)


class ReplicaTable:
    """All replicas of this node, and the cells of an earlier start that the survey has not judged yet."""

    def __init__(self, durable: Durable, detail_chars_max: int) -> None:
        """Raises `ValueError` when a cell is corrupt."""
        self._detail_chars_max = detail_chars_max
        self._by_service: dict[ServiceId, Own] = {}
        self._order = 0
        self.remembered: dict[ReplicaId, ReplicaCell] = {}
        for name in sorted(durable.cells):
            if name.startswith(CELL_PREFIX):
                replica = ReplicaId(bytes.fromhex(name.removeprefix(CELL_PREFIX)))
                try:
                    self.remembered[replica] = _decoder.decode(durable.cells[name])
                except msgspec.DecodeError as error:
                    raise ValueError(f"the cell {name} is corrupt: {error}") from None

    def add(self, replica: ReplicaId, service: ServiceId, specification: Specification, stage: Stage) -> Own:
        """A replica more. Raises `AssertionError` when the service has one here already."""
        if service in self._by_service:
            raise AssertionError("at most one replica per service on a node")
        self._order += 1
        own = Own(replica, service, specification, stage, self._order)
        self._by_service[service] = own
        return own

    def remove(self, own: Own) -> None:
        """The replica is gone."""
        if self._by_service.get(own.service) is own:
            del self._by_service[own.service]

    def of(self, service: ServiceId) -> Own | None:
        return self._by_service.get(service)

    def may_run_in(self, service: ServiceId) -> str:
        """The environment that has yet to tell whether it runs a replica of an earlier start; empty if none has."""
        cells = self.remembered.values()
        return next((cell.specification.environment for cell in cells if cell.service == service), "")

    def by_id(self, replica: ReplicaId) -> Own | None:
        for own in self._by_service.values():
            if own.id == replica:
                return own
        return None

    def by_pending(self, request: int) -> Own | None:
        for own in self._by_service.values():
            if own.pending == request:
                return own
        return None

    def all(self) -> list[Own]:
        """All replicas, the oldest first."""
        return sorted(self._by_service.values(), key=lambda own: own.order)

    def in_slots(self, now_s: float) -> int:
        """How many count as starting now."""
        return sum(
            1
            for own in self._by_service.values()
            if own.stage in IN_SLOT and (own.stage is not Stage.STARTING or now_s < own.slot_until_s)
        )

    def next_queued(self) -> Own | None:
        """The queued replica whose service has the fewest living ones elsewhere, then the oldest."""
        queued = [own for own in self._by_service.values() if own.stage is Stage.QUEUED]
        return min(queued, key=lambda own: (own.living, own.order), default=None)

    def shown(self, own: Own, node: NodeId, *, draining: bool) -> Replica:
        """The replica as masters are told of it."""
        phase = PHASES[own.stage]
        if draining and phase is ReplicaPhase.READY:
            phase = ReplicaPhase.DRAINING
        detail = (own.why if own.going else own.detail)[: self._detail_chars_max]
        return Replica(own.id, own.service, node, own.version, phase, detail)


def store_cell(replica: ReplicaId, service: ServiceId, specification: Specification) -> Write:
    """The write that remembers a replica's id."""
    cell = ReplicaCell(service, specification)
    return StoreCell(CELL_PREFIX + replica.hex(), _encoder.encode(cell))


def drop_cell(replica: ReplicaId) -> Write:
    """The write that forgets it."""
    return DropCell(CELL_PREFIX + replica.hex())
