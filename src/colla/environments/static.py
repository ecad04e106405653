"""The static environment: the files of a folder over HTTP. Nothing is executed.

All replicas are served by the one program, each on its own Unix socket; what their folders hold is told by `site`.
A folder's own `404.html` answers for what is missing, and its `200.html` (or the page that the variable `FALLBACK`
names) for every path that names no file, as applications want that do their routing in the browser.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from aiohttp import web

import colla
from colla.environments.artifacts import check_artifact, count_artifact
from colla.environments.driver import fault
from colla.environments.folders import Place
from colla.environments.protocol import (
    PROTOCOL_VERSION,
    EnvironmentInfo,
    Exit,
    LimitName,
    LogLine,
    PrepareProgress,
    ReplicaSignal,
    ReplicaSpec,
    ReplicaStats,
    StopSignal,
)
from colla.environments.site import CHUNK_BYTES, Found, Page, Range, Site, accepted, parse_range

FALLBACK_VARIABLE: Final = "FALLBACK"
FALLBACK_PAGE: Final = "200.html"
MISSING_PAGE: Final = "404.html"
CONNECTIONS_MAX: Final = 512
"""Of one replica, so that no site takes away the connections of the others; a head that is not whole may keep a megabyte."""
OPEN_FILES_MAX: Final = 65_536
SILENT_S_MAX: Final = 60.0
"""A connection on which no whole request comes for so long is closed; gateways let go of theirs sooner."""
ENCODING_HEADERS_MAX: Final = 64
"""Different texts of Accept-Encoding that are remembered; browsers send one each."""


def not_modified(request: web.BaseRequest, tag: str, mtime_s: int) -> bool:
    """Whether the client's copy is still right (RFC 9110, section 13)."""
    if wanted := request.headers.get("If-None-Match"):
        tags = [text.strip().removeprefix("W/") for text in wanted.split(",")]
        return "*" in tags or tag.removeprefix("W/") in tags
    if since := request.headers.get("If-Modified-Since"):
        try:
            return mtime_s <= parsedate_to_datetime(since).timestamp()
        except (ValueError, TypeError):
            return False
    return False


