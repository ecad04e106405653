"""Giving chunks to other nodes, not faster than the owner allows.

One call of `serve_objects` answers one stream, one chunk at a time: the memory it takes is one chunk and what
the link buffers. A peer that breaks the protocol or stalls is dropped, and one may leave in the middle, since it
got the rest elsewhere; the outcome tells which, for the caller to count. The right to ask at all is the link's business: only nodes of members open streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from colla.model.manifest import ChunkId
from colla.node.links.interface import LinkError, LinkStream
from colla.node.objects.problems import ChunkNotHeld, CorruptChunk
from colla.node.objects.wire import BadFrame, Found, FrameReader, NotHeld, frame

WRITE_BYTES = 256 * 1024
"""Bytes per write: a link copies and encrypts these in one go."""
IDLE_TIMEOUT_S = 60.0
"""A peer that asks for nothing for so long can open a new stream when it wants something."""
WRITE_TIMEOUT_S = 30.0
"""A peer that takes nothing for so long is gone."""


class ChunkSource(Protocol):
    """The part of `ObjectStore` that serving needs."""

    async def read_chunk(self, chunk: ChunkId) -> bytes:
        """The verified bytes, or `ChunkNotHeld` or `CorruptChunk`."""


class Served(msgspec.Struct, frozen=True):
    """What one stream came to. `violation`: how the peer broke the protocol or stalled, or empty.

    `lost` says why the stream ended before the peer said so, which is its right.
    """

    chunks: int
    size: int
    not_held: int
    violation: str = ""
    lost: str = ""


class UploadLimiter:
    """Spreads the bytes of all streams of a node over time: at most `bytes_per_s` (None: no limit).

    Keeps the time at which everything promised so far will have been sent; who wants to send waits for it.
    Idle time is not saved up beyond `BURST_S`.
    """

    BURST_S = 0.1

    def __init__(
        self,
        bytes_per_s: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = clock()

    async def take(self, count: int) -> None:
        """Wait until `count` bytes may be sent. `bytes_per_s` can be changed at any time."""
        if not self.bytes_per_s:
            return
        now_s = self._clock()
        start_s = max(self._free_at_s, now_s - self.BURST_S)
        self._free_at_s = start_s + count / self.bytes_per_s
        if start_s > now_s:
            await self._sleep(start_s - now_s)


async def serve_objects(
    stream: LinkStream, source: ChunkSource, limiter: UploadLimiter | None = None
) -> Served:
    """Answer what the peer wants until it ends the stream, or breaks the protocol, or is gone."""
    serving = _Serving(stream, source, limiter or UploadLimiter(None))
    violation = lost = ""
    try:
        await serving.run()
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await stream.finish()
    except BadFrame as error:
        violation = str(error)
    except TimeoutError:
        violation = "it stalled"
    except LinkError as error:
        lost = str(error) or "the link was lost"
    except BaseException:
        await stream.abort()
        raise
    if violation or lost:
        await stream.abort()
    return Served(serving.chunks, serving.size, serving.not_held, violation, lost)


class _Serving:
    def __init__(self, stream: LinkStream, source: ChunkSource, limiter: UploadLimiter) -> None:
        self._stream = stream
        self._source = source
        self._limiter = limiter
        self.chunks = 0
        self.size = 0
        self.not_held = 0

    async def run(self) -> None:
        reader = FrameReader(self._stream, IDLE_TIMEOUT_S)
        while (want := await reader.want()) is not None:
            for chunk in want.chunks:
                await self._answer(chunk)

    async def _answer(self, chunk: ChunkId) -> None:
        try:
            data = await self._source.read_chunk(chunk)
        except (ChunkNotHeld, CorruptChunk):
            # The store has told its owner of damage by itself; to the peer it is the same.
            self.not_held += 1
            await self._write(frame(NotHeld(chunk)))
            return
        await self._write(frame(Found(chunk, len(data))))
        view = memoryview(data)
        for start in range(0, len(data), WRITE_BYTES):
            piece = bytes(view[start : start + WRITE_BYTES])
            await self._limiter.take(len(piece))
            await self._write(piece)
        self.chunks += 1
        self.size += len(data)

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self._stream.write(data)
