"""What nobody may get out of the static environment, or do to it: paths that climb, links that lead out, heads without end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from colla.environments import static
from colla.environments.folders import Place
from colla.environments.protocol import EnvironmentFault, ReplicaSpec
from colla.environments.static import StaticDriver, StaticReplica

SECRET = b"nobody else's business"
CLIMBING = (
    "/../outside.txt",
    "/%2e%2e/outside.txt",
    "/%2e%2e%2foutside.txt",
    "/..%2foutside.txt",
    "/folder/../../outside.txt",
    "/folder/%2e%2e/%2e%2e/outside.txt",
    "/..%5coutside.txt",
    "/..\\outside.txt",
    "/%252e%252e/outside.txt",
    "/.%00./outside.txt",
    "/outside.txt%00.html",
    "/%c0%ae%c0%ae/outside.txt",
    "/%uff0e%uff0e/outside.txt",
    "//{base}/outside.txt",
    "/{base}/outside.txt",
    "http://site/../outside.txt",
    "/link-out",
    "/folder-out/outside.txt",
    "/chain",
    "/computer/etc/passwd",
    "/computer/proc/self/environ",
    "/prepared.txt",
    "/named",
    "/.env",
    "/.git/config",
    "/folder/.hidden",
    "/pipe",
    "/unreadable.txt",
    "/nothing",
    "/nothing-at-all.txt",
)
Start = Callable[..., Awaitable[tuple[StaticReplica, Place]]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A site with every trap in it, and what is beside it."""
    site = tmp_path / "site"
    (site / "folder").mkdir(parents=True)
    (site / ".git").mkdir()
    (tmp_path / "outside.txt").write_bytes(SECRET)
    for name in (".env", ".git/config", "folder/.hidden"):
        (site / name).write_bytes(SECRET)
    (site / "index.html").write_text("home")
    (site / "prepared.txt").write_text("public " * 100)
    links = {
        "link-out": tmp_path / "outside.txt",
        "folder-out": tmp_path,
        "chain": Path("link-out"),
        "computer": Path("/"),
        "prepared.txt.gz": tmp_path / "outside.txt",
        "prepared.txt.br": tmp_path / "outside.txt",
        "named.html": tmp_path / "outside.txt",
        "404.html": tmp_path / "outside.txt",
        "200.html": tmp_path / "outside.txt",
        "loop": Path("loop"),
    }
    for name, target in links.items():
        (site / name).symlink_to(target)
    os.mkfifo(site / "pipe")
    (site / "unreadable.txt").write_bytes(b"unreadable" if os.getuid() == 0 else SECRET)
    (site / "unreadable.txt").chmod(0)
    return tmp_path


@pytest.fixture
async def start(base: Path) -> AsyncIterator[Start]:
    running: list[StaticReplica] = []
    driver = StaticDriver("instance")

    async def launch(**env: str) -> tuple[StaticReplica, Place]:
        spec = ReplicaSpec(
            replica=secrets.token_hex(16), service="site", artifact=str(base / "site"), env=env
        )
        driver.check(spec, allow_unsandboxed=False)
        name = secrets.token_hex(4)
        place = Place(base / name, base / f"{name}.sock")
        replica = await driver.launch(spec, place)
        running.append(replica)
        return replica, place

    yield launch
    for replica in running:
        await replica.stop("SIGTERM", 0.0)


async def said(place: Place, data: bytes) -> bytes:
    """Everything that is answered to these bytes."""
    reader, writer = await asyncio.open_unix_connection(str(place.endpoint))
    answer = b""
    try:
        async with asyncio.timeout(20.0):
            writer.write(data)
            answer = await reader.read()
    except ConnectionError:
        pass  # Closed before everything was read: an answer too.
    finally:
        writer.close()
    return answer


def request(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: site", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_no_path_leads_out(start: Start, base: Path) -> None:
    _, place = await start()
    for path in CLIMBING:
        for encoding in ("identity", "br, gzip"):
            answer = await said(
                place, request(path.format(base=str(base).lstrip("/")), f"Accept-Encoding: {encoding}")
            )
            assert answer.startswith(b"HTTP/1."), path
            assert SECRET not in answer and b"root:" not in answer, path
            if "prepared" not in path and "unreadable" not in path:
                assert int(answer.split()[1]) in (400, 404), path


async def test_no_page_named_by_the_owner_leads_out(start: Start) -> None:
    for name in ("../outside.txt", "link-out", "200.html", "%2e%2e/outside.txt", "/etc/passwd", "."):
        with pytest.raises(EnvironmentFault) as refused:
            await start(FALLBACK=name)
        assert refused.value.code == "fallback_missing"


@pytest.mark.parametrize(
    "data",
    [
        request("/", "X-Long: " + "x" * 100_000),
        request("/", *(f"X-{number}: x" for number in range(10_000))),
        request("/" + "x" * 100_000),
        b"GET / HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: site\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01" + bytes(100) + b"\r\n\r\n",
    ],
    ids=["long-header", "many-headers", "long-path", "two-lengths", "negative-length", "tls"],
)
async def test_heads_without_end_are_refused(start: Start, data: bytes) -> None:
    _, place = await start()
    answer = await said(place, data)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 414", b"HTTP/1.1 431", b""), answer[
        :80
    ]
    assert b"200 OK" in await said(place, request("/"))


async def test_who_says_nothing_is_let_go(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "SILENT_S_MAX", 0.2)
    _, place = await start()
    for begun in (b"", b"GET / HTTP/1.1\r\nHost: si", b"GET / HTTP/1.1\r\nHost: site\r\n\r\nGET / HTTP"):
        reader, writer = await asyncio.open_unix_connection(str(place.endpoint))
        writer.write(begun)
        async with asyncio.timeout(20.0):
            assert (b"200 OK" in await reader.read()) == begun.endswith(b"GET / HTTP")
        writer.close()


async def test_one_site_does_not_take_the_connections_of_another(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "CONNECTIONS_MAX", 8)
    (replica, place), (_, other) = await start(), await start()
    held = []
    for _ in range(8):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(place.endpoint))
        held.append(sock)
    async with asyncio.timeout(20.0):
        while len(replica._server.connections) < 8:  # noqa: ASYNC110 - accepting is the loop's own business
            await asyncio.sleep(0.01)
        assert await said(place, request("/")) == b"", "one too many is turned away at once"
        assert b"200 OK" in await said(other, request("/"))
        for sock in held:
            sock.close()
        while b"200 OK" not in await said(place, request("/")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_what_it_contains_is_said() -> None:
    """Nothing is executed; so no limit could hold anything, and none is claimed."""
    info = StaticDriver("instance").info
    assert (info.isolation, info.network_modes, info.limits_enforced) == ("nothing-executed", (), ())
    assert info.not_contained == ()
