"""A node's agents and what carries their messages: the one door between the pure core and the world.

`start` and `step` are all that the runner and the simulator call. The router gives every event to the mechanism
or agent that it concerns, loops messages between agents of this node back, drops (and counts) what peers say that
are not accepted, and hands what one mechanism concluded to the next:

    records merged     -> membership -> admission, presence, catalogue -> agents
    peer accepted      -> presence, and a session with it at once
    presence changed   -> agents, and a session with whoever reappeared
    write concluded    -> the user agent answers the request

Invariant: one step is finished before the next begins, with all messages of this node to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, assert_never

from colla.agents.administration import Administration
from colla.agents.agent import Agent
from colla.agents.communication import Communication
from colla.agents.confidant import Confidant
from colla.agents.desk import Desk
from colla.agents.dispatcher import Dispatcher
from colla.agents.executor import Executor
from colla.agents.foundation import TOPICS, EpidemicDue, Foundation, OpeningDue, Own
from colla.agents.group import GroupAgent
from colla.agents.object_requests import ObjectRequests
from colla.agents.repository import RepositoryAgent
from colla.agents.user import UserAgent
from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.effects import Effect, Notify, Send
from colla.kernel.events import (
    AddressesChanged,
    ContributionChanged,
    DialSlow,
    EnvironmentsChanged,
    Event,
    FetchFailed,
    LinkClosed,
    LinkOpened,
    MessageReceived,
    ObjectDamaged,
    ObjectFetched,
    ObjectForgotten,
    ObjectStored,
    PeerFound,
    Persisted,
    RemnantLeft,
    Requested,
    Resumed,
    StopRequested,
    TimerDue,
)
from colla.kernel.messages import Message, Timer
from colla.kernel.story import Story
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind, Contribution
from colla.model.errors import InvariantViolation
from colla.model.ids import NodeId, ObjectId, ServiceId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP
from colla.model.service import Service
from colla.protocol.catalogue.catalogue import Catalogue
from colla.protocol.copies.counting import CopiesCounted
from colla.protocol.copies.messages import CopiesHeld, CopyAnswer, CopyCountDue, CopyProgress, PlacingDue
from colla.protocol.copies.placing import CopiesPlaced
from colla.protocol.membership.conclusions import (
    AdmissionConclusion,
    Joined,
    JoinRefused,
    MembershipChanged,
    PeerAccepted,
    PeerDropped,
    RefusedByPeer,
)
from colla.protocol.membership.membership import Membership
from colla.protocol.records.writes import RecordsNews
from colla.protocol.sessions.sessions import RecordsMerged, SessionConclusion, SessionEnded
from colla.protocol.views import Identity, PresenceChange, RecordChange

LOOPS_MAX = 10_000
"""Messages of a node to itself within one step; more is a bug."""


class Router:
    """The agents of one node."""

    def __init__(
        self,
        identity: Identity,
        config: Config,
        rng: Random,
        durable: Durable,
        held: Sequence[tuple[ObjectId, int]],
        contribution: Contribution,
        environments: tuple[str, ...] = (),
        version: str = "",
        remnants: Sequence[ObjectId] = (),
    ) -> None:
        self.identity = identity
        self._me = identity.node
        self.config = config
        self._own = Own(contribution, environments)
        self.foundation = Foundation(identity, config, rng, durable, held, self._own, version, remnants)
        self.codec = self.foundation.codec
        self.outbox = self.foundation.outbox
        self.presence = self.foundation.presence
        self.story = Story(config.story_entries_max)
        self.dropped: dict[str, int] = {}
        context = self.foundation.context(durable)
        found = self.foundation
        self.user = UserAgent(context, found.catalogue, found.secret_writing, found.submit)
        self.executor = Executor(context)
        self.dispatcher = Dispatcher(context)
        self.repository = RepositoryAgent(
            context, found.references, found.holdings, found.placing, found.counting, found.upkeep
        )
        self.objects = ObjectRequests(context, found.names, found.placing, found.counting, found.submit)
        self.group = GroupAgent(context)
        self.desk = Desk(found, self.executor)
        self.administration = Administration(context, found)
        self.communication = Communication(context, found)
        self.confidant = Confidant(context, found.keyring, self._is_master)
        self._agents: dict[AgentKind, Agent] = {
            AgentKind.USER: self.user,
            AgentKind.EXECUTOR: self.executor,
            AgentKind.DISPATCHER: self.dispatcher,
            AgentKind.REPOSITORY: self.repository,
            AgentKind.GROUP: self.group,
        }
        parts = (*self._agents.values(), self.confidant)
        self._by_message = {kind: agent for agent in parts for kind in agent.MESSAGES}
        self._by_timer = {kind: agent for agent in self._agents.values() for kind in agent.TIMERS}
        self._by_request = {kind: agent for agent in self._agents.values() for kind in agent.REQUESTS}
        for part in (self.objects, self.administration, self.communication):
            self._by_timer |= dict.fromkeys(part.TIMERS, part)
            self._by_request |= dict.fromkeys(part.REQUESTS, part)

    # -- what the shell and the faces read ------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        return self.foundation.membership

    @property
    def catalogue(self) -> Catalogue:
        return self.foundation.catalogue

    @property
    def contribution(self) -> Contribution:
        return self._own.contribution

    @property
    def environments(self) -> tuple[str, ...]:
        return self._own.environments

    def node_name(self, node: NodeId) -> str:
        """A node's name, or the beginning of its id while it is unknown."""
        info = self.membership.node(node)
        return info.name if info is not None else node.hex()[:10]

    def shown_name(self, service: Service) -> str:
        """What the service resolves as: its short name, or `name--member`."""
        if service.short:
            return service.name
        owner = self.membership.member(service.owner) or self.membership.former_member(service.owner)
        return f"{service.name}--{owner.name if owner is not None else service.owner.hex()[:10]}"

    # -- the door -------------------------------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Begin. To be called once, before any step."""
        self.foundation.start(now)
        self._presence(self.presence.start(now), now)
        for agent in (*self._agents.values(), self.communication):
            agent.start(now)
        return self._finish(now)

    def step(self, event: Event, now: Instant) -> list[Effect]:
        """One event in, its effects out."""
        try:
            self._take(event, now)
            effects = self._finish(now)
        except InvariantViolation as error:
            raise InvariantViolation(str(error), self.story.tell()) from error
        self.story.add(now, event, effects)
        return effects

    def _finish(self, now: Instant) -> list[Effect]:
        """Loop this node's messages to itself back until none is left."""
        effects: list[Effect] = []
        loops = 0
        me = self._me
        while True:
            self._merged(now)
            drained = self.outbox.drain()
            if not drained:
                return effects
            for effect in drained:
                if isinstance(effect, Send) and effect.to == me:
                    loops += 1
                    if loops > LOOPS_MAX:
                        raise InvariantViolation("the agents of one node talk to each other without end")
                    self._message(effect.to, effect.message, now)
                else:
                    effects.append(effect)
                    if isinstance(effect, Notify):
                        self.communication.noticed(effect.notice, now)

    def _take(self, event: Event, now: Instant) -> None:
        match event:
            case MessageReceived(peer=peer, message=message):
                self._message(peer, message, now)
            case TimerDue(timer=timer, late_s=late_s):
                self._timer(timer, late_s, now)
            case Requested(id=request_id, request=request):
                self._request(request_id, request, now)
            case LinkOpened(peer=peer, addresses=addresses):
                self._admission(self.foundation.admission.link_opened(peer, addresses, now), now)
                self._presence(self.presence.link_opened(peer, addresses, now), now)
            case LinkClosed(peer=peer, reason=reason):
                self._admission(self.foundation.admission.link_closed(peer, now), now)
                self._presence(self.presence.link_closed(peer, reason, now), now)
            case PeerFound(node=node, addresses=addresses):
                self._presence(self.presence.peer_found(node, addresses, now), now)
                self.desk.peer_found(node, addresses, now)
            case AddressesChanged(addresses=addresses, reachable=reachable):
                self._own.addresses, self._own.reachable = addresses, reachable
                self._presence(self.presence.addresses_changed(addresses, now), now)
            case DialSlow(node=node):
                self.foundation.introductions.dial_slow(node, now)
            case Resumed(gap_s=gap_s):
                self._presence(self.presence.resumed(gap_s, now), now)
                self._sessions(self.foundation.sessions.resumed(), now)
                for agent in self._agents.values():
                    agent.resumed(gap_s, now)
            case ContributionChanged(contribution=contribution):
                self.contribute(contribution, now)
            case EnvironmentsChanged(kinds=kinds, isolation=isolation):
                self._own.attach(kinds, isolation)
                self._own_changed(now)
            case StopRequested():
                for agent in self._agents.values():
                    agent.stopping(now)
                self._presence(self.presence.stopping(now), now)
            case _:
                self._outcome(event, now)

    def _outcome(self, event: Event, now: Instant) -> None:
        """Outcomes of effects, and what happens to replicas and objects."""
        match event:
            case ObjectFetched(object=object_id, size_bytes=size_bytes):
                self.foundation.holdings.add(object_id, size_bytes)
            case ObjectStored(object=object_id, size_bytes=size_bytes):
                self.foundation.holdings.add(object_id, size_bytes, own=True)
            case ObjectForgotten(object=object_id):
                self.foundation.holdings.remove(object_id)
            case ObjectDamaged(object=object_id) | RemnantLeft(object=object_id):
                self.foundation.holdings.broke(object_id)
            case FetchFailed(object=object_id):
                if not self.foundation.holdings.holds(object_id):
                    self.foundation.holdings.broke(object_id)
            case Persisted(id=persist_id):
                self.foundation.writes.persisted(persist_id, now)
                self._writes_concluded(now)
            case _:
                pass
        for agent in self._agents.values():
            agent.event(event, now)

    # -- messages, timers, requests -------------------------------------------------------------------------

    def _message(self, peer: NodeId, message: Message, now: Instant) -> None:
        found = self.foundation
        if isinstance(message, found.admission.MESSAGES):
            self._admission(found.admission.message(peer, message, now), now)
        elif not found.admission.accepted(peer):
            self._drop("not_accepted")
        elif isinstance(message, found.multicast.MESSAGES):
            self._heard(peer, now)
            for origin, inner in found.multicast.message(peer, message, now):
                self._spread(origin, inner, now)
        else:
            self._plain(peer, message, now)

    def _spread(self, origin: NodeId, inner: Message, now: Instant) -> None:
        """What travelled by multicast: news of records or of presence only."""
        found = self.foundation
        if isinstance(inner, RecordsNews):
            found.merged += found.writes.message(origin, inner, now)
        elif isinstance(inner, self.presence.MESSAGES):
            self._presence(self.presence.message(origin, inner, now), now)
        else:
            self._drop("not_for_multicast")

    def _plain(self, peer: NodeId, message: Message, now: Instant) -> None:
        found = self.foundation
        self._heard(peer, now)
        if isinstance(message, self.presence.MESSAGES):
            self._presence(self.presence.message(peer, message, now), now)
        elif isinstance(message, found.sessions.MESSAGES):
            self._sessions(found.sessions.message(peer, message, now, TOPICS), now)
        elif isinstance(message, found.writes.MESSAGES):
            found.merged += found.writes.message(peer, message, now)
            self._writes_concluded(now)
        elif isinstance(message, found.introductions.MESSAGES):
            found.introductions.message(peer, message, now)
        elif isinstance(message, CopyAnswer):
            self._placed(found.placing.answered(peer, message, now))
        elif isinstance(message, CopyProgress):
            found.placing.progressed(peer, message, now)
        elif isinstance(message, CopiesHeld):
            self._counted(found.counting.answered(peer, message), now)
        else:
            agent = self._by_message.get(type(message))
            if agent is None:
                self._drop("unknown_message")
            else:
                agent.message(peer, message, now)

    def _timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        found = self.foundation
        if isinstance(timer, self.presence.TIMERS):
            self._presence(self.presence.timer(timer, late_s, now), now)
        elif isinstance(timer, found.admission.TIMERS):
            self._admission(found.admission.timer(timer, now), now)
        elif isinstance(timer, found.sessions.TIMERS):
            self._sessions(found.sessions.timer(timer, now), now)
        elif isinstance(timer, found.writes.TIMERS):
            found.writes.timer(timer, now)
            self._writes_concluded(now)
        elif isinstance(timer, PlacingDue):
            self._placed(found.placing.due(timer, now))
        elif isinstance(timer, CopyCountDue):
            self._counted(found.counting.due(timer), now)
        elif isinstance(timer, OpeningDue):
            found.opening_due(now)
            self._opened(now)
        elif isinstance(timer, EpidemicDue):
            found.epidemic_due(now)
            self._look_after_objects(now)
        elif isinstance(timer, self.desk.TIMERS):
            self.desk.timer(timer, now)
        else:
            agent = self._by_timer.get(type(timer))
            if agent is None:
                raise InvariantViolation(f"nobody asked for {timer!r}")
            agent.timer(timer, late_s, now)

    def _request(self, request_id: int, request: Any, now: Instant) -> None:
        if self.desk.must_wait(request):
            self.desk.wait(request_id, request, now)
            return
        self.communication.requested(request_id, request, now)
        agent = self._by_request.get(type(request))
        if agent is not None:
            agent.request(request_id, request, now)
        else:
            self._admission(self.desk.request(request_id, request, self, now), now)
        self._writes_concluded(now)

    # -- conclusions ----------------------------------------------------------------------------------------

    def contribute(self, contribution: Contribution, now: Instant) -> None:
        """The owner decided anew; takes effect with no other node needed."""
        self._own.contribute(contribution)
        self._own_changed(now)

    def _own_changed(self, now: Instant) -> None:
        self._presence(self.presence.contribution_changed(now), now)
        for agent in self._agents.values():
            agent.contribution_changed(now)

    def _admission(self, concluded: Sequence[AdmissionConclusion], now: Instant) -> None:
        for conclusion in concluded:
            match conclusion:
                case PeerAccepted(peer=peer):
                    self._presence(self.presence.peer_accepted(peer, now), now)
                    self.foundation.met(peer, now)
                    self.administration.accepted()
                case PeerDropped():
                    pass
                case RefusedByPeer(code=code, text=text):
                    self.administration.refused(code, text)
                case MembershipChanged():
                    self._membership_changed(now)
                case Joined(peer=peer):
                    self.foundation.book.opened()
                    self.desk.joined(peer)
                case JoinRefused(code=code, text=text):
                    self.desk.join_refused(code, text)
                case _:
                    assert_never(conclusion)

    def _sessions(self, concluded: Sequence[SessionConclusion], now: Instant) -> None:
        for conclusion in concluded:
            match conclusion:
                case RecordsMerged(changes=changes):
                    self.foundation.learned(changes, now)
                    self.dispatcher.catching_up(changes)
                case SessionEnded(complete=complete):
                    self._merged(now)
                    self.communication.session_ended(now)
                    if complete:
                        self._opened(now)
                case _:
                    assert_never(conclusion)

    def _opened(self, now: Instant) -> None:
        """Writing may have become possible: carry out what waited for it."""
        self._admission(self.foundation.admission.membership_changed(now), now)
        for request_id, request in self.desk.released():
            self._request(request_id, request, now)

    def _merged(self, now: Instant) -> None:
        """Records changed: tell membership, then the catalogue, then the agents."""
        while self.foundation.merged:
            changes: list[RecordChange] = self.foundation.merged
            self.foundation.merged = []
            if any(change.topic == TOPIC_MEMBERSHIP for change in changes) and self.membership.refresh():
                self._membership_changed(now)
            if any(change.topic == TOPIC_CATALOGUE for change in changes):
                self._catalogue(self.catalogue.records_changed(changes, now), now)
            if self.foundation.names.records_changed(changes):
                self.repository.names_changed(now)
            self.communication.records_changed(changes, now)

    def _membership_changed(self, now: Instant) -> None:
        self._admission(self.foundation.admission.membership_changed(now), now)
        self._presence(self.presence.membership_changed(now), now)
        self._catalogue(self.catalogue.membership_changed(), now)
        if self.administration.membership_changed():
            self._own_changed(now)
        if self.foundation.names.membership_changed():
            self.repository.names_changed(now)
        self.communication.membership_changed(now)

    def _catalogue(self, services: Sequence[ServiceId], now: Instant) -> None:
        if services:
            for agent in self._agents.values():
                agent.catalogue_changed(services, now)

    def _presence(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        if not changes:
            return
        for change in changes:
            if change.appeared and self.presence.is_near(change.node):
                self.foundation.met(change.node, now)
        for placed in self.foundation.placing.drop(lambda node: not self.presence.is_present(node), now):
            self._placed(placed)
        for agent in self._agents.values():
            agent.presence_changed(changes, now)
        self.objects.presence_changed(changes, now)

    def _writes_concluded(self, now: Instant) -> None:
        for concluded in self.foundation.writes.concluded():
            if concluded.request_id is None:
                continue
            self.user.written(concluded.request_id, concluded.copies)
            self.objects.written(concluded.request_id, concluded.copies)
            self.desk.written(concluded.request_id, concluded.copies)
            self.administration.written(concluded.request_id, concluded.copies)
            self.communication.written(concluded.request_id, concluded.copies, now)

    def _placed(self, placed: CopiesPlaced | None) -> None:
        if placed is not None and not self.objects.placed(placed):
            self.repository.placed(placed)

    def _counted(self, counted: CopiesCounted | None, now: Instant) -> None:
        if counted is not None and not self.objects.counted(counted):
            self.repository.counted(counted, now)

    def _look_after_objects(self, now: Instant) -> None:
        """Forget what nothing refers to, neither in the group nor at work here."""
        found = self.foundation
        at_work = (*found.placing.objects(), *self.repository.on_their_way())
        found.upkeep.look((*found.references.objects(), *at_work), now)

    def _is_master(self, service: ServiceId, node: NodeId, now: Instant) -> bool:
        """Whether this node takes another for the master of a service: as its dispatcher, or its replica here, or its
        user agent does. One that knows none yet looks for it.
        """
        known = [self.dispatcher.master_of(service, now), self.executor.obeyed(service)]
        if not any(known):
            self.user.watch(service, now)
            known.append(self.user.master_of(service))
        return node in known and node in self.presence.carrying(AgentKind.DISPATCHER)

    def _heard(self, peer: NodeId, now: Instant) -> None:
        """Whatever a peer says proves that it lives."""
        if peer != self._me:
            self.presence.heard(peer, now)

    def _drop(self, why: str) -> None:
        self.dropped[why] = self.dropped.get(why, 0) + 1
