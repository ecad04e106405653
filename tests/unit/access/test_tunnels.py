"""Tunnels and forwards: from stream to socket and back, with half-closes, refusals and broken sides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from random import Random

import pytest

from colla.access.forwards import Forwards
from colla.access.interface import TunnelError
from colla.access.ports import listen, listen_preferring, preferred_port
from colla.access.streams import TcpEndpoint, UnixEndpoint, parse_endpoint, pump
from colla.access.tunnels import TunnelHeader, encode_header, open_tunnel, read_header, serve_tunnel
from colla.model.errors import CollaError
from colla.model.ids import ReplicaId, ServiceId

HEADER = TunnelHeader(ServiceId(b"s" * 16), ReplicaId(b"r" * 16))


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, then answers: only a tunnel that passes the half-close on gets anything."""
    writer.write((await reader.read()).upper())
    await writer.drain()


async def read_all(stream) -> bytes:
    data = b""
    while piece := await stream.read(64 * 1024):
        data += piece
    return data


async def test_a_tunnel_carries_both_ways_and_half_closes(group, pair):
    replica = await group.add_raw(upper)
    here, there = pair()
    carried = []
    serving = asyncio.create_task(serve_tunnel(there, lambda service, one: replica.endpoint, carried.append))
    await open_tunnel(here, HEADER)
    await here.write(b"hello")
    await here.finish()
    assert await read_all(here) == b"HELLO"
    await serving
    assert sum(carried) == 10


async def test_large_amounts_pass_within_bounds(group, pair):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    replica = await group.add_raw(echo)
    here, there = pair(32 * 1024)
    serving = asyncio.create_task(serve_tunnel(there, lambda *_: replica.endpoint))
    await open_tunnel(here, HEADER)
    data = bytes(range(256)) * 4096 * 8

    async def send() -> None:
        await here.write(data)
        await here.finish()

    sending = asyncio.create_task(send())
    assert await read_all(here) == data
    await sending
    await serving
    assert max(here.incoming.most, here.outgoing.most) <= 64 * 1024


def refusing(code):
    def endpoint_of(service, replica):
        raise TunnelError(code)

    return endpoint_of


@pytest.mark.parametrize(
    ("endpoint_of", "code"),
    [
        (refusing("no_such_replica"), "no_such_replica"),
        (refusing("refused"), "refused"),
        (lambda *_: UnixEndpoint("/nowhere/at/all.sock"), "endpoint_refused"),
        (lambda *_: TcpEndpoint("127.0.0.1", 1), "endpoint_refused"),
    ],
)
async def test_the_opener_learns_why_it_was_refused(pair, endpoint_of, code):
    here, there = pair()
    serving = asyncio.create_task(serve_tunnel(there, endpoint_of))
    with pytest.raises(TunnelError) as caught:
        await open_tunnel(here, HEADER)
    assert caught.value.code == code
    await serving
    assert here.aborted and there.aborted


async def test_the_header_arrives_in_pieces(pair):
    here, there = pair()
    reading = asyncio.create_task(read_header(there))
    for byte in encode_header(HEADER):
        await here.write(bytes([byte]))
    assert await reading == HEADER


@pytest.mark.parametrize("data", [b"\xff\xff" + b"x" * 300, b"\x00\x00", b"\x00\x03abc", b"\x00\x05\x92"])
async def test_a_malformed_header_is_refused(pair, data):
    here, there = pair()
    serving = asyncio.create_task(serve_tunnel(there, refusing("refused")))
    await here.write(data)
    await here.finish()
    assert await here.read(10) == b"\x04"
    await serving


async def test_an_opener_waits_only_so_long_and_aborts(pair):
    here, there = pair()
    with pytest.raises(TunnelError) as caught:
        await open_tunnel(here, HEADER, timeout_s=0.05)
    assert caught.value.code == "timed_out" and here.aborted

    here, there = pair()
    opening = asyncio.create_task(open_tunnel(here, HEADER))
    await read_header(there)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled() and here.aborted

    here, there = pair()
    opening = asyncio.create_task(open_tunnel(here, HEADER))
    await read_header(there)
    await there.abort()
    with pytest.raises(TunnelError) as caught:
        await opening
    assert caught.value.code == "unreachable"


