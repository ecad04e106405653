"""HTTP/1.1 towards a replica, over any byte stream: the head of a request, the head and the body of an answer.

Pure but for reading the stream. Source: RFC 9110 and RFC 9112; where the latter lets a recipient be lenient or
strict, this is strict, because a replica and the gateway must never disagree on where an answer ends.

Invariants: every length is bounded; an answer that ended early is never taken for whole; bytes after the end of an
answer make the connection unfit for another request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto

from colla.access.interface import ByteStream

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
INTERIM_ANSWERS_MAX = 8
"""How many 1xx answers are skipped before one that counts."""
PIECE_BYTES = 128 * 1024
CHUNK_LINE_BYTES_MAX = 4 * 1024
TRAILER_BYTES_MAX = 16 * 1024

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers about one connection only (RFC 9110 section 7.6.1), which are never passed on."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: ([^\r\n\0]*))?", re.ASCII)
_HEADER_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)", re.ASCII)
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")

Headers = list[tuple[str, str]]


class BrokenAnswer(ConnectionError):
    """The answer ended early, or is no HTTP. `began` tells whether any byte of it had arrived."""

    def __init__(self, message: str, began: bool = True) -> None:
        super().__init__(message)
        self.began = began


class Framing(Enum):
    """How the end of a body is known."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_END = auto()


