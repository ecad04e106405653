"""Frames: both ways, in order, reliable or as datagrams, bounded."""

from __future__ import annotations

import asyncio

from colla.node.links import FRAME_BYTES_MAX


async def test_frames_go_both_ways_in_order(pair) -> None:
    a, b = pair
    there = [b"%d" % number + b"x" * (number % 300) for number in range(3000)]
    back = [b"back %d" % number for number in range(3000)]
    for one, other in zip(there, back, strict=True):
        a.links.send(b.id, one, datagram=False)
        b.links.send(a.id, other, datagram=False)
    assert await b.heard.frames_from(a.id, 3000) == there
    assert await a.heard.frames_from(b.id, 3000) == back


async def test_the_longest_frame_and_an_empty_one_arrive(pair) -> None:
    a, b = pair
    longest = bytes(range(256)) * (FRAME_BYTES_MAX // 256)
    a.links.send(b.id, longest, datagram=False)
    a.links.send(b.id, b"", datagram=False)
    assert await b.heard.frames_from(a.id, 2) == [longest, b""]


async def test_a_frame_too_long_is_dropped_and_counted_by_its_sender(pair) -> None:
    a, b = pair
    a.links.send(b.id, bytes(FRAME_BYTES_MAX + 1), datagram=False)
    a.links.send(b.id, b"after", datagram=False)
    assert await b.heard.frames_from(a.id, 1) == [b"after"]
    assert a.links.counters().drops == {"too_long": 1}


async def test_datagrams_arrive_and_large_ones_take_the_reliable_way(pair) -> None:
    a, b = pair
    a.links.send(b.id, b"heartbeat", datagram=True)
    a.links.send(b.id, bytes(20_000), datagram=True)
    assert sorted(await b.heard.frames_from(a.id, 2)) == [bytes(20_000), b"heartbeat"]
    counted = b.links.counters()
    assert (counted.datagrams_in, counted.frames_in) == (1, 1)


async def test_send_opens_a_link_by_the_addresses_known(bind, befriend) -> None:
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    a.links.note_addresses(b.id, b.address)
    a.links.send(b.id, b"first", datagram=False)
    a.links.send(b.id, b"now or never", datagram=True)
    assert sorted(await b.heard.frames_from(a.id, 2)) == [b"first", b"now or never"]


async def test_frames_to_nowhere_are_dropped_and_counted(bind) -> None:
    a, b = await bind(1), await bind(2)
    a.links.send(b.id, b"who?", datagram=False)
    a.links.note_addresses(b.id, ())
    a.links.send(b.id, b"where?", datagram=False)
    assert a.links.counters().drops == {"unreachable": 2}


async def test_the_queue_of_a_peer_is_bounded(pair) -> None:
    a, b = pair
    frame = bytes(FRAME_BYTES_MAX)
    for _ in range(200):
        a.links.send(b.id, frame, datagram=False)
    dropped = a.links.counters().drops["queue_full"]
    assert 100 < dropped < 200
    await b.heard.frames_from(a.id, 200 - dropped)


async def test_frames_queued_before_close_link_arrive_and_the_reason_is_shown(pair) -> None:
    a, b = pair
    for number in range(1000):
        a.links.send(b.id, b"%d" % number, datagram=False)
    a.links.close_link(b.id, "you are not a member any more")
    assert a.heard.closed[b.id] == ["you are not a member any more"]
    await b.heard.until(lambda: a.id in b.heard.closed)
    assert b.heard.frames[a.id] == [b"%d" % number for number in range(1000)]
    assert b.heard.closed[a.id] == ["you are not a member any more"]
    assert a.links.path(b.id) is None


async def test_closing_sends_what_is_queued(pair) -> None:
    a, b = pair
    a.links.send(b.id, b"goodbye", datagram=False)
    await asyncio.gather(a.links.close(), b.heard.until(lambda: a.id in b.heard.closed))
    assert b.heard.frames[a.id] == [b"goodbye"]
    assert b.heard.closed[a.id] == ["the node has stopped"]


async def test_counters_say_what_went_through(pair) -> None:
    a, b = pair
    a.links.send(b.id, b"12345", datagram=False)
    await b.heard.frames_from(a.id, 1)
    sent, received = a.links.counters(), b.links.counters()
    assert (sent.frames_out, sent.bytes_out, sent.links_opened) == (1, 5, 1)
    assert (received.frames_in, received.bytes_in, received.links_opened) == (1, 5, 1)
    assert sent.drops == received.drops == {}
