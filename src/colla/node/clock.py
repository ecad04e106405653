"""The two clocks of a real node. The boot clock goes on during suspend where the system has such a clock."""

from __future__ import annotations

import time

from colla.kernel.time import Instant

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def boot_s() -> float:
    """Seconds of a clock that never jumps; on Linux it counts suspended time too, elsewhere as monotonic does."""
    return time.clock_gettime(_BOOT_CLOCK) if _BOOT_CLOCK is not None else time.monotonic()


def now() -> Instant:
    """This moment."""
    return Instant(boot_s(), time.time())
