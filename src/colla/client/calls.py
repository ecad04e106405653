"""How `colla.Client` reaches the node: one HTTP connection over the Unix socket in the group's folder.

The token beside the socket proves that the caller may read that folder. Errors are `CollaError`s with the API's code,
message and hint. The calls themselves stand in one module per area beside this one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from colla.client import types
from colla.model.errors import CollaError

T = TypeVar("T")

REQUEST_TIMEOUT_S = 60.0
SOCKET_PATH_BYTES_MAX = 100
"""macOS allows 104, Linux 108."""


class Calls:
    """A connection to this computer's node in one group."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the group's folder on this computer (`colla.client.folders.find_group`)."""
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._session: aiohttp.ClientSession | None = None

    def _connect(self) -> None:
        """Raises `CollaError("not_running")` when no node serves this folder."""
        token_path = self.folder / types.TOKEN_NAME
        if not token_path.exists() or not (self.folder / types.SOCKET_NAME).exists():
            raise _not_running()
        socket = self._stack.enter_context(_short_path(self.folder / types.SOCKET_NAME))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket),
            headers={types.TOKEN_HEADER: token_path.read_text().strip()},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )

    async def _disconnect(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._stack.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise CollaError(
                "closed", "The client is not open.", "Use `async with Client(folder) as client`."
            )
        return self._session

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> T:
        """One request and its answer, which must be of `kind`. Raises the API's `CollaError`."""
        session = self._open()
        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with session.request(
                method, _url(path), params=query, data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
        except TimeoutError:
            raise CollaError(
                "timeout", "The node did not answer in time.", "Look at its log with `colla log`."
            ) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            raise _not_running() from None
        if response.status >= 400:
            raise _refused(raw)
        return msgspec.json.decode(raw, type=kind)

    async def _lines(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: msgspec.Struct | None = None,
        *,
        query: dict[str, str] | None = None,
    ) -> AsyncIterator[T]:
        """A stream of values, one per line, until the caller or the node ends it."""
        session = self._open()
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with session.request(
                method, _url(path), params=query, data=data, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise _refused(await response.read())
                async for line in response.content:
                    if line.strip():
                        yield msgspec.json.decode(line, type=kind)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            raise _not_running() from None


def quoted(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """The path of a socket may have about 100 bytes: a longer one is reached through a link to its folder."""
    if len(os.fsencode(path)) < SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="colla-") as short:
        link = Path(short) / "f"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield str(link / path.name)


def _url(path: str) -> str:
    return f"http://colla/{types.API_VERSION}/{path}"


def _refused(raw: bytes) -> CollaError:
    error = msgspec.json.decode(raw, type=types.ApiError)
    return CollaError(error.code, error.message, error.hint)


def _not_running() -> CollaError:
    return CollaError(
        "not_running", "No node of this group runs on this computer.", "Start it with `colla up`."
    )
