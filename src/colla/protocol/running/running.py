"""Running replicas: reserving, fetching, launching, stopping, surveying, enforcing. See `replicas` for the table.

What this node's catalogue shows inactive or eliminated, and what its owner does not give any more, stops at once and
without any order; everything else goes on, also when nobody is heard. `take_changes` tells what masters should learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from colla.kernel.effects import FetchObject, LaunchReplica, StopReplica, SurveyReplicas, Write
from colla.kernel.events import SurveyedReplica
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ObjectId, ReplicaId, ServiceId, random_id
from colla.model.location import Replica, ReplicaPhase
from colla.model.service import Specification
from colla.protocol.election.alarm import Alarm
from colla.protocol.election.setting import Setting
from colla.protocol.rendezvous import nearest
from colla.protocol.running.backoff import Backoff
from colla.protocol.running.replicas import (
    UNLAUNCHED,
    Own,
    ReplicaTable,
    Stage,
    drop_cell,
    store_cell,
)
from colla.protocol.running.willingness import (
    SOON_S,
    Owner,
    Unwilling,
    over_limit,
    refuses_one_more,
    refuses_service,
)
from colla.protocol.secrets.keyring import SecretsHere
from colla.protocol.supervision.messages import (
    Capacity,
    DrainDue,
    Preseed,
    StartSlotDue,
    StopRetryDue,
    SurveyDue,
)

PRESEEDS_MAX = 2
"""Objects fetched ahead at the same time."""
RUNS = (Stage.STARTING, Stage.READY, Stage.UNHEALTHY)


class Changes(msgspec.Struct):
    """Services whose replica here changed, and replicas that failed, since the last `take_changes`."""

    services: dict[ServiceId, None] = {}
    failed: list[Replica] = []


class ObjectsHere(Protocol):
    """What this needs of the objects on this node's disk."""

    def holds(self, wanted: ObjectId) -> bool: ...
    def bytes_given(self) -> int: ...


