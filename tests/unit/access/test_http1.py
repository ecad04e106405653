"""The pure parts: heads and chunks however they are cut, names, the memory of failures, the pool's bounds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colla.access import health, pool
from colla.access.health import HealthMemory
from colla.access.http1 import BrokenAnswer, ChunkedBody, Conversation, Framing, parse_head
from colla.access.interface import ReplicaLocation
from colla.access.names import ByDomain, ByName, Foreign, FrontPage, Malformed, meaning
from colla.access.pool import Connection, ConnectionPool
from colla.model.ids import NodeId, ReplicaId, ServiceId


class Cut:
    """A byte stream whose reads give exactly these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces, self.aborted = pieces, False

    async def read(self, at_most: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes) -> None: ...

    async def finish(self) -> None: ...

    async def abort(self) -> None:
        self.aborted = True


def cuts(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({one % (len(data) + 1) for one in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


async def read_answer(pieces: list[bytes], method: str = "GET") -> tuple[int, bytes, Conversation]:
    conversation = Conversation(Cut(pieces))
    head = await conversation.read_head(method)
    body = b""
    while not conversation.complete:
        body += await conversation.read_body()
    return head.status, body, conversation


@given(
    st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(0, 10_000), max_size=12), st.booleans()
)
def test_chunked_answers_are_read_however_they_are_cut(chunks, at, with_more):
    chunks = [one for one in chunks if one]
    coded = b"".join(b"%X;x=y\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\nTrailer: 1\r\n\r\n"
    data = b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded
    data += b"HTTP/1.1 " if with_more else b""
    status, body, conversation = asyncio.run(read_answer(cuts(data, at)))
    assert (status, body) == (200, b"".join(chunks))
    if not with_more:
        assert conversation.reusable


@given(st.binary(max_size=100), st.lists(st.integers(0, 10_000), max_size=8))
def test_answers_with_a_length_are_read_however_they_are_cut(body, at):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert asyncio.run(read_answer(cuts(data, at)))[1] == body
    if body:
        with pytest.raises(BrokenAnswer):
            asyncio.run(read_answer(cuts(data[:-1], at)))


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_bytes_are_an_answer_or_broken(data, at):
    for begin in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with contextlib.suppress(BrokenAnswer):
            asyncio.run(read_answer(cuts(begin + data, at)))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
        b"HTTP/1.1 200 OK\r\nBad Name: 1",
        b"HTTP/1.1 200 OK\r\nName : 1",
        b"HTTP/1.1 200 OK\r\n folded: 1",
        b"HTTP/1.1 200 OK\r\nA: b\rC: d",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d",
        b"HTTP/1.1 200 OK\r\nA: b\0",
        b"HTTP/2 200",
        b"HTTP/1.1 20",
        b"HTTP/1.1 999 No",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"A: b" for _ in range(300)),
    ],
)
def test_ambiguous_heads_are_broken(head):
    with pytest.raises(BrokenAnswer):
        parse_head(head, "GET")


def test_heads_are_understood():
    head = parse_head(
        b"HTTP/1.1 200 \r\nServer:  x \r\nConnection: Keep-Alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=7, max=9"
        b"\r\nContent-Type: Text/HTML; charset=utf-8\r\nContent-Length: 5, 5\r\nX-Name: caf\xc3\xa9",
        "GET",
    )
    assert head.headers == [
        ("Server", "x"),
        ("Content-Type", "Text/HTML; charset=utf-8"),
        ("X-Name", "café"),
        ("Content-Length", "5"),
    ]
    assert (head.length, head.framing, head.reusable, head.keep_alive_s) == (5, Framing.LENGTH, True, 7.0)
    assert head.content_type == "text/html"
    assert not parse_head(b"HTTP/1.0 200 OK\r\nContent-Length: 1", "GET").reusable
    assert parse_head(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive", "GET").reusable
    assert not parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close", "GET").reusable
    assert parse_head(b"HTTP/1.1 200 OK", "GET").framing is Framing.UNTIL_END
    assert parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 9", "HEAD").framing is Framing.NONE
    assert parse_head(b"HTTP/1.1 200 OK\r\nX: \xff", "GET").headers == [("X", "ÿ")]


async def test_endless_heads_lines_and_interim_answers_are_broken():
    with pytest.raises(BrokenAnswer, match="too long"):
        await read_answer([b"HTTP/1.1 200 OK\r\n", *[b"A: " + b"b" * 30_000] * 4])
    with pytest.raises(BrokenAnswer, match="interim"):
        await read_answer([b"HTTP/1.1 100 Continue\r\n\r\n"] * 20)
    with pytest.raises(BrokenAnswer, match="too long"):
        ChunkedBody().feed(b"1;" + b"x" * 10_000)
    with pytest.raises(BrokenAnswer, match="does not end"):
        ChunkedBody().feed(b"1\r\nab\r\n")


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("host", "own", "contributed"),
    [
        ("blog.localhost:8642", ByName("blog"), ByName("blog")),
        ("Blog.Friends.LOCALHOST.", ByName("blog.friends"), ByName("blog.friends")),
        ("localhost:1", FrontPage(), FrontPage()),
        ("127.0.0.1", FrontPage(), FrontPage()),
        ("10.0.0.7:80", Foreign("10.0.0.7"), FrontPage()),
        ("blog", Foreign("blog"), ByName("blog")),
        ("www.example.org", Foreign("www.example.org"), ByDomain("www.example.org")),
        ("", Malformed(), Malformed()),
        ("a..b.localhost", Malformed(), Malformed()),
        ("-a.localhost", Malformed(), Malformed()),
        ("a/b.localhost", Malformed(), Malformed()),
        ("a@b.localhost", Malformed(), Malformed()),
        ("x" * 64 + ".localhost", Malformed(), Malformed()),
        ("xn--bcher-kva.localhost", ByName("xn--bcher-kva"), ByName("xn--bcher-kva")),
    ],
)
def test_what_a_host_means(host, own, contributed):
    assert meaning([host]) == own
    assert meaning([host], public_only=True) == contributed


