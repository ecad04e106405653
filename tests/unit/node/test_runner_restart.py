"""After a persist failed, nothing that the old agents asked for reaches the disk."""

from __future__ import annotations

import asyncio

from colla.kernel.effects import Effect, Persist, StoreCell
from colla.kernel.events import Event, Persisted, PersistFailed, StopRequested
from colla.kernel.time import Instant
from colla.node.runner import Runner


class Agents:
    """Persists `first` at the start, and another at each `StopRequested`."""

    def __init__(self, first: int) -> None:
        self.first = first

    def start(self, now: Instant) -> list[Effect]:
        return [Persist(self.first, (StoreCell("started", b""),))]

    def step(self, event: Event, now: Instant) -> list[Effect]:
        return [Persist(2, (StoreCell("stale", b""),))] if isinstance(event, StopRequested) else []


class FailsOnce:
    """A disk whose first persist fails; meanwhile the agents, who do not know, ask for more."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.runner: Runner | None = None
        self.again = asyncio.Event()

    def perform(self, effect: Effect) -> None:
        raise AssertionError(effect)

    async def persist(self, effect: Persist) -> Persisted | PersistFailed:
        assert self.runner is not None
        self.asked.append(effect.id)
        if effect.id == 1:
            self.runner.post(StopRequested())
            return PersistFailed(effect.id, "the disk is full")
        self.again.set()
        return Persisted(effect.id)


async def test_what_was_asked_before_the_restart_never_reaches_the_disk() -> None:
    disk = FailsOnce()
    disk.runner = Runner(Agents(1), disk, lambda why: Agents(3))
    running = asyncio.create_task(disk.runner.run())
    await disk.again.wait()
    disk.runner.stop()
    await running
    await disk.runner.flush()
    assert disk.asked == [1, 3]
