"""A site: the files of one folder, found by the paths of URLs, with their types, tags, ranges and encodings.

An entity tag is a hash of the content, so that the same file has the same tag on every replica and a client may go
on at another one (RFC 9110). Paths never lead out of the folder, whatever symbolic links are in it; hidden files are
not served. The folder must not change while it is served: what was found once is remembered.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
from collections import OrderedDict
from email.utils import formatdate
from mimetypes import MimeTypes
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

CHUNK_BYTES: Final = 256 << 10
CACHED_FILE_BYTES_MAX: Final = 64 << 10
"""Files up to this size are answered from memory."""
COMPRESSED_FILE_BYTES_MAX: Final = 4 << 20
"""Texts up to this size are compressed when they are asked for first; longer ones travel as they are."""
COMPRESSED_FILE_BYTES_MIN: Final = 256
"""Shorter files gain nothing."""
COMPRESSED_SHARE_MAX: Final = 0.9
"""A compressed copy is kept when it is smaller than this share of the file."""
CACHE_BYTES_MAX: Final = 16 << 20
"""Contents remembered per replica."""
PATHS_MAX: Final = 2048
"""Paths remembered per replica; a file's tag and headers with each."""
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
COMPRESSIBLE: Final = ("application/wasm", "application/vnd.apple.mpegurl", "font/ttf", "image/x-icon")
"""What is no text and still gains by compression."""
PREPARED: Final = (("br", ".br"), ("gzip", ".gz"))
"""Encodings whose files may lie beside a file, as build tools leave them, the best first."""


class Found(NamedTuple):
    """A file that may be served."""

    path: Path
    size: int
    mtime_ns: int


class Range(NamedTuple):
    """A part of a file, in bytes, the end excluded."""

    first: int
    end: int


class Page(NamedTuple):
    """One representation of a file, with the headers that every answer about it carries."""

    found: Found
    tag: str
    headers: dict[str, str]
    body: bytes | None
    """The whole content; None where it has to be read from `found`."""
    encoded: bool

    @property
    def size(self) -> int:
        """How many bytes a whole answer has."""
        return self.found.size if self.body is None else len(self.body)


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


def is_compressible(kind: str) -> bool:
    """Whether content of this media type becomes smaller by gzip."""
    return kind.endswith("; charset=utf-8") or kind in COMPRESSIBLE


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


def accepted(header: str) -> frozenset[str]:
    """The encodings of PREPARED that an Accept-Encoding allows (RFC 9110, section 12.5.3)."""
    weights: dict[str, bool] = {}
    for part in header.lower().split(","):
        coding, _, parameters = part.partition(";")
        weight = parameters.replace(" ", "").removeprefix("q=")
        weights[coding.strip()] = weight.strip("0.") != "" if parameters else True
    otherwise = weights.get("*", False)
    return frozenset(coding for coding, _ in PREPARED if weights.get(coding, otherwise))


class Site:
    """The files of one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._found: OrderedDict[str, Found | str] = OrderedDict()
        self._pages: OrderedDict[tuple[Found, frozenset[str]], Page] = OrderedDict()
        self._bytes = 0

    def find(self, path: str) -> Found | str | None:
        """A file, or the path that the client should ask for instead, or None."""
        known = self._found.get(path)
        if known is None:
            found = self._look_for(path)
            if found is None:
                # Not remembered: there is no end to what does not exist.
                return None
            known = self._found[path] = found
            if len(self._found) > PATHS_MAX:
                self._found.popitem(last=False)
        return known

    def _look_for(self, path: str) -> Found | str | None:
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

    async def page(self, found: Found, encodings: frozenset[str]) -> Page:
        """The best representation of the file among those that the client accepts."""
        key = (found, encodings)
        page = self._pages.get(key)
        if page is None:
            page = await asyncio.to_thread(self._make, found, encodings)
            self._remember(key, page)
        else:
            self._pages.move_to_end(key)
        return page

    def _remember(self, key: tuple[Found, frozenset[str]], page: Page) -> None:
        if key in self._pages:
            return  # Asked for twice at the same time.
        self._pages[key] = page
        self._bytes += len(page.body or b"")
        while self._bytes > CACHE_BYTES_MAX or len(self._pages) > PATHS_MAX:
            _, old = self._pages.popitem(last=False)
            self._bytes -= len(old.body or b"")

    def _make(self, found: Found, encodings: frozenset[str]) -> Page:
        kind = content_type(found.path.name)
        if not is_compressible(kind) or found.size < COMPRESSED_FILE_BYTES_MIN:
            return self._plain(found, kind)
        for coding, suffix in PREPARED:
            beside = self._file(found.path.with_name(found.path.name + suffix))
            if coding in encodings and beside is not None:
                page = self._plain(beside, kind)
                page.headers.update({"Content-Encoding": coding, "Vary": "Accept-Encoding"})
                return page._replace(encoded=True)
        page = self._plain(found, kind)
        page.headers["Vary"] = "Accept-Encoding"
        if "gzip" not in encodings or found.size > COMPRESSED_FILE_BYTES_MAX:
            return page
        body = gzip.compress(page.body or found.path.read_bytes(), 6, mtime=0)
        if len(body) > COMPRESSED_SHARE_MAX * found.size:
            return page
        # Weak: another replica's zlib may make other bytes of the same content.
        tag = f'W/"{page.tag.strip(chr(34))}-gzip"'
        page.headers.update({"Content-Encoding": "gzip", "ETag": tag})
        return page._replace(tag=tag, body=body, encoded=True)

    def _plain(self, found: Found, kind: str) -> Page:
        body = found.path.read_bytes() if found.size <= CACHED_FILE_BYTES_MAX else None
        tag = f'"{(blake3(body) if body is not None else _hash(found.path)).hexdigest()[:32]}"'
        headers = {
            "ETag": tag,
            "Last-Modified": formatdate(found.mtime_ns // 10**9, usegmt=True),
            "Cache-Control": "no-cache",
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
            "Content-Type": kind,
        }
        return Page(found, tag, headers, body, False)


def _hash(path: Path) -> blake3:
    hasher = blake3()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher
