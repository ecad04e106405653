"""When the next round is due: of heartbeats, or of questions where there are no heartbeats."""

from __future__ import annotations

from random import Random

from colla.kernel.config import PresenceConfig
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.protocol.presence.gossip import CLOCK_GRAIN_S


class Beats:
    """Once per heartbeat interval, or once per iteration where there are iterations."""

    def __init__(self, config: PresenceConfig, rng: Random, rhythm: Rhythm | None) -> None:
        self._interval_s = config.heartbeat_interval_s
        self._rng = rng
        self._rhythm = rhythm if rhythm is not None and rhythm.given else None
        self.next_s = 0.0

    def begin(self, now: Instant) -> None:
        """The first round, somewhere within the first interval."""
        if self._rhythm is not None:
            self.next_s = now.boot_s + self._rhythm.wait_s(now)
        else:
            self.next_s = now.boot_s + self._rng.uniform(0.0, 1.0) * self._interval_s

    def due(self, now: Instant) -> bool:
        """Whether a round is due now; then the next one is set."""
        if now.boot_s < self.next_s - CLOCK_GRAIN_S:
            return False
        if self._rhythm is not None:
            self.next_s = now.boot_s + self._rhythm.wait_s(now)
            return True
        self.next_s += self._interval_s
        if self.next_s <= now.boot_s:
            self.next_s = now.boot_s + self._interval_s
        return True
