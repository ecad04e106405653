"""One group of one size, measured in virtual time: what it costs idle and busy, how soon news is everywhere.

The group exists already (`sim.gathering`): all computers are switched on at once, as after a power cut, which is the most that a
group ever has to say at one time. Then, one after the other: an idle time, a time of changes, crashes. Every number comes
from the world and from what nodes tell their owners, none from a node's own opinion of the group.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from colla.kernel.effects import Effect, Notify, Send
from colla.kernel.events import Event
from colla.model.ids import NodeId
from colla.protocol.views import Election
from colla.sim.computer import Computer
from colla.sim.gathering import gather
from colla.sim.group import SimGroup

ITERATION_S = 20.0
"""The paper's: one run of every periodic mechanism."""
MEET_WITHIN_S = 300.0
SETTLE_S = 60.0
"""Links that are used no more are closed after half of this."""
IDLE_ITERATIONS = 3
ACTIVE_ITERATIONS = 3
CHANGE_EVERY_S = 5.0
KNOWN_WITHIN_S = 60.0
SERVICES_AT_FIRST = 3
REPLICAS = 3
CRASHES = 3
LOOK_EVERY_S = 0.02
PAGE_BYTES = 4096
ELECTIONS = tuple(election.value for election in Election)


class Size(msgspec.Struct, frozen=True):
    """A case: how many nodes, one computer each, each of a member of its own."""

    nodes: int
    election: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.election}/{self.nodes}/{self.seed}"


class Traffic(msgspec.Struct, frozen=True):
    """What a node sends in one iteration on average, and what the busiest one does."""

    messages: float
    bytes: float
    messages_max: float


class Cost(msgspec.Struct, frozen=True):
    """What came out. Times in seconds: virtual ones but for `processor_s`, what the whole simulation took of a core."""

    nodes: int
    election: str
    meeting_s: float
    """From switching all on until everybody knew of everybody."""
    meeting: Traffic
    """In all that time, not per iteration."""
    idle: Traffic
    active: Traffic
    changes_s: tuple[float, ...]
    """From asking for a change of the catalogue until every node knew it."""
    first_known_s: tuple[float, ...]
    """From each crash until the first node said that the computer is absent."""
    all_known_s: tuple[float, ...]
    """… until the last one did."""
    false_absences: int
    """How often any node said so of a computer that ran."""
    virtual_s: float
    processor_s: float
    memory_bytes: int

    @property
    def node_hours(self) -> float:
        return self.nodes * self.virtual_s / 3600


