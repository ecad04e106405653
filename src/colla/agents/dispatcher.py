"""The task dispatcher: knows the existing services, and masters active ones.

It composes `election` (who masters a service), `supervision` (what a master does) and `placement` (where replicas go).
The flow is one way: what the book of masters and the witnesses say makes a candidacy; a won candidacy makes a mastery;
a mastery is supervised until the service is inactive, or another dispatcher masters it by a higher ballot.

Invariants: a service is mastered only by a ballot that is durable; after a start, a sleep or a stall of the own loop
longer than others would wait, this node masters nothing and listens before it claims anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import assert_never

from colla.agents.agent import Agent, Context
from colla.agents.executor import setting_of
from colla.agents.unseen import Unseen
from colla.kernel.events import Event, Persisted
from colla.kernel.messages import Message, Timer
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot, Location
from colla.model.record import TOPIC_CATALOGUE
from colla.protocol.election.alarm import Alarm
from colla.protocol.election.announcing import Announcing, Conclusion, Outranked, Reclaim
from colla.protocol.election.book import MasterBook
from colla.protocol.election.candidacy import Candidacies, Won
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.founded import FoundedElection
from colla.protocol.election.messages import (
    ELECTION_MESSAGES,
    Bequest,
    Claim,
    ClaimAnswer,
    Contention,
    GossipDue,
    HandOver,
    MasterAnswer,
    MasterDelta,
    MasterKnowledge,
    MasterQuery,
    Mastership,
    MastershipAnswer,
    MastershipDue,
    MasterSummary,
    ReviewDue,
)
from colla.protocol.locations.messages import AskWhy, Locate, LocationFailed
from colla.protocol.rendezvous import proximity
from colla.protocol.secrets.messages import KeysQuery
from colla.protocol.supervision.answering import Answering
from colla.protocol.supervision.messages import (
    TO_DISPATCHERS,
    CheckDue,
    InventoryAnswer,
    OfferAnswer,
    ReplicaReport,
    StopAnswer,
)
from colla.protocol.supervision.ordering import Heard
from colla.protocol.supervision.supervisor import Supervisor
from colla.protocol.supervision.survey import Surveys
from colla.protocol.views import PresenceChange, RecordChange

MASTERING = "mastering"
SECONDARY = "secondary"
GOSSIP_AFTER_S = 4.0
"""In an iteration, masters are compared when elections are over."""
REVIEW_SOONEST_S = 0.01
"""A review never asks for another one sooner than this."""


class Dispatcher(Agent):
    """See the module's docstring."""

    MESSAGES = (*ELECTION_MESSAGES, *TO_DISPATCHERS, Locate, LocationFailed, AskWhy, KeysQuery)
    TIMERS = (ReviewDue, MastershipDue, GossipDue, CheckDue)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._setting = setting = setting_of(context)
        self._config = context.config.election
        self._echoes = Echoes(setting)
        self._executors = Echoes(setting)
        self._rule = FoundedElection(setting)
        self._book = MasterBook(setting, self._echoes)
        self._surveys = Surveys(setting, self._echoes, self._executors)
        self._candidacies = Candidacies(setting, self._rule, self._book, self._surveys, self._echoes)
        self._announcing = Announcing(setting, self._rule, self._book, self._echoes)
        self._supervisor = Supervisor(setting, self._surveys, self._executors)
        self._answering = Answering(setting, self._book, self._supervisor)
        self._review_alarm = Alarm(context.outbox, ReviewDue)
        self._epoch = 0
        self._carried = False
        self._reclaims: dict[int, tuple[ServiceId, Ballot]] = {}
        self._told_partners: dict[str, list[NodeId]] = {}
        self._unseen = Unseen()
        self._old_news: dict[ServiceId, None] = {}
        iterations = context.config.iterations
        self._rhythm = Rhythm(iterations, iterations.supervision_at_s, context.rng)

    # -- what the API and the simulator read -------------------------------------------------------------------

    def masters(self) -> tuple[ServiceId, ...]:
        """The services that this node masters, sorted."""
        return tuple(sorted(self._announcing.masteries))

    def ballot_of(self, service: ServiceId) -> Ballot | None:
        """The ballot by which this node masters the service, if it does."""
        mastery = self._announcing.masteries.get(service)
        return mastery.ballot if mastery is not None else None

    def master_of(self, service: ServiceId, now: Instant) -> NodeId:
        """The node that this one takes for the service's master, or b""."""
        if service in self._announcing.masteries:
            return self._setting.me
        return self._book.master(service, now)

    def locations(self, service: ServiceId, now: Instant) -> tuple[Location, ...] | None:
        """What this node answers a user agent as the service's master; None when it is not."""
        mastered = self._supervisor.mastered.get(service)
        return None if mastered is None else self._supervisor.locations(mastered, now)

    # -- agent -------------------------------------------------------------------------------------------------

    def start(self, now: Instant) -> None:
        self._carried = self.context.own.contribution.carries(AgentKind.DISPATCHER)
        if self._carried:
            self._begin(now)

    def resumed(self, gap_s: float, now: Instant) -> None:
        if self._carried:
            self._forget_all("this computer slept", now)

    def contribution_changed(self, now: Instant) -> None:
        carries = self.context.own.contribution.carries(AgentKind.DISPATCHER)
        if carries == self._carried:
            return
        self._carried = carries
        if carries:
            self._begin(now)
            return
        self._announcing.resign(now)
        self._forget_all("the owner gives no dispatcher any more", now)
        for service in self._book.watched():
            self._book.forget(service)
        # Timers are not heard while no dispatcher is carried: an alarm that waited for one could not be set again.
        self._review_alarm.clear()

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        if not self._carried:
            return
        match message:
            case Locate() | LocationFailed() | AskWhy() | KeysQuery():
                self._answering.message(peer, message, now)
            case InventoryAnswer() | OfferAnswer() | StopAnswer() | ReplicaReport():
                self._executors.heard(peer, message.nonce, message.echo, now)
                self._from_executor(peer, message, now)
            case _:
                self._from_dispatcher(peer, message, now)
        self._finish(now)

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        if not self._carried:
            return
        if late_s >= self._config.heard_master_s:
            # Others have waited in vain for this node: they may have masters of their own by now.
            self._forget_all("this node stalled", now)
        match timer:
            case ReviewDue():
                if self._review_alarm.rang(timer.epoch):
                    self._review_all(now)
            case CheckDue():
                if self._supervisor.rang(timer.epoch):
                    self._supervisor.evaluate_all(now)
            case MastershipDue():
                if timer.epoch == self._epoch:
                    self._interval(now)
            case GossipDue():
                if timer.epoch == self._epoch:
                    self._announcing.gossip(now)
                    self._gossip_in(now)
            case _:
                raise TypeError(f"not for a dispatcher: {timer!r}")
        self._finish(now)

    def event(self, event: Event, now: Instant) -> None:
        if not isinstance(event, Persisted):
            return
        won = self._candidacies.persisted(event.id)
        if won is not None:
            self._won(won, now)
        reclaim = self._reclaims.pop(event.id, None)
        if reclaim is not None:
            self._reclaimed(*reclaim, now)
        if won is not None or reclaim is not None:
            self._finish(now)

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        if not self._carried:
            return
        present = self.context.presence.is_present
        appeared = [change.node for change in changes if change.appeared and present(change.node)]
        gone = [change.node for change in changes if not present(change.node)]
        for node in gone:
            self._echoes.forget(node)
            self._executors.forget(node)
        if self._config.on_events:
            self._look_around(appeared, gone, now)
            self._finish(now)
        else:
            self._unseen.note(appeared, gone)

    def _look_around(self, appeared: Sequence[NodeId], gone: Sequence[NodeId], now: Instant) -> None:
        """Act upon who came and who went."""
        self._supervisor.presence_changed(appeared, gone, now)
        self._announcing.presence_changed(now)
        dispatchers = self._setting.dispatchers()
        for node in appeared:
            if node in dispatchers:
                self._announcing.appeared(node, now)
        self._supervisor.evaluate_all(now, looks=True)
        self._review_all(now)

    def catching_up(self, changes: Sequence[RecordChange]) -> None:
        """A session told of these changes, which may be old: the services in them may well have masters already."""
        for change in changes if self._carried else ():
            if change.topic == TOPIC_CATALOGUE:
                self._old_news[ServiceId(change.key.subject)] = None

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        if not self._carried:
            return
        for service in services:
            existing = self.context.catalogue.service(service)
            if existing is not None and existing.active:
                listen_s = max(0.0, self._candidacies.listen_until_s - now.boot_s)
                self._book.watch(service, now, activated=service not in self._old_news, listen_s=listen_s)
            else:
                self._inactive(service)
        self._old_news.clear()
        self._supervisor.evaluate_all(now)
        self._review_all(now)
        self._finish(now)

    def stopping(self, now: Instant) -> None:
        self._announcing.resign(now)

    # -- messages ----------------------------------------------------------------------------------------------

    def _from_executor(
        self, peer: NodeId, message: InventoryAnswer | OfferAnswer | StopAnswer | ReplicaReport, now: Instant
    ) -> None:
        if not isinstance(message, StopAnswer):
            self._supervisor.capacities[peer] = message.capacity
        match message:
            case InventoryAnswer():
                surveyed = self._surveys.inventory_answered(peer, message)
                touched, higher = self._supervisor.inventory_answered(peer, message, now)
                for service, ballot in higher:
                    self._conclude(self._announcing.higher(service, ballot, now), now)
                for service in surveyed:
                    self._review(service, now)
                heard = Heard(tuple(touched))
            case OfferAnswer():
                heard = self._supervisor.ordering.offer_answered(peer, message, now)
            case StopAnswer():
                heard = self._supervisor.ordering.stop_answered(peer, message, now)
            case ReplicaReport():
                heard = self._supervisor.ordering.reported(peer, message, now)
                self._strays(message, now)
            case _:
                assert_never(message)
        for obeyed in heard.obeyed:
            self._refused(obeyed.service, obeyed.ballot, now)
        if heard.touched:
            self._supervisor.evaluate_all(now)

    def _from_dispatcher(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case Claim():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._conclude(self._announcing.claim(peer, message, now), now)
                self._review(message.service, now)
            case ClaimAnswer():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._conclude(self._announcing.claim_answered(peer, message, now), now)
            case MasterQuery():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._announcing.query(peer, message, now)
            case MasterAnswer():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                if self._surveys.witness_answered(peer, message):
                    self._review(message.service, now)
            case Mastership():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                for service in self._announcing.mastership(peer, message, now):
                    self._review(service, now)
            case MastershipAnswer():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._conclude(self._announcing.mastership_answered(peer, message, now), now)
            case MasterKnowledge():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._announcing.knowledge(peer, message, now)
                self._review(message.service, now)
            case Bequest():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                nodes = self._announcing.bequest(peer, message, now)
                self._supervisor.inquire(message.service, nodes, now)
            case HandOver():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                if self._announcing.may_take_over(peer, message, now):
                    self._candidacies.hand_over(message.service, peer, now)
            case Contention():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                if message.service not in self._announcing.masteries:
                    self._candidacies.contention(peer, message, now)
                    self._review(message.service, now)
            case MasterSummary():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                self._announcing.summary(peer, message, now)
            case MasterDelta():
                self._echoes.heard(peer, message.nonce, message.echo, now)
                touched, conclusions = self._announcing.delta(peer, message, now)
                self._conclude(conclusions, now)
                for service in touched:
                    self._review(service, now)
            case _:
                raise TypeError(f"not for a dispatcher: {message!r}")

    # -- mastership --------------------------------------------------------------------------------------------

    def _won(self, won: Won, now: Instant) -> None:
        service = self.context.catalogue.service(won.service)
        if service is None or not service.active:
            self._surveys.end(won.service)
            return
        self._supervisor.take(won, self._book.known(won.service), service, now)
        self._announcing.took(won.service, won.ballot, won.survey.running(), now)
        self._supervisor.evaluate_all(now)

    def _conclude(self, conclusions: Sequence[Conclusion], now: Instant) -> None:
        for conclusion in conclusions:
            match conclusion:
                case Outranked(service=service, ballot=ballot):
                    self._bequeath(service, ballot.node, now)
                    self._step_down(service, f"{self._setting.name(ballot.node)} masters it", now)
                case Reclaim(service=service, above=above):
                    self._reclaim(service, above)
                case _:
                    assert_never(conclusion)

    def _reclaim(self, service: ServiceId, above: Ballot) -> None:
        """Go on by a higher ballot, once it is durable."""
        me, floors = self._setting.me, self._candidacies.floors
        highest = max(floors.pledged(service), above)
        ballot = highest.next(proximity(service, me), me)
        write = floors.raise_to(service, ballot)
        if write is not None:
            self._reclaims[self._setting.outbox.persist(write)] = (service, ballot)

    def _reclaimed(self, service: ServiceId, ballot: Ballot, now: Instant) -> None:
        self._candidacies.floors.persisted(service, ballot)
        mastery = self._announcing.masteries.get(service)
        if mastery is not None and ballot > mastery.ballot:
            self._supervisor.reballot(service, ballot)
            self._announcing.took(service, ballot, mastery.running, now)

    def _refused(self, service: ServiceId, ballot: Ballot, now: Instant) -> None:
        """An executor obeys a higher ballot: step down, and do not reclaim on one's own.

        Unless who claimed that ballot has said that it masters nothing: then it is of an earlier activation.
        """
        mastery = self._announcing.masteries.get(service)
        if self._announcing.is_denied(service, ballot.node):
            self._conclude(self._announcing.higher(service, ballot, now), now)
        elif mastery is not None and ballot > mastery.ballot:
            self._bequeath(service, ballot.node, now)
            self._step_down(service, "an executor obeys another master", now)
            self._book.hearsay(service, ballot, now)
            self._review(service, now)

    def _bequeath(self, service: ServiceId, successor: NodeId, now: Instant) -> None:
        self._announcing.bequeath(service, successor, self._supervisor.placed(service), now)

    def _strays(self, report: ReplicaReport, now: Instant) -> None:
        """Replicas that obey this node although it does not master them any more: whoever does should know of them."""
        for entry in report.entries:
            service, me = entry.replica.service, self._setting.me
            if entry.ballot.node == me and service not in self._announcing.masteries:
                master = self._book.master(service, now)
                self._announcing.bequeath(service, master, (entry.replica.node,), now)

    def _step_down(self, service: ServiceId, why: str, now: Instant) -> None:
        if service not in self._announcing.masteries:
            return
        self._announcing.lost(service)
        self._supervisor.drop(service)
        self._book.to_unknown(service, now)
        self.context.outbox.notify(
            "stepped_down", f"masters the service no more: {why}", service=service, node=self._setting.me
        )

    def _inactive(self, service: ServiceId) -> None:
        """The service is inactive or eliminated; its executors see so themselves."""
        self._announcing.lost(service)
        self._supervisor.drop(service)
        self._candidacies.forget(service)
        self._book.forget(service)
        if self.context.catalogue.eliminated(service):
            forgotten = self._candidacies.floors.forget(service)
            if forgotten is not None:
                self.context.outbox.persist(forgotten)

    def _begin(self, now: Instant) -> None:
        """From now on this node carries a dispatcher: listen first."""
        self._candidacies.listen_until_s = now.boot_s + self._config.start_wait_s
        for service in self.context.catalogue.services():
            if service.active:
                self._book.watch(service.id, now, activated=False, listen_s=self._config.start_wait_s)
        self._begin_intervals(now)
        self._review_all(now)

    def _forget_all(self, why: str, now: Instant) -> None:
        for service in self.masters():
            self._step_down(service, why, now)
        self._candidacies.withdraw_all()
        self._announcing.clear()
        self._supervisor.clear()
        self._echoes.clear()
        self._executors.clear()
        self._reclaims.clear()
        self._candidacies.listen_until_s = now.boot_s + self._config.start_wait_s
        self._book.stale(now, self._config.start_wait_s)
        self._begin_intervals(now)
        self._review_all(now)
        self._finish(now)

    # -- looking again -----------------------------------------------------------------------------------------

    def _review_all(self, now: Instant) -> None:
        for service in self._book.watched():
            self._review(service, now)

    def _review(self, service: ServiceId, now: Instant) -> None:
        if service in self._announcing.masteries or not self._book.is_watched(service):
            return
        at_s = self._candidacies.review(service, now)
        if at_s < inf:
            self._review_alarm.set(max(at_s, now.boot_s + REVIEW_SOONEST_S), now)

    def _begin_intervals(self, now: Instant) -> None:
        self._epoch += 1
        jitter = self.context.rng.random()
        self._interval_in(jitter * self._config.mastership_interval_s, now)
        self._gossip_in(now)

    def _interval_in(self, pause_s: float, now: Instant) -> None:
        wait_s = self._rhythm.wait_s(now) if self._rhythm.given else pause_s
        self.context.outbox.wake_in(wait_s, MastershipDue(self._epoch), now)

    def _gossip_in(self, now: Instant) -> None:
        pause_s = self._config.gossip_interval_s * (0.5 + self.context.rng.random())
        wait_s = self._rhythm.wait_s(now) + GOSSIP_AFTER_S if self._rhythm.given else pause_s
        self.context.outbox.wake_in(wait_s, GossipDue(self._epoch), now)

    def _interval(self, now: Instant) -> None:
        self._interval_in(self._config.mastership_interval_s, now)
        if not self._config.on_events:
            appeared, gone = self._unseen.take(self.context.presence.is_present)
            self._look_around(appeared, gone, now)
        self._announcing.interval(now)
        self._supervisor.ordering.interval(now)
        self._answering.expire(now)

    def _finish(self, now: Instant) -> None:
        """Tell whoever should know what this step changed."""
        if self._supervisor.mastered or self._announcing.masteries or self._told_partners.get(MASTERING):
            for service, mastered in self._supervisor.mastered.items():
                self._announcing.update(service, mastered.running(), mastered.known_replicas())
            self._supervisor.ordering.flush(now)
            self._announcing.flush(now)
            self._answering.flush(now)
            mastering = list(dict.fromkeys(self._supervisor.partners() + self._announcing.partners()))
            self._set_partners(MASTERING, mastering, now)
        self._set_partners(SECONDARY, self._book.partners(), now)

    def _set_partners(self, purpose: str, nodes: list[NodeId], now: Instant) -> None:
        wanted = sorted(node for node in nodes if node != self._setting.me)
        if self._told_partners.get(purpose, []) != wanted:
            self._told_partners[purpose] = wanted
            self.context.partners.set_partners(purpose, wanted, now)
