"""Requests that are answered when there is something to answer, or when their time is over."""

from __future__ import annotations

from typing import Generic, TypeVar

from colla.kernel.messages import Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant

R = TypeVar("R")


class HeldDue(Timer, frozen=True):
    """The request was held back for long enough. Stale once it is answered."""

    request: int


class HeldRequests(Generic[R]):
    """A bounded number of requests that wait."""

    def __init__(self, held_max: int, wait_s_max: float, outbox: Outbox) -> None:
        self._held_max = held_max
        self._wait_s_max = wait_s_max
        self._outbox = outbox
        self._held: dict[int, R] = {}

    def hold(self, request_id: int, request: R, wait_s: float, now: Instant) -> bool:
        """Let the request wait; False when it may not, and must be answered now."""
        if wait_s <= 0.0 or len(self._held) >= self._held_max:
            return False
        self._held[request_id] = request
        self._outbox.wake_in(min(wait_s, self._wait_s_max), HeldDue(request_id), now)
        return True

    def all(self) -> list[tuple[int, R]]:
        """All that wait, in the order in which they came."""
        return list(self._held.items())

    def release(self, request_id: int) -> R | None:
        """The request waits no more; None when it did not."""
        return self._held.pop(request_id, None)
