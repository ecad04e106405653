"""One put: chunks go to the writers' threads, few at a time, and are needed until the object is held.

Without a journal nothing of a put that fails stays. With one (`unfinished`), what was stored stays needed when the
put is interrupted, so that the same put goes on there; what the disk has no room for is not worth keeping.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import ObjectId
from colla.model.manifest import Built, ChunkId, Piece
from colla.node.objects.shelf import Shelf
from colla.node.objects.sources import Store
from colla.node.objects.unfinished import Journal

WRITES_WAITING_MAX = 8
"""Chunks in memory per put (8 MiB): reading the source waits for the disk."""
REPORT_BYTES = 8 * 1024 * 1024
"""Progress is told after so many bytes, not after each chunk: the loop has other work."""
NOT_WORTH_KEEPING = ("disk_full", "quota_exceeded")


class Progress(msgspec.Struct, frozen=True):
    """How far a put or a fetch is, in bytes of content."""

    done_bytes: int
    total_bytes: int


class Stored(msgspec.Struct, frozen=True):
    """The outcome of a put: the object, durable on this disk; the bytes of its content and its number of files.

    Of a sealed object `content_bytes` are those before sealing, and `key` opens it.
    """

    object: ObjectId
    size: int
    files: int
    content_bytes: int = 0
    key: bytes = b""


OnProgress = Callable[[Progress], None]


class Put:
    """Made on the loop, run on a thread."""

    def __init__(
        self,
        shelf: Shelf,
        writers: ThreadPoolExecutor,
        on_progress: OnProgress | None,
        journal: Journal | None = None,
    ) -> None:
        self._shelf = shelf
        self._writers = writers
        self._on_progress = on_progress
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._told_bytes = 0
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let it end soon: with a journal it may go on later, without one it takes back what it did."""
        self._stopped.set()

    def run(self, total_bytes: int, cut: Callable[[Store], Built]) -> Built:
        """Store what `cut` yields and hold it as an object."""
        needed: list[ChunkId] = []
        writing: deque[Future[bool]] = deque()
        done_bytes = 0

        def store(piece: Piece) -> None:
            nonlocal done_bytes
            self._check_stopped()
            if self._journal is not None:
                self._journal.add(piece.id)
            else:
                self._shelf.need(piece.id)
                needed.append(piece.id)
            writing.append(self._writers.submit(self._shelf.add, piece.id, piece.data))
            if len(writing) > WRITES_WAITING_MAX:
                writing.popleft().result()
            done_bytes = min(done_bytes + len(piece.data), total_bytes)
            self._report(done_bytes, total_bytes)

        self._shelf.check_put(total_bytes)
        keep = False
        try:
            built = cut(store)
            while writing:
                writing.popleft().result()
            self._shelf.hold(built)
        except CollaError as error:
            keep = error.code not in NOT_WORTH_KEEPING
            raise
        finally:
            for future in writing:
                # A failure came before; those still on their way must end before their chunks are released.
                future.exception()
            for chunk in needed:
                self._shelf.release(chunk)
            if self._journal is not None and keep:
                self._journal.pause()
            elif self._journal is not None:
                self._shelf.unfinished.end(self._journal)
        return built

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise CollaError("stopped", "The put was stopped.", "Put it again: it goes on where it stopped.")

    def _report(self, done_bytes: int, total_bytes: int) -> None:
        whole = done_bytes == total_bytes
        if self._on_progress is not None and (whole or done_bytes - self._told_bytes >= REPORT_BYTES):
            self._told_bytes = done_bytes
            self._loop.call_soon_threadsafe(self._on_progress, Progress(done_bytes, total_bytes))
