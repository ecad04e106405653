"""How long a failed (service, version) is not tried again on this node: 1 s, doubling to 60 s.

Transitions: `failed` doubles the pause; `ran` for `backoff_reset_s` or longer forgets it. At most `backoffs_max` are
remembered, the oldest is forgotten first.
"""

from __future__ import annotations

import msgspec

from colla.kernel.config import SupervisionConfig
from colla.kernel.time import Instant
from colla.model.ids import ServiceId


class Pause(msgspec.Struct):
    """The present pause and until when it lasts (boot clock)."""

    pause_s: float
    until_s: float


class Backoff:
    """See the module's docstring."""

    def __init__(self, config: SupervisionConfig) -> None:
        self._config = config
        self._pauses: dict[tuple[ServiceId, int], Pause] = {}

    def failed(self, service: ServiceId, version: int, ran_s: float, now: Instant) -> float:
        """The replica ended after `ran_s` of being ready. Returns how long to pause."""
        before = self._pauses.pop((service, version), None)
        pause_s = self._config.backoff_first_s
        if before is not None and ran_s < self._config.backoff_reset_s:
            pause_s = min(2 * before.pause_s, self._config.backoff_max_s)
        self._pauses[service, version] = Pause(pause_s, now.boot_s + pause_s)
        if len(self._pauses) > self._config.backoffs_max:
            del self._pauses[next(iter(self._pauses))]
        return pause_s

    def left_s(self, service: ServiceId, version: int, now: Instant) -> float:
        """How long not to try it yet (0: now)."""
        pause = self._pauses.get((service, version))
        return max(0.0, pause.until_s - now.boot_s) if pause is not None else 0.0

    def forget(self, service: ServiceId) -> None:
        """The service is inactive or eliminated."""
        for key in [key for key in self._pauses if key[0] == service]:
            del self._pauses[key]
