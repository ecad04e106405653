"""Serves the routes of one node on the socket in the group's folder.

Every request needs the token that lies beside the socket (readable by the owner only), a Host that names this
API and no foreign Origin, so that a web page in the owner's browser cannot use it. Errors are `ApiError` with a
stable code, whatever goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from colla.client import types
from colla.model.errors import UNDECODABLE, CollaError
from colla.node.api import openapi
from colla.node.api.routes import STATUS_OF_CODE, Call, Route
from colla.node.api.table import ROUTES
from colla.node.settings import write_private

if TYPE_CHECKING:
    from colla.node.app import Node

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1024 * 1024
LISTENER_CHECK_S = 2.0
"""So long a stream goes on for somebody who is gone, while it has nothing to tell."""
ERROR_AT_ONCE_S = 0.05
"""A stream begins after this, unless it has failed by then."""
HOSTS = ("colla", "localhost", "127.0.0.1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Serves one node's API."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = secrets.token_urlsafe(24)
        self._serving: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on the socket; a socket left by a crash is replaced (the database's lock says that we are alone)."""
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        base = f"/{types.API_VERSION}"
        for route in ROUTES:
            application.router.add_route(route.method, f"{base}/{route.path}", self._handler(route))
        application.router.add_get(f"{base}/{openapi.PATH}", self._describe)
        self._serving = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._serving.setup()
        write_private(self._node.folder / types.TOKEN_NAME, self._token)
        path = self._node.folder / types.SOCKET_NAME
        path.unlink(missing_ok=True)
        with _short_path(path) as short_path:
            await web.UnixSite(self._serving, short_path).start()
        path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening."""
        serving, self._serving = self._serving, None
        if serving is not None:
            await serving.cleanup()
            (self._node.folder / types.SOCKET_NAME).unlink(missing_ok=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except CollaError as error:
            status = STATUS_OF_CODE.get(error.code, 400)
            return _json(types.ApiError(error.code, error.message, error.hint), status)
        except UNDECODABLE as error:
            return _json(types.ApiError("bad_request", f"The request is not right: {error}."), 400)
        except web.HTTPException as error:
            return _json(types.ApiError("bad_request", error.reason), error.status, error.headers)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return _json(types.ApiError("internal", f"This is a fault of colla: {error!r}."), 500)

    def _admit(self, request: web.Request) -> None:
        told = request.headers.get(types.TOKEN_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(told, self._token.encode()):
            raise CollaError("not_allowed", "The token of the API is missing or wrong.")
        if request.host.partition(":")[0] not in HOSTS or "Origin" in request.headers:
            raise CollaError("not_allowed", "The API answers local programs only, not web pages.")

    def _handler(self, route: Route[Any, Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = Call(self._node, await _asked(route, request), request.match_info)
            result = route.handler(call)
            if isinstance(result, AsyncIterator):
                return await _stream(request, result)
            return _json(await result)

        return handle

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        return _json(openapi.document(ROUTES))


async def _asked(route: Route[Any, Any], request: web.Request) -> Any:
    if route.request is None:
        return None
    if route.in_query:
        known = route.request.__struct_fields__
        for name in request.query:
            # Nobody sees what a misspelt name of a query leaves out.
            if name not in known:
                hint = f"It has these: {', '.join(known)}."
                raise CollaError("bad_request", f"The query has no {name!r}.", hint)
        return msgspec.convert(dict(request.query), route.request, strict=False)
    return msgspec.json.decode(await request.read() or b"{}", type=route.request)


async def _stream(request: web.Request, values: AsyncIterator[Any]) -> web.StreamResponse:
    """Line by line, until there are no more or nobody listens. An error that comes at once is an answer as any other."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    begun = asyncio.Event()
    telling = asyncio.ensure_future(_tell(response, values, begun))
    try:
        await asyncio.wait({telling}, timeout=ERROR_AT_ONCE_S)
        if telling.done():
            # Either it failed, or all of it is known: what fails from here on ends the stream.
            telling.result()
        await response.prepare(request)
        begun.set()
        while not telling.done():
            await asyncio.wait({telling}, timeout=LISTENER_CHECK_S)
            if request.transport is None or request.transport.is_closing():
                return response
        with contextlib.suppress(CollaError, ConnectionError):
            telling.result()
        return response
    finally:
        telling.cancel()


async def _tell(response: web.StreamResponse, values: AsyncIterator[Any], begun: asyncio.Event) -> None:
    async for value in values:
        await begun.wait()
        await response.write(msgspec.json.encode(value) + b"\n")


def _json(value: Any, status: int = 200, headers: Any = None) -> web.Response:
    allow = {"Allow": headers["Allow"]} if headers and "Allow" in headers else None
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=allow)


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A socket's path may have 107 bytes: longer ones are bound through a link to the folder."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="colla-") as short:
        link = Path(short) / "f"
        link.symlink_to(path.parent, target_is_directory=True)
        yield str(link / path.name)
