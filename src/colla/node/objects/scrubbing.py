"""Scrubbing: every stored chunk is read again and verified, all the time, slowly, so that damage is found while others
still have good copies.

One pass over all chunks takes `PASS_S` (a week) unless the store is so large or so small that the rate would leave its
bounds. Where a pass stands is written down now and then, so that a node that is on for an hour a day gets through as
well. Damage is told by the store itself, which never gives damaged bytes to anybody; the agents fetch the chunk again.

`check_all` does one pass at once, as fast as the disk allows, for who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from colla.model.ids import KEY_BYTES
from colla.model.manifest import ChunkId
from colla.node.disk import disk_errors
from colla.node.objects.problems import ChunkNotHeld, CorruptChunk
from colla.node.objects.store import ObjectStore

PASS_S = 7 * 24 * 3600.0
RATE_BYTES_S_MIN = 64 * 1024
RATE_BYTES_S_MAX = 16 * 1024 * 1024
"""A pass over more than 9 TiB takes longer than a week."""
NOTE_EVERY_S = 60.0
EMPTY_PAUSE_S = 60.0
SWEEP_EVERY_S = 3600.0
PLACE_NAME = "scrubbed"


class Checked(msgspec.Struct, frozen=True):
    """One pass: chunks and bytes that were read, and chunks that were found damaged or gone."""

    chunks: int
    size: int
    damaged: int


class Scrubber:
    """Scrubs one store until it is cancelled."""

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`folder` is where the place is noted."""
        self._store = store
        self._place_path = folder / PLACE_NAME
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Pass after pass, at the rate that `PASS_S` asks for."""
        place = self._noted()
        noted_s = swept_s = self._clock()
        while True:
            chunks = self._store.chunks()
            next_one = bisect_right(chunks, place)
            if next_one == len(chunks):
                place = ChunkId(b"")
                await self._sleep(EMPTY_PAUSE_S)
                continue
            began_s = self._clock()
            place = chunks[next_one]
            size = await self._verify(place) or 0
            now_s = self._clock()
            if now_s - noted_s >= NOTE_EVERY_S:
                noted_s = now_s
                await asyncio.to_thread(self._note, place)
            if now_s - swept_s >= SWEEP_EVERY_S:
                swept_s = now_s
                await self._store.sweep()
            await self._sleep(max(0.0, size / self.rate_bytes_s() - (now_s - began_s)))

    def rate_bytes_s(self) -> float:
        """How fast a pass goes now, on average."""
        return min(max(self._store.total_bytes() / PASS_S, RATE_BYTES_S_MIN), RATE_BYTES_S_MAX)

    async def check_all(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Checked:
        """Read everything once, now. `on_progress` gets the bytes read and those in all."""
        total_bytes = self._store.total_bytes()
        chunks = size = damaged = 0
        for chunk in self._store.chunks():
            read = await self._verify(chunk)
            if read is not None:
                chunks += 1
                size += read
                damaged += not read
            on_progress(size, total_bytes)
        return Checked(chunks, size, damaged)

    async def _verify(self, chunk: ChunkId) -> int | None:
        """Read one chunk; its length, or 0 when it is damaged. None: it was removed meanwhile, which is no damage."""
        if not self._store.has_chunk(chunk):
            return None
        with contextlib.suppress(CorruptChunk, ChunkNotHeld):
            return await self._store.scrub_chunk(chunk)
        return 0

    def _noted(self) -> ChunkId:
        with contextlib.suppress(OSError):
            noted = self._place_path.read_bytes()
            if len(noted) == KEY_BYTES:
                return ChunkId(noted)
        return ChunkId(b"")

    def _note(self, place: ChunkId) -> None:
        with disk_errors(self._place_path):
            self._place_path.write_bytes(place)
