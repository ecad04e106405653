"""The static environment's answers, over a real Unix socket."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colla.environments.folders import Place
from colla.environments.protocol import EnvironmentFault, ReplicaSpec
from colla.environments.site import CACHED_FILE_BYTES_MAX, Range, Site, accepted, content_type, parse_range
from colla.environments.static import StaticDriver

BIG = bytes(range(256)) * 2048


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    files = {
        "index.html": b"<h1>home</h1>",
        "style.css": b"body{}",
        "docs/index.html": b"docs",
        "about.html": b"about",
        "big.bin": BIG,
        ".env": b"SECRET=1",
        ".git/config": b"secret",
        ".well-known/security.txt": b"contact",
        "with space/ä.txt": "ümlaut".encode(),
        "empty.txt": b"",
        "archive.tar.gz": b"\x1f\x8b",
        "folder-without-index/x.txt": b"x",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (tmp_path / "outside.txt").write_text("secret")
    (root / "link-out").symlink_to(tmp_path / "outside.txt")
    (root / "folder-out").symlink_to(tmp_path)
    (root / "link-in").symlink_to(root / "style.css")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


class Browser:
    """Asks the site under test."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        names = {"Accept-Encoding": "identity"}
        names |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = aiohttp.client.URL(f"http://site{path}", encoded=True)
        async with self.session.request(method, url, headers=names, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()


@pytest.fixture
async def browser(root: Path, tmp_path: Path) -> AsyncIterator[Browser]:
    place = Place(tmp_path / "replica", tmp_path / "site.sock")
    spec = ReplicaSpec(replica="ab" * 16, service="site", artifact=str(root))
    replica = await StaticDriver("test").launch(spec, place)
    async with aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(str(place.endpoint)), auto_decompress=False
    ) as session:
        yield Browser(session)
    await replica.stop("SIGTERM", 0.1)


@pytest.mark.parametrize(
    ("path", "status", "kind", "body"),
    [
        ("/", 200, "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/index.html", 200, "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/style.css", 200, "text/css; charset=utf-8", b"body{}"),
        ("/docs/", 200, "text/html; charset=utf-8", b"docs"),
        ("/about", 200, "text/html; charset=utf-8", b"about"),
        ("/link-in", 200, "text/css; charset=utf-8", b"body{}"),
        ("/with%20space/%C3%A4.txt", 200, "text/plain; charset=utf-8", "ümlaut".encode()),
        ("/.well-known/security.txt", 200, "text/plain; charset=utf-8", b"contact"),
        ("/archive.tar.gz", 200, "application/gzip", b"\x1f\x8b"),
        ("/empty.txt", 200, "text/plain; charset=utf-8", b""),
        ("/style.css?version=3", 200, "text/css; charset=utf-8", b"body{}"),
    ],
)
async def test_what_is_there(browser, path, status, kind, body):
    seen, headers, content = await browser.ask(path)
    assert (seen, headers["Content-Type"], content) == (status, kind, body)
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/link-out", "/folder-out/outside.txt", "/../outside.txt", "/%2e%2e/outside.txt", "/..%2foutside.txt",
        "/docs/../../outside.txt", "/docs/%2e%2e/%2e%2e/outside.txt", "//etc/passwd", "/%2fetc/passwd", "/.env", "/.git/config",
        "/%2eenv", "/style.css/", "/folder-without-index/", "/folder-without-index", "/pipe", "/loop", "/docs%00", "/..\\outside.txt",
        "/" + "a" * 5000, "/style.css/x",
    ],
)  # fmt: skip
async def test_what_is_not(browser, path):
    status, _, body = await browser.ask(path)
    assert status == 404 and b"secret" not in body.lower() and b"root:" not in body


async def test_a_page_for_what_is_missing(browser, root):
    (root / "404.html").write_text("<h1>lost?</h1>")
    status, headers, body = await browser.ask("/nothing")
    assert (status, headers["Content-Type"], body) == (404, "text/html; charset=utf-8", b"<h1>lost?</h1>")


async def test_a_folder_gets_its_slash(browser):
    status, headers, _ = await browser.ask("/docs?a=b%20c")
    assert (status, headers["Location"]) == (308, "/docs/?a=b%20c")
    # Never to another site, whatever the slashes.
    status, headers, _ = await browser.ask("//docs")
    assert (status, headers["Location"]) == (308, "/docs/")


