"""The executor: runs replicas through execution environments, on the terms of this computer's owner.

It composes `running` (the replicas), `obeying` (masters and their ballots), `entrusting` (the secrets that replicas need)
and `willingness` (the owner's last word).
At the start it surveys what runs, adopts what it knows and stops the rest; until then it accepts nothing. It stops,
without any order, what its own catalogue shows inactive or eliminated and what its owner does not give any more; all
else it keeps running, also when it hears from nobody: availability first.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.agent import Agent, Context
from colla.kernel.events import (
    Event,
    FetchFailed,
    LaunchFailed,
    ObjectFetched,
    Persisted,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaReady,
    ReplicasSurveyed,
    ReplicaStopped,
    ReplicaUnhealthy,
    StopFailed,
    SurveyFailed,
)
from colla.kernel.messages import Message, Timer
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.model.contribution import GIVES_NOTHING
from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Replica
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.setting import Setting
from colla.protocol.running.entrusting import Entrusting
from colla.protocol.running.obeying import Obeying
from colla.protocol.running.running import Running
from colla.protocol.running.willingness import Owner
from colla.protocol.secrets.messages import KeysAnswer, KeysDue
from colla.protocol.supervision.messages import (
    TO_EXECUTORS,
    DrainDue,
    HeldOfferDue,
    InventoryQuery,
    Offer,
    OrphansDue,
    Preseed,
    StartSlotDue,
    StopOrder,
    StopRetryDue,
    Supervision,
    SurveyDue,
)
from colla.protocol.views import PresenceChange

PARTNERS_PURPOSE = "running"


class Executor(Agent):
    """See the module's docstring."""

    MESSAGES = (*TO_EXECUTORS, KeysAnswer)
    TIMERS = (HeldOfferDue, DrainDue, StopRetryDue, StartSlotDue, SurveyDue, OrphansDue, KeysDue)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        setting = setting_of(context)
        self._echoes = Echoes(setting)
        self._running = Running(setting, context.holdings, self._owner, context.secrets)
        self._obeying = Obeying(setting, self._running, self._echoes)
        obeyed = self._obeying.floors.obeyed
        self._entrusting = Entrusting(setting, self._running, context.secrets, obeyed)
        self._partners: list[NodeId] = []
        self._epoch = 0
        iterations = context.config.iterations
        self._rhythm = Rhythm(iterations, iterations.orphans_at_s, context.rng)

    # -- what the API and the router read ----------------------------------------------------------------------

    def replicas(self) -> tuple[Replica, ...]:
        """The replicas of this node as they are now, the oldest first."""
        return tuple(self._running.shown(own) for own in self._running.table.all())

    def obeyed(self, service: ServiceId) -> NodeId:
        """The master that this node's replica of the service obeys, or b""."""
        own = self._running.table.of(service)
        return self._obeying.floors.obeyed(service).node if own is not None else NO_BALLOT.node

    # -- agent -------------------------------------------------------------------------------------------------

    def start(self, now: Instant) -> None:
        self._running.survey(now)
        self._look_for_orphans_in(self.context.config.supervision.orphans_interval_s, now)

    def resumed(self, gap_s: float, now: Instant) -> None:
        self._echoes.clear()
        self._obeying.clear()
        self._running.survey(now)
        self._flush(now)

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case InventoryQuery():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._obeying.inventory(peer, message, now)
            case Offer():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._obeying.offer(peer, message, now)
            case StopOrder() | Supervision():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._obeying.order(peer, message, now)
            case Preseed():
                self._running.preseed(message, now)
            case KeysAnswer():
                self._entrusting.answered(peer, message, now)
            case _:
                raise TypeError(f"not for an executor: {message!r}")
        self._flush(now)

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case HeldOfferDue():
                self._obeying.held_offer_due(timer, now)
            case DrainDue():
                self._running.drain_due(timer)
            case StopRetryDue():
                self._running.stop_retry_due(timer)
            case StartSlotDue():
                self._running.slot_due(now)
            case SurveyDue():
                self._running.survey_due(timer.epoch, now)
            case KeysDue():
                self._entrusting.due(timer, now)
            case OrphansDue():
                if timer.epoch == self._epoch:
                    self._obeying.tell_orphans(now)
                    self._look_for_orphans_in(self.context.config.supervision.orphans_interval_s, now)
            case _:
                raise TypeError(f"not for an executor: {timer!r}")
        self._flush(now)

    def event(self, event: Event, now: Instant) -> None:
        match event:
            case Persisted():
                self._obeying.persisted(event.id, now)
            case ObjectFetched():
                self._running.fetched(event.id, now)
            case FetchFailed():
                self._running.fetch_failed(event.id, event.why, now)
            case ReplicaLaunched():
                self._running.launched(event.id, now)
            case LaunchFailed():
                self._running.launch_failed(event.id, event.why, now)
            case ReplicaReady():
                self._running.ready(event.replica, now)
            case ReplicaUnhealthy():
                self._running.unhealthy(event.replica, event.why, now)
            case ReplicaExited():
                self._running.exited(event.replica, event.why, now)
            case ReplicaStopped():
                self._running.stopped(event.id, now)
            case StopFailed():
                self._running.stop_failed(event.id, event.why, now)
            case ReplicasSurveyed():
                self._running.survey_answered(event.id, event.replicas, now)
            case SurveyFailed():
                self._running.survey_failed(event.id, now)
            case _:
                return
        self._flush(now)

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        for change in changes:
            if not self.context.presence.is_present(change.node):
                self._obeying.forget_node(change.node)
        self._entrusting.readers_came([change.node for change in changes if change.appeared])

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        self._running.enforce(now)
        self._obeying.catalogue_changed(list(services), now)
        self._flush(now)

    def contribution_changed(self, now: Instant) -> None:
        self._running.enforce(now)
        self._running.mark_all_changed()
        # Environments may have come: they know what they run.
        self._running.survey(now)
        self._flush(now)

    # -- steps -------------------------------------------------------------------------------------------------

    def _look_for_orphans_in(self, seconds: float, now: Instant) -> None:
        self._epoch += 1
        if self._rhythm.given:
            seconds = self._rhythm.wait_s(now)
        self.context.outbox.wake_in(seconds, OrphansDue(self._epoch), now)

    def _owner(self) -> Owner:
        member = self.context.membership.owner_of(self.context.identity.node)
        # Who was taken out of the group runs nothing for it any more.
        given = self.context.own.contribution if member is not None else GIVES_NOTHING
        own = self.context.own
        return Owner(given, own.environments, member, own.isolation)

    def _flush(self, now: Instant) -> None:
        self._entrusting.look(now)
        self._obeying.report(self._running.take_changes(), now)
        partners = self._obeying.partners()
        if partners != self._partners:
            self._partners = partners
            self.context.partners.set_partners(PARTNERS_PURPOSE, partners, now)


def setting_of(context: Context) -> Setting:
    """What the mechanisms of active services are given of an agent's context."""
    return Setting(
        me=context.identity.node,
        config=context.config,
        rng=context.rng,
        outbox=context.outbox,
        durable=context.durable,
        membership=context.membership,
        presence=context.presence,
        catalogue=context.catalogue,
        records=context.records,
    )
