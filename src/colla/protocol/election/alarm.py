"""One wake-up that moves: many mechanisms need "look again at the earliest of these moments".

Invariant: at most one timer counts at a time, the earliest asked for since the last ring; all others are stale.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from colla.kernel.messages import Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant


class Alarm:
    """Wakes its owner at the earliest moment asked for. Timers are never cancelled; the epoch proves them stale."""

    def __init__(self, outbox: Outbox, make: Callable[[int], Timer]) -> None:
        self._outbox = outbox
        self._make = make
        self._epoch = 0
        self._at_s = inf

    def set(self, at_s: float, now: Instant) -> None:
        """Ring at `at_s` (boot clock) or earlier."""
        if at_s >= self._at_s:
            return
        self._at_s = at_s
        self._epoch += 1
        self._outbox.wake_in(max(0.0, at_s - now.boot_s), self._make(self._epoch), now)

    def clear(self) -> None:
        """There is nothing to look at any more: what was set is stale."""
        self._at_s = inf

    def rang(self, epoch: int) -> bool:
        """Whether the timer with this epoch is the one that counts; it is used up then."""
        if epoch != self._epoch or self._at_s == inf:
            return False
        self._at_s = inf
        return True
