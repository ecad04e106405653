"""The gateway as its clients see it: names, headers, bodies, pages, doors."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest
from aiohttp import web

from colla.access.gateway import Door, Gateway
from colla.access.interface import ListedService
from colla.model.errors import CollaError


async def echo(request: web.Request) -> web.Response:
    """Says what arrived."""
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name.lower(), value] for name, value in request.headers.items()],
            "body": body.decode("latin-1"),
        }
    )


def values(seen: dict, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


async def test_a_request_reaches_a_replica_and_its_answer_comes_back_unchanged(access, group):
    async def page(request: web.Request) -> web.Response:
        answer = web.Response(status=418, reason="Short and stout", text="tea", headers={"ETag": '"1"'})
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2")
        return answer

    replica = await group.add(page)
    async with access.ask("/x%2Fy?q=%20z&&") as answer:
        assert (answer.status, answer.reason, await answer.text()) == (418, "Short and stout", "tea")
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert answer.headers["X-Colla-Replica"] == replica.location.replica.hex()[:10]
    assert replica.requests == ["GET /x%2Fy?q=%20z&&"]


@pytest.mark.parametrize(
    "host", ["blog.localhost", "BLOG.localhost", "blog.friends.localhost", "blog--ada.localhost"]
)
async def test_a_service_has_several_names(access, group, host):
    await group.add(echo)
    async with access.ask(host=host) as answer:
        assert answer.status == 200


async def test_headers_of_one_connection_and_forged_ones_are_not_passed_on(access, group):
    await group.add(echo)
    forged = {
        "X-Colla-Member": "mallory",
        "x-colla-anything": "1",
        "X_Colla_Member": "mallory",
        "X_Colla-Member": "mallory",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Connection": "keep-alive, X-Private",
        "X-Private": "between us",
        "Proxy-Authorization": "Basic eA==",
        "TE": "trailers",
        "X-Kept": "yes",
    }
    async with access.ask("/", headers=forged) as answer:
        seen = await answer.json()
    assert values(seen, "x-colla-member") == ["ada"]
    assert values(seen, "x-colla-group") == ["friends"]
    assert values(seen, "x-forwarded-for") == ["127.0.0.1"]
    assert values(seen, "x-forwarded-proto") == ["http"]
    assert values(seen, "x-forwarded-host") == values(seen, "host") == [f"blog.localhost:{access.port}"]
    assert values(seen, "x-kept") == ["yes"]
    names = {name for name, _ in seen["headers"]}
    assert names.isdisjoint(
        {
            "x-private",
            "x-colla-anything",
            "x_colla_member",
            "x_colla-member",
            "proxy-authorization",
            "te",
            "x-real-ip",
            "forwarded",
            "connection",
        }
    )


async def test_the_member_is_not_named_for_what_another_site_makes_a_browser_send(access, group):
    await group.add(echo)
    own = f"http://blog.localhost:{access.port}"
    expected = {
        "ada": [
            {},
            {"Origin": own},
            {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        ],
        None: [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://other.localhost:{access.port}"},
            {"Origin": "http://blog.localhost:1"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        ],
    }
    for member, requests in expected.items():
        for headers in requests:
            async with access.ask("/", headers=headers) as answer:
                seen = values(await answer.json(), "x-colla-member")
            assert seen == ([member] if member else []), headers
    crossing = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with access.ask("/", "POST", headers=crossing, data=b"x") as answer:
        assert values(await answer.json(), "x-colla-member") == []


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_bodies_arrive_whole(access, group, method):
    await group.add(echo)
    async with access.ask("/", method, data=b"a" * 1000) as answer:
        seen = await answer.json()
    assert seen["body"] == "a" * 1000 and values(seen, "content-length") == ["1000"]

    async def pieces():
        for _ in range(3):
            yield b"b" * 700

    async with access.ask("/", method, data=pieces()) as answer:
        seen = await answer.json()
    assert seen["body"] == "b" * 2100 and seen["method"] == method


async def test_a_compressed_body_stays_compressed_both_ways(access, group):
    async def back(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"Content-Encoding": "gzip"})

    await group.add(back)
    noise = bytes(range(256))
    async with access.ask("/", "POST", data=noise, headers={"Content-Encoding": "gzip"}) as answer:
        assert await answer.read() == noise
        assert answer.headers["Content-Encoding"] == "gzip"


async def test_head_keeps_the_length_and_has_no_body(access, group):
    async def page(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1234)

    await group.add(page)
    for _ in range(3):
        async with access.ask("/", "HEAD") as answer:
            assert answer.headers["Content-Length"] == "1234" and await answer.read() == b""
    async with access.ask("/") as answer:
        assert len(await answer.read()) == 1234


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(access, group, status):
    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=status)

    replica = await group.add(nothing)
    for _ in range(3):
        async with access.ask("/") as answer:
            assert answer.status == status and await answer.read() == b""
    assert replica.opened == 1


async def test_expect_100_continue_is_answered(access, group):
    await group.add(echo)
    reader, writer = await access.raw(
        b"POST / HTTP/1.1\r\nHost: blog.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_absolute_target_names_the_service(access, group):
    replica = await group.add(echo)
    reader, writer = await access.raw(
        b"GET http://blog.localhost/deep?x HTTP/1.1\r\nHost: nonsense.example\r\nConnection: close\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert replica.requests == ["GET /deep?x"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: bl og.localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: ..localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: <script>.localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: blog.localhost:notaport\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: blog.localhost.evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"TRACE / HTTP/1.1\r\nHost: blog.localhost\r\nConnection: close\r\n\r\n", 405),
        (b"CONNECT blog.localhost:80 HTTP/1.1\r\nHost: blog.localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET evil HTTP/1.1\r\nHost: blog.localhost\r\nConnection: close\r\n\r\n", 400),
    ],
)
async def test_what_is_not_clearly_ours_is_refused(access, group, head, status):
    replica = await group.add(echo)
    reader, writer = await access.raw(head)
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    assert line.split()[1] == b"%d" % status
    assert replica.requests == []


async def test_the_front_page_lists_services_and_escapes_them(access, group):
    group.listed = [
        ListedService("blog", "blog", 3, 3, True, True, "ada", "<script>alert(1)</script>"),
        ListedService("wi\u202eki", "wiki", 1, 2, True, False, "bob & co"),
        ListedService("old", "old", 0, 1, False, False),
    ]
    for host in ("localhost", "127.0.0.1", "[::1]"):
        async with access.ask(host=host) as answer:
            page = await answer.text()
            assert answer.status == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert f'href="http://blog.localhost:{access.port}/"' in page
    assert "<script>" not in page and "&lt;script&gt;" in page and "bob &amp; co" in page
    assert "\u202e" not in page
    assert "1 of 2 running" in page and "not active" in page


async def test_an_unknown_name_is_answered_with_similar_ones_and_asked_for_once(access, group):
    group.listed = [ListedService("blog", "blog", 1, 1, True, False)]
    for _ in range(3):
        async with access.ask(host="blgo.localhost", headers={"Accept": "text/html"}) as answer:
            page = await answer.text()
            assert answer.status == 404 and answer.headers["X-Colla-Error"] == "service_unknown"
    assert "Did you mean blog?" in page
    assert group.asked_fresh == 1


async def test_an_inactive_service_says_so_at_once(access, group):
    group.locate_only(active=False)
    async with access.ask(headers={"Accept": "application/json"}) as answer:
        said = json.loads(await answer.read())
        assert (
            answer.status == 503
            and said["code"] == "service_inactive"
            and "colla activate blog" in said["hint"]
        )


# ---------------------------------------------------------------------- other doors


async def test_a_contributed_door_serves_public_services_only(open_access, group):
    group.listed = [ListedService("secret", "secret", 1, 1, True, False)]
    access = await open_access(public_only=True, suffixes=("localhost", "colla.example.org"))
    replica = await group.add(echo)
    for host in ("blog.localhost", "blog", "blog.colla.example.org", "nothing.localhost"):
        async with access.ask(host=host, headers={"Accept": "text/html"}) as answer:
            page = await answer.text()
            assert answer.status == 404
            assert "secret" not in page and "Did you mean" not in page
    assert replica.requests == []

    group.locate_only(replica, public=True)
    group.domains["www.example.net"] = group.located
    for host in ("blog.localhost", "blog", "blog.colla.example.org", "www.example.net", "WWW.example.NET."):
        async with access.ask(host=host) as answer:
            assert answer.status == 200
            assert "X-Colla-Replica" not in answer.headers
            assert values(await answer.json(), "x-colla-member") == []
    async with access.ask(host="private.example.net") as answer:
        assert answer.status == 404
    for host in ("localhost", "192.168.1.5", "[fe80::1]"):
        async with access.ask(host=host) as answer:
            assert answer.status == 200 and "secret" not in await answer.text()


async def test_the_headers_of_the_owners_proxy_are_believed(open_access, group):
    access = await open_access(proxies=("127.0.0.1",))
    await group.add(echo)
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Colla-Member": "mallory"}
    async with access.ask(headers=headers) as answer:
        seen = await answer.json()
    assert values(seen, "x-forwarded-for") == ["203.0.113.7, 127.0.0.1"]
    assert values(seen, "x-forwarded-proto") == ["https"]
    assert values(seen, "x-colla-member") == [], "whoever is behind a proxy, it is not the member"


async def test_a_service_has_a_loopback_port_of_its_own(access, group):
    replica = await group.add(echo)
    port = await access.gateway.listen_for("blog")
    assert port == await access.gateway.listen_for("blog")
    for host in ("127.0.0.1", "localhost", "blog.localhost"):
        async with access.ask("/own", host=host, port=port) as answer:
            assert answer.status == 200
    assert replica.requests == ["GET /own"] * 3
    async with access.ask("/own", host="rebinding.example", port=port) as answer:
        assert answer.status == 421


async def test_a_port_in_use_says_what_to_do(access):
    with pytest.raises(CollaError) as caught:
        await access.gateway.listen(Door(port=access.port))
    assert caught.value.code == "port_in_use"
    assert str(access.port) in caught.value.message and "--gateway-port" in caught.value.hint


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
async def test_private_services_are_never_offered_to_others(access, address):
    with pytest.raises(CollaError) as caught:
        await access.gateway.listen(Door(address=address, port=0))
    assert caught.value.code == "door_too_open"


async def test_a_failure_that_repeats_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(None, None, Random(1))  # type: ignore[arg-type]
    with caplog.at_level("INFO", "colla.access.gateway"):
        for _ in range(100):
            gateway._log_undelivered("web: no_replica: ")
        gateway._log_undelivered("web: all_failed: ")
    assert [record.message for record in caplog.records] == [
        "undelivered: web: no_replica",
        "undelivered: web: all_failed",
    ]
