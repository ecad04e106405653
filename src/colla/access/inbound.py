"""From a client's request to the parcel that replicas get.

Owns the rules on headers and bodies of requests. Invariants: no `X-Colla-*` or `X-Forwarded-*` of a client reaches a
replica, in any spelling that a program might take for it; a body is held whole only up to `BODY_KEPT_BYTES_MAX`; the
member is named only for requests that the service's own pages, or the person, made.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from colla.access.attempt import Parcel, Upload, UploadFailed
from colla.access.http1 import HOP_BY_HOP, Headers, listed
from colla.access.names import split_host
from colla.access.pages import Notice

BODY_KEPT_BYTES_MAX = 256 * 1024
"""Bodies up to this size are held, so that the request can be given to another replica; larger ones are streamed."""
CLIENT_SILENCE_S = 60.0
"""How long a client may pause within its request's body."""

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
CONDITIONS = ("If-Match", "If-None-Match", "If-Unmodified-Since")
"""With one of these a write that is repeated is answered by 412 although it was done: it is given to one replica only."""
REFUSED_METHODS = frozenset(("CONNECT", "TRACE"))

_NEVER_PASSED_ON = HOP_BY_HOP | frozenset(("host", "expect", "content-length", "forwarded", "x-real-ip"))
_TARGET = re.compile(r"(?:/|\*$)[^\x00-\x20\x7f]*")
_ABSOLUTE_TARGET = re.compile(r"https?://([^/?#\s]+)(.*)", re.IGNORECASE)


class Refused(Exception):
    """The gateway answers by itself, with this notice."""

    def __init__(self, notice: Notice) -> None:
        super().__init__(notice.code)
        self.notice = notice


def target_and_hosts(request: web.BaseRequest) -> tuple[str, list[str]]:
    """What is asked for, and of whom: the origin-form target and every Host that the request names.

    Raises `Refused` on a method or a target that makes no sense here.
    """
    if request.method in REFUSED_METHODS:
        raise Refused(
            Notice(405, "method_refused", "Not here", f"This gateway does not take {request.method}.")
        )
    target, hosts = request.raw_path, request.headers.getall("Host", [])
    if absolute := _ABSOLUTE_TARGET.fullmatch(target):
        rest = absolute[2]
        target, hosts = (rest if rest.startswith("/") else "/" + rest), [absolute[1]]
    if not _TARGET.fullmatch(target):
        raise Refused(Notice(400, "target_malformed", "Not understood", "The request's target is malformed."))
    return target, hosts


async def parcel_of(
    request: web.BaseRequest,
    target: str,
    host: str,
    name: str,
    *,
    member: str | None,
    group: str,
    proxied: bool,
) -> Parcel:
    """The request as replicas shall get it; reads its body when that is small.

    `name` locates the service again, `proxied` says that the sender is a proxy whose forwarding headers count.
    Raises `Refused`, or `UploadFailed` when the client breaks off.
    """
    upgrade = wants_websocket(request)
    headers = _passed_on(request, host)
    headers += _forwarding(request, host, proxied)
    headers.append(("X-Colla-Group", _printable(group)))
    if member is not None:
        headers.append(("X-Colla-Member", _printable(member)))
    if upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    body, upload = b"", None
    if request.body_exists:
        body, upload, framing = await _body_of(request)
        headers.append(framing)
    elif "Content-Length" in request.headers:
        headers.append(("Content-Length", "0"))
    return Parcel(
        request.method,
        target,
        headers,
        name=name,
        body=body,
        upload=upload,
        replayable=upload is None and _is_repeatable(request),
        upgrade=upgrade,
    )


def _is_repeatable(request: web.BaseRequest) -> bool:
    """Whether a second replica answers as the first one would, even if that one has done already what is asked."""
    writes = request.method in ("PUT", "DELETE")
    conditional = writes and any(name in request.headers for name in CONDITIONS)
    return request.method in IDEMPOTENT and not conditional


def wants_websocket(request: web.BaseRequest) -> bool:
    """Whether the client asks to switch to WebSocket, the one other protocol that is passed through."""
    headers = request.headers
    return (
        "Upgrade" in headers
        and headers["Upgrade"].strip().lower() == "websocket"
        and "upgrade" in listed(headers.get("Connection", ""))
        and request.method == "GET"
    )