class Refusing(asyncio.Protocol):
    """Closes the connection: a client that is turned away at once asks another replica."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def raise_open_files() -> None:
    """Let this program open as many files as it may; one program serves all sites."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class StaticReplica:
    """One site on one Unix socket. Ends only when it is stopped."""

    def __init__(self, spec: ReplicaSpec, place: Place, root: Path) -> None:
        self.handle = "static"
        self.limits_enforced: tuple[LimitName, ...] = ()
        self._spec = spec
        self._place = place
        self._site = Site(root)
        self._encodings: dict[str, frozenset[str]] = {}
        self._server = web.Server(self._answer, access_log=None, keepalive_timeout=SILENT_S_MAX)
        self._listener: asyncio.Server | None = None
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Begin to serve. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._connection, sock=self._place.listen())

    def _connection(self) -> asyncio.Protocol:
        return self._server() if len(self._server.connections) < CONNECTIONS_MAX else Refusing()

    async def until_listening(self) -> None:
        """It listens from the start."""

    async def until_exit(self) -> Exit:
        return await asyncio.shield(self._ended)

    async def stop(self, signal: StopSignal, grace_s: float) -> None:
        """Accept no more; requests that are being answered have the grace, idle connections end at once."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            # Gateways keep idle connections: without this each stop would take its whole grace.
            self._server.pre_shutdown()
            await self._server.shutdown(grace_s)
            if not self._ended.done():
                self._ended.set_result(Exit(reason="stopped", code=0))

    async def signal(self, signal: ReplicaSignal) -> None:
        """There is no program that could hear it; not claimed."""

    async def check_problem(self) -> str:
        """No command could run; not claimed."""
        return ""

    def why_not_listening(self) -> str:
        return ""

    def stats(self) -> ReplicaStats:
        """The program serves all sites: what one of them uses cannot be told apart."""
        return ReplicaStats(replica=self._spec.replica)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="405: only GET and HEAD\n")
        found = self._site.find(request.path)
        if found is None:
            return await self._missing(request)
        if isinstance(found, str):
            raw_query = request.rel_url.raw_query_string
            query = f"?{raw_query}" if raw_query else ""
            location = request.rel_url.with_path(found).raw_path + query
            return web.Response(status=308, headers={"Location": location})
        return await self._send(request, found)

    async def _missing(self, request: web.BaseRequest) -> web.StreamResponse:
        name = self._spec.env.get(FALLBACK_VARIABLE, FALLBACK_PAGE).strip("/")
        # A path with a suffix names a file: a page instead of it would only hide that it is missing.
        if "." not in request.path.rpartition("/")[2] and isinstance(
            page := self._site.find(f"/{name}"), Found
        ):
            return await self._send(request, page)
        if isinstance(page := self._site.find(f"/{MISSING_PAGE}"), Found):
            told = await self._site.page(page, frozenset())
            if told.body is not None:
                kind = {"Content-Type": told.headers["Content-Type"]}
                return web.Response(status=404, body=told.body, headers=kind)
        return web.Response(status=404, text="404: there is no such page here\n")

    def _accepted(self, header: str) -> frozenset[str]:
        encodings = self._encodings.get(header)
        if encodings is None:
            encodings = accepted(header)
            if len(self._encodings) < ENCODING_HEADERS_MAX:
                self._encodings[header] = encodings
        return encodings

    async def _send(self, request: web.BaseRequest, found: Found) -> web.StreamResponse:
        headers = request.headers
        asked = headers.get("Range") if request.method == "GET" else None
        # A part is one of the file as it is, never of a compressed copy.
        encodings = frozenset[str]() if asked else self._accepted(headers.get("Accept-Encoding", ""))
        page = await self._site.page(found, encodings)
        if not_modified(request, page.tag, found.mtime_ns // 10**9):
            kept = {name: text for name, text in page.headers.items() if name != "Content-Type"}
            return web.Response(status=304, headers=kept)
        if asked and headers.get("If-Range", page.tag) == page.tag:
            try:
                part = parse_range(asked, found.size)
            except ValueError:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{found.size}"})
            if part is not None:
                shown = {"Content-Range": f"bytes {part.first}-{part.end - 1}/{found.size}"}
                return await self._send_part(request, page, part, 206, page.headers | shown)
        return await self._send_part(request, page, Range(0, page.size), 200, page.headers)

    async def _send_part(
        self, request: web.BaseRequest, page: Page, part: Range, status: int, headers: dict[str, str]
    ) -> web.StreamResponse:
        if page.body is not None:
            body = page.body if status == 200 else page.body[part.first : part.end]
            return web.Response(status=status, headers=headers, body=body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = part.end - part.first
        with await asyncio.to_thread(page.found.path.open, "rb") as file:
            await response.prepare(request)
            left = response.content_length if request.method == "GET" else 0
            file.seek(part.first)
            while left:
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
                if not chunk:
                    raise OSError(f"{page.found.path} became shorter while it was sent")
                await response.write(chunk)
                left -= len(chunk)
        await response.write_eof()
        return response


class StaticDriver:
    """Serves folders; see `Driver`."""

    def __init__(self, instance: str) -> None:
        raise_open_files()
        self.info = EnvironmentInfo(
            protocol_versions=(PROTOCOL_VERSION,),
            kind="static",
            version=colla.__version__,
            instance=instance,
            artifact_kinds=("folder",),
            config_schema={
                "type": "object",
                "properties": {
                    "env": {"type": "object", "properties": {FALLBACK_VARIABLE: {"type": "string"}}}
                },
            },
            isolation="nothing-executed",
            network_modes=(),
            limits_enforced=(),
            capabilities=("prepare", "recover"),
            not_contained=(),
        )

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        root = check_artifact(spec.artifact)
        fallback = spec.env.get(FALLBACK_VARIABLE)
        if fallback is not None and not isinstance(Site(root).find(f"/{fallback.strip('/')}"), Found):
            raise fault(
                "fallback_missing",
                f"{FALLBACK_VARIABLE} names {fallback!r}, which is no file of the service.",
                "Name a page of the folder, as in index.html.",
            )

    def prepare(self, artifact: str) -> AsyncIterator[PrepareProgress]:
        return count_artifact(artifact)

    async def launch(self, spec: ReplicaSpec, place: Place) -> StaticReplica:
        replica = StaticReplica(spec, place, check_artifact(spec.artifact))
        await replica.open()
        return replica

    async def adopt(self, spec: ReplicaSpec, place: Place, handle: str) -> StaticReplica | None:
        """The files are still there, so that the new program simply serves them again."""
        return await self.launch(spec, place)

    async def abandon(self, place: Place) -> None:
        """Nothing outlives the program."""

    async def close(self) -> None:
        """Nothing runs beside the replicas."""

    def logs(self, place: Place, after: int) -> list[LogLine]:
        """Nothing is executed, so that nothing is written."""
        return []
