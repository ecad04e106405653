"""What the client of the demo saw: reading its log as it grows, and counting. Pure but for reading the file.

A request fails when its answer is wrong, missing or later than 2 s. It counts only where a replica lived while it
was open: `Dark` intervals, in which everything was off, are left out and reported by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from colla.cli.demo.asker import Asked

LATE_S = 2.0
FAILURES_SHOWN = 3


class Dark(msgspec.Struct):
    """An interval in which nothing could answer; `until_s` is infinite as long as it lasts."""

    from_s: float
    until_s: float = float("inf")


class Tally(msgspec.Struct, frozen=True):
    """Requests of one interval. `examples` are some of the failures, in words."""

    sent: int = 0
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    longest_ms: float = 0.0
    replicas: int = 0
    examples: tuple[str, ...] = ()


class RequestLog:
    """The log file, read on as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""
        self.asked: list[Asked] = []

    def read(self) -> int:
        """Take what is new; returns how many requests ended so far."""
        if self._path.exists():
            with self._path.open("rb") as stream:
                stream.seek(self._position)
                data = stream.read()
            self._position += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.asked += [msgspec.json.decode(line, type=Asked) for line in lines if line]
        return len(self.asked)


def failure(asked: Asked) -> str:
    """Why the request counts as failed, or ""."""
    if asked.error:
        return asked.error
    return f"answered after {asked.took_s:.1f} s" if asked.took_s > LATE_S else ""


def in_the_dark(asked: Asked, dark: Sequence[Dark]) -> bool:
    """Whether the request was open while nothing could answer."""
    end_s = asked.at_s + asked.took_s
    return any(asked.at_s < each.until_s and end_s > each.from_s for each in dark)


def tally(asked: Sequence[Asked], from_s: float, until_s: float, dark: Sequence[Dark] = ()) -> Tally:
    """Count the requests sent within the interval, those in the dark left out."""
    counted = [each for each in asked if from_s <= each.at_s < until_s and not in_the_dark(each, dark)]
    if not counted:
        return Tally()
    took = sorted(each.took_s * 1000 for each in counted)
    failures = [(each, why) for each in counted if (why := failure(each))]
    return Tally(
        sent=len(counted),
        failed=len(failures),
        p50_ms=quantile(took, 0.50),
        p99_ms=quantile(took, 0.99),
        longest_ms=took[-1],
        replicas=len({each.replica for each in counted if each.replica}),
        examples=tuple(f"{each.service}: {why}" for each, why in failures[:FAILURES_SHOWN]),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the ordered values does not exceed."""
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]
