"""What the tests of access share: byte streams in memory, a group in one process, real programs on Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from colla.access.courier import Patience
from colla.access.gateway import Door, Gateway
from colla.access.interface import ByteStream, ListedService, Located, ReplicaLocation, TunnelError
from colla.access.streams import UnixEndpoint, connect
from colla.model.ids import NodeId, ReplicaId, ServiceId


class _Pipe:
    """One direction in memory, with a bound: `write` waits while it is full."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.data, self.ended, self.broken = capacity, bytearray(), False, False
        self.most = 0
        self.changed = asyncio.Condition()

    async def change(self, act: Callable[[], None]) -> None:
        async with self.changed:
            act()
            self.most = max(self.most, len(self.data))
            self.changed.notify_all()

    async def wait_for(self, ready: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: ready() or self.broken)
        if self.broken:
            raise ConnectionResetError("aborted")


class MemoryStream:
    """One end of a pair."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.incoming, self.outgoing, self.aborted = incoming, outgoing, False

    async def read(self, at_most: int) -> bytes:
        await self.incoming.wait_for(lambda: bool(self.incoming.data) or self.incoming.ended)
        data = bytes(self.incoming.data[:at_most])

        def take() -> None:
            del self.incoming.data[: len(data)]

        await self.incoming.change(take)
        return data

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), self.outgoing.capacity):
            piece = data[at : at + self.outgoing.capacity]
            await self.outgoing.wait_for(lambda: len(self.outgoing.data) < self.outgoing.capacity)
            await self.outgoing.change(lambda piece=piece: self.outgoing.data.extend(piece))

    async def finish(self) -> None:
        await self.outgoing.change(lambda: setattr(self.outgoing, "ended", True))

    async def abort(self) -> None:
        self.aborted = True
        for pipe, over in ((self.incoming, not self.incoming.data), (self.outgoing, True)):
            if not (pipe.ended and over):
                await pipe.change(lambda pipe=pipe: setattr(pipe, "broken", True))


def memory_pair(capacity: int = 64 * 1024) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a stream, bounded in each direction."""
    one, other = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(one, other), MemoryStream(other, one)