class AnswerHead:
    """The first part of an answer, understood. `headers` are those to pass on, in their order."""

    __slots__ = (
        "content_type",
        "framing",
        "headers",
        "keep_alive_s",
        "length",
        "reason",
        "reusable",
        "status",
    )

    def __init__(self, status: int, reason: str, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.content_type = ""
        self.framing = Framing.UNTIL_END
        self.length: int | None = None
        self.reusable = False
        """Whether the replica keeps the connection open for another request after this one."""
        self.keep_alive_s: float | None = None
        """How long it says that it keeps it open, when it says so."""


def listed(value: str) -> list[str]:
    """The members of a comma-separated header value, in lower case."""
    return [part.strip().lower() for part in value.split(",")]


def encode_request(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a request, with the blank line that ends it. The caller vouches for what it contains."""
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse_head(raw: bytes, method: str) -> AnswerHead:
    """Understand the head of an answer to a request by `method`, without its final blank line.

    Raises `BrokenAnswer` on anything malformed or ambiguous.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    status_line, *lines = text.split("\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise BrokenAnswer("the replica does not speak HTTP/1.1")
    if len(lines) > HEADERS_MAX:
        raise BrokenAnswer("the answer has too many headers")
    headers: Headers = []
    about_framing: dict[str, list[str]] = {}
    for line in lines:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise BrokenAnswer("the answer has a malformed header")
        name, value = header[1], header[2].rstrip(" \t")
        lowered = name.lower()
        if lowered in _TELLING:
            about_framing.setdefault(lowered, []).append(value)
        if lowered not in HOP_BY_HOP:
            headers.append((name, value))
    head = AnswerHead(int(match[2]), match[3] or "", headers)
    _understand(head, match[1] == "1", method, about_framing)
    return head


_TELLING = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "content-type", "upgrade")
)


def _understand(head: AnswerHead, is_1_1: bool, method: str, about: dict[str, list[str]]) -> None:
    """Fill in framing, reuse and content type of `head`, and drop what must not be passed on."""
    connection = listed(",".join(about["connection"])) if "connection" in about else []
    head.reusable = "close" not in connection and (is_1_1 or "keep-alive" in connection)
    if connection:
        named = {name for name in connection if name not in ("close", "keep-alive", "upgrade")}
        if named:
            head.headers = [(name, value) for name, value in head.headers if name.lower() not in named]
    if "keep-alive" in about:
        for part in listed(about["keep-alive"][0]):
            name, _, seconds = part.partition("=")
            if name == "timeout" and _DIGITS.fullmatch(seconds):
                head.keep_alive_s = float(seconds)
    if "content-type" in about:
        head.content_type = about["content-type"][0].partition(";")[0].strip().lower()
    if head.status == 101:
        head.reusable = False
        head.headers += [("Upgrade", value) for value in about.get("upgrade", [])]
        head.headers.append(("Connection", "Upgrade"))
    _understand_framing(head, method, about.get("transfer-encoding", []), about.get("content-length", []))


def _understand_framing(head: AnswerHead, method: str, encodings: list[str], lengths: list[str]) -> None:
    if encodings and lengths:
        raise BrokenAnswer("the answer has both a length and a transfer encoding")
    length: int | None = None
    if lengths:
        different = dict.fromkeys(part for value in lengths for part in listed(value))
        if len(different) > 1 or not _DIGITS.fullmatch(next(iter(different))):
            raise BrokenAnswer("the answer has a malformed length")
        length = int(next(iter(different)))
        if len(lengths) > 1 or "," in lengths[0]:
            head.headers = [pair for pair in head.headers if pair[0].lower() != "content-length"]
            head.headers.append(("Content-Length", str(length)))
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        head.framing = Framing.NONE
    elif encodings:
        if listed(",".join(encodings)) != ["chunked"]:
            raise BrokenAnswer("the answer has an unknown transfer encoding")
        head.framing = Framing.CHUNKED
    elif length is not None:
        head.framing = Framing.LENGTH if length else Framing.NONE
        head.length = length
    else:
        head.framing = Framing.UNTIL_END
        head.reusable = False


class Conversation:
    """The reading side of one connection to a replica: heads, bodies, and what came after them."""

    __slots__ = ("_buffer", "_chunks", "_remaining", "complete", "head", "stream")

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.head: AnswerHead | None = None
        self.complete = False
        """Whether the body of the present answer has been read to its end."""
        self._buffer = b""
        self._remaining = 0
        self._chunks: ChunkedBody | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self.complete and self.head is not None and self.head.reusable and not self._buffer

    async def read_head(self, method: str) -> AnswerHead:
        """The head of the next answer that counts, interim ones skipped. Raises `BrokenAnswer`, `ConnectionError`."""
        self.complete = False
        for _ in range(INTERIM_ANSWERS_MAX):
            head = parse_head(await self._raw_head(), method)
            if head.status >= 200 or head.status == 101:
                self.head = head
                self._remaining = head.length or 0
                self._chunks = ChunkedBody() if head.framing is Framing.CHUNKED else None
                self.complete = head.framing is Framing.NONE
                return head
        raise BrokenAnswer("the replica sent one interim answer after another")

    async def _raw_head(self) -> bytes:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > HEAD_BYTES_MAX:
                raise BrokenAnswer("the head of the answer is too long")
            data = await self.stream.read(PIECE_BYTES)
            if not data:
                raise BrokenAnswer("the replica closed the connection", began=bool(buffer))
            buffer = buffer + data if buffer else data
        self._buffer = buffer[end + 4 :]
        return buffer[:end]

    async def read_body(self) -> bytes:
        """The next piece of the body, decoded; `b""` may also mean that nothing is ready: ask `complete`.

        Raises `BrokenAnswer` when it ends early, `ConnectionError` when the stream breaks.
        """
        assert self.head is not None
        if self.complete:
            return b""
        data, self._buffer = self._buffer, b""
        if not data:
            data = await self.stream.read(PIECE_BYTES)
        if self.head.framing is Framing.UNTIL_END:
            self.complete = not data
            return data
        if not data:
            raise BrokenAnswer("the answer ended early")
        if self._chunks is not None:
            piece = self._chunks.feed(data)
            if self._chunks.done:
                self.complete, self._buffer = True, self._chunks.rest()
            return piece
        if len(data) >= self._remaining:
            data, self._buffer = data[: self._remaining], data[self._remaining :]
            self.complete = True
        self._remaining -= len(data)
        return data

    def take_buffer(self) -> bytes:
        """What was read beyond the head: after a 101, the first bytes of the other protocol."""
        data, self._buffer = self._buffer, b""
        return data


class ChunkedBody:
    """Decodes the chunked transfer coding, piece by piece (RFC 9112 section 7.1). Trailers are dropped."""

    __slots__ = ("_buffer", "_in_trailer", "_remaining", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self.done = False
        self._buffer = b""
        self._remaining = 0
        """Bytes of the present chunk still to come, its final line break included; 0 before a size line."""
        self._in_trailer = False
        self._trailer_bytes = 0

    def rest(self) -> bytes:
        """What followed the end of the body."""
        return self._buffer

    def feed(self, data: bytes) -> bytes:
        """Take in `data`, give out what it decodes to. Raises `BrokenAnswer`."""
        data = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        at = 0
        while not self.done and at < len(data):
            if self._remaining:
                at = self._take_chunk(data, at, pieces)
                if self._remaining:
                    break
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > CHUNK_LINE_BYTES_MAX:
                    raise BrokenAnswer("a chunk's first line is too long")
                break
            self._take_line(data[at:end])
            at = end + 2
        self._buffer = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        content = self._remaining - 2
        if content > 0:
            piece = data[at : at + content]
            pieces.append(piece)
            self._remaining -= len(piece)
            at += len(piece)
        if self._remaining == 2 and len(data) - at >= 2:
            if data[at : at + 2] != b"\r\n":
                raise BrokenAnswer("a chunk does not end where it says")
            self._remaining = 0
            at += 2
        return at

    def _take_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > TRAILER_BYTES_MAX:
                raise BrokenAnswer("the trailer is too long")
            self.done = not line
            return
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BrokenAnswer("a malformed chunk size")
        size = int(match[1], 16)
        self._in_trailer = size == 0
        self._remaining = size + 2 if size else 0
