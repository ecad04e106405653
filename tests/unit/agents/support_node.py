"""One computer of the mini group, and the views that its agents are given: fakes for everything but the agents.

The node's shell carries out effects in virtual time: persists, launches, surveys and fetches end after fixed delays, in
exactly one event each. After every step it checks what must hold on any node; it can crash before any effect.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from colla.agents.agent import Context
from colla.agents.dispatcher import Dispatcher
from colla.agents.executor import Executor
from colla.kernel.durable import Durable
from colla.kernel.effects import (
    Effect,
    FetchObject,
    LaunchReplica,
    Notify,
    Persist,
    Send,
    StopReplica,
    StoreCell,
    SurveyReplicas,
    WakeAt,
)
from colla.kernel.events import (
    FetchFailed,
    LaunchFailed,
    ObjectFetched,
    Persisted,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaReady,
    ReplicasSurveyed,
    ReplicaStopped,
    SurveyedReplica,
)
from colla.kernel.messages import Message
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import MemberId, NodeId, ObjectId, ReplicaId, ServiceId, digest
from colla.model.location import NO_BALLOT, Ballot
from colla.model.service import Service
from colla.protocol.supervision.messages import Offer, OfferAnswer, StopAnswer, StopOrder
from colla.protocol.views import (
    Announcement,
    MemberInfo,
    NodeInfo,
    PresenceEntry,
    PresencePhase,
)

WALL_S = 1_700_000_000.0
DELAY_S = 0.02
PERSIST_S = 0.005
LAUNCH_S = 0.15
READY_S = 0.1
STOP_S = 0.1
MEMBERS = 3


class Identity:
    def __init__(self, node: NodeId) -> None:
        self.group = digest(b"group")
        self.node = node


class FakeRecord:
    def __init__(self, content: bytes) -> None:
        self.digest = digest(content)[:16]


class FakeRecords:
    def __init__(self, node: Node) -> None:
        self.node = node

    def winner(self, topic: str, key: object) -> FakeRecord | None:
        subject = key.subject  # type: ignore[attr-defined]
        revision = self.node.catalogue.activations.get(subject)
        return FakeRecord(subject + bytes([revision])) if revision is not None else None


class FakeCatalogue:
    """Each service with a revision; the higher wins. `None` as service: eliminated."""

    def __init__(self) -> None:
        self.entries: dict[ServiceId, tuple[int, Service | None]] = {}
        self.activations: dict[ServiceId, int] = {}

    def merge(self, service: ServiceId, revision: int, content: Service | None) -> bool:
        if self.entries.get(service, (0, None))[0] >= revision:
            return False
        before = self.entries.get(service, (0, None))[1]
        if content is not None and content.active and not (before is not None and before.active):
            self.activations[service] = revision % 256
        self.entries[service] = (revision, content)
        return True

    def services(self) -> tuple[Service, ...]:
        return tuple(e[1] for _, e in sorted(self.entries.items()) if e[1] is not None)

    def service(self, service: ServiceId) -> Service | None:
        return self.entries.get(service, (0, None))[1]

    def by_name(self, name: str) -> Service | None:
        return None

    def eliminated(self, service: ServiceId) -> bool:
        return service in self.entries and self.entries[service][1] is None

    def fingerprint(self) -> bytes:
        return digest(repr(sorted((s, e[0]) for s, e in self.entries.items())).encode())


class FakeMembership:
    def __init__(self, group: Any) -> None:
        self.group = group
        self.group_name = "minis"
        self.election = group.election

    def members(self) -> tuple[MemberInfo, ...]:
        return tuple(self.group.members)

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(NodeInfo(node.id, node.member, node.name) for node in self.group.sorted_nodes())

    def member(self, member: MemberId) -> MemberInfo | None:
        return next((info for info in self.group.members if info.id == member), None)

    def node(self, node: NodeId) -> NodeInfo | None:
        found = self.group.nodes.get(node)
        return NodeInfo(found.id, found.member, found.name) if found is not None else None

    def owner_of(self, node: NodeId) -> MemberId | None:
        found = self.group.nodes.get(node)
        return found.member if found is not None else None


class FakePresence:
    """What one node knows of the others. `last` is when it heard them, `echo` when what they echoed was sent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: dict[NodeId, PresenceEntry] = {}
        self.last: dict[NodeId, float] = {}
        self.echo: dict[NodeId, float] = {}
        self.partners: dict[str, tuple[NodeId, ...]] = {}
        self.partner_since: dict[NodeId, float] = {}

    def set_partners(self, purpose: str, nodes: list[NodeId], now: Instant) -> None:
        self.partners[purpose] = tuple(nodes)
        wanted = {n for group in self.partners.values() for n in group}
        self.partner_since = {n: self.partner_since.get(n, now.boot_s) for n in wanted}

    def present(self) -> tuple[NodeId, ...]:
        return tuple(n for n in sorted(self.entries) if self.is_present(n))

    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]:
        return tuple(n for n in self.present() if self.entries[n].announcement.contribution.carries(agent))

    def entry(self, node: NodeId) -> PresenceEntry | None:
        return self.entries.get(node)

    def is_present(self, node: NodeId) -> bool:
        entry = self.entries.get(node)
        return entry is not None and entry.phase in (PresencePhase.PRESENT, PresencePhase.SUSPECTED)

    def heard_s(self, node: NodeId, now_s: float) -> float | None:
        since = self.partner_since.get(node)
        if since is None:
            return None
        return now_s - max(since, self.last.get(node, since))

    def echoed_s(self, node: NodeId, now_s: float) -> float | None:
        if node not in self.partner_since or node not in self.echo:
            return None
        return now_s - self.echo[node]

    def suspects_share(self, now_s: float) -> float:
        others = [n for n in self.present() if n != self.node.id]
        late = [n for n in others if now_s - self.last.get(n, now_s) > 1.8]
        return len(late) / len(others) if len(late) > 1 else 0.0

    def loop_was_late(self, now_s: float) -> bool:
        return False