async def test_head_and_other_methods(browser):
    for path, size in (("/style.css", 6), ("/big.bin", len(BIG))):
        status, headers, body = await browser.ask(path, method="HEAD")
        assert (status, headers["Content-Length"], body) == (200, str(size), b"")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        status, headers, _ = await browser.ask("/style.css", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


async def test_conditions(browser):
    for path in ("/style.css", "/big.bin"):
        _, headers, _ = await browser.ask(path)
        tag, date = headers["ETag"], headers["Last-Modified"]
        for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            status, again, body = await browser.ask(path, If_None_Match=asked)
            assert (status, body, again["ETag"]) == (304, b"", tag)
        assert (await browser.ask(path, If_None_Match='"other"'))[0] == 200
        assert (await browser.ask(path, If_Modified_Since=date))[0] == 304
        # The tag decides where both are given.
        assert (await browser.ask(path, If_None_Match='"other"', If_Modified_Since=date))[0] == 200
        assert (await browser.ask(path, If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT"))[0] == 200
        assert (await browser.ask(path, If_Modified_Since="nonsense"))[0] == 200


async def test_the_tag_is_of_the_content_alone(root):
    async def tag() -> str:
        site = Site(root)
        return (await site.page(site.find("/style.css"), frozenset())).tag

    first = await tag()
    os.utime(root / "style.css", (1, 1))
    assert await tag() == first
    (root / "style.css").write_bytes(b"body{ }")
    assert await tag() != first


@pytest.mark.parametrize("path", ["/style.css", "/big.bin"])
async def test_ranges(browser, path):
    _, headers, whole = await browser.ask(path)
    assert headers["Accept-Ranges"] == "bytes"
    for asked, expected in (("bytes=0-1", whole[:2]), ("bytes=3-", whole[3:]), ("bytes=-2", whole[-2:])):
        status, part, body = await browser.ask(path, Range=asked)
        assert status == 206 and body == expected
        first, _, rest = part["Content-Range"].removeprefix("bytes ").partition("-")
        last, _, size = rest.partition("/")
        assert (whole[int(first) : int(last) + 1], int(size)) == (expected, len(whole))
    status, part, _ = await browser.ask(path, Range=f"bytes={len(whole)}-")
    assert (status, part["Content-Range"]) == (416, f"bytes */{len(whole)}")
    for ignored in ("bytes=0-1,3-4", "lines=1-2", "bytes=5-1", "bytes=a-b", "nonsense"):
        assert (await browser.ask(path, Range=ignored))[::2] == (200, whole)
    tag = headers["ETag"]
    assert (await browser.ask(path, Range="bytes=0-1", If_Range=tag))[0] == 206
    assert (await browser.ask(path, Range="bytes=0-1", If_Range='"old"'))[::2] == (200, whole)


TEXT = b"the same words again and again " * 1000
LONG = b"<p>long</p>" * 100_000


async def test_texts_travel_compressed_to_who_accepts_that(browser, root):
    for name, content in (
        ("text.txt", TEXT),
        ("long.html", LONG),
        ("noise.txt", os.urandom(5000)),
        ("a.png", TEXT),
    ):
        (root / name).write_bytes(content)
    for path, content in (("/text.txt", TEXT), ("/long.html", LONG)):
        status, plain, body = await browser.ask(path)
        assert (status, body, plain["Vary"]) == (200, content, "Accept-Encoding")
        assert "Content-Encoding" not in plain
        status, headers, body = await browser.ask(path, Accept_Encoding="br;q=1.0, gzip;q=0.8, *;q=0.1")
        assert (status, headers["Content-Encoding"], gzip.decompress(body)) == (200, "gzip", content)
        assert headers["Content-Type"] == plain["Content-Type"] and len(body) < len(content) / 10
        assert headers["Content-Length"] == str(len(body)) and headers["Vary"] == "Accept-Encoding"
        assert headers["ETag"] != plain["ETag"] and headers["ETag"].startswith("W/")
        again = await browser.ask(path, Accept_Encoding="gzip", If_None_Match=headers["ETag"])
        assert again[0] == 304 and again[1]["Vary"] == "Accept-Encoding"
        head = await browser.ask(path, method="HEAD", Accept_Encoding="gzip")
        assert (head[1]["Content-Length"], head[2]) == (str(len(body)), b"")
        # A part is always one of the file itself; a compressed copy's tag names no part.
        status, _, part = await browser.ask(path, Accept_Encoding="gzip", Range="bytes=4-9")
        assert (status, part) == (206, content[4:10])
        whole = await browser.ask(path, Accept_Encoding="gzip", Range="bytes=4-9", If_Range=headers["ETag"])
        assert whole[::2] == (200, content)
    for path in ("/noise.txt", "/a.png", "/style.css"):
        assert "Content-Encoding" not in (await browser.ask(path, Accept_Encoding="gzip"))[1]


async def test_what_was_compressed_before_is_used(browser, root):
    (root / "text.txt").write_bytes(TEXT)
    (root / "text.txt.br").write_bytes(b"as brotli made it")
    status, headers, body = await browser.ask("/text.txt", Accept_Encoding="gzip, br")
    assert (status, body, headers["Content-Encoding"]) == (200, b"as brotli made it", "br")
    assert headers["Content-Type"] == "text/plain; charset=utf-8" and not headers["ETag"].startswith("W/")
    status, headers, body = await browser.ask("/text.txt", Accept_Encoding="gzip")
    assert (headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", TEXT)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("", ""), ("gzip", "gzip"), ("gzip, deflate, br, zstd", "gzip br"), ("gzip;q=0", ""), ("gzip; q=0.000, br", "br"),
        ("*", "gzip br"), ("*;q=0, br", "br"), ("GZIP ; q=0.5", "gzip"), ("identity", ""), ("gzip;q=0, *", "br"),
    ],
)  # fmt: skip
def test_which_encodings_are_accepted(header, allowed):
    assert accepted(header) == frozenset(allowed.split())


@pytest.mark.parametrize(("variables", "page"), [({}, "200.html"), ({"FALLBACK": "/app.html"}, "app.html")])
async def test_routing_in_the_browser(root, tmp_path, page, variables):
    (root / page).write_text("<h1>app</h1>")
    (root / "404.html").write_text("lost")
    place = Place(tmp_path / "replica", tmp_path / "site.sock")
    spec = ReplicaSpec(replica="ab" * 16, service="site", artifact=str(root), env=variables)
    replica = await StaticDriver("test").launch(spec, place)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.endpoint))) as session:
        browser = Browser(session)
        for path in ("/users/7", "/nothing", "/docs/deep/er/"):
            status, headers, body = await browser.ask(path)
            assert (status, headers["Content-Type"], body) == (
                200,
                "text/html; charset=utf-8",
                b"<h1>app</h1>",
            )
        assert (await browser.ask("/nothing.js"))[::2] == (404, b"lost")
        assert (await browser.ask("/about"))[2] == b"about"
    await replica.stop("SIGTERM", 0.1)