@given(st.text(max_size=60))
def test_any_host_has_a_meaning(text):
    meaning([text])
    meaning([text], public_only=True)


# ---------------------------------------------------------------------- memory of failures

SERVICE = ServiceId(b"s" * 16)


def at(number: int, near: float = 0.0) -> ReplicaLocation:
    return ReplicaLocation(ReplicaId(bytes([number]) * 16), NodeId(bytes([number]) * 32), f"n{number}", near)


def test_who_failed_is_asked_last_for_longer_each_time_until_it_answers():
    memory = HealthMemory(Random(1))
    near, far = at(1, 0.0), at(2, 1.0)
    assert memory.ordered([far, near], 0.0) == [near, far]
    memory.failed(near.replica, 0.0)
    memory.failed(near.replica, 0.01)  # the same outage, seen by another request
    assert memory.ordered([far, near], 0.9) == [far, near]
    assert memory.ordered([far, near], 1.1) == [near, far]
    memory.asked(near.replica, 1.1)  # one request tries it
    assert memory.ordered([far, near], 1.2) == [far, near], "the others avoid it meanwhile"
    memory.failed(near.replica, 1.4)
    assert memory.ordered([far, near], 3.3) == [far, near]
    assert memory.ordered([far, near], 3.5) == [near, far]
    memory.answered(SERVICE, near.replica, 0.01, 0.0)
    memory.failed(near.replica, 4.0)
    assert memory.ordered([far, near], 5.1) == [near, far], "an answer forgives everything"


def test_the_busiest_of_equally_near_replicas_comes_last():
    memory = HealthMemory(Random(1))
    first, second = at(1, 0.0100), at(2, 0.0105)
    memory.asked(first.replica, 0.0)
    assert memory.ordered([first, second], 0.0) == [second, first]
    memory.released(first.replica)
    chosen = {memory.ordered([first, second], 0.0)[0].node_name for _ in range(30)}
    assert chosen == {"n1", "n2"}


def test_the_hedging_delay_follows_the_service_within_bounds():
    memory = HealthMemory(Random(1))
    assert memory.hedge_s(SERVICE) == health.HEDGE_MIN_S
    for _ in range(200):
        memory.answered(SERVICE, at(1).replica, 0.2, 0.0)
    assert memory.hedge_s(SERVICE) == pytest.approx(0.6)
    for _ in range(200):
        memory.answered(SERVICE, at(1).replica, 2.0, 0.0)
    assert memory.hedge_s(SERVICE) == health.HEDGE_MAX_S


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(health, "FAILED_MAX", 10)
    monkeypatch.setattr(health, "SERVICES_MAX", 10)
    memory = HealthMemory(Random(1))
    for number in range(50):
        memory.failed(at(number).replica, 0.0)
        memory.answered(ServiceId(bytes([number]) * 16), at(100).replica, 0.1, 0.0)
    assert len(memory._failed) == 10 and len(memory._paces) == 10


# ---------------------------------------------------------------------- the pool


class NoTunnels:
    async def open(self, node, service, replica):
        raise AssertionError


async def used(number: int, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") -> Connection:
    connection = Connection(Cut([head]), at(number).replica)
    await connection.read_head("GET")
    return connection


async def test_the_pool_gives_back_the_latest_and_keeps_its_bounds(monkeypatch):
    monkeypatch.setattr(pool, "IDLE_PER_REPLICA_MAX", 2)
    monkeypatch.setattr(pool, "IDLE_MAX", 3)
    kept = ConnectionPool(NoTunnels())
    first, second, third = [await used(1) for _ in range(3)]
    for connection in (first, second, third):
        kept.give_back(connection)
    assert kept.take(second.replica) is second and kept.take(first.replica) is first
    assert kept.take(first.replica) is None
    many = [await used(number) for number in range(1, 6)]
    for connection in many:
        kept.give_back(connection)
    assert kept.idle_count == 3
    await kept.close()
    assert kept.idle_count == 0 and third.stream.aborted
    assert all(connection.stream.aborted for connection in many)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 surplus",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_the_pool_refuses_what_may_not_be_used_again(head):
    kept = ConnectionPool(NoTunnels())
    connection = await used(1, head)
    kept.give_back(connection)
    assert kept.idle_count == 0
    await kept.close()
    assert connection.stream.aborted


async def test_the_pool_forgets_what_idled_too_long(monkeypatch, eventually):
    monkeypatch.setattr(pool, "IDLE_S", 0.05)
    kept = ConnectionPool(NoTunnels())
    connection = await used(1)
    kept.give_back(connection)
    await eventually(lambda: connection.stream.aborted)
    assert kept.idle_count == 0 and kept.take(connection.replica) is None
    await kept.close()
