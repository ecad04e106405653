"""Byte streams over sockets, and the pump that joins two byte streams.

Owns the sockets that it opens. Invariants: nothing is buffered beyond `BUFFER_BYTES` per direction, because each
piece is written before the next one is read; the end of one direction is passed on without ending the other;
a broken side breaks the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import assert_never

import msgspec

from colla.access.interface import ByteStream

BUFFER_BYTES = 256 * 1024
"""How much one socket may read ahead of its reader."""
PIECE_BYTES = 128 * 1024
"""How much the pump carries at a time."""


class UnixEndpoint(msgspec.Struct, frozen=True, tag="unix"):
    """A replica that listens on a Unix socket."""

    path: str


class TcpEndpoint(msgspec.Struct, frozen=True, tag="tcp"):
    """A replica that listens on a TCP port of its computer."""

    address: str
    port: int


Endpoint = UnixEndpoint | TcpEndpoint


def parse_endpoint(text: str) -> Endpoint:
    """Read `unix:/path`, `/path`, `tcp:ADDRESS:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`.

    Raises `ValueError` with a sentence for people.
    """
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        return UnixEndpoint(path)
    address, colon, port = text.removeprefix("tcp:").removeprefix("//").rpartition(":")
    if not colon or not address or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no endpoint: expected unix:/path or ADDRESS:PORT")
    return TcpEndpoint(address.removeprefix("[").removesuffix("]"), int(port))


class SocketStream:
    """A `ByteStream` over one connected socket (TCP or Unix)."""

    __slots__ = ("_finished", "_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._finished = False

    async def read(self, at_most: int) -> bytes:
        data = await self._reader.read(at_most)
        if not data and self._finished:
            self._writer.close()
        return data

    async def write(self, data: bytes) -> None:
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        if self._reader.at_eof():
            self._writer.close()
        elif not self._writer.transport.is_closing():
            try:
                self._writer.write_eof()
            except OSError as error:
                raise ConnectionResetError("the connection is closed") from error

    async def abort(self) -> None:
        # After both directions have ended, what is still in the buffer must reach the other side.
        if self._finished and self._reader.at_eof():
            self._writer.close()
        else:
            self._writer.transport.abort()


async def connect(endpoint: Endpoint, timeout_s: float) -> SocketStream:
    """Connect to a replica's endpoint on this computer. Raises `ConnectionError` or `TimeoutError`."""
    try:
        async with asyncio.timeout(timeout_s):
            match endpoint:
                case UnixEndpoint(path):
                    pair = await asyncio.open_unix_connection(path, limit=BUFFER_BYTES // 2)
                case TcpEndpoint(address, port):
                    pair = await asyncio.open_connection(address, port, limit=BUFFER_BYTES // 2)
                case _:
                    assert_never(endpoint)
    except TimeoutError:
        raise
    except OSError as error:
        # A missing socket file, for instance, is a FileNotFoundError, which says the same to our callers.
        raise ConnectionRefusedError(f"nothing listens at the replica's endpoint: {error}") from error
    return SocketStream(*pair)


async def pump(one: ByteStream, other: ByteStream, on_bytes: Callable[[int], None] | None = None) -> None:
    """Carry bytes both ways until both directions have ended.

    `on_bytes(count)` is called for each piece carried. When either side breaks, both are aborted and the
    `ConnectionError` is raised; the same when cancelled.
    """

    async def carry(source: ByteStream, sink: ByteStream) -> None:
        while data := await source.read(PIECE_BYTES):
            await sink.write(data)
            if on_bytes is not None:
                on_bytes(len(data))
        await sink.finish()

    both = [asyncio.create_task(carry(one, other)), asyncio.create_task(carry(other, one))]
    try:
        await asyncio.gather(*both)
    finally:
        for direction in both:
            direction.cancel()
        await asyncio.gather(one.abort(), other.abort(), return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*both, return_exceptions=True)
