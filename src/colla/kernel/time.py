"""Two clocks, passed in with every step. Timers use `boot_s`; stamps and expiry dates use `wall_s`."""

from __future__ import annotations

import msgspec


class Instant(msgspec.Struct, frozen=True, array_like=True):
    """A moment: seconds of a clock that never jumps and goes on during suspend, and Unix time in seconds."""

    boot_s: float
    wall_s: float

    @property
    def wall_ms(self) -> int:
        return int(self.wall_s * 1000)

    def later(self, seconds: float) -> Instant:
        """The moment `seconds` from this one."""
        return Instant(self.boot_s + seconds, self.wall_s + seconds)
