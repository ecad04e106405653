"""Large, live and two-way traffic through the gateway: nothing is held in memory, nothing live is held back."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

import aiohttp
import pytest
from aiohttp import web

from colla.access import attempt, inbound, outbound

MIB = 1024 * 1024
PIECE = bytes(range(256)) * 256


async def test_fifty_mebibytes_down_without_holding_them(access, group):
    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(50 * MIB)})
        await response.prepare(request)
        for _ in range(50 * MIB // len(PIECE)):
            await response.write(PIECE)
        return response

    await group.add(large)
    gc.collect()
    tracemalloc.start()
    async with access.ask() as answer:
        size = 0
        async for piece in answer.content.iter_any():
            assert piece[:1] == PIECE[size % 256 : size % 256 + 1]
            size += len(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 50 * MIB and most < 6 * MIB


@pytest.mark.parametrize("known_length", [True, False])
async def test_fifty_mebibytes_up_without_holding_them(access, group, known_length):
    async def count(request: web.Request) -> web.Response:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.Response(text=str(size))

    async def pieces():
        for _ in range(50 * MIB // len(PIECE)):
            yield PIECE

    replica = await group.add(count)
    headers = {"Content-Length": str(50 * MIB)} if known_length else {}
    gc.collect()
    tracemalloc.start()
    async with access.ask("/", "PUT", data=pieces(), headers=headers) as answer:
        assert await answer.text() == str(50 * MIB)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * MIB and len(replica.requests) == 1


async def test_a_slow_client_slows_the_replica_down(access, group, eventually):
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(PIECE)
            written += len(PIECE)

    replica = await group.add(endless)
    reader, writer = await access.raw(b"GET / HTTP/1.1\r\nHost: blog.localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    seen = -1
    while seen != written:  # until back-pressure has reached the program
        seen = written
        await asyncio.sleep(0.3)
    assert 0 < written < 24 * MIB
    writer.transport.abort()
    await eventually(lambda: replica.aborted == 1)


async def test_a_client_that_takes_nothing_is_cut_off(access, group, monkeypatch, eventually):
    monkeypatch.setattr(outbound, "CLIENT_STALL_S", 0.2)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(PIECE)

    replica = await group.add(endless)
    _, writer = await access.raw(b"GET / HTTP/1.1\r\nHost: blog.localhost\r\n\r\n")
    await eventually(lambda: replica.aborted == 1)
    writer.transport.abort()


async def test_a_client_that_stops_sending_is_told(access, group, monkeypatch):
    monkeypatch.setattr(inbound, "CLIENT_SILENCE_S", 0.2)

    async def wait(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    replica = await group.add(wait)
    for size in (100, 10 * MIB):
        reader, writer = await access.raw(
            b"PUT / HTTP/1.1\r\nHost: blog.localhost\r\nContent-Length: %d\r\n\r\nbegin" % size
        )
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
    assert len(replica.requests) <= 1 and group.failed == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/event-stream"},
        {"Content-Type": "application/x-ndjson; charset=utf-8"},
        {"Content-Type": "text/plain", "X-Accel-Buffering": "no"},
        {"Content-Type": "audio/ogg"},
    ],
)
async def test_live_answers_pass_at_once(access, group, headers, monkeypatch):
    # With a stall bound that never comes, only the recognition of the type can let it pass.
    monkeypatch.setattr(attempt, "STALL_S", 1000.0)
    go_on = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await go_on.wait()
        await response.write(b"data: two\n\n")
        return response

    await group.add(events)
    async with asyncio.timeout(1.5), access.ask() as answer:
        assert await answer.content.readany() == b"data: one\n\n"
        go_on.set()
        assert await answer.content.read() == b"data: two\n\n"


async def test_an_answer_that_pauses_is_passed_on_as_it_comes(access, group):
    go_on = asyncio.Event()

    async def pausing(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    replica = await group.add(pausing)
    started = time.monotonic()
    async with access.ask() as answer:
        assert await answer.content.readany() == b"first"
        assert 0.25 <= time.monotonic() - started < 1.5
        go_on.set()
        assert await answer.content.read() == b"second"
    async with access.ask() as answer:
        assert await answer.content.read() == b"firstsecond"
    assert replica.opened == 1, "the connection of a stream that ended well is reused"


async def test_a_stream_that_breaks_off_is_not_taken_for_whole(access, group):
    async def breaking(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10):
            await response.write(PIECE)
        assert request.transport is not None
        request.transport.abort()
        return response

    await group.add(breaking)
    with pytest.raises(aiohttp.ClientPayloadError):
        async with access.ask() as answer:
            assert answer.status == 200
            await answer.read()
    assert access.gateway.counts.broken_off == 1


async def test_an_early_answer_ends_an_upload(access, group):
    async def refuse(request: web.Request) -> web.Response:
        answer = web.Response(status=413, text="too much")
        answer.force_close()
        return answer

    await group.add(refuse)

    async def pieces():
        for _ in range(40):
            yield PIECE
            await asyncio.sleep(0.005)

    async with access.ask("/", "POST", data=pieces()) as answer:
        assert (answer.status, await answer.text()) == (413, "too much")


# ---------------------------------------------------------------------- WebSocket


async def socket_echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=1 << 24)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(f"{request.headers.get('X-Colla-Member')}: {message.data}")
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def connect(access, **options):
    headers = {"Host": f"blog.localhost:{access.port}", **options.pop("headers", {})}
    url = f"http://127.0.0.1:{access.port}/chat"
    return access.client.ws_connect(url, headers=headers, max_msg_size=1 << 24, **options)


async def test_websocket_echo(access, group, eventually):
    replica = await group.add(socket_echo)
    async with connect(access, protocols=("chat",)) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("hello")
        assert await socket.receive_str() == "ada: hello"
        large = PIECE * 64
        await socket.send_bytes(large)
        assert await socket.receive_bytes() == large
        await socket.ping()
    assert socket.close_code == 1000
    await eventually(lambda: replica.aborted == 1)


async def test_websocket_of_another_site_is_not_the_member(access, group):
    await group.add(socket_echo)
    async with connect(access, headers={"Origin": "https://evil.example"}) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "None: hello"


async def test_websocket_goes_to_a_replica_that_lives(access, group):
    group.add_broken("refuse", near=0.0)
    await group.add(socket_echo, near=1.0)
    async with connect(access) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "ada: hello"


async def test_websocket_refused_by_the_program(access, group):
    async def plain(request: web.Request) -> web.Response:
        return web.Response(status=403, text="no sockets here")

    await group.add(plain)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(access)
    assert caught.value.status == 403
    async with access.ask() as answer:
        assert answer.status == 403


async def test_websocket_ends_when_its_replica_dies(access, group):
    replica = await group.add(socket_echo)
    async with connect(access) as socket:
        await socket.send_str("hello")
        await socket.receive_str()
        await replica.kill()
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
