"""Retry, hedging and patience: what a client sees while replicas die, hang, or are not there."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from aiohttp import web

from colla.access import health
from colla.access.courier import Patience

SOON = Patience(total_s=0.6, answer_s=1.2)


def saying(text: str):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, headers={"Content-Type": "text/plain"})

    return answer


async def hanging(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def test_a_replica_killed_in_the_middle_of_its_answer_is_replaced(access, group, monkeypatch):
    monkeypatch.setattr(health, "HEDGE_MIN_S", 1.5)
    begun = asyncio.Event()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(b"x" * 50_000)
        begun.set()
        await asyncio.Event().wait()
        return response

    dying = await group.add(half, near=0.0)
    living = await group.add(saying("whole"), near=1.0)

    async def kill() -> None:
        await begun.wait()
        await dying.kill()

    killing = asyncio.create_task(kill())
    started = time.monotonic()
    async with access.ask() as answer:
        assert answer.status == 200 and await answer.text() == "whole"
    await killing
    assert time.monotonic() - started < 1.2, "the retry must not wait for the hedging delay"
    assert living.requests == ["GET /"] and group.failed == [dying.location.replica]
    # It is asked last from now on, though it is nearer.
    async with access.ask() as answer:
        assert await answer.text() == "whole"
    assert len(dying.requests) == 1


@pytest.mark.parametrize("ending", ["short", "chunked", "nothing", "garbage", "ambiguous"])
async def test_a_broken_answer_is_retried(access, group, ending):
    said = {
        "short": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "nothing": b"",
        "garbage": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        "ambiguous": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    }[ending]

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    await group.add_raw(converse)
    await group.add(saying("whole"), near=1.0)
    async with access.ask() as answer:
        assert (answer.status, await answer.text()) == (200, "whole")


async def test_a_hanging_replica_costs_one_hedging_delay_once(access, group):
    hung = await group.add(hanging, near=0.0)
    await group.add(saying("second"), near=1.0)
    started = time.monotonic()
    async with access.ask() as answer:
        assert await answer.text() == "second"
    assert 0.28 <= time.monotonic() - started < 1.5
    for _ in range(5):
        async with access.ask() as answer:
            assert await answer.text() == "second"
    assert len(hung.requests) == 1 and hung.aborted == 1


async def test_two_hanging_replicas_and_a_tunnel_that_never_opens(access, group):
    group.add_broken("hang_open", near=0.0)
    await group.add(hanging, near=1.0)
    await group.add(saying("third"), near=2.0)
    started = time.monotonic()
    async with access.ask() as answer:
        assert await answer.text() == "third"
    assert 0.55 <= time.monotonic() - started < 1.9


async def test_many_requests_while_a_replica_hangs_all_succeed(access, group):
    await group.add(hanging, near=0.0)
    await group.add(saying("second"), near=1.0)

    async def one() -> str:
        async with access.ask() as answer:
            return await answer.text()

    assert await asyncio.gather(*(one() for _ in range(50))) == ["second"] * 50


async def test_a_put_with_a_small_body_is_repeated_elsewhere(access, group):
    async def dies(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def stores(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    await group.add(dies, near=0.0)
    await group.add(stores, near=1.0)
    async with access.ask("/", "PUT", data=b"p" * 200_000) as answer:
        assert await answer.text() == "200000"


async def test_a_conditional_write_is_never_sent_twice(access, group):
    """What was done already would be refused, as if somebody else had been faster."""

    async def does_it_slowly(request: web.Request) -> web.Response:
        await asyncio.sleep(2 * health.HEDGE_MIN_S)
        return web.Response(text="done")

    async def refuses(request: web.Request) -> web.Response:
        return web.Response(status=412)

    await group.add(does_it_slowly, near=0.0)
    await group.add(refuses, near=1.0)
    for method in ("PUT", "DELETE"):
        for condition in ({"If-Match": '"seen"'}, {"If-None-Match": "*"}):
            async with access.ask("/", method, headers=condition) as answer:
                assert (answer.status, await answer.text()) == (200, "done")


async def test_a_post_is_never_sent_twice(access, group):
    async def dies(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    await group.add(dies, near=0.0)
    other = await group.add(saying("second"), near=1.0)
    async with access.ask("/", "POST", data=b"pay") as answer:
        assert answer.status == 502 and answer.headers["X-Colla-Error"] == "interrupted"
        assert "may or may not have taken effect" in await answer.text()
    assert other.requests == []


@pytest.mark.parametrize("fault", ["refuse", "hang_open"])
async def test_a_post_goes_elsewhere_while_nothing_was_sent(access, group, fault):
    group.add_broken(fault, near=0.0)
    await group.add(saying("second"), near=1.0)
    async with access.ask("/", "POST", data=b"pay") as answer:
        assert await answer.text() == "second"


async def test_a_post_never_uses_a_connection_that_idled(access, group):
    """The replica might close it just then, and nobody could tell whether the request had arrived."""
    replica = await group.add(saying("ok"))
    async with access.ask() as answer:
        await answer.read()
    async with access.ask("/", "POST", data=b"x") as answer:
        assert answer.status == 200
    assert replica.opened == 2


async def test_connections_are_kept_and_reused(access, group):
    replica = await group.add(saying("ok"))
    for _ in range(20):
        async with access.ask() as answer:
            assert await answer.text() == "ok"
    assert replica.opened == 1
    await asyncio.gather(*(_read(access) for _ in range(10)))
    assert replica.opened <= 11


async def _read(access) -> str:
    async with access.ask() as answer:
        return await answer.text()


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_without_a_failure(access, group):
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    replica = await group.add_raw(once)
    assert await _read(access) == "ok"
    await closed.wait()
    assert await _read(access) == "ok"
    assert replica.opened == 2 and group.failed == []


async def test_when_all_that_is_cached_failed_the_group_is_asked(access, group):
    dead = group.add_broken("refuse")
    living = await group.add(saying("fresh"), located=False)
    group.fresh = group.with_replicas(living)
    assert await _read(access) == "fresh"
    assert group.asked_fresh == 1 and group.failed == [dead.location.replica]


async def test_when_all_that_is_cached_hangs_the_group_is_asked(access, group):
    await group.add(hanging)
    living = await group.add(saying("fresh"), located=False)
    group.fresh = group.with_replicas(*group.replicas)
    assert await _read(access) == "fresh"
    assert living.requests == ["GET /"]


async def test_a_replica_that_comes_back_within_two_seconds_saves_the_request(access, group):
    replica = group.add_broken("refuse")
    living = await group.add(saying("back"), located=False)

    async def come_back() -> None:
        await asyncio.sleep(0.5)  # the outage itself
        replica.endpoint, replica.fault = living.endpoint, ""

    coming = asyncio.create_task(come_back())
    assert await _read(access) == "back"
    await coming


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("refuse", 502, "all_failed"), ("hang_open", 504, "timed_out")]
)
async def test_after_two_seconds_a_page_says_what_is_going_on(access, group, fault, status, code):
    group.add_broken(fault)
    started = time.monotonic()
    async with access.ask(headers={"Accept": "text/html"}) as answer:
        page = await answer.text()
        assert answer.status == status and answer.headers["X-Colla-Error"] == code
        assert answer.headers["Retry-After"] == "2"
    assert 1.9 <= time.monotonic() - started < 3.5
    assert "blog does not answer" in page and "node1" in page and 'http-equiv="refresh"' in page


async def test_a_service_without_replicas_is_starting(open_access, group):
    access = await open_access(SOON)
    group.locate_only(notice="No computer offers containers.")
    async with access.ask(headers={"Accept": "text/html"}) as answer:
        page = await answer.text()
        assert answer.status == 503 and answer.headers["Retry-After"] == "2"
    assert "No computer offers containers." in page and "colla why blog" in page
    starting = await group.add(saying("here"), located=False)
    group.fresh = group.with_replicas(starting)
    assert await _read(access) == "here"


async def test_a_slow_program_is_waited_for_while_its_node_is_there(open_access, group):
    access = await open_access(Patience(total_s=0.4, answer_s=5.0))
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response(text="at last")

    await group.add(slow)
    asking = asyncio.create_task(_read(access))
    done, _ = await asyncio.wait({asking}, timeout=1.0)
    assert not done
    release.set()
    assert await asking == "at last"


async def test_a_slow_program_is_given_up_after_its_patience(open_access, group):
    access = await open_access(SOON)
    await group.add(hanging)
    started = time.monotonic()
    async with access.ask() as answer:
        assert answer.status == 504 and "node1: no answer in time" in await answer.text()
    assert 1.1 <= time.monotonic() - started < 3.0


async def test_a_silent_replica_is_given_up_when_its_node_is_gone(open_access, group):
    access = await open_access(Patience(total_s=0.4, answer_s=30.0))
    hung = await group.add(hanging)
    asking = asyncio.create_task(_status(access))
    done, _ = await asyncio.wait({asking}, timeout=0.7)
    assert not done and len(hung.requests) == 1
    group.locate_only()
    assert await asking == 504


async def test_a_new_replica_overtakes_a_silent_one_after_the_two_seconds(open_access, group):
    access = await open_access(Patience(total_s=0.4, answer_s=30.0))
    hung = await group.add(hanging)
    asking = asyncio.create_task(_read(access))
    done, _ = await asyncio.wait({asking}, timeout=0.7)
    assert not done
    new = await group.add(saying("repaired"), located=False)
    group.locate_only(hung, new)
    assert await asking == "repaired"


async def _status(access) -> int:
    async with access.ask() as answer:
        return answer.status


async def test_a_client_that_leaves_frees_the_replica(access, group, eventually):
    replica = await group.add(hanging)
    _, writer = await access.raw(b"GET / HTTP/1.1\r\nHost: blog.localhost\r\n\r\n")
    await eventually(lambda: replica.requests)
    writer.transport.abort()
    await eventually(lambda: replica.aborted == replica.opened)
    assert group.failed == []


async def test_requests_are_spread_among_equally_near_replicas(access, group):
    replicas = [await group.add(saying(str(number)), near=0.010) for number in range(3)]
    far = await group.add(saying("far"), near=0.2)
    for _ in range(60):
        await _read(access)
    assert all(len(one.requests) >= 8 for one in replicas) and far.requests == []


async def test_closing_the_gateway_ends_everything(open_access, group, eventually):
    access = await open_access()
    replica = await group.add(saying("ok"))
    await _read(access)
    await access.gateway.close()
    assert replica.aborted == replica.opened == 1
    with pytest.raises(aiohttp.ClientConnectionError):
        await _read(access)


async def test_slowness_of_everybody_is_neither_multiplied_nor_blamed(access, group, monkeypatch):
    monkeypatch.setattr(health, "HEDGE_MIN_S", 0.05)
    monkeypatch.setattr(health, "HEDGE_MAX_S", 0.05)
    access.gateway._courier.health._hedges_left = 5.0

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.Response(text="late")

    replicas = [await group.add(slow) for _ in range(3)]

    async def ask() -> int:
        async with access.ask() as answer:
            return answer.status

    assert await asyncio.gather(*(ask() for _ in range(40))) == [200] * 40
    asked = sum(len(replica.requests) for replica in replicas)
    assert 40 < asked <= 40 + 5 + 40 * health.HEDGES_PER_ANSWER
    assert group.failed == []


async def test_where_no_hedge_is_left_the_group_is_asked_who_took_the_place_of_the_lost(access, group):
    access.gateway._courier.health._hedges_left = 0.0
    dead = await group.add(hanging)
    living = await group.add(saying("fresh"), located=False)
    group.fresh = group.with_replicas(living)
    assert await _read(access) == "fresh"
    assert len(dead.requests) == len(living.requests) == group.asked_fresh == 1


async def test_who_answers_others_is_not_blamed_for_one_silence(access, group, monkeypatch):
    monkeypatch.setattr(health, "HEDGE_MIN_S", 0.1)
    forgotten = asyncio.Event()

    async def sometimes(request: web.Request) -> web.Response:
        if request.path == "/forget" and not forgotten.is_set():
            forgotten.set()
            await asyncio.Event().wait()
        return web.Response(text="ready")

    await group.add(sometimes, near=0.0)
    await group.add(saying("other"), near=1.0)
    async with access.ask("/warm") as answer:
        assert await answer.text() == "ready"

    async def ask_others() -> None:
        await forgotten.wait()
        async with access.ask("/warm") as answer:
            assert await answer.text() == "ready"

    others = asyncio.create_task(ask_others())
    async with access.ask("/forget") as answer:
        assert await answer.text() == "other"
    await others
    assert group.failed == []
