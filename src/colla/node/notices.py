"""What is told on this node: to its log, and to whoever follows it through the API (dashboard, demo, `events`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator

from colla.client.types import NoticeReport
from colla.kernel.effects import Notice

log = logging.getLogger("colla")

KEPT = 512
"""Notices kept for those who begin to follow later."""
ALARMING = ("database_corrupt",)
FOLLOWER_QUEUE = 256
"""A follower that is slower than this many notices loses the oldest ones."""


class Notices:
    """Keeps the newest notices and hands new ones to followers."""

    def __init__(self) -> None:
        self._kept: deque[NoticeReport] = deque(maxlen=KEPT)
        self._followers: dict[asyncio.Queue[NoticeReport | None], None] = {}
        self._news = asyncio.Event()

    def tell(self, notice: Notice, node_name: str = "") -> None:
        """Take a notice of the agents."""
        self.add(
            NoticeReport(
                time.time(), notice.kind, notice.text, notice.service.hex(), node_name or notice.node.hex()
            )
        )

    def add(self, report: NoticeReport) -> None:
        """Log and hand out one notice."""
        log.info("%s: %s", report.kind, report.text)
        self._kept.append(report)
        self._news.set()
        self._news = asyncio.Event()
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(report)

    def alarms(self) -> list[str]:
        """What was told since the start that its owner should know of, even when looking much later."""
        return [report.text for report in self._kept if report.kind in ALARMING]

    async def follow(self) -> AsyncIterator[NoticeReport]:
        """The kept notices, then new ones until `close`."""
        queue: asyncio.Queue[NoticeReport | None] = asyncio.Queue(FOLLOWER_QUEUE)
        self._followers[queue] = None
        try:
            for report in list(self._kept):
                yield report
            while (report_or_end := await queue.get()) is not None:
                yield report_or_end
        finally:
            self._followers.pop(queue, None)

    async def news(self, wait_s: float) -> None:
        """Return when something is told, or after `wait_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), wait_s)

    def close(self) -> None:
        """End all followers."""
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
