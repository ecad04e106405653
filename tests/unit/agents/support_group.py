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
from support_node import DELAY_S, MEMBERS, WALL_S, Node, Replica

from colla.kernel.config import Config
from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.contribution import Contribution, gives_all
from colla.model.ids import MemberId, NodeId, ObjectId, ServiceId, digest
from colla.model.service import Limits, Service, Specification
from colla.protocol.locations.messages import AskWhy, Explanation, Locate, Located
from colla.protocol.views import Election, MemberInfo, PresenceChange, PresenceEntry, PresencePhase

__all__ = ["MiniGroup", "Replica"]

SUSPECT_S = 3.2
ABSENT_S = 3.8


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
