"""Bulk streams: whole, both ways, many, refused and aborted."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

import pytest

from colla.node.links import LinkError

BULK_BYTES = 64 * 1024 * 1024


async def pour(stream, data: bytes, count: int) -> None:
    for _ in range(count):
        await stream.write(data)
    await stream.finish()


async def drain(stream) -> tuple[int, str]:
    size, digest = 0, blake2b()
    while piece := await stream.read(1 << 20):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


async def opened(node) -> tuple:
    async with asyncio.timeout(20):
        return await node.heard.streams.get()


async def test_bulk_arrives_whole_in_both_directions(pair) -> None:
    a, b = pair
    there = bytes(range(256)) * 4096
    back = bytes(reversed(range(256))) * 4096
    mine = await a.links.open_stream(b.id, "object")
    peer, kind, theirs = await opened(b)
    assert (peer, kind) == (a.id, "object")
    count = BULK_BYTES // len(there)
    _, _, got_back, got_there = await asyncio.gather(
        pour(mine, there, count), pour(theirs, back, count), drain(mine), drain(theirs)
    )
    assert got_there == (BULK_BYTES, blake2b(there * count).hexdigest())
    assert got_back == (BULK_BYTES, blake2b(back * count).hexdigest())
    assert a.links.counters().stream_bytes_out == BULK_BYTES == a.links.counters().stream_bytes_in


async def test_frames_pass_beside_bulk(pair) -> None:
    a, b = pair
    mine = await a.links.open_stream(b.id, "object")
    _, _, theirs = await opened(b)
    pouring = asyncio.create_task(pour(mine, bytes(1 << 20), 32))
    a.links.send(b.id, b"urgent", datagram=False)
    assert await b.heard.frames_from(a.id, 1) == [b"urgent"]
    assert (await drain(theirs))[0] == 32 << 20
    await pouring


async def test_a_slow_reader_slows_the_writer(pair) -> None:
    a, b = pair
    mine = await a.links.open_stream(b.id, "object")
    _, _, theirs = await opened(b)
    pouring = asyncio.create_task(pour(mine, bytes(1 << 20), 64))
    done, _ = await asyncio.wait((pouring,), timeout=0.3)
    assert not done and a.links.counters().stream_bytes_out < 60 << 20
    assert (await drain(theirs))[0] == 64 << 20
    await pouring


async def test_more_streams_than_fit_wait_for_their_turn(pair) -> None:
    a, b = pair

    async def serve() -> None:
        while True:
            _, _, stream = await b.heard.streams.get()
            tasks.append(asyncio.create_task(echo(stream)))

    async def echo(stream) -> None:
        await stream.write(await stream.read(100))
        assert await stream.read(100) == b""
        await stream.finish()

    async def ask(number: int) -> bytes:
        stream = await a.links.open_stream(b.id, "echo")
        await stream.write(b"%d" % number)
        answer = await stream.read(100)
        await stream.finish()
        assert await stream.read(100) == b""
        return answer

    tasks: list[asyncio.Task] = []
    serving = asyncio.create_task(serve())
    answers = await asyncio.gather(*(ask(number) for number in range(300)))
    assert answers == [b"%d" % number for number in range(300)]
    serving.cancel()
    await asyncio.gather(*tasks)


async def test_aborting_ends_both_ends(pair) -> None:
    a, b = pair
    mine = await a.links.open_stream(b.id, "object")
    _, _, theirs = await opened(b)
    reading = asyncio.create_task(mine.read(10))
    await asyncio.sleep(0)
    await mine.abort()
    await mine.abort()
    with pytest.raises(LinkError):
        await reading
    with pytest.raises(LinkError):
        await theirs.read(10)
    with pytest.raises(LinkError):
        await mine.write(b"x")


async def test_losing_the_link_ends_its_streams(pair) -> None:
    a, b = pair
    mine = await a.links.open_stream(b.id, "object")
    _, _, theirs = await opened(b)
    reading = asyncio.create_task(mine.read(10))
    await asyncio.sleep(0)
    b.links.close_link(a.id, "enough")
    with pytest.raises(LinkError, match="enough"):
        await reading
    with pytest.raises(LinkError):
        await theirs.write(b"x")


async def test_a_stream_opens_the_link_it_needs(bind, befriend) -> None:
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    a.links.note_addresses(b.id, b.address)
    stream = await a.links.open_stream(b.id, "object")
    assert (await opened(b))[:2] == (a.id, "object")
    await stream.abort()


async def test_a_stream_to_nowhere_is_an_error(bind) -> None:
    a, b = await bind(1), await bind(2)
    with pytest.raises(LinkError, match="cannot be reached"):
        await a.links.open_stream(b.id, "object")


async def test_a_kind_must_be_short(pair) -> None:
    a, b = pair
    with pytest.raises(ValueError, match="kind"):
        await a.links.open_stream(b.id, "k" * 65)


async def test_streams_ended_give_their_place_back(pair) -> None:
    a, b = pair
    for _ in range(250):
        mine = await a.links.open_stream(b.id, "object")
        _, _, theirs = await opened(b)
        await mine.abort()
        await theirs.abort()