class Running:
    """See the module's docstring. `holdings` tells what is on this disk, `owner` what the owner gives now, `secrets`
    which secrets of services this node can read.
    """

    def __init__(
        self, setting: Setting, holdings: ObjectsHere, owner: Callable[[], Owner], secrets: SecretsHere
    ) -> None:
        self._setting = setting
        self._config = setting.config.supervision
        self._holds = holdings.holds
        self._holdings = holdings
        self._owner = owner
        self._secrets = secrets
        self.table = ReplicaTable(setting.durable, self._config.detail_chars_max)
        self.backoff = Backoff(self._config)
        self.surveyed = False
        self._survey = 0
        self._expected: tuple[ReplicaId, ...] = ()
        self._surveying: tuple[str, ...] = ()
        self._survey_alarm = Alarm(setting.outbox, SurveyDue)
        self._strays: dict[int, ReplicaId] = {}
        self._preseeds: dict[int, ObjectId] = {}
        self._changes = Changes()

    # -- offers and orders -------------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """What the owner gives, and what the replicas here have reserved of it."""
        gives = self._owner().contribution
        replicas = self.table.all()
        return Capacity(
            cpus=gives.cpus,
            cpus_reserved=round(sum(own.specification.limits.cpus for own in replicas), 6),
            memory_bytes=gives.memory_bytes,
            memory_reserved_bytes=sum(own.specification.limits.memory_bytes for own in replicas),
            disk_free_bytes=gives.disk_bytes - self._holdings.bytes_given(),
            replicas=len(replicas),
            replicas_max=gives.replicas_max,
        )

    def refuses(self, service: ServiceId, specification: Specification, now: Instant) -> Unwilling | None:
        """Whether this node does not start a replica of this now."""
        if not self.surveyed:
            return Unwilling("not_ready", "this computer still looks what runs on it", SOON_S)
        missing = self.table.may_run_in(service)
        if missing in self._owner().contribution.environments:
            text = f"one may run here already: the environment {missing} has not told yet"
            return Unwilling("not_ready", text, SOON_S)
        pause_s = self.backoff.left_s(service, specification.version, now)
        if pause_s > 0:
            return Unwilling("backing_off", f"it failed here lately; next try in {pause_s:.0f} s", pause_s)
        name, holds = self._member_name(specification), self._holds(specification.object)
        return refuses_one_more(self._owner(), specification, name, self.capacity(), holds)

    def reserve(
        self,
        service: ServiceId,
        specification: Specification,
        living: int,
        holders: tuple[NodeId, ...],
        also: Sequence[Write],
    ) -> Own:
        """Choose a replica's id and persist it, with the writes in `also`; starting waits for `persisted`."""
        replica = ReplicaId(random_id(self._setting.rng))
        own = self.table.add(replica, service, specification, Stage.RESERVING)
        own.living, own.holders = living, holders
        own.pending = self._setting.outbox.persist(*also, store_cell(replica, service, specification))
        return own

    def stop(self, own: Own, drain_s: float, why: str, now: Instant) -> None:
        """Stop a replica, after `drain_s` in which no new requests should come."""
        if own.going:
            return
        own.why = why
        if own.stage in UNLAUNCHED:
            self._gone(own, now)
            return
        own.stage = Stage.LEAVING
        self._changed(own.service)
        if drain_s > 0:
            self._setting.outbox.wake_in(drain_s, DrainDue(own.id), now)
        else:
            self._stop_now(own)

    def preseed(self, message: Preseed, now: Instant) -> None:
        """Fetch the object of a service that may come here soon."""
        service = self._setting.catalogue.service(message.service)
        if service is None or not service.active or len(self._preseeds) >= PRESEEDS_MAX:
            return
        specification = service.specification
        if self._holds(specification.object) or specification.object in self._preseeds.values():
            return
        if self.refuses(message.service, specification, now) is None:
            holders = self._holders(specification.object, message.holders)
            if holders:
                request = self._setting.outbox.new_id()
                self._preseeds[request] = specification.object
                self._setting.outbox.put(FetchObject(request, specification.object, holders))

    def holds(self, wanted: ObjectId) -> bool:
        """Whether the object is on this node's disk."""
        return self._holds(wanted)

    def shown(self, own: Own) -> Replica:
        """The replica as masters are told of it now."""
        draining = self._owner().contribution.draining
        return self.table.shown(own, self._setting.me, draining=draining)

    # -- enforcing ---------------------------------------------------------------------------------------------

    def enforce(self, now: Instant) -> None:
        """Stop what the catalogue shows inactive or eliminated, and what the owner does not give."""
        if not self.surveyed:
            return
        owner = self._owner()
        for own in self.table.all():
            if own.going:
                continue
            service = self._setting.catalogue.service(own.service)
            unwilling = refuses_service(owner, own.specification, self._member_name(own.specification))
            if service is None:
                self.stop(own, 0.0, "the service was eliminated", now)
            elif not service.active:
                self.stop(own, 0.0, "the service is not active", now)
            elif unwilling is not None:
                self.stop(own, 0.0, unwilling.reason, now)
        kept = [own for own in self.table.all() if not own.going]
        for place in over_limit(owner, [own.specification for own in kept]):
            self.stop(kept[place], 0.0, "the owner gives less now", now)
        self._fill_slots(now)

    def mark_all_changed(self) -> None:
        """How replicas are shown has changed (this node drains, or does no longer)."""
        for own in self.table.all():
            self._changed(own.service)

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    # -- outcomes of effects -----------------------------------------------------------------------------------

    def persisted(self, request: int, now: Instant) -> Own | None:
        """The reserved id is durable: the replica waits for a start slot. Returns it."""
        own = self.table.by_pending(request)
        if own is None or own.stage is not Stage.RESERVING:
            return None
        own.pending = 0
        own.stage = Stage.ENTRUSTING if self._secrets.lacking(own.service) else Stage.QUEUED
        self._changed(own.service)
        self._fill_slots(now)
        return own

    def entrusted(self, own: Own, now: Instant) -> None:
        """The replica has all its secrets: it waits for a start slot."""
        if own.stage is Stage.ENTRUSTING:
            own.stage, own.detail = Stage.QUEUED, ""
            self._fill_slots(now)

    def not_entrusted(self, own: Own, why: str, now: Instant) -> None:
        """Its secrets did not come in time."""
        if own.stage is Stage.ENTRUSTING:
            self._failed(own, why, now)

    def fetched(self, request: int, now: Instant) -> None:
        self._preseeds.pop(request, None)
        own = self.table.by_pending(request)
        if own is not None and own.stage is Stage.FETCHING:
            self._launch(own)

    def fetch_failed(self, request: int, why: str, now: Instant) -> None:
        self._preseeds.pop(request, None)
        own = self.table.by_pending(request)
        if own is not None and own.stage is Stage.FETCHING:
            self._failed(own, f"its object could not be fetched: {why}", now)

    def launched(self, request: int, now: Instant) -> None:
        own = self.table.by_pending(request)
        if own is None:
            return
        own.pending = 0
        if own.going:
            self._stop_if_due(own)
        elif own.stage is Stage.LAUNCHING:
            own.stage, own.slot_until_s = Stage.STARTING, now.boot_s + self._config.start_slot_s
            self._setting.outbox.wake_in(self._config.start_slot_s, StartSlotDue(own.id), now)

    def launch_failed(self, request: int, why: str, now: Instant) -> None:
        own = self.table.by_pending(request)
        if own is None:
            return
        own.pending = 0
        if own.going:
            self._stop_now(own)
        else:
            self._failed(own, f"it could not be started: {why}", now)

    def ready(self, replica: ReplicaId, now: Instant) -> None:
        own = self.table.by_id(replica)
        if own is None or own.going or own.stage is Stage.READY:
            return
        own.stage, own.detail = Stage.READY, ""
        if own.ready_since_s is None:
            own.ready_since_s = now.boot_s
            self._notify("replica_ready", "a replica is ready", own)
        self._changed(own.service)
        self._fill_slots(now)

    def unhealthy(self, replica: ReplicaId, why: str, now: Instant) -> None:
        own = self.table.by_id(replica)
        if own is not None and not own.going:
            own.stage, own.detail = Stage.UNHEALTHY, why
            self._changed(own.service)
            self._fill_slots(now)

    def exited(self, replica: ReplicaId, why: str, now: Instant) -> None:
        own = self.table.by_id(replica)
        if own is None or own.stage is Stage.STOPPING:
            return
        if own.stage is Stage.LEAVING:
            self._gone(own, now)
            return
        self._notify("replica_exited", f"a replica ended: {why}", own)
        self._failed(own, why, now)

    def stopped(self, request: int, now: Instant) -> None:
        stray = self._strays.pop(request, None)
        if stray is not None:
            self._setting.outbox.persist(drop_cell(stray))
            return
        own = self.table.by_pending(request)
        if own is not None:
            self._notify("replica_stopped", f"a replica stopped: {own.why}", own)
            self._gone(own, now)

    def stop_failed(self, request: int, why: str, now: Instant) -> None:
        if self._strays.pop(request, None) is not None:
            return
        own = self.table.by_pending(request)
        if own is None:
            return
        own.pending, own.detail = 0, why
        own.stop_attempts += 1
        # After the last retry the next survey tries again, or finds that it is gone.
        if own.stop_attempts <= self._config.stop_retries_max:
            retry = StopRetryDue(own.id, own.stop_attempts)
            self._setting.outbox.wake_in(self._config.stop_retry_s, retry, now)
        else:
            self._notify("stop_failed", f"a replica cannot be stopped: {why}", own)

    # -- timers ------------------------------------------------------------------------------------------------

    def drain_due(self, timer: DrainDue) -> None:
        own = self.table.by_id(timer.replica)
        if own is not None and own.stage is Stage.LEAVING:
            own.stop_due = True
            self._stop_if_due(own)

    def stop_retry_due(self, timer: StopRetryDue) -> None:
        own = self.table.by_id(timer.replica)
        if own is not None and own.stage is Stage.STOPPING and own.stop_attempts == timer.attempt:
            self._stop_now(own)

    def slot_due(self, now: Instant) -> None:
        self._fill_slots(now)

    # -- survey ------------------------------------------------------------------------------------------------

    def survey(self, now: Instant) -> None:
        """Ask the environments what they run."""
        if self._survey:
            return
        self._survey = self._setting.outbox.new_id()
        self._surveying = self._owner().environments
        self._expected = tuple(own.id for own in self.table.all() if own.stage in RUNS and not own.pending)
        self._setting.outbox.put(SurveyReplicas(self._survey))

    def survey_due(self, epoch: int, now: Instant) -> None:
        if self._survey_alarm.rang(epoch):
            self.survey(now)

    def survey_failed(self, request: int, now: Instant) -> None:
        if request == self._survey:
            self._survey = 0
            self._survey_alarm.set(now.boot_s + self._config.survey_retry_s, now)

    def survey_answered(self, request: int, found: Sequence[SurveyedReplica], now: Instant) -> None:
        """Adopt what this node started, stop what nobody knows, and note what is gone."""
        if request != self._survey:
            return
        self._survey, self.surveyed = 0, True
        self._survey_alarm.set(now.boot_s + self._config.survey_interval_s, now)
        listed: dict[ReplicaId, None] = {}
        for item in sorted(found, key=lambda item: item.replica):
            listed[item.replica] = None
            self._judge(item, now)
        if self._owner().environments != self._surveying:
            # One came or went meanwhile: whether it was asked cannot be known.
            self.survey(now)
        else:
            self._drop_vanished(listed, now)
        self._secrets.tidy([own.service for own in self.table.all()], now)
        self.enforce(now)
        self._fill_slots(now)

    def _judge(self, item: SurveyedReplica, now: Instant) -> None:
        """One replica that an environment runs: known, to be adopted, or a stray."""
        own = self.table.by_id(item.replica)
        if own is not None:
            if own.stage is Stage.STOPPING and not own.pending:
                self._stop_now(own)
            return
        cell = self.table.remembered.pop(item.replica, None)
        matches = (
            cell is not None and cell.service == item.service and cell.specification.version == item.version
        )
        if cell is None or not matches or self.table.of(item.service) is not None:
            if item.replica not in self._strays.values():
                request = self._setting.outbox.new_id()
                self._strays[request] = item.replica
                self._setting.outbox.put(StopReplica(request, item.replica, 0.0))
            return
        stage = Stage.READY if item.ready else Stage.STARTING
        adopted = self.table.add(item.replica, item.service, cell.specification, stage)
        adopted.launched = True
        adopted.ready_since_s = now.boot_s if item.ready else None
        self._changed(item.service)

    def _drop_vanished(self, listed: dict[ReplicaId, None], now: Instant) -> None:
        owner = self._owner()
        attached = owner.environments
        for replica, cell in list(self.table.remembered.items()):
            # An environment that is not attached yet could not list its replicas: their cells wait for it.
            if replica not in listed and cell.specification.environment in attached:
                del self.table.remembered[replica]
                self._setting.outbox.persist(drop_cell(replica))
        for replica in self._expected:
            own = self.table.by_id(replica)
            if own is None or replica in listed or own.stage not in RUNS:
                continue
            if own.specification.environment in attached:
                self.exited(replica, "its environment does not run it any more", now)
        for own in self.table.all():
            environment = own.specification.environment
            silent = environment not in attached and environment in owner.contribution.environments
            if own.stage is Stage.STOPPING and not own.pending and own.id not in listed and not silent:
                self._gone(own, now)

    # -- steps -------------------------------------------------------------------------------------------------

    def _fill_slots(self, now: Instant) -> None:
        while self.surveyed and self.table.in_slots(now.boot_s) < self._config.starts_at_once:
            own = self.table.next_queued()
            if own is None:
                return
            if self._holds(own.specification.object):
                self._launch(own)
                continue
            holders = self._holders(own.specification.object, own.holders)
            if not holders:
                self._failed(own, "nobody who is here holds its object", now)
                continue
            own.stage, own.pending = Stage.FETCHING, self._setting.outbox.new_id()
            self._setting.outbox.put(FetchObject(own.pending, own.specification.object, holders))

    def _holders(self, wanted: ObjectId, hints: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
        presence = self._setting.presence
        repositories = nearest(wanted, presence.carrying(AgentKind.REPOSITORY))
        named = [node for node in hints if presence.is_present(node)]
        chosen = [node for node in dict.fromkeys(named + repositories) if node != self._setting.me]
        return tuple(chosen[: self._config.holders_max])

    def _launch(self, own: Own) -> None:
        self._changed(own.service)
        if self._secrets.lacking(own.service):
            # One was changed while it waited: half configured it must not start.
            own.stage, own.pending = Stage.ENTRUSTING, 0
            return
        own.stage, own.launched = Stage.LAUNCHING, True
        own.pending = self._setting.outbox.new_id()
        secrets = self._secrets.reveal(own.service)
        launch = LaunchReplica(own.pending, own.id, own.service, own.specification, secrets)
        self._setting.outbox.put(launch)

    def _stop_if_due(self, own: Own) -> None:
        """A launch under way is waited for, so that stopping does not overtake it."""
        if own.stop_due and not own.pending:
            self._stop_now(own)

    def _stop_now(self, own: Own) -> None:
        if own.pending and own.stage is Stage.LEAVING:
            own.stop_due = True
            return
        own.stage = Stage.STOPPING
        own.pending = self._setting.outbox.new_id()
        grace_s = min(own.specification.stop_grace_s, self._config.stop_grace_max_s)
        self._changed(own.service)
        self._setting.outbox.put(StopReplica(own.pending, own.id, grace_s))

    def _failed(self, own: Own, why: str, now: Instant) -> None:
        ran_s = now.boot_s - own.ready_since_s if own.ready_since_s is not None else 0.0
        pause_s = self.backoff.failed(own.service, own.version, ran_s, now)
        own.detail = f"{why} (next try here in {pause_s:.0f} s)"
        shown = self.table.shown(own, self._setting.me, draining=False)
        self._changes.failed.append(msgspec.structs.replace(shown, phase=ReplicaPhase.FAILED))
        self._gone(own, now)

    def _gone(self, own: Own, now: Instant) -> None:
        self.table.remove(own)
        self._setting.outbox.persist(drop_cell(own.id))
        self._changed(own.service)
        self._fill_slots(now)

    def _changed(self, service: ServiceId) -> None:
        self._changes.services[service] = None

    def _member_name(self, specification: Specification) -> str:
        member = self._setting.membership.member(specification.owner)
        return member.name if member is not None else ""

    def _notify(self, kind: str, text: str, own: Own) -> None:
        text = f"{own.specification.name}: {text}"
        self._setting.outbox.notify(kind, text, service=own.service, node=self._setting.me)