class Replica:
    """One replica of the test group: a real aiohttp program on a Unix socket, or something broken instead."""

    def __init__(self, number: int, near: float) -> None:
        self.location = ReplicaLocation(
            ReplicaId(bytes([number]) * 16), NodeId(bytes([number]) * 32), f"node{number}", near
        )
        self.endpoint: UnixEndpoint | None = None
        self.opened = 0
        self.aborted = 0
        self.requests: list[str] = []
        self.fault = ""
        """"": none; `refuse`: the tunnel is refused; `hang_open`: opening takes for ever."""
        self.runner: web.AppRunner | None = None

    async def kill(self) -> None:
        """Close every connection at once, as when the process is killed."""
        assert self.runner is not None and self.runner.server is not None
        for connection in list(self.runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        for site in list(self.runner.sites):
            await site.stop()


class _Counted:
    """A stream that tells its replica when it is aborted."""

    def __init__(self, inner: ByteStream, replica: Replica) -> None:
        self.inner, self.replica, self.done = inner, replica, False

    async def read(self, at_most: int) -> bytes:
        return await self.inner.read(at_most)

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def finish(self) -> None:
        await self.inner.finish()

    async def abort(self) -> None:
        if not self.done:
            self.done = True
            self.replica.aborted += 1
        await self.inner.abort()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Group:
    """A `Resolver` and `Tunnels` over replicas in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replicas: list[Replica] = []
        self.service = ServiceId(b"s" * 16)
        self.located: Located | None = Located(self.service, "blog", "friends", (), wanted=2)
        self.fresh: Located | None = None
        self.asked_fresh = 0
        self.failed: list[ReplicaId] = []
        self.member: str | None = "ada"
        self.domains: dict[str, Located] = {}
        self.listed: list[ListedService] = []

    # the workshop

    async def add(self, handler: Handler, *, near: float = 0.0, located: bool = True) -> Replica:
        """Start a program that answers with `handler`."""
        replica = Replica(len(self.replicas) + 1, near)

        async def noted(request: web.Request) -> web.StreamResponse:
            replica.requests.append(f"{request.method} {request.raw_path}")
            return await handler(request)

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", noted)
        replica.runner = web.AppRunner(app, shutdown_timeout=0.1, auto_decompress=False)
        await replica.runner.setup()
        path = str(self.folder / f"{len(self.replicas)}.sock")
        await web.UnixSite(replica.runner, path).start()
        replica.endpoint = UnixEndpoint(path)
        return self._added(replica, located)

    async def add_raw(
        self,
        converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        near: float = 0.0,
    ) -> Replica:
        """Start a program that says whatever `converse` says, HTTP or not."""
        replica = Replica(len(self.replicas) + 1, near)
        path = str(self.folder / f"{len(self.replicas)}.sock")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await converse(reader, writer)
            writer.close()

        await asyncio.start_unix_server(serve, path)
        replica.endpoint = UnixEndpoint(path)
        return self._added(replica, True)

    def add_broken(self, fault: str, near: float = 0.0) -> Replica:
        replica = Replica(len(self.replicas) + 1, near)
        replica.fault = fault
        return self._added(replica, True)

    def _added(self, replica: Replica, located: bool) -> Replica:
        self.replicas.append(replica)
        if located:
            self.locate_only(*[*self._located_replicas(), replica])
        return replica

    def _located_replicas(self) -> list[Replica]:
        assert self.located is not None
        known = {one.replica for one in self.located.locations}
        return [one for one in self.replicas if one.location.replica in known]

    def with_replicas(self, *replicas: Replica, **changes: Any) -> Located:
        values: dict[str, Any] = {
            "wanted": 2,
            "locations": tuple(one.location for one in replicas),
            **changes,
        }
        return Located(self.service, "blog", "friends", **values)

    def locate_only(self, *replicas: Replica, **changes: Any) -> None:
        self.located = self.with_replicas(*replicas, **changes)

    # Resolver

    def locate(self, host_name: str) -> Located | None:
        return self.located if host_name in ("blog", "blog.friends", "blog--ada") else None

    def locate_domain(self, domain: str) -> Located | None:
        return self.domains.get(domain)

    async def locate_fresh(self, host_name: str, timeout_s: float) -> Located | None:
        self.asked_fresh += 1
        if self.fresh is not None:
            self.located = self.fresh
        return self.locate(host_name)

    def report_failed(self, service: ServiceId, replica: ReplicaId) -> None:
        self.failed.append(replica)

    def services(self) -> Sequence[ListedService]:
        return self.listed

    def member_of_request(self, remote: str, headers: Mapping[str, str]) -> str | None:
        return self.member

    # Tunnels

    async def open(self, node: NodeId, service: ServiceId, replica: ReplicaId) -> ByteStream:
        one = next(each for each in self.replicas if each.location.replica == replica)
        one.opened += 1
        if one.fault == "hang_open":
            await asyncio.Event().wait()
        if one.fault == "refuse" or one.endpoint is None:
            raise TunnelError("endpoint_refused")
        try:
            return _Counted(await connect(one.endpoint, 1.0), one)
        except ConnectionError as error:
            raise TunnelError("endpoint_refused") from error


class Access:
    """A gateway over the test group, with clients."""

    def __init__(self, group: Group, gateway: Gateway, port: int, client: aiohttp.ClientSession) -> None:
        self.group, self.gateway, self.port, self.client = group, gateway, port, client

    def ask(self, path: str = "/", method: str = "GET", host: str = "blog.localhost", **options: Any) -> Any:
        """A request through the gateway, as an aiohttp context manager."""
        headers = {"Host": f"{host}:{self.port}", **options.pop("headers", {})}
        url = f"http://127.0.0.1:{options.pop('port', self.port)}{path}"
        return self.client.request(method, url, headers=headers, allow_redirects=False, **options)

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which exactly these bytes have been sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        writer.write(data)
        return reader, writer


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    # A Unix socket's path must be short, which pytest's own folders are not everywhere.
    with tempfile.TemporaryDirectory(prefix="ca") as folder:
        made = Group(Path(folder))
        yield made
        for replica in made.replicas:
            if replica.runner is not None:
                await replica.runner.cleanup()


@pytest.fixture
async def open_access(group: Group) -> AsyncIterator[Callable[..., Awaitable[Access]]]:
    """Opens gateways with the patience and the door that a test needs."""
    opened: list[Access] = []

    async def make(patience: Patience | None = None, **door: Any) -> Access:
        gateway = Gateway(group, group, Random(1), patience)
        port = await gateway.listen(Door(port=0, **door))
        client = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=30))
        opened.append(Access(group, gateway, port, client))
        return opened[-1]

    yield make
    for access in opened:
        await access.client.close()
        await access.gateway.close()


@pytest.fixture
async def access(open_access: Callable[..., Awaitable[Access]]) -> Access:
    """A member's own gateway."""
    return await open_access()


@pytest.fixture
def pair() -> Callable[..., tuple[MemoryStream, MemoryStream]]:
    """Makes pairs of byte streams in memory."""
    return memory_pair


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Let the loop go on until the condition holds; fails the test if it never does."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is about anything, not about one event
            await asyncio.sleep(0.002)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Awaitable[None]]:
    return eventually
