"""Virtual time: everything that will happen, in order, and a hash over all that has happened.

Invariants: time never goes back; happenings of one moment come in the order in which they were asked for; all
randomness derives from the one seed and a name, so that a new consumer of randomness disturbs no other; nothing
depends on the hashes or addresses of Python's objects. The same seed gives the same trace in every process.
"""

from __future__ import annotations

import gc
import heapq
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from blake3 import blake3

from colla.model.sharing import begin_sharing

LOOK_EVERY_S = 0.02
"""How often `run_until` looks at its condition, in virtual seconds."""
GC_THRESHOLDS = (50_000, 20, 50)
"""A world consists of long-lived small objects: looking for garbage among them at every 700 new ones costs a sixth."""

_MARK = struct.Struct("!d")


class Trace:
    """A running hash over what happened. `record` is called with bytes that tell two different runs apart."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self.entries = 0

    def record(self, at_s: float, *parts: bytes) -> None:
        self.entries += 1
        self._hasher.update(_MARK.pack(at_s) + b"".join(parts))

    def digest(self) -> str:
        """The hash so far, in hexadecimal digits."""
        return self._hasher.hexdigest()


class World:
    """The clockwork of one simulation. `now_s` is the true time, which no computer knows exactly."""

    def __init__(self, seed: int) -> None:
        begin_sharing()
        gc.set_threshold(*GC_THRESHOLDS)
        self.seed = seed
        self.now_s = 0.0
        self.trace = Trace()
        self.happened = 0
        self.rosters: dict[bytes, Any] = {}
        """What nodes have resolved, by what they held (see `protocol/membership/membership`)."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def random(self, name: str) -> Random:
        """The randomness of one part, such as `network` or `node/3`. The same name gives the same numbers again."""
        return Random(f"{self.seed}/{name}")

    def at(self, at_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Let this happen at that true time, or now if it is over. What was asked for cannot be taken back:
        whoever asks makes sure that a call which came too late does nothing.
        """
        self._serial += 1
        moment_s = at_s if at_s > self.now_s else self.now_s
        heapq.heappush(self._heap, (moment_s, self._serial, call, arguments))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Let this happen in so many seconds."""
        self.at(self.now_s + seconds, call, *arguments)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self._run_to(self.now_s + seconds)

    def run_until(
        self, condition: Callable[[], bool], within_s: float, look_every_s: float = LOOK_EVERY_S
    ) -> float | None:
        """Let time pass until the condition holds; the seconds that took, or None when it did not within the time."""
        began_s = self.now_s
        while not condition():
            left_s = began_s + within_s - self.now_s
            if left_s <= 0:
                return None
            self._run_to(self.now_s + min(look_every_s, left_s))
        return self.now_s - began_s

    def _run_to(self, until_s: float) -> None:
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_s:
            at_s, _, call, arguments = pop(heap)
            self.now_s = at_s
            self.happened += 1
            call(*arguments)
        self.now_s = max(self.now_s, until_s)
