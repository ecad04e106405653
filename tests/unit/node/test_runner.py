"""The runner's barriers: what leaves when, what a failing disk, a bug or a long sleep does to the agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from colla.kernel.effects import Effect, Persist, Send, StoreCell, WakeAt
from colla.kernel.events import Event, Persisted, PersistFailed, Resumed, StopRequested, TimerDue
from colla.kernel.messages import Message, Timer
from colla.kernel.time import Instant
from colla.model.errors import CollaError, InvariantViolation
from colla.model.ids import NodeId
from colla.node import clock
from colla.node import runner as runner_module
from colla.node.runner import Runner

PEER = NodeId(b"peer")


class Word(Message, frozen=True):
    text: str


class Rings(Timer, frozen=True):
    name: str


def say(text: str, *, unbarriered: bool = False) -> Send:
    return Send(PEER, Word(text), unbarriered=unbarriered)


def store(number: int) -> Persist:
    return Persist(number, (StoreCell(f"cell {number}", b""),))


class Agents:
    """Answers each event with what `effects` gives for it."""

    def __init__(self, effects: Callable[[Event], list[Effect]], first: list[Effect] | None = None) -> None:
        self.effects = effects
        self.first = first or []
        self.events: list[Event] = []

    def start(self, now: Instant) -> list[Effect]:
        return self.first

    def step(self, event: Event, now: Instant) -> list[Effect]:
        self.events.append(event)
        return self.effects(event)


class World:
    """Notes what is performed; a persist ends when the test says so."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.whys: list[CollaError] = []
        self.asked: dict[int, asyncio.Future[Persisted | PersistFailed]] = {}
        self.runner: Runner
        self._changed = asyncio.Event()

    def perform(self, effect: Effect) -> None:
        self._changed.set()
        assert isinstance(effect, Send) and isinstance(effect.message, Word)
        if effect.message.text == "unspeakable":
            raise ValueError("longer than a frame may be")
        self.said.append(effect.message.text)

    async def persist(self, effect: Persist) -> Persisted | PersistFailed:
        self.asked[effect.id] = asyncio.get_running_loop().create_future()
        self._changed.set()
        return await self.asked[effect.id]

    def ends(self, number: int) -> None:
        self.asked[number].set_result(Persisted(number))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 5.0)

    async def settled(self) -> None:
        """Every task that can go on has done so."""
        for _ in range(20):
            await asyncio.sleep(0)


async def run(
    world: World, agents: Agents, restart: Callable[[], Agents] | None = None
) -> asyncio.Task[None]:
    def no_restart() -> Agents:
        raise AssertionError("nothing failed")

    world.runner = Runner(agents, world, restart or no_restart, world.whys.append)
    running = asyncio.create_task(world.runner.run())
    await world.settled()
    return running


