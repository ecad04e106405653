"""Counting what goes through the links of one process, and what is dropped and why."""

from __future__ import annotations

import logging
from collections import Counter

from colla.node.links.interface import LinkCounters

logger = logging.getLogger("colla.links")


class Tally:
    """Mutable counters; `snapshot` gives the frozen ones that others see."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "datagrams_in",
        "datagrams_out",
        "dials_failed",
        "drops",
        "frames_in",
        "frames_out",
        "links_closed",
        "links_opened",
        "stream_bytes_in",
        "stream_bytes_out",
    )

    def __init__(self) -> None:
        self.frames_in = 0
        self.frames_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.datagrams_in = 0
        self.datagrams_out = 0
        self.stream_bytes_in = 0
        self.stream_bytes_out = 0
        self.links_opened = 0
        self.links_closed = 0
        self.dials_failed = 0
        # The reasons are a fixed set of words in the code, so this cannot grow without bound.
        self.drops: Counter[str] = Counter()

    def drop(self, reason: str, count: int = 1) -> None:
        """Count something refused or lost. `reason` is one of a fixed set of words."""
        if count:
            self.drops[reason] += count

    def snapshot(self) -> LinkCounters:
        """The counters as they are now."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "drops"}
        return LinkCounters(**plain, drops=dict(sorted(self.drops.items())))