class FakeHoldings:
    def __init__(self) -> None:
        self.objects: set[ObjectId] = set()

    def holds(self, wanted: ObjectId) -> bool:
        return wanted in self.objects

    def held(self) -> tuple[ObjectId, ...]:
        return tuple(sorted(self.objects))

    def bytes_given(self) -> int:
        return 0

    def claim(self, object_id: ObjectId, given_bytes: int) -> bool:
        return object_id in self.objects


class Replica(msgspec.Struct):
    """One program that an environment runs on a node."""

    id: ReplicaId
    service: ServiceId
    version: int
    ready: bool = False
    stopping: bool = False


class Own:
    def __init__(self, contribution: Contribution) -> None:
        self.contribution = contribution
        self.environments = contribution.environments
        self.isolation = tuple((kind, "bubblewrap") for kind in contribution.environments)


class Node:
    """One computer with its disk, what runs on it, and, while it is up, a dispatcher and an executor."""

    def __init__(self, group: Any, number: int, contribution: Contribution) -> None:
        self.group = group
        self.name = f"n{number}"
        self.id = NodeId(digest(b"node %d" % number))
        self.member = group.members[number % MEMBERS].id
        self.phase_s = 0.13 * number % 1.0
        self.disk = Durable({}, {})
        self.runs: dict[ReplicaId, Replica] = {}
        self.own = Own(contribution)
        self.holdings = FakeHoldings()
        self.catalogue = FakeCatalogue()
        self.start_number = 0
        self.up = False
        self.hung = False
        self.crash_in: int | None = None
        self.obeyed: dict[ServiceId, Ballot] = {}
        self.codes: list[str] = []
        self.orders: dict[tuple[ServiceId, int | bytes], Ballot] = {}
        self.presence = FakePresence(self)

    @property
    def alive(self) -> bool:
        return self.up and not self.hung

    def announcement(self) -> Announcement:
        return Announcement(self.id, self.start_number, 0, self.own.contribution, self.own.environments, ())

    def boot(self) -> None:
        """Start the agents from what is on disk."""
        self.start_number += 1
        self.up, self.crash_in = True, None
        self.persist_until = 0.0
        self.outbox = Outbox(self.start_number)
        self.presence = FakePresence(self)
        rng = Random(f"{self.group.seed} {self.name} {self.start_number}")
        context = Context(
            identity=Identity(self.id),  # type: ignore[arg-type]
            config=self.group.config,
            rng=rng,
            outbox=self.outbox,
            durable=Durable(dict(self.disk.records), dict(self.disk.cells)),
            membership=FakeMembership(self.group),
            presence=self.presence,
            records=FakeRecords(self),  # type: ignore[arg-type]
            catalogue=self.catalogue,
            holdings=self.holdings,
            own=self.own,
            partners=self.presence,
        )
        self.presence.entries[self.id] = PresenceEntry(
            self.id, PresencePhase.PRESENT, self.group.t, self.announcement()
        )
        self.dispatcher = Dispatcher(context)
        self.executor = Executor(context)
        self.agents = (self.executor, self.dispatcher)
        for agent in self.agents:
            agent.start(self.group.now)
        self.perform()

    def call(self, method: str, *args: object) -> None:
        """Call both agents, then carry out what they want."""
        if not self.up:
            return
        for agent in self.agents:
            getattr(agent, method)(*args, self.group.now)
        self.perform()

    def deliver(self, peer: NodeId, message: Message) -> None:
        self._take(peer, message)
        self.perform()

    def _take(self, peer: NodeId, message: Message) -> None:
        if isinstance(message, Offer):
            self.orders[message.service, message.offer] = message.ballot
        elif isinstance(message, StopOrder):
            self.orders[message.service, message.replica] = message.ballot
        for agent in self.agents:
            if isinstance(message, agent.MESSAGES):
                agent.message(peer, message, self.group.now)
                return
        self.group.answers.append((self.id, peer, message))

    def perform(self) -> None:
        """Carry out the effects; messages to itself belong to the same step."""
        while self.up:
            effects = self.outbox.drain()
            if not effects:
                break
            for effect in effects:
                if isinstance(effect, Send) and effect.to == self.id:
                    self._watch_answer(effect.message)
                    self._take(self.id, effect.message)
                elif not self._crashes(effect):
                    self._perform(effect)
                else:
                    self.group.crash(self)
                    return
        self.group.check(self)

    def _crashes(self, effect: Effect) -> bool:
        if self.crash_in is None or isinstance(effect, Send | WakeAt | Notify):
            return False
        self.crash_in -= 1
        return self.crash_in < 0

    def _perform(self, effect: Effect) -> None:
        group, start = self.group, self.start_number
        match effect:
            case Send():
                self._watch_answer(effect.message)
                at_s = max(group.t, self.persist_until if not effect.unbarriered else 0.0)
                group.at(at_s, lambda: group.send(self, start, effect.to, effect.message))
            case WakeAt():
                group.at(effect.at_s, lambda: self._wake(start, effect))
            case Persist():
                self.persist_until = group.t + PERSIST_S
                group.at(self.persist_until, lambda: self._persisted(start, effect))
            case LaunchReplica():
                self._launch(start, effect)
            case StopReplica():
                if effect.replica in self.runs:
                    self.runs[effect.replica].stopping = True
                group.at(group.t + STOP_S, lambda: self._stop(start, effect))
            case SurveyReplicas():
                group.at(group.t + DELAY_S, lambda: self._survey(start, effect.id))
            case FetchObject():
                group.at(group.t + 0.05, lambda: self._fetch(start, effect))
            case Notify():
                notice = effect.notice
                group.notices.append((group.t, self.name, notice.kind, notice.text))
            case _:
                raise TypeError(f"no agent of the mini group asks for {effect!r}")

    def _watch_answer(self, message: Message) -> None:
        """Orders carried out are never of a lower ballot than one carried out before."""
        if isinstance(message, OfferAnswer | StopAnswer):
            self.codes.append(message.code)
        match message:
            case OfferAnswer(code=""):
                ballot = self.orders[message.service, message.offer]
            case StopAnswer(code=""):
                ballot = self.orders[message.service, message.replica]
            case _:
                return
        floor = self.obeyed.get(message.service, NO_BALLOT)
        assert ballot >= floor, f"{self.name} obeys {ballot} after {floor}"
        self.obeyed[message.service] = ballot

    def event(self, start: int, event: object) -> None:
        if self.up and start == self.start_number:
            if self.hung:
                self.group.at(self.group.t + 0.5, lambda: self.event(start, event))
            else:
                self.call("event", event)

    def _wake(self, start: int, effect: WakeAt) -> None:
        if not self.up or start != self.start_number:
            return
        if self.hung:
            self.group.at(self.group.t + 0.5, lambda: self._wake(start, effect))
            return
        for agent in self.agents:
            if isinstance(effect.timer, agent.TIMERS):
                agent.timer(effect.timer, max(0.0, self.group.t - effect.at_s), self.group.now)
        self.perform()

    def _persisted(self, start: int, effect: Persist) -> None:
        if self.up and start == self.start_number:
            for write in effect.writes:
                if isinstance(write, StoreCell) and "ballot" in write.name and write.name in self.disk.cells:
                    before = msgspec.msgpack.decode(self.disk.cells[write.name], type=Ballot)
                    assert msgspec.msgpack.decode(write.value, type=Ballot) > before, "a floor sank"
            self.disk.apply(effect.writes)
            self.event(start, Persisted(effect.id))

    def _launch(self, start: int, effect: LaunchReplica) -> None:
        group, version = self.group, effect.specification.version
        assert "replica/" + effect.replica.hex() in self.disk.cells, "launched before its id was on disk"
        assert effect.specification.object in self.holdings.objects, "launched without its files"
        if group.broken.get((self.name, effect.service)) or group.broken.get(("", effect.service)):
            failed = LaunchFailed(effect.id, effect.replica, "it crashed at once")
            group.at(group.t + LAUNCH_S, lambda: self.event(start, failed))
            return
        self.runs.setdefault(effect.replica, Replica(effect.replica, effect.service, version))
        group.at(group.t + LAUNCH_S, lambda: self.event(start, ReplicaLaunched(effect.id, effect.replica)))
        group.at(group.t + LAUNCH_S + READY_S, lambda: self._ready(effect.replica))

    def _ready(self, replica: ReplicaId) -> None:
        if replica in self.runs and not self.runs[replica].stopping:
            self.runs[replica].ready = True
            self.event(self.start_number, ReplicaReady(replica))

    def _stop(self, start: int, effect: StopReplica) -> None:
        self.runs.pop(effect.replica, None)
        self.event(start, ReplicaStopped(effect.id, effect.replica))

    def _survey(self, start: int, request: int) -> None:
        found = tuple(SurveyedReplica(r.id, r.service, r.version, r.ready) for r in self.runs.values())
        self.event(start, ReplicasSurveyed(request, found))

    def _fetch(self, start: int, effect: FetchObject) -> None:
        group = self.group
        sources = [group.nodes[n] for n in effect.holders if n in group.nodes]
        if any(s.up and effect.object in s.holdings.objects and group.linked(s, self) for s in sources):
            self.holdings.objects.add(effect.object)
            self.event(start, ObjectFetched(effect.id, effect.object))
        else:
            self.event(start, FetchFailed(effect.id, effect.object, "no holder answers"))

    def exit_replica(self, service: ServiceId, why: str = "it crashed") -> None:
        for replica in list(self.runs.values()):
            if replica.service == service:
                del self.runs[replica.id]
                self.event(self.start_number, ReplicaExited(replica.id, why))

    def ready_of(self, service: ServiceId) -> list[Replica]:
        return [r for r in self.runs.values() if r.service == service and r.ready and not r.stopping]
