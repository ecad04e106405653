"""One link per peer, whoever dials, whatever restarts; and dialling never takes long."""

from __future__ import annotations

import asyncio
import time

import pytest

DEAD = "127.0.0.1:9"


async def test_a_dial_says_where_the_peer_is_seen(pair) -> None:
    a, b = pair
    for one, other in ((a, b), (b, a)):
        # It may be another of the peer's addresses than the one dialled, as both tell each other theirs.
        seen = one.heard.up[other.id]
        assert seen and all(address.endswith(f":{other.links.port}") for address in seen)
        path = one.links.path(other.id)
        assert path is not None and path.direct and path.address.endswith(f":{other.links.port}")


async def test_dialling_again_keeps_the_link(pair) -> None:
    a, b = pair
    assert await a.links.dial(b.id, b.address)
    assert await b.links.dial(a.id, a.address)
    assert a.heard.opened == {b.id: 1} and b.heard.opened == {a.id: 1}


@pytest.mark.parametrize("seeds", [(1, 2), (2, 1)])
async def test_both_dialling_at_once_keeps_one_link_and_every_frame(bind, befriend, seeds) -> None:
    for turn in range(10):
        a, b = await bind(seeds[0] + 2 * turn), await bind(seeds[1] + 2 * turn)
        befriend(a, b)
        a.links.note_addresses(b.id, b.address)
        b.links.note_addresses(a.id, a.address)
        for number in range(50):
            a.links.send(b.id, b"a%d" % number, datagram=False)
            b.links.send(a.id, b"b%d" % number, datagram=False)
        assert all(await asyncio.gather(a.links.dial(b.id, b.address), b.links.dial(a.id, a.address)))
        assert await b.heard.frames_from(a.id, 50) == [b"a%d" % number for number in range(50)]
        assert await a.heard.frames_from(b.id, 50) == [b"b%d" % number for number in range(50)]
        assert a.heard.opened == {b.id: 1} and b.heard.opened == {a.id: 1}
        assert not a.heard.closed and not b.heard.closed


@pytest.mark.parametrize("restarted", [1, 2])
async def test_a_peer_that_restarted_on_its_port_is_linked_again(bind, befriend, restarted) -> None:
    """Its last breath (the close) may never have arrived: the new incarnation wins over the old link."""
    stays, leaves = await bind(3 - restarted), await bind(restarted)
    befriend(stays, leaves)
    assert await stays.links.dial(leaves.id, leaves.address)
    port = leaves.links.port
    await leaves.links.close()
    again = await bind(restarted, port)
    befriend(stays, again)
    assert again.links.port == port
    await stays.heard.until(lambda: stays.heard.closed.get(again.id) == ["the node has stopped"])
    stays.links.send(again.id, b"welcome back", datagram=False)
    assert await again.heard.frames_from(stays.id, 1) == [b"welcome back"]
    again.links.send(stays.id, b"thanks", datagram=False)
    assert await stays.heard.frames_from(again.id, 1) == [b"thanks"]


@pytest.mark.parametrize("copied", [1, 2])
async def test_a_new_incarnation_replaces_a_link_that_still_looks_alive(bind, befriend, copied) -> None:
    stays, old = await bind(3 - copied), await bind(copied)
    befriend(stays, old)
    assert await stays.links.dial(old.id, old.address)
    new = await bind(copied)
    befriend(stays, new)
    assert await new.links.dial(stays.id, stays.address)
    await stays.heard.until(lambda: stays.heard.opened == {new.id: 2})
    new.links.send(stays.id, b"from the new one", datagram=False)
    assert await stays.heard.frames_from(new.id, 1) == [b"from the new one"]
    await old.heard.until(lambda: stays.id in old.heard.closed)


async def test_a_dead_address_is_given_up_in_time(bind) -> None:
    a, b = await bind(1), await bind(2)
    begun = time.monotonic()
    assert not await a.links.dial(b.id, (DEAD,), timeout_s=0.4)
    assert time.monotonic() - begun < 2
    assert a.links.path(b.id) is None


async def test_frames_for_a_dead_address_are_counted_once_the_dial_is_over(bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.iroh_links.DIAL_TIMEOUT_S", 0.3)
    a, b = await bind(1), await bind(2)
    a.links.note_addresses(b.id, (DEAD,))
    a.links.send(b.id, b"hello?", datagram=False)
    assert not await a.links.dial(b.id, ())
    assert a.links.counters().drops == {"unreachable": 1}
    assert a.links.counters().dials_failed == 1


async def test_all_addresses_are_tried_at_once(bind, befriend) -> None:
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    many = (DEAD, "nonsense", "192.0.2.250:7", "no-such-name.invalid:7", *b.address, "[::1]:9")
    begun = time.monotonic()
    assert await a.links.dial(b.id, many)
    assert time.monotonic() - begun < 2


async def test_names_are_resolved(bind, befriend) -> None:
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    assert await a.links.dial(b.id, (f"localhost:{b.links.port}",))


async def test_new_addresses_help_a_dial_under_way(bind, befriend) -> None:
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    first = asyncio.create_task(a.links.dial(b.id, (DEAD,)))
    await asyncio.sleep(0)
    assert await a.links.dial(b.id, b.address, timeout_s=2)
    assert await first


async def test_close_link_ends_a_dial(bind) -> None:
    a, b = await bind(1), await bind(2)
    dialling = asyncio.create_task(a.links.dial(b.id, (DEAD,)))
    await asyncio.sleep(0)
    a.links.close_link(b.id, "changed my mind")
    async with asyncio.timeout(1):
        assert not await dialling


async def test_another_node_at_the_address_is_not_the_peer(bind, befriend) -> None:
    a, b, c = await bind(1), await bind(2), await bind(3)
    befriend(a, b, c)
    assert not await a.links.dial(b.id, c.address, timeout_s=0.5)
    assert not a.heard.up and not c.heard.up


async def test_one_does_not_dial_oneself(bind) -> None:
    a = await bind(1)
    assert not await a.links.dial(a.id, a.address)


async def test_closing_in_the_middle_of_a_dial_is_quick(bind) -> None:
    a, b = await bind(1), await bind(2)
    dialling = asyncio.create_task(a.links.dial(b.id, (DEAD,)))
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await a.links.close()
    assert not await dialling


async def test_after_closing_nothing_works_and_nothing_raises(pair) -> None:
    a, b = pair
    await a.links.close()
    await a.links.close()
    a.links.send(b.id, b"x", datagram=False)
    assert not await a.links.dial(b.id, b.address)
    assert a.links.my_addresses() == ()
