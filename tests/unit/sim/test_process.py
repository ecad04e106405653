"""A simulated process keeps the promises of the runner: order, barriers, restarts, gaps; and it can die anywhere."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from colla.kernel.codec import Codec
from colla.kernel.effects import Effect, Notice, Notify, Persist, Send, StoreCell, WakeAt
from colla.kernel.events import Event, Persisted, PersistFailed, Resumed, StopRequested, TimerDue
from colla.kernel.messages import Message, Timer
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.sim.clock import Clock
from colla.sim.process import TURN_S, Process
from colla.sim.world import World


class Ring(Timer, frozen=True):
    number: int = 0


class Word(Message, frozen=True):
    text: str


def send(text: str, *, unbarriered: bool = False) -> Send:
    return Send(NodeId(b"other"), Word(text), unbarriered=unbarriered)


def persist(number: int) -> Persist:
    return Persist(number, (StoreCell("name", b"%d" % number),))


class FakeCore:
    """Answers every event with what the test laid down for its turn."""

    def __init__(self, script: list[list[Effect]]) -> None:
        self.codec = Codec([Word], 1000)
        self.script = script
        self.events: list[tuple[Event, float]] = []

    def start(self, now: Instant) -> list[Effect]:
        return []

    def step(self, event: Event, now: Instant) -> list[Effect]:
        self.events.append((event, now.boot_s))
        return self.script.pop(0) if self.script else []


class Surroundings:
    """A disk that the test answers for, and a list of what was performed."""

    def __init__(self, world: World) -> None:
        self.cores: list[FakeCore] = []
        self.performed: list[Any] = []
        self.asked: list[tuple[Persist, Callable[[Persisted | PersistFailed], None]]] = []
        self.script: list[list[Effect]] = []
        self.process = Process(world, Clock(world), Random(1), self)

    @property
    def core(self) -> FakeCore:
        return self.cores[-1]

    def make_core(self) -> FakeCore:
        self.cores.append(FakeCore(self.script))
        return self.core

    def perform(self, effect: Effect) -> None:
        self.performed.append(effect.message.text if isinstance(effect, Send) else effect)

    def persist(self, effect: Persist, done: Callable[[Persisted | PersistFailed], None]) -> None:
        self.asked.append((effect, done))

    def will_step(self, event: Event) -> None: ...
    def stepped(self, event: Event, effects: list[Effect]) -> None: ...
    def restarted(self, why: str) -> None:
        self.performed.append(f"restarted: {why}")


@pytest.fixture
def around(world: World) -> Surroundings:
    around = Surroundings(world)
    around.process.start()
    return around


GO = StopRequested()


def test_what_follows_a_persist_waits_for_it(around: Surroundings) -> None:
    around.script += [[send("a"), persist(1), send("b"), persist(2), send("c")], [send("d")]]
    around.process.post(GO)
    around.process.post(GO)
    assert around.performed == ["a"]
    (first, first_done), (second, second_done) = around.asked
    second_done(Persisted(second.id))
    assert around.performed == ["a"]
    first_done(Persisted(first.id))
    assert around.performed == ["a", "b", "c", "d"]
    assert [event for event, _ in around.core.events] == [GO, GO, Persisted(1), Persisted(2)]


def test_what_needs_no_disk_does_not_wait(around: Surroundings) -> None:
    around.script += [[persist(1), send("heartbeat", unbarriered=True), WakeAt(1.0, Ring()), send("late")]]
    around.process.post(GO)
    assert around.performed == ["heartbeat"]
    around.process._world.run(2.0)
    assert isinstance(around.core.events[-1][0], TimerDue)
    assert around.performed == ["heartbeat"]


def test_a_failed_persist_drops_what_waited_and_restarts_the_agents(around: Surroundings) -> None:
    timer = WakeAt(1.0, Ring())
    around.script += [[timer, persist(1), send("a")], [persist(2), send("b")], [send("new")]]
    around.process.post(GO)
    around.process.post(GO)
    old = around.core
    (_, first_done), (_, second_done) = around.asked
    first_done(PersistFailed(1, "full"))
    second_done(PersistFailed(2, "full"))
    assert around.performed == ["restarted: full"]
    assert around.core is not old
    around.process.post(GO)
    around.process._world.run(5.0)
    assert around.performed == ["restarted: full", "new"]
    # Neither the old agents' timer nor the outcome of their second persist reaches the new ones.
    assert [event for event, _ in around.core.events] == [GO]


def test_timers_follow_the_boot_clock_and_never_come_early(around: Surroundings) -> None:
    around.script += [[WakeAt(3.0, Ring(3)), WakeAt(1.0, Ring(1))]]
    around.process.post(GO)
    around.process._world.run(0.5)
    around.process._clock.drift(-200_000.0)
    around.process._world.run(10.0)
    due = [(event.timer, at_s) for event, at_s in around.core.events if isinstance(event, TimerDue)]
    assert [timer for timer, _ in due] == [Ring(1), Ring(3)]
    for (timer, at_s), expected_s in zip(due, (1.0, 3.0), strict=True):
        assert expected_s <= at_s <= expected_s + 2 * TURN_S, timer


@pytest.mark.parametrize(("seconds", "resumed"), [(2.0, False), (30.0, True)])
def test_standing_still(around: Surroundings, seconds: float, resumed: bool) -> None:
    around.script += [[WakeAt(1.0, Ring(1)), WakeAt(0.5, Ring(0)), persist(1), send("a")]]
    around.process.post(GO)
    around.process.stand_still()
    world = around.process._world
    world.run(seconds)
    around.process.post(GO)
    around.asked[0][1](Persisted(1))
    assert around.performed == []
    assert len(around.core.events) == 1
    around.process.go_on()
    events = [event for event, _ in around.core.events[1:]]
    if resumed:
        assert isinstance(events.pop(0), Resumed)
    assert [type(event) for event in events] == [TimerDue, TimerDue, StopRequested, Persisted]
    assert [event.timer for event in events[:2]] == [Ring(0), Ring(1)]  # type: ignore[attr-defined]
    assert events[0].late_s == pytest.approx(seconds - 0.5)  # type: ignore[attr-defined]
    assert around.performed == ["a"]


@pytest.mark.parametrize("number", range(5))
def test_it_can_die_between_any_two_effects(around: Surroundings, number: int) -> None:
    effects: list[Effect] = [send("a"), Notify(Notice("x", "")), persist(1), send("b"), send("c")]
    around.script += [effects, [send("never")]]
    left = number

    def trap(effect: Effect) -> bool:
        nonlocal left
        if not left:
            around.process.die()
            return True
        left -= 1
        return False

    around.process.trap = trap
    around.process.post(GO)
    for effect, done in around.asked:
        done(Persisted(effect.id))
    around.process.post(GO)
    done_effects = len(around.performed) + len(around.asked)
    assert done_effects == number
    assert not around.process.alive
    assert "never" not in around.performed
