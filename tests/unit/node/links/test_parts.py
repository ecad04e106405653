"""The pure parts: addresses, queues of frames, bounds on strangers, counters."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colla.node.links import addresses
from colla.node.links.addresses import ADDRESSES_MAX, Targets, relay_url, resolve, sort_targets
from colla.node.links.frame_queue import BYTES_MAX, FRAMES_MAX, FrameQueue, FrameReader, TooLong, pack
from colla.node.links.strangers import (
    ADDRESS_BYTES_BURST,
    ADDRESS_LINKS_BURST,
    STRANGER_BYTES_MAX,
    AddressQuotas,
    Allowance,
    Bucket,
)
from colla.node.links.strangers import ADDRESSES_MAX as QUOTAS_MAX
from colla.node.links.tally import Tally


def test_addresses_are_sorted_by_kind() -> None:
    given_ = (
        "192.0.2.7:4100",
        "[2001:db8::1]:4100",
        "home.example.org:4100",
        "localhost:4100",
        "relay:http://192.0.2.7:3340",
        "[::ffff:192.0.2.8]:4100",
        "192.0.2.7:4100",
    )
    assert sort_targets(given_) == Targets(
        numeric=("192.0.2.7:4100", "[2001:db8::1]:4100", "192.0.2.8:4100"),
        names=(("home.example.org", 4100), ("localhost", 4100)),
        relays=("http://192.0.2.7:3340/",),
    )


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        "4100",
        "192.0.2.7",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "192.0.2.7:x",
        "192.0.2.7:١",
        "999.0.2.7:4100",
        "[fe80::1]:4100",
        "[fe80::1%eth0]:4100",
        "224.0.0.1:4100",
        "0.0.0.0:4100",
        "a b:4100",
        "relay:",
        "relay:ftp://x/",
        "relay:http://u:p@x/",
        "relay:http://[::1/",
        "relay:http://x:99999/",
        "x" * 400 + ":1",
    ],
)
def test_unusable_addresses_are_left_out(address: str) -> None:
    assert sort_targets((address,)) == Targets()


@given(st.text())
def test_no_text_makes_sorting_raise(text: str) -> None:
    sort_targets((text, f"relay:{text}", f"{text}:4100"))


def test_a_relay_has_one_spelling() -> None:
    spellings = ("http://Relay.example:80", "http://relay.example/", " http://relay.example/path?x ")
    assert {relay_url(text) for text in spellings} == {"http://relay.example/"}
    assert relay_url("https://[2001:db8::1]:3340") == "https://[2001:db8::1]:3340/"


async def test_names_that_do_not_resolve_have_no_addresses() -> None:
    assert await resolve("no-such-name.invalid", 1) == ()
    assert await resolve("bad..name", 1) == ()
    assert "127.0.0.1:4100" in await resolve("localhost", 4100)


def test_own_addresses_leave_out_what_others_cannot_reach(monkeypatch) -> None:
    def interface(*ips: str) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(family=socket.AF_INET6 if ":" in ip else socket.AF_INET, address=ip) for ip in ips
        ] + [SimpleNamespace(family=psutil.AF_LINK, address="02:00:00:00:00:01")]

    monkeypatch.setattr(
        psutil,
        "net_if_addrs",
        lambda: {
            "lo": interface("127.0.0.1", "::1"),
            "eth0": interface("2001:db8::5", "192.0.2.5", "fe80::1%eth0"),
            "docker0": interface("172.17.0.1"),
            "veth1": interface("172.18.0.1"),
            "wlan0": interface("192.0.2.6"),
        },
    )
    monkeypatch.setattr(
        psutil,
        "net_if_stats",
        lambda: {
            name: SimpleNamespace(isup=name != "wlan0")
            for name in ("lo", "eth0", "docker0", "veth1", "wlan0")
        },
    )
    assert addresses.own_ips() == (("192.0.2.5", "2001:db8::5"), ("172.17.0.1", "172.18.0.1"))


def test_so_many_addresses_are_dialled_and_no_more() -> None:
    assert ADDRESSES_MAX == 32


@given(st.lists(st.binary(max_size=300), max_size=30), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_frames_survive_any_cutting(frames: list[bytes], cuts: list[int]) -> None:
    data, reader, got, turn = pack(frames), FrameReader(), [], 0
    while data:
        size = cuts[turn % len(cuts)]
        got += reader.feed(data[:size], 300)
        data, turn = data[size:], turn + 1
    assert got == frames


def test_a_frame_too_long_is_refused_before_it_is_there() -> None:
    with pytest.raises(TooLong):
        list(FrameReader().feed((301).to_bytes(4, "big"), 300))
    assert list(FrameReader().feed((300).to_bytes(4, "big"), 300)) == []


def test_a_queue_refuses_what_does_not_fit() -> None:
    queue = FrameQueue()
    assert sum(queue.put(b"") for _ in range(FRAMES_MAX + 5)) == FRAMES_MAX
    assert queue.clear() == FRAMES_MAX and len(queue) == 0
    big = bytes(BYTES_MAX // 4)
    assert [queue.put(big) for _ in range(5)] == [True, True, True, True, False]
    assert queue.take(1) == [big] and queue.put(big)
    assert len(queue.take(BYTES_MAX)) == 4 and queue.take(1) == []


def test_a_bucket_refills_with_time() -> None:
    bucket = Bucket(burst=2, per_s=1, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(1, 0.5)
    assert bucket.take(1, 1.0) and not bucket.take(1, 1.0)
    assert bucket.take(2, 100.0) and not bucket.take(1, 100.0)


def test_an_allowance_ends() -> None:
    allowance = Allowance()
    assert allowance.take(STRANGER_BYTES_MAX) and not allowance.take(1)


def test_addresses_have_their_quotas_apart_and_few_are_remembered() -> None:
    quotas = AddressQuotas()
    assert all(quotas.link("192.0.2.1", 0.0) for _ in range(int(ADDRESS_LINKS_BURST)))
    assert not quotas.link("192.0.2.1", 0.0) and quotas.link("192.0.2.2", 0.0)
    assert quotas.received("192.0.2.1", int(ADDRESS_BYTES_BURST), 0.0)
    assert not quotas.received("192.0.2.1", 1, 0.0)
    for number in range(QUOTAS_MAX):
        quotas.link(f"other {number}", 0.0)
    assert len(quotas._known) == QUOTAS_MAX
    assert quotas.link("192.0.2.1", 0.0)


def test_drops_are_counted_by_reason() -> None:
    tally = Tally()
    tally.drop("queue_full")
    tally.drop("unreachable", 3)
    tally.drop("nothing", 0)
    tally.frames_in += 2
    assert tally.snapshot().drops == {"queue_full": 1, "unreachable": 3}
    assert tally.snapshot().frames_in == 2
