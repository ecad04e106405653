"""The gateway: HTTP at one address, carried to whichever replica of a service is alive.

Owns its listeners and the connections of clients. A gateway has doors: a member's own (`SERVICE.localhost:PORT`), loopback
ports of single services where such names do not resolve, and contributed ones, which serve public services only.
Source: DESIGN.md section 8. Invariants: what a request means is decided by its Host alone; a contributed door never
tells whether a private service exists; every request ends in an answer, at the latest when its patience is over.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections import OrderedDict
from random import Random
from typing import assert_never

import msgspec
from aiohttp import web

from colla.access import notices, pages
from colla.access.attempt import UploadFailed
from colla.access.courier import Courier, Patience, Undelivered
from colla.access.health import HealthMemory
from colla.access.inbound import Refused, made_by_another_site, parcel_of, target_and_hosts
from colla.access.interface import Located, Resolver, Tunnels
from colla.access.names import (
    LOCAL_SUFFIXES,
    ByDomain,
    ByName,
    Foreign,
    FrontPage,
    Malformed,
    Meaning,
    meaning,
)
from colla.access.outbound import give
from colla.access.ports import GATEWAY_PORT, LOOPBACK, is_loopback, listen, listen_preferring, preferred_port
from colla.model.errors import CollaError
from colla.model.ids import short

CONNECTIONS_MAX = 2048
"""Clients connected to one door at once; further ones are closed at once."""
IDLE_CLIENT_S = 75.0
"""How long a client may keep a connection open without completing the head of a request."""
LINGER_S = 1.0
"""How long the rest of a request is still read and dropped when its answer came early."""
SHUTDOWN_S = 2.0
UNKNOWN_MAX = 1024
UNKNOWN_S = 2.0
"""How long a name that nobody knew is not asked for again."""
LOG_EVERY_S = 10.0
"""The same failure is logged once in so many seconds, with the number of those in between."""
SERVICE_DOORS_MAX = 256
QUESTIONS_MAX = 16
"""How many names are asked of the group at once; others count as unknown until one is answered."""

_log = logging.getLogger(__name__)


class Door(msgspec.Struct, frozen=True):
    """One address at which a gateway listens, and what it lets in."""

    address: str = LOOPBACK
    port: int = GATEWAY_PORT
    public_only: bool = False
    """A contributed door: serves public services by name or domain, lists nothing."""
    suffixes: tuple[str, ...] = LOCAL_SUFFIXES
    """What follows the name of a service in a Host: `localhost`, and any domain of the owner."""
    only: str = ""
    """When set: the host name of the one service that this door leads to, whatever the Host's name."""
    proxies: tuple[str, ...] = ()
    """Addresses of the owner's proxies, whose `X-Forwarded-*` headers are believed."""


class Counts(msgspec.Struct):
    """What went through a gateway since it started."""

    requests: int = 0
    delivered: int = 0
    broken_off: int = 0
    """Streamed answers that ended early because the replica did."""
    undelivered: int = 0


