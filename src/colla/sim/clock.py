"""What a computer believes the time to be: a boot clock that never jumps but drifts, and a wall clock that does both.

The boot clock begins at zero when the power comes on and goes on while the computer sleeps. Both clocks run on one
oscillator, whose error `drift_ppm` is in parts per million (a cheap crystal has up to 50).
"""

from __future__ import annotations

from colla.kernel.time import Instant
from colla.sim.world import World

EPOCH_S = 1_800_000_000.0
"""Unix time at the beginning of every world."""


class Clock:
    """See the module's docstring."""

    def __init__(self, world: World, drift_ppm: float = 0.0, wall_error_s: float = 0.0) -> None:
        self._world = world
        self._rate = 1.0 + drift_ppm / 1e6
        self._true_s = world.now_s
        self._boot_s = 0.0
        self._wall_less_boot_s = EPOCH_S + world.now_s + wall_error_s

    def boot_s(self) -> float:
        """The boot clock now."""
        return self._boot_s + (self._world.now_s - self._true_s) * self._rate

    def now(self) -> Instant:
        """Both clocks."""
        boot_s = self.boot_s()
        return Instant(boot_s, boot_s + self._wall_less_boot_s)

    def true_at(self, boot_s: float) -> float:
        """The true time at which the boot clock reads so much, if the drift stays as it is."""
        return self._true_s + (boot_s - self._boot_s) / self._rate

    def drift(self, ppm: float) -> None:
        """From now on the oscillator is wrong by so much."""
        self._boot_s, self._true_s = self.boot_s(), self._world.now_s
        self._rate = 1.0 + ppm / 1e6

    def jump(self, seconds: float) -> None:
        """Somebody, or NTP, sets the wall clock forward (or back)."""
        self._wall_less_boot_s += seconds

    def reboot(self) -> None:
        """The power came on: the boot clock begins anew; the battery kept the wall clock."""
        wall_s = self.now().wall_s
        self._boot_s, self._true_s = 0.0, self._world.now_s
        self._wall_less_boot_s = wall_s
