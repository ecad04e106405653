"""After a persist failed, nothing that the old agents asked for reaches the disk or leaves; the new ones begin calmly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from colla.kernel.effects import Effect, Persist, Send, StoreCell
from colla.kernel.events import Event, Persisted, PersistFailed, StopRequested
from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import NodeId
from colla.node import runner as runner_module
from colla.node.runner import Runner


class Word(Message, frozen=True):
    text: str


class Agents:
    """Persists `first` at the start; persists another and says something at each `StopRequested`."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.events: list[Event] = []

    def start(self, now: Instant) -> list[Effect]:
        return [Persist(self.first, (StoreCell("started", b""),))]

    def step(self, event: Event, now: Instant) -> list[Effect]:
        self.events.append(event)
        if not isinstance(event, StopRequested):
            return []
        return [
            Send(NodeId(b"other"), Word(f"from {self.first}")),
            Persist(2, (StoreCell("stale", b""),)),
        ]


class Disk:
    """Refuses the persists that `refuses` names; meanwhile something happens to the agents, who do not know."""

    def __init__(self, refuses: Callable[[int], bool]) -> None:
        self.refuses = refuses
        self.asked: list[int] = []
        self.sent: list[str] = []
        self.runner: Runner | None = None
        self.again = asyncio.Event()

    def perform(self, effect: Effect) -> None:
        assert isinstance(effect, Send) and isinstance(effect.message, Word)
        self.sent.append(effect.message.text)

    async def persist(self, effect: Persist) -> Persisted | PersistFailed:
        assert self.runner is not None
        self.asked.append(effect.id)
        if self.refuses(effect.id):
            self.runner.post(StopRequested())
            return PersistFailed(effect.id, "the disk is full")
        self.again.set()
        return Persisted(effect.id)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RESTART_PAUSE_FIRST_S", 0.01)


async def test_what_was_asked_before_the_restart_never_reaches_the_disk() -> None:
    disk = Disk(lambda number: number == 1)
    disk.runner = Runner(Agents(1), disk, lambda: Agents(3))
    running = asyncio.create_task(disk.runner.run())
    await disk.again.wait()
    disk.runner.stop()
    await running
    await disk.runner.flush()
    assert disk.asked == [1, 3]


async def test_nothing_leaves_that_rests_on_what_is_not_on_the_disk() -> None:
    """The event came before the failure was told: the old agents must not answer it any more."""
    disk = Disk(lambda number: number == 1)
    disk.runner = Runner(Agents(1), disk, lambda: Agents(3))
    running = asyncio.create_task(disk.runner.run())
    await disk.again.wait()
    disk.runner.stop()
    await running
    assert "from 1" not in disk.sent


async def test_a_disk_that_stays_full_is_asked_ever_more_seldom() -> None:
    disk = Disk(lambda number: number < 6)
    numbers = iter(range(2, 7))
    disk.runner = Runner(Agents(1), disk, lambda: Agents(next(numbers)))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    running = asyncio.create_task(disk.runner.run())
    await disk.again.wait()
    assert loop.time() - began_s >= 0.01 + 0.02 + 0.04 + 0.08 + 0.16
    disk.runner.stop()
    await running
    assert disk.asked == [1, 2, 3, 4, 5, 6]


async def test_what_happens_in_the_pause_waits_for_the_new_agents() -> None:
    disk = Disk(lambda number: number == 1)
    made: list[Agents] = []

    def restart() -> Agents:
        made.append(Agents(3))
        return made[-1]

    def failed(why: CollaError) -> None:
        assert not made, "the old agents' views stand until the pause is over"
        assert disk.runner is not None
        disk.runner.post(StopRequested())

    disk.runner = Runner(Agents(1), disk, restart, failed)
    running = asyncio.create_task(disk.runner.run())
    await disk.again.wait()
    disk.runner.stop()
    await running
    await disk.runner.flush()
    assert made[0].events[0] == StopRequested()
    assert disk.sent == ["from 3"]


async def test_stopping_in_the_pause_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RESTART_PAUSE_FIRST_S", 3600.0)
    disk = Disk(lambda number: number == 1)
    failed = asyncio.Event()
    disk.runner = Runner(Agents(1), disk, lambda: Agents(3), lambda why: failed.set())
    running = asyncio.create_task(disk.runner.run())
    await failed.wait()
    disk.runner.post(StopRequested())
    disk.runner.stop()
    await running
    await disk.runner.flush()
    assert disk.asked == [1]