class Gateway:
    """See the module. Make one per node, then open doors with `listen`."""

    def __init__(
        self, resolver: Resolver, tunnels: Tunnels, rng: Random, patience: Patience | None = None
    ) -> None:
        self.counts = Counts()
        self._resolver = resolver
        self._courier = Courier(resolver, tunnels, HealthMemory(rng), patience)
        self._doors: list[tuple[asyncio.Server, web.Server]] = []
        self._ports: dict[str, int] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._questions = 0
        self._logged: dict[str, tuple[float, int]] = {}

    async def listen(self, door: Door) -> int:
        """Open a door; returns its port. Raises `CollaError` (`port_in_use`, `door_too_open`, …) with what to do."""
        if not door.public_only and not is_loopback(door.address):
            raise CollaError(
                "door_too_open",
                f"At {door.address} others could reach services that are not public.",
                "Contribute a gateway instead, which serves public services only, or listen on 127.0.0.1.",
            )
        option = "--gateway" if door.public_only else "--gateway-port (`gateway_port` in settings.toml)"
        listener = listen(door.address, door.port, "the gateway", option)
        return await self._open(door, listener)

    async def listen_for(self, host_name: str) -> int:
        """The loopback port that leads to this one service, opened when there is none yet.

        The same service gets the same port again when it is free. Raises `CollaError`.
        """
        if host_name in self._ports:
            return self._ports[host_name]
        if len(self._ports) >= SERVICE_DOORS_MAX:
            raise CollaError(
                "too_many_ports",
                f"{SERVICE_DOORS_MAX} services already have a port of their own here.",
                f"Use http://{host_name}.localhost at the gateway's port instead.",
            )
        located = self._resolver.locate(host_name)
        wanted = preferred_port(located.service) if located is not None else 0
        listener = listen_preferring(LOOPBACK, wanted, f"the address of {host_name}")
        port: int = listener.getsockname()[1]
        self._ports[host_name] = port
        return await self._open(Door(port=port, only=host_name), listener)

    async def close(self) -> None:
        """Stop listening, give what is under way a moment, close everything."""
        doors, self._doors, self._ports = self._doors, [], {}
        for listening, _ in doors:
            listening.close()
        for _, clients in doors:
            clients.pre_shutdown()
        await asyncio.gather(*(clients.shutdown(SHUTDOWN_S) for _, clients in doors))
        await self._courier.close()

    async def _open(self, door: Door, listener: socket.socket) -> int:
        clients = web.Server(
            functools.partial(self._handle, door),
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_CLIENT_S,
            lingering_time=LINGER_S,
            max_field_size=16 * 1024,
        )

        def protocol() -> asyncio.Protocol:
            return clients() if len(clients.connections) < CONNECTIONS_MAX else _Full()

        listening = await asyncio.get_running_loop().create_server(protocol, sock=listener)
        self._doors.append((listening, clients))
        port: int = listening.sockets[0].getsockname()[1]
        return port

    def _log_undelivered(self, what: str) -> None:
        """Once in a while per kind: a service that is down is asked for many times a second."""
        now = asyncio.get_running_loop().time()
        quiet_since, count = self._logged.get(what, (float("-inf"), 0))
        if now - quiet_since < LOG_EVERY_S:
            self._logged[what] = (quiet_since, count + 1)
            return
        if len(self._logged) >= UNKNOWN_MAX:
            self._logged.clear()
        self._logged[what] = (now, 0)
        more = f" ({count} more since the last such line)" if count else ""
        _log.info("undelivered: %s%s", what.removesuffix(": "), more)

    # ------------------------------------------------------------------ one request

    async def _handle(self, door: Door, request: web.BaseRequest) -> web.StreamResponse:
        self.counts.requests += 1
        try:
            target, hosts = target_and_hosts(request)
            means = _meaning(door, tuple(hosts))
            if isinstance(means, FrontPage):
                return self._front_page(door, request)
            located, name = await self._find(door, means)
            return await self._carry(door, request, located, target, hosts[0], name)
        except Refused as refused:
            return notices.response(request, refused.notice)
        except Undelivered as undelivered:
            self.counts.undelivered += 1
            self._log_undelivered(str(undelivered))
            notice = notices.undelivered(undelivered, tell=not door.public_only)
            return notices.response(request, notice)
        except UploadFailed as failed:
            _log.debug("upload failed: %s", failed)
            answer = notices.response(request, notices.UPLOAD_FAILED)
            answer.force_close()
            return answer

    async def _carry(
        self, door: Door, request: web.BaseRequest, located: Located, target: str, host: str, name: str
    ) -> web.StreamResponse:
        remote = request.remote or ""
        proxied, member = remote in door.proxies, None
        # Behind a proxy everybody's address is the proxy's, so an address proves nothing at a contributed door.
        if not (door.public_only or proxied or made_by_another_site(request, host)):
            member = self._resolver.member_of_request(remote, request.headers)
        parcel = await parcel_of(
            request,
            target,
            host,
            name,
            member=member,
            group=located.group,
            proxied=proxied,
        )
        attempt = await self._courier.carry(parcel, located)
        try:
            extra = [] if door.public_only else [("X-Colla-Replica", short(attempt.location.replica))]
            response = await give(request, attempt, extra)
            if attempt.failure is None:
                self.counts.delivered += 1
            else:
                self.counts.broken_off += 1
            return response
        finally:
            attempt.end()

    # ------------------------------------------------------------------ which service

    async def _find(self, door: Door, means: Meaning) -> tuple[Located, str]:
        """The service that is meant, and the name by which it can be located again. Raises `Refused`."""
        match means:
            case ByName(host_name):
                located, name = self._resolver.locate(host_name), host_name
                if located is None:
                    located = await self._ask_group(host_name)
            case ByDomain(domain):
                located = self._resolver.locate_domain(domain)
                name = f"{located.name}.{located.group}" if located is not None else ""
            case Foreign(host):
                raise Refused(notices.foreign(host))
            case Malformed() | FrontPage():
                raise Refused(notices.HOST_MALFORMED)
            case _:
                assert_never(means)
        if located is None or (door.public_only and not located.public):
            raise Refused(notices.unknown(means, [] if door.public_only else self._resolver.services()))
        if not located.active:
            raise Refused(notices.inactive(located, tell=not door.public_only))
        return located, name

    async def _ask_group(self, host_name: str) -> Located | None:
        """Ask for a name that is not cached; a name that was unknown a moment ago is not asked for again."""
        now = asyncio.get_running_loop().time()
        if self._unknown.get(host_name, 0.0) > now or self._questions >= QUESTIONS_MAX:
            return None
        self._questions += 1
        try:
            located = await self._resolver.locate_fresh(host_name, self._courier.patience.total_s)
        finally:
            self._questions -= 1
        if located is None:
            self._unknown[host_name] = now + UNKNOWN_S
            self._unknown.move_to_end(host_name)
            if len(self._unknown) > UNKNOWN_MAX:
                self._unknown.popitem(last=False)
        return located

    def _front_page(self, door: Door, request: web.BaseRequest) -> web.Response:
        if door.public_only:
            return notices.html(pages.public_front_page())
        transport = request.transport
        port = transport.get_extra_info("sockname")[1] if transport is not None else door.port
        return notices.html(pages.front_page(self._resolver.services(), port))


@functools.lru_cache(maxsize=1024)
def _meaning(door: Door, hosts: tuple[str, ...]) -> Meaning:
    means = meaning(list(hosts), public_only=door.public_only, suffixes=door.suffixes)
    if door.only and isinstance(means, FrontPage | ByName):
        return ByName(door.only)
    return means


class _Full(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
