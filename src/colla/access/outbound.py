"""From a replica's answer to the client: whole, streamed, or switched to another protocol.

Owns nothing beyond one answer. Invariants: an answer that ends early is never ended cleanly towards the client, so that
nobody takes it for whole; a slow client slows the replica down instead of filling memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from aiohttp import web

from colla.access.attempt import Attempt, Phase
from colla.access.http1 import Headers
from colla.access.interface import ByteStream

CLIENT_STALL_S = 120.0
"""How long a client may take no more of a streamed answer before it is cut off."""
TUNNELLED_BYTES_MAX = 256 * 1024
"""How much of what a WebSocket client sends is read ahead of the replica."""
PIECE_BYTES = 64 * 1024


async def give(request: web.BaseRequest, attempt: Attempt, extra: Headers) -> web.StreamResponse:
    """Pass the answer on, with `extra` headers.

    When it breaks off midway the client's connection is closed, and `attempt.failure` says why if the replica did it.
    """
    head = attempt.head
    assert head is not None
    headers = head.headers + extra
    if not any(name.lower() == "server" for name, _ in headers):
        headers.append(("Server", "colla"))
    if attempt.phase is Phase.WHOLE:
        # The replica is free again before the client, however slow, has read a byte.
        attempt.end()
        return web.Response(status=head.status, reason=head.reason, headers=headers, body=attempt.kept)
    if head.status == 101:
        return await _switch(request, attempt, headers)
    response = web.StreamResponse(status=head.status, reason=head.reason, headers=headers)
    await response.prepare(request)
    if not request.content.at_eof():
        # The answer came before the request was read to its end: this connection cannot carry another one.
        response.force_close()
    try:
        async for piece in attempt.pieces_from_now_on():
            await _write(response, piece)
        await response.write_eof()
    except ConnectionError:
        _cut_off(request, response)
    return response


def _cut_off(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Close the client's connection short of the answer's end, so that it cannot be taken for whole."""
    response.force_close()
    if request.transport is not None:
        request.transport.close()


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    try:
        async with asyncio.timeout(CLIENT_STALL_S):
            await response.write(piece)
    except TimeoutError:
        raise ConnectionResetError("the client takes no more") from None


class _Switched(web.StreamResponse):
    """A 101 after which raw bytes follow: no framing may be added to them."""

    _length_check = False


class _FromClient:
    """What the client sends after the switch, fed by aiohttp as if this were its WebSocket parser."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._protocol = request.protocol
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._arrived = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._pieces.append(bytes(data))
        self._size += len(data)
        self._arrived.set()
        if self._size > TUNNELLED_BYTES_MAX and not self._paused:
            self._paused = True
            self._protocol.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._ended = True
        self._arrived.set()

    async def read(self) -> bytes:
        """The next piece, `b""` at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._paused and self._size <= TUNNELLED_BYTES_MAX // 2:
            self._paused = False
            self._protocol.resume_reading()
        return piece


async def _switch(request: web.BaseRequest, attempt: Attempt, headers: Headers) -> web.StreamResponse:
    head = attempt.head
    assert head is not None
    stream, begun = attempt.take_stream()
    sending: asyncio.Task[None] | None = None
    response = _Switched(status=101, reason=head.reason, headers=headers)
    try:
        await response.prepare(request)
        from_client = _FromClient(request)
        request.protocol.set_parser(cast(Any, from_client))
        sending = asyncio.create_task(_send(from_client, stream))
        while begun or (begun := await stream.read(PIECE_BYTES)):
            await _write(response, begun)
            begun = b""
    except ConnectionError:
        _cut_off(request, response)
    finally:
        if sending is not None:
            sending.cancel()
        await stream.abort()
    response.force_close()
    return response


async def _send(source: _FromClient, stream: ByteStream) -> None:
    try:
        while piece := await source.read():
            await stream.write(piece)
        await stream.finish()
    except ConnectionError:
        # Aborting makes the reading side, which answers for the whole, see it too.
        await stream.abort()
