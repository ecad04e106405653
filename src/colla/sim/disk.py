"""A disk in virtual time: what is flushed survives, everything else is lost with a crash.

Persists are committed in groups, one group after the other, as the node's store does: one group is one transaction of
SQLite with a write-ahead log and `synchronous=FULL`. Invariants: outcomes come in the order of the calls; after a persist
that failed the disk refuses everything until it is loaded again.

What a crash may tear: the log's frames carry chained checksums, and a transaction counts only from its commit frame on.
Whatever part of the log reached the disk, in whatever order, recovery takes the frames up to the first that is missing or
torn, so what is found is always a prefix of the transactions, never half of one, and never without one that was flushed.
A disk that *lies* (one that says flushed before it is) breaks only the last promise: without power it loses the newest
transactions, though they were acknowledged. Nodes cannot know; the group has to bear it as it bears a wiped disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import Persist, Write
from colla.kernel.events import Persisted, PersistFailed
from colla.sim.world import World

COMMIT_MAX = 512
"""Persists in one group."""

Outcome = Persisted | PersistFailed
Done = Callable[[Outcome], None]


class DiskSpeed(msgspec.Struct, frozen=True):
    """How long flushing takes: at least `flush_s`, twice that on average, and `slow_s` once in a while."""

    flush_s: float = 0.002
    slow_share: float = 0.005
    slow_s: float = 0.25


USUAL = DiskSpeed()
HARD_DISK = DiskSpeed(flush_s=0.015, slow_share=0.02, slow_s=0.5)
SD_CARD = DiskSpeed(flush_s=0.03, slow_share=0.05, slow_s=2.0)
"""Of a small home computer: garbage collection takes seconds now and then."""


class Disk:
    """One computer's disk with its node's store."""

    def __init__(self, world: World, rng: Random, speed: DiskSpeed = USUAL) -> None:
        self.speed = speed
        self.room_bytes: int | None = None
        """How much more it takes (None: as much as is asked)."""
        self.lies_s = 0.0
        """Without power, what was flushed within so long before is lost all the same."""
        self.flushes = 0
        self._lately: deque[tuple[float, Durable]] = deque()
        """Of a disk that lies: what was on it before each transaction, and when that was flushed."""
        self._world = world
        self._rng = rng
        self._durable = Durable({}, {})
        self._loaded = False
        self._waiting: deque[tuple[Persist, Done]] = deque()
        self._flushing: list[tuple[Persist, Done]] = []
        self._life = 0

    # -- what the node's process does -----------------------------------------------------------------------

    def load(self) -> Durable:
        """What is on it, as a copy of the caller's own."""
        self._forget()
        self._loaded = True
        return self.snapshot()

    def persist(self, effect: Persist, done: Done) -> None:
        """Carry it out in its turn and call `done`."""
        self._waiting.append((effect, done))
        if not self._flushing:
            self._flush()

    # -- what happens to it ---------------------------------------------------------------------------------

    def crash(self, *, power: bool = False) -> bool:
        """The process died, or (`power`) the whole computer: whether something that had been flushed is lost.

        The transaction under way is found whole or not at all. (Those waiting behind it were in memory only; that one of
        them is found is as if the crash had come a moment later, before anybody was told.)
        """
        under_way = [self._flushing, *([effect] for effect in self._waiting)] if self._loaded else []
        for group in under_way[: self._rng.randint(0, len(under_way))]:
            if not all(self._apply(effect.writes) for effect, _ in group):
                break
        lost = False
        if power:
            since_s = self._world.now_s - self.lies_s
            while self._lately and self._lately[-1][0] > since_s:
                self._durable, lost = self._lately.pop()[1], True
        self._forget()
        self._loaded = False
        return lost

    def snapshot(self) -> Durable:
        """A copy of what is flushed: a backup, or what an old disk will bring back."""
        return Durable(dict(self._durable.records), dict(self._durable.cells))

    def cell(self, name: str) -> bytes | None:
        """The named value that is flushed now."""
        return self._durable.cells.get(name)

    def restore(self, durable: Durable) -> None:
        """Another disk (an older copy, or an empty one) stands in its place. Only while no process uses it."""
        self._forget()
        self._loaded = False
        self._lately.clear()
        self._durable = Durable(dict(durable.records), dict(durable.cells))

    def fill(self) -> None:
        """From now on it takes nothing more, except what replaces or frees as much."""
        self.room_bytes = 0

    def free(self) -> None:
        """There is room again."""
        self.room_bytes = None

    # -- inside ---------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._life += 1
        self._waiting.clear()
        self._flushing.clear()

    def _flush(self) -> None:
        count = min(len(self._waiting), COMMIT_MAX)
        self._flushing = [self._waiting.popleft() for _ in range(count)]
        speed = self.speed
        seconds = speed.flush_s + (self._rng.expovariate(1 / speed.flush_s) if speed.flush_s else 0.0)
        if self._rng.random() < speed.slow_share:
            seconds += speed.slow_s
        self._world.after(seconds, self._flushed, self._life)

    def _flushed(self, life: int) -> None:
        if life != self._life:
            return
        self.flushes += 1
        if self.lies_s:
            self._remember()
        done, self._flushing = self._flushing, []
        outcomes = [(tell, self._carry_out(effect)) for effect, tell in done]
        if self._waiting:
            self._flush()
        for tell, outcome in outcomes:
            if life == self._life:
                tell(outcome)

    def _remember(self) -> None:
        since_s = self._world.now_s - self.lies_s
        while self._lately and self._lately[0][0] <= since_s:
            self._lately.popleft()
        self._lately.append((self._world.now_s, self.snapshot()))

    def _carry_out(self, effect: Persist) -> Outcome:
        if self._loaded and self._apply(effect.writes):
            return Persisted(effect.id)
        self._loaded = False
        return PersistFailed(effect.id, "the disk is full")

    def _apply(self, writes: Iterable[Write]) -> bool:
        """All of the writes or, when there is no room, none."""
        if self.room_bytes is None:
            self._durable.apply(writes)
            return True
        after = self.snapshot()
        after.apply(writes)
        growth = size_of(after) - size_of(self._durable)
        if growth > self.room_bytes:
            return False
        self.room_bytes -= growth
        self._durable = after
        return True


def size_of(durable: Durable) -> int:
    """How much it takes on a disk, in bytes, more or less."""
    records = sum(
        len(slot) + len(record.payload) + len(record.signature)
        for (_, slot), record in durable.records.items()
    )
    return records + sum(len(name) + len(value) for name, value in durable.cells.items())