async def end(world: World, running: asyncio.Task[None]) -> None:
    world.runner.stop()
    await asyncio.wait_for(running, 5.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RESTART_PAUSE_FIRST_S", 0.01)


async def test_what_stands_behind_a_persist_waits_for_the_disk_but_heartbeats_do_not() -> None:
    world = World()
    effects = [say("before"), store(1), say("after"), say("heartbeat", unbarriered=True)]
    running = await run(world, Agents(lambda event: [], effects))
    assert world.said == ["before", "heartbeat"]
    world.ends(1)
    await world.until(lambda: len(world.said) == 3)
    assert world.said == ["before", "heartbeat", "after"]
    await end(world, running)


async def test_effects_keep_their_order_though_the_disk_does_not() -> None:
    world = World()
    effects = [store(1), say("one"), store(2), say("two"), store(3), say("three")]
    running = await run(world, Agents(lambda event: [], effects))
    world.ends(3)
    world.ends(2)
    await world.settled()
    assert world.said == []
    world.ends(1)
    await world.until(lambda: len(world.said) == 3)
    assert world.said == ["one", "two", "three"]
    await end(world, running)


async def test_effects_of_later_steps_wait_as_well_and_the_agents_hear_of_each_persist_once() -> None:
    world = World()
    agents = Agents(
        lambda event: [say("later")] if isinstance(event, StopRequested) else [], [store(1), say("first")]
    )
    running = await run(world, agents)
    world.runner.post(StopRequested())
    await world.settled()
    assert world.said == []
    world.ends(1)
    await world.until(lambda: len(world.said) == 2)
    assert world.said == ["first", "later"]
    await end(world, running)
    assert agents.events == [StopRequested(), Persisted(1)]


async def test_timers_ring_in_order_while_the_disk_is_slow() -> None:
    world = World()
    now_s = clock.boot_s()
    first = [store(1), WakeAt(now_s + 0.02, Rings("second")), WakeAt(now_s + 0.01, Rings("first"))]
    rang = asyncio.Event()

    def effects(event: Event) -> list[Effect]:
        if isinstance(event, TimerDue) and event.timer == Rings("second"):
            rang.set()
        return []

    agents = Agents(effects, [*first])
    running = await run(world, agents)
    await asyncio.wait_for(rang.wait(), 5.0)
    assert [event.timer for event in agents.events if isinstance(event, TimerDue)] == [
        Rings("first"),
        Rings("second"),
    ]
    world.ends(1)
    await end(world, running)


async def test_stopping_takes_what_is_queued_and_flushing_lets_the_rest_leave() -> None:
    world = World()
    agents = Agents(lambda event: [store(1), say("goodbye")] if isinstance(event, StopRequested) else [])
    running = await run(world, agents)
    world.runner.post(StopRequested())
    await end(world, running)
    assert agents.events == [StopRequested()] and world.said == []
    flushing = asyncio.create_task(world.runner.flush())
    await world.until(lambda: 1 in world.asked)
    world.ends(1)
    await asyncio.wait_for(flushing, 5.0)
    assert world.said == ["goodbye"]


async def test_a_long_sleep_is_told_and_a_short_stall_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world, slept_s = World(), 0.0
    real = clock.boot_s
    monkeypatch.setattr(clock, "boot_s", lambda: real() + slept_s)
    agents = Agents(lambda event: [])
    running = await run(world, agents)
    slept_s = 3.0
    world.runner.post(StopRequested())
    await world.settled()
    assert agents.events == [StopRequested()]
    slept_s += 60.0
    world.runner.post(StopRequested())
    await world.settled()
    resumed = agents.events[1]
    assert isinstance(resumed, Resumed) and 59.0 < resumed.gap_s < 62.0, (
        "told before what came after the sleep"
    )
    assert agents.events[2] == StopRequested()
    await end(world, running)


async def test_a_fault_of_the_agents_is_logged_and_they_begin_again_from_the_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    def breaks(event: Event) -> list[Effect]:
        raise InvariantViolation("two masters on one node", "the story of how it came about")

    sound = Agents(lambda event: [say("here again")])
    running = await run(world, Agents(breaks, [store(1), say("rests on what is lost")]), lambda: sound)
    world.runner.post(StopRequested())
    world.runner.post(StopRequested())
    await world.settled()
    assert world.runner.resting
    assert "two masters on one node" in caplog.text and "the story of how it came about" in caplog.text
    assert [why.code for why in world.whys] == ["internal"] and world.runner.trouble is world.whys[0]
    world.ends(1)
    await asyncio.wait_for(until_started(world), 5.0)
    world.runner.post(StopRequested())
    await world.until(lambda: world.said == ["here again"])
    assert sound.events == [StopRequested()]
    assert world.runner.restarts == 1
    await end(world, running)


async def until_told(world: World, code: str) -> None:
    while world.runner.trouble is None or world.runner.trouble.code != code:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def until_started(world: World) -> None:
    while world.runner.resting:  # noqa: ASYNC110 - the runner tells nobody
        await asyncio.sleep(0)


async def test_agents_that_cannot_be_made_again_yet_are_made_later() -> None:
    world = World()

    def breaks(event: Event) -> list[Effect]:
        raise ZeroDivisionError

    attempts = 0

    def restart() -> Agents:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise CollaError("disk_full", "The disk is full.", "Free some space.")
        if attempts == 2:
            raise RuntimeError("whatever else")
        return Agents(lambda event: [say("at last")])

    running = await run(world, Agents(breaks), restart)
    world.runner.post(StopRequested())
    await world.settled()
    assert world.runner.trouble is not None and world.runner.trouble.code == "internal"
    await asyncio.wait_for(until_told(world, "disk_full"), 5.0)
    await asyncio.wait_for(until_started(world), 5.0)
    world.runner.post(StopRequested())
    await world.until(lambda: world.said == ["at last"])
    assert attempts == 3
    await end(world, running)


async def test_agents_that_fault_when_they_begin_again_are_tried_once_more() -> None:
    world = World()

    class FaultsAtStart(Agents):
        def start(self, now: Instant) -> list[Effect]:
            raise KeyError("start")

    def breaks(event: Event) -> list[Effect]:
        raise ZeroDivisionError

    made = iter([FaultsAtStart(lambda event: []), Agents(lambda event: [], [say("begun")])])
    running = await run(world, Agents(breaks), lambda: next(made))
    world.runner.post(StopRequested())
    await world.until(lambda: world.said == ["begun"])
    assert world.runner.restarts == 2
    await end(world, running)


async def test_agents_that_cannot_even_begin_end_the_node() -> None:
    world = World()

    class FaultsAtStart(Agents):
        def start(self, now: Instant) -> list[Effect]:
            raise KeyError("start")

    running = await run(world, FaultsAtStart(lambda event: []))
    with pytest.raises(KeyError):
        await running


async def test_an_effect_that_cannot_be_carried_out_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    effects = [say("unspeakable"), say("one"), store(1), say("unspeakable"), say("two")]
    running = await run(world, Agents(lambda event: [], effects))
    world.ends(1)
    await world.until(lambda: world.said == ["one", "two"])
    assert caplog.text.count("was not carried out") == 2
    await end(world, running)


async def test_a_store_that_raises_counts_as_a_disk_that_failed() -> None:
    world = World()
    agents = Agents(lambda event: [], [store(1), say("never")])
    running = await run(world, agents, lambda: Agents(lambda event: []))
    world.asked[1].set_exception(RuntimeError("no thread can be started"))
    await world.settled()
    assert [why.code for why in world.whys] == ["disk_failed"] and "no thread" in world.whys[0].message
    await asyncio.wait_for(until_started(world), 5.0)
    assert world.said == []
    await end(world, running)
