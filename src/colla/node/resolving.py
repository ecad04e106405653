"""What access needs of a node: names to locations (`Resolver`), and streams to replicas (`Tunnels`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from colla.access.interface import (
    ByteStream,
    ListedService,
    Located,
    ReplicaLocation,
    TunnelError,
)
from colla.access.streams import connect
from colla.access.tunnels import CONNECT_TIMEOUT_S, EndpointOf, TunnelHeader, open_tunnel
from colla.agents.requests import LocateService
from colla.agents.router import Router
from colla.model.errors import CollaError
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.service import Service
from colla.node import clock
from colla.node.asking import Asking
from colla.node.links.interface import LinkError, Links, LinkStream

TUNNEL_STREAM = "tunnel"
OBJECT_STREAM = "object"
UNKNOWN_RTT_S = 0.05
"""What a node without a measured path counts as when the nearest replica is chosen."""


class NodeResolver:
    """Implements `access.interface.Resolver` over the user agent's knowledge."""

    def __init__(self, core: Callable[[], Router], links: Links, asking: Asking) -> None:
        self._core = core
        self._links = links
        self._asking = asking
        self._questions: dict[ServiceId, asyncio.Future[object]] = {}

    def locate(self, host_name: str) -> Located | None:
        service = self._find(host_name)
        return self._located(service) if service is not None else None

    def locate_domain(self, domain: str) -> Located | None:
        for service in self._core().catalogue.services():
            if service.specification.public and domain in service.specification.domains:
                return self._located(service)
        return None

    async def locate_fresh(self, host_name: str, timeout_s: float) -> Located | None:
        service = self._find(host_name)
        if service is None:
            return None
        if service.active:
            with contextlib.suppress(CollaError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._locating(service.id, timeout_s)), timeout_s)
        return self._located(service)

    def _locating(self, service: ServiceId, timeout_s: float) -> asyncio.Future[object]:
        """One question to the group for all requests that wait for the same service."""
        running = self._questions.get(service)
        if running is None:
            running = asyncio.ensure_future(self._asking.ask(LocateService(service), timeout_s))
            self._questions[service] = running
            running.add_done_callback(lambda done: self._located_now(service, done))
        return running

    def _located_now(self, service: ServiceId, done: asyncio.Future[object]) -> None:
        self._questions.pop(service, None)
        if not done.cancelled():
            done.exception()  # Whoever still waits has it; with nobody left it is no fault.

    def report_failed(self, service: ServiceId, replica: ReplicaId) -> None:
        self._core().user.location_failed(service, replica, clock.now())

    def services(self) -> Sequence[ListedService]:
        core = self._core()
        listed = []
        for service in core.catalogue.services():
            name = core.shown_name(service)
            owner = core.membership.member(service.owner)
            listed.append(
                ListedService(
                    name=name,
                    host_name=name,
                    running=len(core.user.locations(service.id)),
                    wanted=service.replicas,
                    active=service.active,
                    public=service.specification.public,
                    owner=owner.name if owner else "",
                )
            )
        return listed

    def member_of_request(self, remote: str, headers: Mapping[str, str]) -> str | None:
        if remote not in ("127.0.0.1", "::1"):
            return None
        core = self._core()
        owner = core.membership.owner_of(core.identity.node)
        member = core.membership.member(owner) if owner is not None else None
        return member.name if member is not None else None

    def _find(self, host_name: str) -> Service | None:
        core = self._core()
        name, _, group = host_name.partition(".")
        if group and group != core.membership.group_name:
            return None
        return core.catalogue.by_name(name)

    def _located(self, service: Service) -> Located:
        core = self._core()
        if service.active:
            core.user.watch(service.id, clock.now())
        locations = tuple(
            ReplicaLocation(item.replica, item.node, core.node_name(item.node), self._near(item.node))
            for item in core.user.locations(service.id)
        )
        return Located(
            service=service.id,
            name=core.shown_name(service),
            group=core.membership.group_name,
            locations=locations,
            active=service.active,
            wanted=service.replicas,
            public=service.specification.public,
        )

    def _near(self, node: NodeId) -> float:
        if node == self._core().identity.node:
            return 0.0
        path = self._links.path(node)
        return path.rtt_ms / 1000 if path is not None else UNKNOWN_RTT_S


class LinkBytes:
    """A link's stream as the `ByteStream` that access knows: its errors become `ConnectionError`s."""

    def __init__(self, stream: LinkStream) -> None:
        self._stream = stream

    async def read(self, at_most: int) -> bytes:
        try:
            return await self._stream.read(at_most)
        except LinkError as error:
            raise ConnectionError(str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except LinkError as error:
            raise ConnectionError(str(error)) from error

    async def finish(self) -> None:
        try:
            await self._stream.finish()
        except LinkError as error:
            raise ConnectionError(str(error)) from error

    async def abort(self) -> None:
        await self._stream.abort()


class NodeTunnels:
    """Implements `access.interface.Tunnels`: directly on this node, through the encrypted link elsewhere."""

    def __init__(self, node: NodeId, links: Links, endpoint_of: EndpointOf) -> None:
        self._node = node
        self._links = links
        self._endpoint_of = endpoint_of

    async def open(self, node: NodeId, service: ServiceId, replica: ReplicaId) -> ByteStream:
        if node == self._node:
            try:
                return await connect(self._endpoint_of(service, replica), CONNECT_TIMEOUT_S)
            except TimeoutError:
                raise TunnelError("timed_out") from None
            except ConnectionError as error:
                if isinstance(error, TunnelError):
                    raise
                raise TunnelError("endpoint_refused", str(error)) from error
        try:
            stream = LinkBytes(await self._links.open_stream(node, TUNNEL_STREAM))
        except LinkError as error:
            raise TunnelError("unreachable", str(error)) from error
        await open_tunnel(stream, TunnelHeader(service, replica))
        return stream
