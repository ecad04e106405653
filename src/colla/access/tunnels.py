"""The two ends of a tunnel: how a stream between two nodes becomes a connection to one replica.

The opening side sends a header, `length (2 bytes, big-endian) · TunnelHeader in msgpack`; the serving side answers
one byte, 0 for connected or a code; from then on the stream carries the replica's bytes both ways. Works over any
`ByteStream`: a stream of an encrypted link, or a pair in memory.

Invariants: lengths are checked before memory is taken; the opening side sends nothing else before the answer, so
an unopened tunnel has had no effect; a tunnel that ends leaves neither side open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from colla.access.interface import ByteStream, TunnelError, TunnelErrorCode
from colla.access.streams import Endpoint, connect, pump
from colla.model.errors import UNDECODABLE
from colla.model.ids import ReplicaId, ServiceId

HEADER_BYTES_MAX = 256
OPEN_TIMEOUT_S = 5.0
"""How long the opening side waits for the answer, whatever its caller would wait."""
HEADER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
"""How long the serving side tries to reach the replica's endpoint."""

CONNECTED = b"\x00"
_CODE_OF_BYTE: dict[bytes, TunnelErrorCode] = {
    b"\x01": "no_such_replica",
    b"\x02": "endpoint_refused",
    b"\x03": "refused",
    b"\x04": "malformed",
    b"\x05": "timed_out",
}
_BYTE_OF_CODE = {code: byte for byte, code in _CODE_OF_BYTE.items()}

EndpointOf = Callable[[ServiceId, ReplicaId], Endpoint]
"""Gives the endpoint of a replica that runs here. Raises `TunnelError` (`no_such_replica`, `refused`)."""


class TunnelHeader(msgspec.Struct, frozen=True, array_like=True):
    """The first thing on a tunnel: to which replica it shall lead."""

    service: ServiceId
    replica: ReplicaId


_decode = msgspec.msgpack.Decoder(TunnelHeader).decode


def encode_header(header: TunnelHeader) -> bytes:
    """The header's bytes on the wire, its length first."""
    body = msgspec.msgpack.encode(header)
    return len(body).to_bytes(2, "big") + body


async def open_tunnel(stream: ByteStream, header: TunnelHeader, timeout_s: float = OPEN_TIMEOUT_S) -> None:
    """Turn a fresh stream into a connection to a replica. On any failure the stream is aborted.

    Raises `TunnelError`: the serving side's code, `timed_out`, or `unreachable` when the stream broke.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await stream.write(encode_header(header))
            answer = await stream.read(1)
    except TimeoutError:
        await stream.abort()
        raise TunnelError("timed_out", "the node of the replica did not answer") from None
    except ConnectionError as error:
        await stream.abort()
        raise TunnelError("unreachable", str(error)) from error
    except asyncio.CancelledError:
        await stream.abort()
        raise
    if answer == CONNECTED:
        return
    await stream.abort()
    if not answer:
        raise TunnelError("unreachable", "the node of the replica closed the tunnel")
    raise TunnelError(_CODE_OF_BYTE.get(answer, "malformed"))


async def read_header(stream: ByteStream) -> TunnelHeader:
    """The header from a fresh stream. Raises `TunnelError("malformed")`, also when the stream ends early."""
    length = int.from_bytes(await _exactly(stream, 2), "big")
    if not 0 < length <= HEADER_BYTES_MAX:
        raise TunnelError("malformed", f"a tunnel header of {length} bytes")
    try:
        return _decode(await _exactly(stream, length))
    except UNDECODABLE as error:
        raise TunnelError("malformed", str(error)) from error


async def serve_tunnel(
    stream: ByteStream,
    endpoint_of: EndpointOf,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """The executor's side: read the header, connect to the replica, answer, and carry bytes until both ends are done.

    Returns when the tunnel has ended, however it ended; what went wrong is told to the peer, not raised.
    `on_bytes(count)` reports what was carried, in both directions together.
    """
    try:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            header = await read_header(stream)
        try:
            replica = await connect(endpoint_of(header.service, header.replica), CONNECT_TIMEOUT_S)
        except TunnelError:
            raise
        except TimeoutError:
            raise TunnelError("timed_out") from None
        except ConnectionError as error:
            raise TunnelError("endpoint_refused", str(error)) from error
    except TunnelError as error:
        await _refuse(stream, error.code)
    except (TimeoutError, ConnectionError, asyncio.CancelledError) as error:
        await stream.abort()
        if isinstance(error, asyncio.CancelledError):
            raise
    else:
        await _carry(stream, replica, on_bytes)


async def _carry(stream: ByteStream, replica: ByteStream, on_bytes: Callable[[int], None] | None) -> None:
    try:
        await stream.write(CONNECTED)
        await pump(stream, replica, on_bytes)
    except ConnectionError:
        # The pump has aborted both; the side that still lives learns it from that.
        await asyncio.gather(stream.abort(), replica.abort())
    except asyncio.CancelledError:
        await asyncio.gather(stream.abort(), replica.abort())
        raise


async def _refuse(stream: ByteStream, code: TunnelErrorCode) -> None:
    try:
        await stream.write(_BYTE_OF_CODE.get(code, _BYTE_OF_CODE["malformed"]))
        await stream.finish()
        # The opener aborts when it has read the answer; aborting here first could overtake that answer.
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            while await stream.read(HEADER_BYTES_MAX):
                pass
    except (ConnectionError, TimeoutError):
        pass
    finally:
        await stream.abort()


async def _exactly(stream: ByteStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.read(count - len(data))
        if not piece:
            raise TunnelError("malformed", "the tunnel ended within its header")
        data += piece
    return data
