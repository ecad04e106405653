"""Whether others can reach a node, what it tells them of where, and dials that routers hold up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from colla.kernel.config import PresenceConfig
from colla.model.keys import SecretKey
from colla.node.links import iroh_links
from colla.node.links.addresses import is_public, with_port
from colla.node.links.door import Door
from colla.node.links.relay import Relay

GLOBAL = "192.88.99.7"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which somebody takes packets and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def come_from(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """Whoever connects seems to come from `origin`."""
    receive = Door._receive
    monkeypatch.setattr(Door, "_receive", lambda self, incoming, _: receive(self, incoming, origin))


def own(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    monkeypatch.setattr("colla.node.links.reachability.own_ips", lambda: (ips, ()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", "example.org:7"),
        ("example.org:4242", "example.org:4242"),
        ("203.0.113.7", "203.0.113.7:7"),
        ("2001:db8::1", "[2001:db8::1]:7"),
        ("[2001:db8::1]", "[2001:db8::1]:7"),
        ("[2001:db8::1]:4242", "[2001:db8::1]:4242"),
    ],
)
def test_an_owner_names_a_port_or_means_the_nodes(text: str, expected: str) -> None:
    assert with_port(text, 7) == expected


def test_public_is_what_the_whole_internet_knows() -> None:
    assert is_public(GLOBAL) and is_public("2a00:1450:4001:800::1")
    assert not any(
        is_public(ip) for ip in ("10.0.0.1", "100.64.0.1", "127.0.0.1", "fe80::1", "example.org", "")
    )


async def test_what_the_owner_says_comes_first_and_makes_reachable(bind, monkeypatch) -> None:
    own(monkeypatch, "192.168.1.2")
    a, _ = await bind(1)
    assert not a.reachable()
    a.tell_address("example.org")
    assert a.reachable()
    assert a.my_addresses()[0] == f"example.org:{a.port}"
    a.tell_address("")
    assert not a.reachable() and "example.org" not in str(a.my_addresses())


async def test_a_global_ipv4_address_of_its_own_makes_reachable_and_ipv6_does_not(bind, monkeypatch) -> None:
    a, _ = await bind(1)
    own(monkeypatch, "192.168.1.2", "2a00:1450:4001:800::1")
    assert not a.reachable()
    own(monkeypatch, "192.168.1.2", GLOBAL)
    assert a.reachable()


async def test_who_gets_through_unasked_proves_that_others_can(bind, monkeypatch) -> None:
    own(monkeypatch, "192.168.1.2")
    come_from(monkeypatch, f"{GLOBAL}:4100")
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    assert await b.dial(a.node_id, (f"127.0.0.1:{a.port}",))
    await a_heard.until(a.reachable)
    own(monkeypatch, "10.9.8.7")
    assert not a.reachable(), "on another network nothing is proven"


@pytest.mark.parametrize("origin", ["192.168.1.9:4100", "[fe80::1]:4100"])
async def test_a_neighbour_proves_nothing(bind, monkeypatch, origin: str) -> None:
    own(monkeypatch, "192.168.1.2")
    come_from(monkeypatch, origin)
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    assert await b.dial(a.node_id, (f"127.0.0.1:{a.port}",))
    await a_heard.until(lambda: b.node_id in a_heard.up)
    assert not a.reachable()


async def test_who_was_spoken_to_before_proves_nothing(bind, monkeypatch) -> None:
    """The router may have let them in as an answer."""
    own(monkeypatch, "192.168.1.2")
    come_from(monkeypatch, f"{GLOBAL}:4100")
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    third = SecretKey(bytes([3]) * 32).public
    assert not await a.dial(third, (f"{GLOBAL}:9",), timeout_s=0.05)
    assert await b.dial(a.node_id, (f"127.0.0.1:{a.port}",))
    await a_heard.until(lambda: b.node_id in a_heard.up)
    assert not a.reachable()


async def test_a_dial_that_does_not_get_through_at_once_is_told(bind, silent) -> None:
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    dialling = asyncio.create_task(a.dial(b.node_id, (silent,), timeout_s=1.0))
    await a_heard.until(lambda: a_heard.slow == [b.node_id])
    assert not await dialling


async def test_a_quick_dial_is_not_called_slow(bind) -> None:
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    assert await a.dial(b.node_id, (f"127.0.0.1:{b.port}",))
    await asyncio.sleep(2 * iroh_links.SLOW_DIAL_S)
    assert a_heard.slow == []


async def test_an_address_learnt_during_a_dial_is_tried_at_once(bind, silent) -> None:
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    dialling = asyncio.create_task(a.dial(b.node_id, (silent,)))
    await a_heard.until(lambda: a_heard.slow == [b.node_id])
    started = asyncio.get_running_loop().time()
    a.note_addresses(b.node_id, (f"127.0.0.1:{b.port}",))
    assert await dialling
    assert asyncio.get_running_loop().time() - started < iroh_links.DIAL_TIMEOUT_S / 2


async def test_who_is_dialled_in_vain_is_known_until_a_link_is_up(bind, silent, monkeypatch) -> None:
    monkeypatch.setattr(iroh_links, "DIAL_TIMEOUT_S", 0.2)
    (a, a_heard), (b, _) = await bind(1), await bind(2)
    assert not await a.dial(b.node_id, (silent,), timeout_s=0.5)
    assert a.unreached() == (b.node_id,)
    assert await b.dial(a.node_id, (f"127.0.0.1:{a.port}",))
    await a_heard.until(lambda: b.node_id in a_heard.up)
    assert a.unreached() == ()


async def test_many_interfaces_do_not_push_the_relay_out(bind, monkeypatch) -> None:
    relay = Relay(lambda _: True)
    await relay.start("127.0.0.1", 0)
    url = f"http://127.0.0.1:{relay.port}/"
    a, _ = await bind(1, host="0.0.0.0")
    own(monkeypatch, *(f"10.0.0.{number}" for number in range(40)))
    assert await a.use_relay(url)
    addresses = a.my_addresses()
    await relay.close()
    assert len(addresses) <= PresenceConfig().addresses_max
    assert f"relay:{url}" in addresses
