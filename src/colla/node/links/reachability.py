"""Where this node can be reached: as its owner says, its own interfaces, addresses that others saw, members' relays.

A computer cannot see whether a router stands before it and lets others in: a global address may lie behind a firewall, a
private one may have a port forwarded to it. So it counts as *reachable* when the owner says so, when it has a global
IPv4 address of its own, or when somebody got through from the Internet to whom no packet had gone before.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

import iroh

from colla.node.links.addresses import is_public, join, own_ips, relay_url, sort_targets, with_port
from colla.node.links.interface import RELAY_PREFIX

RELAY_ONLINE_TIMEOUT_S = 5.0
RELAYS_MAX = 8
TOLD_MAX = 16
"""Addresses that others are told; a computer with many interfaces must not push its relay out."""
EXTERNAL_MAX = 4
"""Addresses that others saw; behind a NAT that picks a new port each time, the oldest is worth least."""


class Reachability:
    """The part of a node's links that knows its own addresses. Shares the endpoint until `release`."""

    def __init__(
        self, endpoint: iroh.Endpoint, bind_host: str, port: int, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when `addresses` or `reachable` says something new, except of own interfaces."""
        self._changed = changed
        self._told = ""
        self._proven_for: tuple[str, ...] = ()
        """This computer's own addresses when somebody got through: elsewhere, nothing is proven."""
        self._endpoint: iroh.Endpoint | None = endpoint
        self._bind_host = bind_host
        self._port = port
        self._external: dict[str, None] = {}
        self._relays: dict[str, None] = {}
        self._coming_online: asyncio.Task[None] | None = None
        self._online = False
        """Whether a relay has let this node in. iroh names a relay as its own before it has been let in."""

    def release(self) -> None:
        """Let the endpoint go, so that its port becomes free."""
        self._endpoint = None
        if self._coming_online is not None:
            self._coming_online.cancel()

    def addresses(self) -> tuple[str, ...]:
        """Where other nodes may reach this one, best guesses first; empty after `release`."""
        if self._endpoint is None:
            return ()
        here = self._endpoint.addr()
        if self._bind_host == "0.0.0.0":
            reachable, inner = own_ips()
            not_told = {join(ip, self._port) for ip in inner}
            seen = (address for address in here.direct_addresses() if address not in not_told)
            own = tuple(dict.fromkeys((*seen, *(join(ip, self._port) for ip in reachable))))
        else:
            own = (join(self._bind_host, self._port),)
        home = here.relay_url()
        relayed = (RELAY_PREFIX + home,) if home is not None and self._online and home in self._relays else ()
        told = (self._told,) if self._told else ()
        direct = tuple(dict.fromkeys((*told, *self._external, *own)))[: TOLD_MAX - len(relayed)]
        found = (*direct, *relayed)
        # A computer without any network can still be reached by the other nodes on it.
        return found or (join("127.0.0.1", self._port),)

    def reachable(self) -> bool:
        """Whether anybody gets through to this node unasked, as far as is known."""
        if self._told:
            return True
        own, _ = own_ips()
        return any(is_public(ip) and ":" not in ip for ip in own) or (bool(own) and own == self._proven_for)

    def got_through(self, ip: str) -> None:
        """Somebody at `ip` got through to whom this node had not spoken."""
        if is_public(ip.strip("[]")) and not self.reachable():
            self._proven_for = own_ips()[0]
            self._changed()

    def tell_address(self, address: str) -> None:
        """See `IrohLinks.tell_address`."""
        told = with_port(address, self._port) if address else ""
        if told != self._told:
            self._told = told
            self._changed()

    async def use_relay(self, url: str) -> bool:
        """See `IrohLinks.use_relay`."""
        wanted = relay_url(url)
        endpoint = self._endpoint
        if (
            wanted is None
            or endpoint is None
            or (wanted not in self._relays and len(self._relays) >= RELAYS_MAX)
        ):
            return False
        self._relays[wanted] = None
        # Without `quic_port`, iroh does not wait for address discovery, which members' relays do not offer.
        await endpoint.insert_relay(iroh.RelayConfig(url=wanted))
        if self._coming_online is None:
            self._coming_online = asyncio.create_task(self._come_online(endpoint))
        await asyncio.wait((self._coming_online,), timeout=RELAY_ONLINE_TIMEOUT_S)
        return self._online

    async def _come_online(self, endpoint: iroh.Endpoint) -> None:
        try:
            await endpoint.online()
            self._online = True
            self._changed()
        finally:
            self._coming_online = None

    async def drop_relay(self, url: str) -> None:
        """See `IrohLinks.drop_relay`."""
        wanted = relay_url(url)
        if wanted is not None and self._endpoint is not None and wanted in self._relays:
            del self._relays[wanted]
            if not self._relays:
                self._online = False
                if self._coming_online is not None:
                    self._coming_online.cancel()
            await self._endpoint.remove_relay(wanted)
            self._changed()

    def is_news(self, address: str) -> bool:
        """Whether an address at which a peer sees this node is none of this computer's own."""
        host = address.rpartition(":")[0].strip("[]")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        reachable, inner = own_ips()
        own = ip.is_loopback or str(ip) in reachable or str(ip) in inner or str(ip) == self._bind_host
        return not own and address not in self._external

    async def add_external_address(self, address: str) -> None:
        """See `IrohLinks.add_external_address`."""
        for numeric in sort_targets((address,)).numeric:
            if self._endpoint is None or numeric in self._external:
                continue
            if len(self._external) >= EXTERNAL_MAX:
                oldest = next(iter(self._external))
                del self._external[oldest]
                await self._endpoint.remove_external_addr(oldest)
            self._external[numeric] = None
            await self._endpoint.add_external_addr(numeric)
            self._changed()
