"""A mini group: dispatchers and executors of several nodes in virtual time, with fakes for everything else.

Presence is modelled pair by pair: each node beats once per second to everybody who can hear it; 3.2 s of silence make
a suspicion, 3.8 s an absence. What a partner echoed follows from who heard whom. The catalogue spreads after a short
delay to whoever can be reached from its author, and completely when a cut is healed. After every step the safety
invariants are checked: ballots obeyed never decrease, ids are on disk before a launch, one replica per service a node.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

import msgspec

from colla.agents.agent import Context
from colla.agents.dispatcher import Dispatcher
from colla.agents.executor import Executor
from colla.kernel.config import Config
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
from colla.model.contribution import AgentKind, Contribution, gives_all
from colla.model.ids import MemberId, NodeId, ObjectId, ReplicaId, ServiceId, digest
from colla.model.location import NO_BALLOT, Ballot
from colla.model.service import Limits, Service, Specification
from colla.protocol.locations.messages import AskWhy, Explanation, Locate, Located
from colla.protocol.supervision.messages import OfferAnswer, StopAnswer
from colla.protocol.views import (
    Announcement,
    Election,
    MemberInfo,
    NodeInfo,
    PresenceChange,
    PresenceEntry,
    PresencePhase,
)

WALL_S = 1_700_000_000.0
DELAY_S = 0.02
PERSIST_S = 0.005
LAUNCH_S = 0.15
READY_S = 0.1
STOP_S = 0.1
SUSPECT_S = 3.2
ABSENT_S = 3.8
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
    def __init__(self, group: MiniGroup) -> None:
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
        return len(late) / len(others) if others else 0.0

    def loop_was_late(self, now_s: float) -> bool:
        return False


class FakeHoldings:
    def __init__(self) -> None:
        self.objects: set[ObjectId] = set()

    def holds(self, wanted: ObjectId) -> bool:
        return wanted in self.objects

    def held(self) -> tuple[ObjectId, ...]:
        return tuple(sorted(self.objects))


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


class Node:
    """One computer with its disk, what runs on it, and, while it is up, a dispatcher and an executor."""

    def __init__(self, group: MiniGroup, number: int, contribution: Contribution) -> None:
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
        """Orders accepted are never of a lower ballot than one accepted before."""
        accepted = isinstance(message, OfferAnswer | StopAnswer) and not message.code
        if accepted:
            floor = self.obeyed.get(message.service, NO_BALLOT)  # type: ignore[attr-defined]
            ballot = message.ballot  # type: ignore[attr-defined]
            assert ballot >= floor, f"{self.name} obeys {ballot} after {floor}"
            self.obeyed[message.service] = ballot  # type: ignore[attr-defined]

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


class MiniGroup:
    """The world. Node names are n0, n1, …"""

    def __init__(
        self,
        count: int,
        election: str = "hashing",
        seed: int = 0,
        loss: float = 0.0,
        contribution: Contribution | None = None,
        config: Config | None = None,
    ) -> None:
        self.t = 0.0
        self.seed, self.loss = seed, loss
        self.rng = Random(seed)
        self.election = Election(election)
        self.config = config or Config()
        self.members = [
            MemberInfo(MemberId(digest(b"member %d" % m)), f"m{m}", "member", m) for m in range(MEMBERS)
        ]
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.cuts: dict[tuple[NodeId, NodeId], None] = {}
        self.fifo: dict[tuple[NodeId, NodeId], float] = {}
        self.notices: list[tuple[float, str, str, str]] = []
        self.answers: list[tuple[NodeId, NodeId, Message]] = []
        self.broken: dict[tuple[str, ServiceId], bool] = {}
        self.revision = 0
        self.sent: dict[str, int] = {}
        given = contribution or gives_all(4.0, 8 * 2**30, 10 * 2**30, ("static",))
        self.nodes: dict[NodeId, Node] = {}
        for number in range(count):
            node = Node(self, number, given)
            self.nodes[node.id] = node
        self.by_name = {node.name: node for node in self.nodes.values()}
        for node in self.nodes.values():
            node.boot()
        for node in self.nodes.values():
            self._beat(node, node.start_number)
        self._watch()

    # -- time --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        return Instant(self.t, WALL_S + self.t)

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (max(at_s, self.t), self.sequence, action))

    def run(self, seconds: float) -> None:
        end = self.t + seconds
        while self.heap and self.heap[0][0] <= end:
            self._step()
        self.t = end

    def until(self, condition: Callable[[], bool], limit_s: float, what: str = "") -> float:
        """Run until the condition holds; returns how long it took. Fails after `limit_s`."""
        began = self.t
        while not condition():
            assert self.heap[0][0] - began <= limit_s, f"not within {limit_s} s: {what}\n{self.tell()}"
            self._step()
        return self.t - began

    def always(self, condition: Callable[[], bool], seconds: float, what: str = "") -> None:
        """The condition holds after each step for so long."""
        end = self.t + seconds
        while self.heap[0][0] <= end:
            assert condition(), f"{what}\n{self.tell()}"
            self._step()
        self.t = end

    def _step(self) -> None:
        self.t, _, action = heapq.heappop(self.heap)
        action()

    # -- network -----------------------------------------------------------------------------------------------

    def linked(self, a: Node, b: Node) -> bool:
        """Whether what `a` sends reaches `b`."""
        return (a.id, b.id) not in self.cuts

    def cut(self, a: Node, b: Node, *, one_way: bool = False) -> None:
        """`a` does not reach `b` any more (nor the other way round)."""
        self.cuts[a.id, b.id] = None
        if not one_way:
            self.cuts[b.id, a.id] = None

    def split(self, *sides: list[Node]) -> None:
        for number, side in enumerate(sides):
            for other in sides[number + 1 :]:
                for a in side:
                    for b in other:
                        self.cut(a, b)

    def heal(self) -> None:
        self.cuts.clear()
        newest: dict[ServiceId, tuple[int, Service | None]] = {}
        for node in self.nodes.values():
            for service, entry in node.catalogue.entries.items():
                if entry[0] > newest.get(service, (0, None))[0]:
                    newest[service] = entry
        for node in self.nodes.values():
            for service, (revision, content) in newest.items():
                self.at(
                    self.t + 1.0, lambda n=node, s=service, r=revision, c=content: self._learn(n, s, r, c)
                )

    def send(self, origin: Node, start: int, to: NodeId, message: Message) -> None:
        if not origin.up or origin.start_number != start:
            return
        self.sent[type(message).__name__] = self.sent.get(type(message).__name__, 0) + 1
        target = self.nodes.get(to)
        if target is None or not self.linked(origin, target) or self.rng.random() < self.loss:
            return
        arrival = self.t + DELAY_S * (0.75 + 0.5 * self.rng.random())
        arrival = max(arrival, self.fifo.get((origin.id, to), 0.0))
        self.fifo[origin.id, to] = arrival
        self.at(arrival, lambda: self._arrive(target, target.start_number, origin.id, message))

    def _arrive(self, target: Node, start: int, origin: NodeId, message: Message) -> None:
        if target.up and target.start_number == start:
            if target.hung:
                self.at(self.t + 0.5, lambda: self._arrive(target, start, origin, message))
            else:
                target.deliver(origin, message)

    # -- presence ----------------------------------------------------------------------------------------------

    def _beat(self, node: Node, start: int) -> None:
        """Once per second to everybody, with the echo of what was heard last."""
        if node.start_number != start:
            return
        self.at(self.t + 1.0, lambda: self._beat(node, start))
        if not node.alive:
            return
        for other in self.nodes.values():
            if other is not node:
                echo_s = node.presence.last.get(other.id)
                self.at(self.t + DELAY_S, lambda o=other, e=echo_s: self._beaten(node, o, e))

    def _beaten(self, origin: Node, target: Node, echo_s: float | None) -> None:
        if not target.alive or not self.linked(origin, target) or not origin.up:
            return
        presence = target.presence
        presence.last[origin.id] = self.t
        if echo_s is not None:
            presence.echo[origin.id] = echo_s
        entry = presence.entries.get(origin.id)
        if entry is not None and entry.phase is PresencePhase.PRESENT:
            if entry.announcement != origin.announcement():
                self._set(target, origin, PresencePhase.PRESENT, entry.since_s, entry.absences)
            return
        if entry is not None and entry.phase is PresencePhase.SUSPECTED:
            self._set(target, origin, PresencePhase.PRESENT, entry.since_s, entry.absences)
        elif not (entry is not None and entry.phase is PresencePhase.LEFT):
            absences = entry.absences if entry is not None else ()
            self._set(target, origin, PresencePhase.PRESENT, self.t, absences, appeared=True)

    def _set(
        self,
        target: Node,
        origin: Node,
        phase: PresencePhase,
        since_s: float,
        absences: tuple[float, ...],
        *,
        appeared: bool = False,
    ) -> None:
        entry = PresenceEntry(origin.id, phase, since_s, origin.announcement(), absences)
        target.presence.entries[origin.id] = entry
        target.call("presence_changed", [PresenceChange(origin.id, phase, appeared)])

    def _watch(self) -> None:
        """Ten times a second: who has been silent for too long?"""
        self.at(self.t + 0.1, self._watch)
        for node in self.nodes.values():
            if not node.alive:
                continue
            for other, entry in list(node.presence.entries.items()):
                if other == node.id or not node.presence.is_present(other):
                    continue
                silent_s = self.t - max(node.presence.last.get(other, 0.0), 0.0)
                absences = entry.absences
                if silent_s > ABSENT_S:
                    gone = (*absences, self.t)
                    self._set(node, self.nodes[other], PresencePhase.ABSENT, self.t, gone)
                elif silent_s > SUSPECT_S and entry.phase is PresencePhase.PRESENT:
                    self._set(node, self.nodes[other], PresencePhase.SUSPECTED, entry.since_s, absences)

    # -- catalogue ---------------------------------------------------------------------------------------------

    def write(self, content: Service, author: Node, *, gone: bool = False) -> None:
        """`author` writes; whoever can be reached from it learns a moment later."""
        self.revision += 1
        revision, shown = self.revision, None if gone else content
        self._learn(author, content.id, revision, shown)
        for node in self.nodes.values():
            if node is not author and self.linked(author, node):
                delay_s = DELAY_S * (1 + self.rng.random())
                self.at(self.t + delay_s, lambda n=node: self._learn(n, content.id, revision, shown))

    def _learn(self, node: Node, service: ServiceId, revision: int, content: Service | None) -> None:
        if node.up and node.catalogue.merge(service, revision, content):
            node.call("catalogue_changed", [service])

    def service(self, name: str = "site", replicas: int = 3, **changes: object) -> Service:
        specification = Specification(
            name=name,
            owner=self.members[0].id,
            version=1,
            object=ObjectId(digest(b"object " + name.encode())),
            object_bytes=1000,
            environment="static",
            limits=Limits(0.1, 64 * 2**20),
        )
        specification = msgspec.structs.replace(specification, **changes)
        return Service(ServiceId(digest(name.encode())[:16]), specification, True, replicas)

    def deploy(self, service: Service, author: Node | None = None, *, everywhere: bool = True) -> None:
        """Create and activate; its object is on all disks, or only on the author's."""
        author = author or self.sorted_nodes()[0]
        for node in self.nodes.values() if everywhere else [author]:
            node.holdings.objects.add(service.specification.object)
        self.write(service, author)

    # -- computers ---------------------------------------------------------------------------------------------

    def kill(self, *nodes: Node) -> None:
        """Pull the plug: the agents and all replicas are gone."""
        for node in nodes:
            node.up = False
            node.start_number += 1
            node.runs.clear()

    def crash(self, node: Node) -> None:
        """The process dies; what the environments run goes on."""
        node.up = False
        node.start_number += 1

    def boot(self, node: Node) -> None:
        """Start the process again; it learns the catalogue from anybody it can reach."""
        node.hung = False
        node.boot()
        self._beat(node, node.start_number)
        for other in self.nodes.values():
            entry = other.presence.entries.get(node.id)
            if entry is not None and entry.phase is PresencePhase.LEFT:
                del other.presence.entries[node.id]
            if other is not node and other.up and self.linked(other, node):
                for service, (revision, content) in other.catalogue.entries.items():
                    self.at(self.t + 0.3, lambda s=service, r=revision, c=content: self._learn(node, s, r, c))

    def leave(self, node: Node) -> None:
        """Stop with a goodbye; the computer's replicas end too."""
        node.call("stopping")
        start = node.start_number
        self.at(self.t + 0.2, lambda: self._left(node, start))

    def _left(self, node: Node, start: int) -> None:
        if node.start_number != start:
            return
        for other in self.nodes.values():
            if other is not node and other.up and self.linked(node, other):
                entry = other.presence.entries.get(node.id)
                if entry is not None:
                    self._set(other, node, PresencePhase.LEFT, self.t, entry.absences)
        self.kill(node)

    def contribute(self, node: Node, contribution: Contribution) -> None:
        node.own.contribution = contribution
        node.own.environments = contribution.environments
        entry = node.presence.entries[node.id]
        node.presence.entries[node.id] = msgspec.structs.replace(entry, announcement=node.announcement())
        node.call("contribution_changed")

    # -- what is true ------------------------------------------------------------------------------------------

    def check(self, node: Node) -> None:
        """What must hold on every node after each of its steps."""
        services = [replica.service for replica in node.runs.values()]
        assert len(services) == len(set(services)), f"{node.name} runs a service twice"

    def sorted_nodes(self) -> list[Node]:
        return [self.nodes[node] for node in sorted(self.nodes)]

    def masters(self, service: Service) -> list[Node]:
        """The living nodes that master the service."""
        return [n for n in self.nodes.values() if n.alive and service.id in n.dispatcher.masters()]

    def master(self, service: Service) -> Node:
        masters = self.masters(service)
        assert len(masters) == 1, f"{len(masters)} masters\n{self.tell()}"
        return masters[0]

    def is_acting(self, node: Node, service: Service) -> bool:
        mastered = node.dispatcher._supervisor.mastered.get(service.id)
        return mastered is not None and mastered.acting

    def acting(self, service: Service) -> list[Node]:
        return [n for n in self.masters(service) if self.is_acting(n, service)]

    def ready(self, service: Service) -> list[Node]:
        """The nodes that are up with a ready replica of the service."""
        return [n for n in self.nodes.values() if n.up and n.ready_of(service.id)]

    def running(self, service: Service) -> list[Node]:
        """The nodes on which anything of the service runs, ready or not."""
        return [n for n in self.nodes.values() if any(r.service == service.id for r in n.runs.values())]

    def secondaries(self, service: Service) -> list[Node]:
        mastery = self.master(service).dispatcher._announcing.masteries[service.id]
        return [self.nodes[n] for n in mastery.secondaries]

    def is_full(self, service: Service) -> bool:
        return len(self.ready(service)) == service.replicas

    def settle(self, service: Service, limit_s: float = 20.0) -> float:
        """Until one master acts and the number is right."""
        return self.until(
            lambda: len(self.masters(service)) == 1 == len(self.acting(service)) and self.is_full(service),
            limit_s,
            "one acting master and the full number",
        )

    def located(self, service: Service) -> Located:
        """What the master answers to a user agent on another node."""
        return self._ask(service, Locate(service.id, False), Located)  # type: ignore[return-value]

    def explain(self, service: Service) -> Explanation:
        return self._ask(service, AskWhy(service.id, 1), Explanation)  # type: ignore[return-value]

    def _ask(self, service: Service, question: Message, kind: type) -> Message:
        master = self.master(service)
        asker = next(n for n in self.sorted_nodes() if n is not master and n.up)
        self.answers.clear()
        master.deliver(asker.id, question)
        self.until(lambda: any(isinstance(m, kind) for *_, m in self.answers), 2.0, "an answer")
        return next(m for *_, m in self.answers if isinstance(m, kind))

    def told(self, kind: str, since_s: float = 0.0) -> list[tuple[float, str, str, str]]:
        return [notice for notice in self.notices if notice[2] == kind and notice[0] >= since_s]

    def tell(self) -> str:
        """What happened lately and how things are, for a failed assertion."""
        lines = [f"t={self.t:.3f}"]
        lines += [f"{t:9.3f} {name} {kind}: {text}" for t, name, kind, text in self.notices[-25:]]
        for node in self.nodes.values():
            if node.up:
                masters = [s.hex()[:6] for s in node.dispatcher.masters()]
                shown = [(r.service.hex()[:6], r.phase.value) for r in node.executor.replicas()]
                lines.append(f"{node.name} hung={node.hung} masters={masters} replicas={shown}")
        return "\n".join(lines)
