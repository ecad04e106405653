"""`colla.Client`: the local HTTP API for programs, asynchronous.

It speaks to the node of this computer over a Unix socket in the group's folder; the token beside the socket
proves that the caller may read that folder. Errors are `CollaError`s with the API's code, message and hint.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from colla.client import types
from colla.model.contribution import Contribution
from colla.model.errors import CollaError

T = TypeVar("T")

REQUEST_TIMEOUT_S = 60.0
PUT_TIMEOUT_S = 24 * 3600.0
SOCKET_PATH_BYTES_MAX = 100
"""macOS allows 104, Linux 108."""


class Client:
    """A connection to this computer's node in one group. Use it as an asynchronous context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the group's folder on this computer (`colla.client.folders.find_group`)."""
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._stack.close()

    # -- reading --------------------------------------------------------------------------------------------

    async def node(self) -> types.NodeReport:
        """This computer's node."""
        return await self._call("GET", "node", types.NodeReport)

    async def status(self) -> types.StatusReport:
        """The group at a glance."""
        return await self._call("GET", "status", types.StatusReport)

    async def members(self) -> tuple[types.MemberReport, ...]:
        """All members."""
        return await self._call("GET", "members", tuple[types.MemberReport, ...])

    async def computers(self) -> tuple[types.ComputerReport, ...]:
        """All nodes of the group."""
        return await self._call("GET", "nodes", tuple[types.ComputerReport, ...])

    async def services(self) -> tuple[types.ServiceReport, ...]:
        """All existing services."""
        return await self._call("GET", "services", tuple[types.ServiceReport, ...])

    async def service(self, name: str) -> types.ServiceReport:
        """One service with fresh locations. Raises `CollaError("not_found")`."""
        return await self._call("GET", f"services/{quote(name, safe='')}", types.ServiceReport)

    async def why(self, name: str) -> types.WhyReport:
        """Why the replicas of the service run where they run."""
        return await self._call("GET", f"services/{quote(name, safe='')}/why", types.WhyReport)

    async def logs(self, name: str) -> tuple[str, ...]:
        """The newest log lines of the service's replica on this computer."""
        return await self._call("GET", f"services/{quote(name, safe='')}/logs", tuple[str, ...])

    async def doctor(self) -> tuple[types.DoctorLine, ...]:
        """What the node sees of its own health and connections."""
        return await self._call("GET", "doctor", tuple[types.DoctorLine, ...])

    async def notices(self) -> AsyncIterator[types.NoticeReport]:
        """What happens on this node, as it happens; the newest of the past come first."""
        session = self._open()
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        try:
            async with session.get(_url("notices"), timeout=timeout) as response:
                if response.status >= 400:
                    raise _refused(await response.read())
                async for line in response.content:
                    if line.strip():
                        yield msgspec.json.decode(line, type=types.NoticeReport)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            raise _not_running() from None

    # -- services -------------------------------------------------------------------------------------------

    async def put(self, path: Path) -> types.PutAnswer:
        """Store a folder or file as an object, with copies on repository agents."""
        return await self._call(
            "POST", "objects", types.PutAnswer, types.PutRequest(_absolute(path)), timeout_s=PUT_TIMEOUT_S
        )

    async def deploy(self, request: types.DeployRequest) -> types.WrittenAnswer:
        """Create or modify a service; the object must have been put before."""
        return await self._call("POST", "services", types.WrittenAnswer, request)

    async def activate(self, name: str) -> types.WrittenAnswer:
        """Let the group keep replicas of the service running."""
        return await self._call("POST", f"services/{quote(name, safe='')}/activate", types.WrittenAnswer)

    async def deactivate(self, name: str) -> types.WrittenAnswer:
        """Stop all replicas; the service goes on existing."""
        return await self._call("POST", f"services/{quote(name, safe='')}/deactivate", types.WrittenAnswer)

    async def scale(self, name: str, replicas: int) -> types.WrittenAnswer:
        """Ask for another number of replicas."""
        return await self._call(
            "POST",
            f"services/{quote(name, safe='')}/scale",
            types.WrittenAnswer,
            types.ScaleRequest(replicas),
        )

    async def eliminate(self, name: str) -> types.WrittenAnswer:
        """Remove the service for good."""
        return await self._call("DELETE", f"services/{quote(name, safe='')}", types.WrittenAnswer)

    async def forward(self, name: str, port: int = 0) -> types.ForwardAnswer:
        """Open a local TCP port to live replicas of the service."""
        return await self._call("POST", "forwards", types.ForwardAnswer, types.ForwardRequest(name, port))

    async def close_forward(self, port: int) -> None:
        """Close a local port that `forward` opened."""
        await self._call("DELETE", f"forwards/{port}", dict[str, str])

    # -- group and this computer ----------------------------------------------------------------------------

    async def invite(self, request: types.InviteRequest) -> types.InviteAnswer:
        """Issue a ticket."""
        return await self._call("POST", "invite", types.InviteAnswer, request)

    async def contribute(self, contribution: Contribution) -> types.ContributeAnswer:
        """Decide anew what this computer gives; takes effect at once."""
        return await self._call(
            "POST", "contribute", types.ContributeAnswer, types.ContributeRequest(contribution)
        )

    async def leave(self) -> None:
        """Say goodbye and stop this node; its replicas stop too. Does not need any other node."""
        await self._call("POST", "leave", dict[str, str])

    async def shut_down(self, *, keep_replicas: bool = False) -> None:
        """Stop the node; it comes back with `colla up`. Replicas stop too unless they are to be kept."""
        await self._call("POST", "shut-down", dict[str, str], {"keep_replicas": keep_replicas})

    async def connect(self, address: str) -> None:
        """Try to reach a node of the group at this address."""
        await self._call("POST", "connect", dict[str, str], types.ConnectRequest(address))

    # -- plumbing -------------------------------------------------------------------------------------------

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise CollaError(
                "closed", "The client is not open.", "Use `async with Client(folder) as client`."
            )
        return self._session

    async def _call(
        self, method: str, path: str, kind: type[T], body: Any = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> T:
        session = self._open()
        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            async with session.request(
                method, _url(path), data=data, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s)
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


def _absolute(path: Path) -> str:
    # The node has another working folder.
    return str(path.resolve())


def _url(path: str) -> str:
    return f"http://colla/{types.API_VERSION}/{path}"


def _refused(raw: bytes) -> CollaError:
    error = msgspec.json.decode(raw, type=types.ApiError)
    return CollaError(error.code, error.message, error.hint)


def _not_running() -> CollaError:
    return CollaError(
        "not_running", "No node of this group runs on this computer.", "Start it with `colla up`."
    )
