"""What two nodes say to each other to move chunks: frames on a two-way byte stream.

The one who wants sends any number of `Want`s, each a frame of a 4-byte big-endian length and msgpack. The other
answers every chunk in the order asked: a frame `Found`, followed by that many bytes, or a frame `NotHeld`. A
manifest is asked for like any chunk, since the object's id is its hash. Whoever wants ends the stream; the
other then ends it too. Every length is checked before memory is taken.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE
from colla.model.ids import KEY_BYTES
from colla.model.manifest import CHUNK_BYTES_MAX, ChunkId
from colla.node.links.interface import LinkStream

WANTED_MAX = 64
"""Chunks in one request."""
FRAME_BYTES_MAX = 4096
"""Enough for a request of `WANTED_MAX` chunks."""
READ_BYTES = 256 * 1024
_LENGTH_BYTES = 4

_Id = Annotated[ChunkId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class Want(msgspec.Struct, frozen=True, array_like=True, tag="want"):
    """Send me these chunks."""

    chunks: Annotated[tuple[_Id, ...], Meta(min_length=1, max_length=WANTED_MAX)]


class Found(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The chunk follows, so many bytes."""

    chunk: _Id
    size: Annotated[int, Meta(ge=1, le=CHUNK_BYTES_MAX)]


class NotHeld(msgspec.Struct, frozen=True, array_like=True, tag="not_held"):
    """I do not have the chunk, or no longer."""

    chunk: _Id


class BadFrame(Exception):
    """The peer broke the protocol."""


_encoder = msgspec.msgpack.Encoder()
_want_decoder = msgspec.msgpack.Decoder(Want)
_answer_decoder: msgspec.msgpack.Decoder[Found | NotHeld] = msgspec.msgpack.Decoder(Found | NotHeld)

F = TypeVar("F")


def frame(message: Want | Found | NotHeld) -> bytes:
    """The bytes of one frame."""
    data = _encoder.encode(message)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class FrameReader:
    """Reads frames and raw bytes from a stream, in order."""

    def __init__(self, stream: LinkStream, patience_s: float) -> None:
        """Whoever is silent for longer than `patience_s` where bytes are due raises `TimeoutError`."""
        self._stream = stream
        self._patience_s = patience_s
        self._left = b""
        """What was read and not taken yet."""

    async def want(self) -> Want | None:
        """The next request, or None when the peer has finished. Raises `BadFrame`, `LinkError`, `TimeoutError`."""
        return await self._frame(_want_decoder)

    async def answer(self) -> Found | NotHeld | None:
        """The next answer, or None when the peer has finished. Raises `BadFrame`, `LinkError`, `TimeoutError`."""
        return await self._frame(_answer_decoder)

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises `BadFrame` if the stream ends before, and as `want`."""
        # Joined once at the end: a buffer that grows and is cut copies every byte several times.
        parts = [self._left]
        missing = count - len(self._left)
        while missing > 0:
            data = await self._read()
            if not data:
                raise BadFrame("the stream ended in the middle")
            parts.append(data)
            missing -= len(data)
        last = parts.pop()
        used = len(last) + missing
        self._left = last[used:]
        parts.append(last[:used])
        return b"".join(parts) if len(parts) > 1 else parts[0]

    async def _read(self) -> bytes:
        async with asyncio.timeout(self._patience_s):
            return await self._stream.read(READ_BYTES)

    async def _frame(self, decoder: msgspec.msgpack.Decoder[F]) -> F | None:
        if not self._left:
            self._left = await self._read()
            if not self._left:
                return None
        length = int.from_bytes(await self.exactly(_LENGTH_BYTES), "big")
        if length > FRAME_BYTES_MAX:
            raise BadFrame(f"a frame of {length} bytes")
        try:
            return decoder.decode(await self.exactly(length))
        except UNDECODABLE as error:
            raise BadFrame(f"a frame that cannot be read: {error}") from None
