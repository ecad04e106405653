"""When a periodic mechanism runs: once per iteration, where there are iterations (DESIGN section 12).

The product has none: each mechanism keeps a pace of its own, and events do most of the work. In a profile with
iterations every mechanism runs exactly once in each. `aligned`, the nodes follow their wall clocks: the iteration
begins when the wall clock is at a multiple of its length, and each mechanism has its moment within it, so that what
one finds out the next can use. Not aligned, every mechanism of every node has a moment drawn by lot.

Nothing is judged by the wall clock here; one that is wrong makes a node run its mechanisms earlier or later.
"""

from __future__ import annotations

from random import Random

from colla.kernel.config import IterationConfig
from colla.kernel.time import Instant

GRAIN_S = 1e-3
"""A timer that rings so much too early belongs to the moment that it was set for."""


class Rhythm:
    """The moments of one mechanism of one node."""

    def __init__(self, config: IterationConfig, offset_s: float, rng: Random) -> None:
        """`offset_s`: its moment within an aligned iteration."""
        self._config = config
        self._offset_s = offset_s
        if config.exist and not config.aligned:
            self._offset_s = rng.random() * config.length_s

    @property
    def given(self) -> bool:
        """Whether there are iterations; else the mechanism keeps its own pace."""
        return self._config.exist

    def wait_s(self, now: Instant) -> float:
        """How long until the mechanism's next moment, in seconds; never 0."""
        length_s = self._config.length_s
        clock_s = now.wall_s if self._config.aligned else now.boot_s
        wait_s = (self._offset_s - clock_s) % length_s
        return wait_s if wait_s > GRAIN_S else wait_s + length_s