def test_a_fallback_that_is_not_there_is_refused(root):
    spec = ReplicaSpec(
        replica="ab" * 16, service="site", artifact=str(root), env={"FALLBACK": "../outside.txt"}
    )
    with pytest.raises(EnvironmentFault) as refused:
        StaticDriver("test").check(spec, False)
    assert refused.value.code == "fallback_missing"


async def test_memory_is_bounded(root, monkeypatch):
    monkeypatch.setattr("colla.environments.site.CACHE_BYTES_MAX", 100_000)
    for number in range(10):
        (root / f"{number}.txt").write_bytes(os.urandom(30_000))
    site = Site(root)
    for number in [*range(10), 3, 3, 9]:
        page = await site.page(site.find(f"/{number}.txt"), frozenset())
        assert page.body == (root / f"{number}.txt").read_bytes()
        assert sum(len(kept.body) for kept in site._pages.values()) <= 100_000


async def test_big_files_are_streamed_to_many(browser):
    assert len(BIG) > CACHED_FILE_BYTES_MAX
    answers = await asyncio.gather(*(browser.ask("/big.bin") for _ in range(10)))
    assert all(body == BIG for _, _, body in answers)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_what_rfc_9110_says(size, first, last):
    whole = bytes(range(size))
    if first <= last:
        try:
            part = parse_range(f"bytes={first}-{last}", size)
        except ValueError:
            assert first >= size
        else:
            assert part is not None and whole[part.first : part.end] == whole[first : last + 1] != b""
    try:
        part = parse_range(f"bytes=-{last}", size)
    except ValueError:
        assert last == 0 or size == 0
    else:
        assert part is not None and whole[part.first : part.end] == whole[-last:]


@given(st.text(max_size=30))
def test_no_header_breaks_the_parser(text):
    try:
        part = parse_range(text, 10)
    except ValueError:
        return
    assert part is None or (isinstance(part, Range) and 0 <= part.first < part.end <= 10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.js", "text/javascript; charset=utf-8"), ("a.mjs", "text/javascript; charset=utf-8"), ("a.wasm", "application/wasm"),
        ("a.svg", "image/svg+xml; charset=utf-8"), ("a.json", "application/json; charset=utf-8"), ("a.PNG", "image/png"),
        ("a.woff2", "font/woff2"), ("a", "application/octet-stream"), ("a.html.br", "application/octet-stream"),
        ("a.mp4", "video/mp4"), ("a.webp", "image/webp"), ("a.svgz", "application/gzip"),
    ],
)  # fmt: skip
def test_content_types(name, kind):
    assert content_type(name) == kind


async def test_an_idle_connection_holds_up_no_stop(root, tmp_path):
    place = Place(tmp_path / "replica", tmp_path / "site.sock")
    spec = ReplicaSpec(replica="ab" * 16, service="site", artifact=str(root))
    replica = await StaticDriver("test").launch(spec, place)
    reader, writer = await asyncio.open_unix_connection(str(place.endpoint))
    writer.write(b"GET /style.css HTTP/1.1\r\nHost: site\r\n\r\n")
    assert b"body{}" in await reader.readuntil(b"body{}")
    # The grace is for answers under way; there is none.
    async with asyncio.timeout(10.0):
        await replica.stop("SIGTERM", 60.0)
    assert await reader.read() == b""
    writer.close()