class Ears:
    """Hears what every node sends and tells its owner (`computer.Observer`)."""

    def __init__(self, group: SimGroup) -> None:
        self._group = group
        self.sent: dict[str, int] = {}
        self.absences: list[tuple[float, str, NodeId]] = []
        self.false_absences = 0
        group.observers.append(self)

    def will_step(self, computer: Computer, event: Event) -> None: ...

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None: ...

    def performed(self, computer: Computer, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.sent[computer.name] = self.sent.get(computer.name, 0) + 1
        elif isinstance(effect, Notify) and effect.notice.kind == "node_absent":
            self.absences.append((self._group.world.now_s, computer.name, effect.notice.node))
            self.false_absences += self._group.of(effect.notice.node).up

    def traffic(self, call: Callable[[], object], iterations: float) -> Traffic:
        """What is sent meanwhile, per node and iteration."""
        network, nodes = self._group.network, len(self._group.computers)
        before = network.bytes
        self.sent.clear()
        call()
        share = 1 / (nodes * iterations)
        return Traffic(
            sum(self.sent.values()) * share,
            (network.bytes - before) * share,
            max(self.sent.values(), default=0) / iterations,
        )


def measure(case: Size) -> Cost:
    """Run the world of one case."""
    memory, began_s = _resident_bytes(), time.process_time()
    group = SimGroup(case.seed, Election(case.election))
    gather(group, case.nodes)
    ears = Ears(group)
    on_s = group.world.now_s
    meeting = ears.traffic(lambda: meet(group), 1.0)
    meeting_s = group.world.now_s - on_s
    group.run(SETTLE_S)
    for number in range(SERVICES_AT_FIRST):
        group.deploy(f"s{number}", REPLICAS, at=group[number % case.nodes])
    group.run(SETTLE_S)
    idle = ears.traffic(lambda: group.run(IDLE_ITERATIONS * ITERATION_S), IDLE_ITERATIONS)
    changes: list[float] = []
    active = ears.traffic(lambda: _change(group, changes), ACTIVE_ITERATIONS)
    crashes = [crash(group, ears, number) for number in range(CRASHES)]
    gc.collect()
    return Cost(
        nodes=case.nodes,
        election=case.election,
        meeting_s=meeting_s,
        meeting=meeting,
        idle=idle,
        active=active,
        changes_s=tuple(changes),
        first_known_s=tuple(first for first, _ in crashes),
        all_known_s=tuple(last for _, last in crashes),
        false_absences=ears.false_absences,
        virtual_s=group.world.now_s,
        processor_s=time.process_time() - began_s,
        memory_bytes=max(0, _resident_bytes() - memory),
    )


def meet(group: SimGroup) -> None:
    """Switch everybody on; until everybody knows of everybody."""
    for computer in group.computers:
        computer.start()
    waiting = list(group.computers)

    def met() -> bool:
        while waiting and len(waiting[-1].core.presence.present()) == len(group.computers):
            waiting.pop()
        return not waiting

    group.until(met, MEET_WITHIN_S, "everybody knows of everybody")


def _change(group: SimGroup, changes: list[float]) -> None:
    """People do something every few seconds, at random nodes: create, scale, switch off, eliminate."""
    rng = group.world.random("people")
    until_s = group.world.now_s + ACTIVE_ITERATIONS * ITERATION_S
    number = 0
    while group.world.now_s < until_s:
        next_s = group.world.now_s + CHANGE_EVERY_S
        computer = rng.choice(group.computers)
        services = list(group.services)
        match number % 4:
            case 0:
                changes.append(create(group, computer, f"a{number}"))
            case 1:
                group.scale(rng.choice(services), rng.randint(1, 2 * REPLICAS))
            case 2:
                group.set_active(rng.choice(services), False)
            case _:
                service = rng.choice(services)
                group.eliminate(service)
                del group.services[service]
        number += 1
        group.run(max(0.0, next_s - group.world.now_s))


def create(group: SimGroup, computer: Computer, name: str) -> float:
    """Create a service; the time until the last node knows it."""
    creation = group.creation(name, computer, REPLICAS)
    computer.put_object(creation.specification.object, creation.specification.object_bytes)
    asked = computer.ask(creation)
    waiting = [one for one in group.computers if one.up]

    def known() -> bool:
        while waiting and waiting[-1].core.catalogue.by_name(name) is not None:
            waiting.pop()
        return not waiting

    took_s = group.world.run_until(known, KNOWN_WITHIN_S, LOOK_EVERY_S)
    group.until(lambda: asked.answered, KNOWN_WITHIN_S, "the change was acknowledged")
    existing = computer.core.catalogue.by_name(name)
    if took_s is None or existing is None:
        return float("inf")
    group.services[existing.id] = name
    return took_s


def crash(group: SimGroup, ears: Ears, number: int) -> tuple[float, float]:
    """Pull a plug: after how long the first node, and the last one, said that the computer is absent."""
    rng = group.world.random(f"crash/{number}")
    group.run(rng.uniform(0.0, 2.0))
    victim = rng.choice([one for one in group.computers if one.up])
    began_s, before = group.world.now_s, len(ears.absences)
    victim.power_off()
    wanted = {one.name: None for one in group.computers if one.up}
    heard: dict[str, float] = {}
    seen = before

    def known() -> bool:
        nonlocal seen
        for at_s, name, node in ears.absences[seen:]:
            if node == victim.node:
                heard.setdefault(name, at_s - began_s)
        seen = len(ears.absences)
        return len(heard) >= len(wanted)

    took_s = group.world.run_until(known, KNOWN_WITHIN_S, LOOK_EVERY_S)
    last_s = float("inf") if took_s is None else max(heard.values())
    return min(heard.values(), default=float("inf")), last_s


def _resident_bytes() -> int:
    """The memory of this process now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