def made_by_another_site(request: web.BaseRequest, host: str) -> bool:
    """Whether a browser sent this on behalf of a page of another site, other than by the person following a link.

    Such a request must not carry the member's name: any page in the web could otherwise act as the member.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and split_host(origin.partition("://")[2]) != split_host(host):
        return True
    site = headers.get("Sec-Fetch-Site")
    if site is None or site in ("same-origin", "none"):
        return False
    follows_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return not (follows_link and request.method in ("GET", "HEAD"))


# ---------------------------------------------------------------------- headers


def _passed_on(request: web.BaseRequest, host: str) -> Headers:
    headers: Headers = [("Host", host)]
    named: list[str] = []
    if "Connection" in request.headers:
        named = listed(",".join(request.headers.getall("Connection")))
    for name, value in request.headers.items():
        lowered = name.lower()
        # An underscore is no hyphen here, but it is for CGI and WSGI programs; so names with one are dropped.
        if lowered in _NEVER_PASSED_ON or "_" in lowered or lowered in named:
            continue
        if lowered.startswith(("x-colla-", "x-forwarded-")):
            continue
        headers.append((name, value))
    return headers


def _forwarding(request: web.BaseRequest, host: str, proxied: bool) -> Headers:
    client, protocol = request.remote or "unknown", "http"
    if proxied:
        before = request.headers.getall("X-Forwarded-For", [])
        client = ", ".join([*(_printable(value) for value in before), client])
        if request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https":
            protocol = "https"
    return [("X-Forwarded-For", client), ("X-Forwarded-Proto", protocol), ("X-Forwarded-Host", host)]


def _printable(value: str) -> str:
    """A header value that can end neither the header nor the head."""
    return "".join(character for character in value if character.isprintable())


# ---------------------------------------------------------------------- bodies


async def _body_of(request: web.BaseRequest) -> tuple[bytes, Upload | None, tuple[str, str]]:
    """The body if it is small, else what streams it, and the header that frames it."""
    await _continue(request)
    declared = request.headers.get("Content-Length")
    length = int(declared) if declared is not None else None
    if length is not None and length > BODY_KEPT_BYTES_MAX:
        return b"", _streaming(request, [], length), ("Content-Length", str(length))
    pieces: list[bytes] = []
    size = 0
    while piece := await _next_piece(request):
        pieces.append(piece)
        size += len(piece)
        if size > BODY_KEPT_BYTES_MAX:
            return b"", _streaming(request, pieces, None), ("Transfer-Encoding", "chunked")
    return b"".join(pieces), None, ("Content-Length", str(size))


async def _continue(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`, for which clients hold their body back."""
    expect = request.headers.get("Expect")
    if expect is None:
        return
    if expect.strip().lower() != "100-continue":
        raise Refused(
            Notice(417, "expectation_unknown", "Not understood", "The request expects something unknown.")
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # aiohttp takes a response for begun once anything was sent; an interim answer is none.
    request.writer.output_size = 0


async def _next_piece(request: web.BaseRequest) -> bytes:
    """The next piece of the body, `b""` at its end. Raises `UploadFailed`."""
    try:
        async with asyncio.timeout(CLIENT_SILENCE_S):
            return await request.content.readany()
    except TimeoutError:
        raise UploadFailed("the client stopped sending") from None
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError) as error:
        raise UploadFailed(f"the client broke off: {error}") from error


def _streaming(request: web.BaseRequest, begun: list[bytes], length: int | None) -> Upload:
    """An upload that sends what was read, then the rest as it comes: chunked, unless its length is known."""

    async def upload(write: Callable[[bytes], Awaitable[None]]) -> None:
        pieces, sent = begun, 0
        while pieces or (piece := await _next_piece(request)):
            data = pieces.pop(0) if pieces else piece
            sent += len(data)
            await write(data if length is not None else b"%x\r\n%b\r\n" % (len(data), data))
        if length is None:
            await write(b"0\r\n\r\n")
        elif sent != length:
            raise UploadFailed("the client sent less than it announced")

    return upload
