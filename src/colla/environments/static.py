"""The static environment: the files of a folder over HTTP. Nothing is executed.

All replicas are served by the one program, each on its own Unix socket. An entity tag is a hash of the content,
so that the same file has the same tag on every replica and a client may go on at another one (RFC 9110). Paths
never lead out of the folder, whatever symbolic links are in it; hidden files are not served.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator
from email.utils import formatdate, parsedate_to_datetime
from mimetypes import MimeTypes
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web
from blake3 import blake3

import colla
from colla.environments.artifacts import check_artifact, count_artifact
from colla.environments.folders import Place
from colla.environments.protocol import (
    PROTOCOL_VERSION,
    EnvironmentInfo,
    Exit,
    LimitName,
    LogLine,
    PrepareProgress,
    ReplicaSpec,
    ReplicaStats,
    StopSignal,
)

CHUNK_BYTES: Final = 256 << 10
CACHED_FILE_BYTES_MAX: Final = 64 << 10
"""Files up to this size are answered from memory."""
CACHED_FILES_MAX: Final = 256
"""Per replica: at most 16 MiB."""
TAGS_MAX: Final = 8192
"""Entity tags remembered per replica."""
PATH_BYTES_MAX: Final = 4096

TYPES: Final = MimeTypes()
"""Python's own table, not the computer's, so that all replicas answer alike."""
for _suffix, _type in {
    ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".webp": "image/webp",
    ".avif": "image/avif", ".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".md": "text/markdown",
    ".webmanifest": "application/manifest+json", ".map": "application/json", ".ico": "image/x-icon",
    ".m3u8": "application/vnd.apple.mpegurl", ".ics": "text/calendar", ".xml": "application/xml", ".yaml": "application/yaml",
}.items():  # fmt: skip
    TYPES.add_type(_type, _suffix)
ENCODINGS: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/octet-stream",
}
TEXT_TYPES: Final = (
    "application/json",
    "application/manifest+json",
    "application/xml",
    "application/yaml",
    "image/svg+xml",
)


class Found(NamedTuple):
    """A file that may be served."""

    path: Path
    size: int
    mtime_ns: int


class Range(NamedTuple):
    """A part of a file, in bytes, the end excluded."""

    first: int
    end: int


def content_type(name: str) -> str:
    """The media type for a file name, with its charset where it is text."""
    kind, encoding = TYPES.guess_type(name, strict=False)
    if encoding:
        return ENCODINGS.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    if kind.startswith("text/") or kind in TEXT_TYPES:
        return f"{kind}; charset=utf-8"
    return kind


def parse_range(header: str, size: int) -> Range | None:
    """One range of bytes. None to answer with the whole file; raises `ValueError` if it cannot be satisfied."""
    unit, _, text = header.partition("=")
    first_text, dash, last_text = text.strip().partition("-")
    numbers = (first_text or "0") + (last_text or "0")
    if unit.strip().lower() != "bytes" or not dash or not (numbers.isascii() and numbers.isdigit()):
        # Several ranges, or none that we know: the whole file is always a right answer.
        return None
    if not first_text:
        count = int(last_text) if last_text else 0
        if not count or not size:
            raise ValueError(header)
        return Range(max(size - count, 0), size)
    first = int(first_text)
    if last_text and int(last_text) < first:
        return None
    if first >= size:
        raise ValueError(header)
    return Range(first, min(int(last_text) + 1, size) if last_text else size)


class Site:
    """The files of one replica. The folder must not change while it is served."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._tags: OrderedDict[Found, str] = OrderedDict()
        self._bodies: OrderedDict[Found, bytes] = OrderedDict()

    def find(self, path: str) -> Found | str | None:
        """A file, or the path that the client should ask for instead, or None."""
        parts = [part for part in path.split("/") if part]
        hidden = any(part.startswith(".") and part != ".well-known" for part in parts)
        if hidden or "\0" in path or "\\" in path or len(path) > PATH_BYTES_MAX:
            return None
        folder = self.root.joinpath(*parts)
        if path.endswith("/"):
            return self._file(folder / "index.html")
        if found := self._file(folder):
            return found
        if self._file(folder / "index.html"):
            return "/" + "/".join(parts) + "/"
        return self._file(folder.with_name(folder.name + ".html")) if parts else None

    def _file(self, path: Path) -> Found | None:
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.root):
                return None
            found = real.stat()
        except (OSError, RuntimeError):
            return None
        if not stat.S_ISREG(found.st_mode) or not os.access(real, os.R_OK):
            return None
        return Found(real, found.st_size, found.st_mtime_ns)

    async def tag(self, found: Found) -> str:
        """The strong entity tag: a hash of the content, remembered."""
        tag = self._tags.get(found)
        if tag is None:
            tag = await asyncio.to_thread(_hash, found.path)
            self._tags[found] = tag
            if len(self._tags) > TAGS_MAX:
                self._tags.popitem(last=False)
        return tag

    async def body(self, found: Found) -> bytes:
        """The content of a small file."""
        body = self._bodies.get(found)
        if body is None:
            body = await asyncio.to_thread(found.path.read_bytes)
            self._bodies[found] = body
            if len(self._bodies) > CACHED_FILES_MAX:
                self._bodies.popitem(last=False)
        else:
            self._bodies.move_to_end(found)
        return body


