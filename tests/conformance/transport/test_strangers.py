"""A peer that is not accepted gets little: small frames, few bytes, no streams, a short time."""

from __future__ import annotations

import asyncio

import pytest

from colla.node.links import LinkError
from colla.node.links.strangers import STRANGER_BYTES_MAX, STRANGER_FRAME_BYTES_MAX, STRANGER_FRAMES_MAX


@pytest.fixture
async def strangers(bind):
    a, b = await bind(1), await bind(2)
    a.links.set_accepted(b.id, True)
    assert await a.links.dial(b.id, b.address)
    await b.heard.until(lambda: a.id in b.heard.up)
    return a, b


async def test_small_frames_of_a_stranger_arrive_both_ways(strangers) -> None:
    a, b = strangers
    a.links.send(b.id, b"let me in", datagram=False)
    assert await b.heard.frames_from(a.id, 1) == [b"let me in"]
    b.links.send(a.id, b"who are you?", datagram=False)
    assert await a.heard.frames_from(b.id, 1) == [b"who are you?"]


async def test_streams_of_a_stranger_are_refused(strangers) -> None:
    a, b = strangers
    stream = await a.links.open_stream(b.id, "object")
    with pytest.raises(LinkError):
        while True:
            await stream.write(bytes(1024))
            await stream.read(1)
    assert b.heard.streams.empty()
    assert b.links.counters().drops["stream_refused"] == 1
    b.links.set_accepted(a.id, True)
    await a.links.open_stream(b.id, "object")
    assert (await b.heard.streams.get())[0] == a.id


async def test_a_long_frame_of_a_stranger_ends_the_link(strangers) -> None:
    a, b = strangers
    a.links.send(b.id, bytes(STRANGER_FRAME_BYTES_MAX), datagram=False)
    a.links.send(b.id, bytes(STRANGER_FRAME_BYTES_MAX + 1), datagram=False)
    await a.heard.until(lambda: b.id in a.heard.closed)
    assert "malformed" in a.heard.closed[b.id][0]
    assert all(len(frame) <= STRANGER_FRAME_BYTES_MAX for frame in b.heard.frames.get(a.id, []))
    assert b.links.counters().drops["malformed"] == 1


@pytest.mark.parametrize(
    ("size", "count"), [(STRANGER_FRAME_BYTES_MAX, 5), (1, STRANGER_FRAMES_MAX + 1)], ids=["bytes", "frames"]
)
async def test_too_much_from_a_stranger_ends_the_link(strangers, size: int, count: int) -> None:
    a, b = strangers
    for _ in range(count):
        a.links.send(b.id, bytes(size), datagram=False)
    await a.heard.until(lambda: b.id in a.heard.closed)
    assert a.heard.closed[b.id] == ["too much before being accepted"]
    assert sum(len(frame) for frame in b.heard.frames[a.id]) <= STRANGER_BYTES_MAX
    assert len(b.heard.frames[a.id]) == count - 1


async def test_an_accepted_peer_is_free(strangers) -> None:
    a, b = strangers
    b.links.set_accepted(a.id, True)
    for _ in range(20):
        a.links.send(b.id, bytes(2 * STRANGER_FRAME_BYTES_MAX), datagram=False)
    assert len(await b.heard.frames_from(a.id, 20)) == 20


async def test_a_peer_no_longer_accepted_loses_its_streams(pair) -> None:
    a, b = pair
    mine = await a.links.open_stream(b.id, "object")
    _, _, theirs = await b.heard.streams.get()
    b.links.set_accepted(a.id, False)
    with pytest.raises(LinkError):
        await mine.read(1)
    with pytest.raises(LinkError):
        await theirs.read(1)


async def test_a_stranger_is_shown_the_door_in_time(bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.iroh_links.STRANGER_SECONDS_MAX", 0.2)
    a, b = await bind(1), await bind(2)
    a.links.set_accepted(b.id, True)
    assert await a.links.dial(b.id, b.address)
    await a.heard.until(lambda: b.id in a.heard.closed)
    assert a.heard.closed[b.id] == ["not accepted in time"]
    assert await a.links.dial(b.id, b.address)
    await b.heard.until(lambda: a.id in b.heard.up)
    b.links.set_accepted(a.id, True)
    await asyncio.sleep(0.4)
    assert a.id in b.heard.up


async def test_only_so_many_strangers_are_let_in_at_once(bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.iroh_links.STRANGERS_MAX", 1)
    door = await bind(1)
    first, second, friend = await bind(2), await bind(3), await bind(4)
    door.links.set_accepted(friend.id, True)
    for node in (first, second, friend):
        node.links.set_accepted(door.id, True)
    assert await first.links.dial(door.id, door.address)
    await door.heard.until(lambda: first.id in door.heard.up)
    assert not await second.links.dial(door.id, door.address)
    assert await friend.links.dial(door.id, door.address)
    assert door.links.counters().drops == {"too_many_strangers": 1}