async def test_a_broken_side_breaks_the_other(pair):
    near, near_end = pair()
    far, far_end = pair()
    joined = asyncio.create_task(pump(near_end, far_end))
    await near.write(b"x")
    assert await far.read(10) == b"x"
    await far.abort()
    with pytest.raises(ConnectionError):
        await near.read(10)
    with pytest.raises(ConnectionError):
        await joined


async def test_a_killed_program_ends_the_tunnel(group, pair):
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    replica = await group.add_raw(die)
    here, there = pair()
    serving = asyncio.create_task(serve_tunnel(there, lambda *_: replica.endpoint))
    await open_tunnel(here, HEADER)
    await here.write(b"x")
    try:
        assert await here.read(10) == b""
        await here.finish()
    except ConnectionError:
        pass
    async with asyncio.timeout(2):
        await serving


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("unix:/run/a.sock", UnixEndpoint("/run/a.sock")),
        ("/run/a.sock", UnixEndpoint("/run/a.sock")),
        ("127.0.0.1:80", TcpEndpoint("127.0.0.1", 80)),
        ("tcp:localhost:8080", TcpEndpoint("localhost", 8080)),
        ("[::1]:80", TcpEndpoint("::1", 80)),
    ],
)
def test_endpoints_are_read(text, endpoint):
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", "unix:", "nothing", ":80", "a:0", "a:65536", "a:x", "a:²"])
def test_what_is_no_endpoint(text):
    with pytest.raises(ValueError, match="no endpoint"):
        parse_endpoint(text)


# ---------------------------------------------------------------------- forwards


@pytest.fixture
async def forwards(group):
    made = Forwards(group, group, Random(1))
    yield made
    await made.close()


async def shout(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_forward_leads_to_the_nearest_live_replica(group, forwards):
    refusing = group.add_broken("refuse", near=0.0)
    far = await group.add_raw(upper, near=2.0)
    near = await group.add_raw(upper, near=1.0)
    forward = await forwards.open("blog")
    assert forward.port == preferred_port(group.service)
    for _ in range(3):
        assert await shout(forward.port, b"hello") == b"HELLO"
    assert (refusing.opened, near.opened, far.opened) == (1, 3, 0)
    assert group.failed == [refusing.location.replica]


async def test_a_forward_tries_the_next_replica_beside_a_silent_one(group, forwards, monkeypatch):
    monkeypatch.setattr("colla.access.forwards.NEXT_AFTER_S", 0.1)
    group.add_broken("hang_open", near=0.0)
    await group.add_raw(upper, near=1.0)
    forward = await forwards.open("blog", 0)
    assert await shout(forward.port, b"hello") == b"HELLO"


async def test_a_forward_finds_replicas_that_are_new(group, forwards):
    group.add_broken("refuse")
    forward = await forwards.open("blog", 0)
    new = await group.add_raw(upper)
    group.locate_only(group.replicas[0])
    group.fresh = group.with_replicas(new)
    assert await shout(forward.port, b"hello") == b"HELLO"


async def test_closing_a_forward_ends_its_connections(group, forwards, eventually):
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    replica = await group.add_raw(silent)
    forward = await forwards.open("blog", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
    await eventually(lambda: replica.opened == 1 and forward.connections == 1)
    await forward.close()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert forward.connections == 0 and replica.aborted == 1 and forwards.all == ()


async def test_a_forward_to_nothing_says_so(forwards):
    with pytest.raises(CollaError) as caught:
        await forwards.open("nothing")
    assert caught.value.code == "service_unknown"


def test_ports_in_use_and_ports_preferred():
    taken = listen("127.0.0.1", 0, "a test")
    port = taken.getsockname()[1]
    with pytest.raises(CollaError) as caught:
        listen("127.0.0.1", port, "the gateway")
    assert caught.value.code == "port_in_use" and "the gateway" in caught.value.message
    other = listen_preferring("127.0.0.1", port, "a test")
    assert other.getsockname()[1] != port
    for address, number, code in [("127.0.0.1", 70000, "port_invalid"), ("192.0.2.1", 0, "address_unknown")]:
        with pytest.raises(CollaError) as caught:
            listen(address, number, "a test")
        assert caught.value.code == code
    assert isinstance(taken, socket.socket)
    taken.close()
    other.close()