def _hash(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return f'"{hasher.hexdigest()[:32]}"'


def not_modified(request: web.BaseRequest, tag: str, mtime_s: int) -> bool:
    """Whether the client's copy is still right (RFC 9110, section 13)."""
    if wanted := request.headers.get("If-None-Match"):
        tags = [text.strip().removeprefix("W/") for text in wanted.split(",")]
        return "*" in tags or tag in tags
    if since := request.headers.get("If-Modified-Since"):
        try:
            return mtime_s <= parsedate_to_datetime(since).timestamp()
        except (ValueError, TypeError):
            return False
    return False


class StaticReplica:
    """One site on one Unix socket. Ends only when it is stopped."""

    def __init__(self, spec: ReplicaSpec, place: Place, root: Path) -> None:
        self.handle = "static"
        self.limits_enforced: tuple[LimitName, ...] = ()
        self._spec = spec
        self._place = place
        self._site = Site(root)
        self._server = web.Server(self._answer, access_log=None)
        self._listener: asyncio.Server | None = None
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Begin to serve. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._server, sock=self._place.listen())

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
        page = self._site.find("/404.html")
        if isinstance(page, Found) and page.size <= CACHED_FILE_BYTES_MAX:
            body = await self._site.body(page)
            return web.Response(status=404, body=body, headers={"Content-Type": content_type("404.html")})
        return web.Response(status=404, text="404: there is no such page here\n")

    async def _send(self, request: web.BaseRequest, found: Found) -> web.StreamResponse:
        tag = await self._site.tag(found)
        mtime_s = found.mtime_ns // 10**9
        headers = {
            "ETag": tag,
            "Last-Modified": formatdate(mtime_s, usegmt=True),
            "Cache-Control": "no-cache",
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
        }
        if not_modified(request, tag, mtime_s):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = content_type(found.path.name)
        part, status = Range(0, found.size), 200
        asked = request.headers.get("Range")
        if asked and request.method == "GET" and request.headers.get("If-Range", tag) == tag:
            try:
                wanted = parse_range(asked, found.size)
            except ValueError:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{found.size}"})
            if wanted:
                part, status = wanted, 206
                headers["Content-Range"] = f"bytes {part.first}-{part.end - 1}/{found.size}"
        if found.size <= CACHED_FILE_BYTES_MAX:
            body = await self._site.body(found)
            return web.Response(status=status, headers=headers, body=body[part.first : part.end])
        return await self._stream(request, found, part, web.StreamResponse(status=status, headers=headers))

    async def _stream(
        self, request: web.BaseRequest, found: Found, part: Range, response: web.StreamResponse
    ) -> web.StreamResponse:
        response.content_length = part.end - part.first
        with await asyncio.to_thread(found.path.open, "rb") as file:
            await response.prepare(request)
            left = response.content_length if request.method == "GET" else 0
            file.seek(part.first)
            while left:
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
                if not chunk:
                    raise OSError(f"{found.path} became shorter while it was sent")
                await response.write(chunk)
                left -= len(chunk)
        await response.write_eof()
        return response


class StaticDriver:
    """Serves folders; see `Driver`."""

    def __init__(self, instance: str) -> None:
        self.info = EnvironmentInfo(
            protocol_versions=(PROTOCOL_VERSION,),
            kind="static",
            version=colla.__version__,
            instance=instance,
            artifact_kinds=("folder",),
            config_schema={"type": "object", "properties": {}},
            isolation="nothing-executed",
            network_modes=(),
            limits_enforced=(),
            capabilities=("prepare", "recover"),
        )

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        check_artifact(spec.artifact)

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

    def logs(self, place: Place, after: int) -> list[LogLine]:
        """Nothing is executed, so that nothing is written."""
        return []
