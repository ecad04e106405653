"""Where this node can be reached: its own interfaces, addresses that others saw, members' relays."""

from __future__ import annotations

import asyncio
import ipaddress

import iroh

from colla.node.links.addresses import join, own_ips, relay_url, sort_targets
from colla.node.links.interface import RELAY_PREFIX

RELAY_ONLINE_TIMEOUT_S = 5.0
RELAYS_MAX = 8
EXTERNAL_MAX = 4
"""Addresses that others saw; behind a NAT that picks a new port each time, the oldest is worth least."""


class Reachability:
    """The part of a node's links that knows its own addresses. Shares the endpoint until `release`."""

    def __init__(self, endpoint: iroh.Endpoint, bind_host: str, port: int) -> None:
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
        found = tuple(dict.fromkeys((*self._external, *own, *relayed)))
        # A computer without any network can still be reached by the other nodes on it.
        return found or (join("127.0.0.1", self._port),)

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
