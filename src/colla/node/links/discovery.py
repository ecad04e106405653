"""Finding the group's other nodes on the same network by multicast DNS, also without Internet.

Announces a short hash of the group's id, the node's id and its port as a `_colla._udp` service, and reports who
else announces the same group. What is heard is only a hint where to dial: the link proves who is there. A
network without multicast is no error; then nobody is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from colla.model.ids import KEY_BYTES, GroupId, NodeId, digest, short
from colla.node.links.addresses import join, own_ips, sort_targets

logger = logging.getLogger("colla.discovery")

SERVICE_TYPE = "_colla._udp.local."
GROUP_HASH_BYTES = 8
INSTANCE_HEX = 32
"""How much of the node's id names its announcement; a whole id does not fit into one DNS label."""
START_TIMEOUT_S = 5.0
RESOLVE_TIMEOUT_S = 3.0
RESOLVING_MAX = 32
"""Announcements looked at at once; further ones are heard again later."""


def group_hash(group: GroupId) -> str:
    """What is announced of a group: enough to recognise it, useless to who does not know it."""
    return digest(b"colla lan discovery" + group)[:GROUP_HASH_BYTES].hex()


class Discovery:
    """Announces one node and calls `found(node_id, addresses)` on the loop for each other one of the group."""

    def __init__(
        self,
        group: GroupId,
        node_id: NodeId,
        port: int,
        found: Callable[[NodeId, tuple[str, ...]], None],
        *,
        only_ip: str | None = None,
    ) -> None:
        """`only_ip` confines everything to the interface with that address."""
        self._group_hash = group_hash(group)
        self._node_id = node_id
        self._port = port
        self._found = found
        self._only_ip = only_ip
        self._ips: tuple[str, ...] = ()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._resolving: dict[asyncio.Task[None], None] = {}

    async def start(self) -> bool:
        """Begin to announce and listen. False when the network offers no multicast; never raises."""
        self._ips = (self._only_ip,) if self._only_ip else own_ips()[0]
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self._zeroconf = self._open()
                await self._zeroconf.zeroconf.async_wait_for_start()
                self._browser = AsyncServiceBrowser(
                    self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard]
                )
                announced = await self._zeroconf.async_register_service(
                    self._announcement(), allow_name_change=True
                )
                await announced
        except (OSError, ZeroconfError, TimeoutError) as error:
            logger.info("no discovery on this network: %s", error or type(error).__name__)
            await self.close()
            return False
        return True

    async def refresh(self) -> bool:
        """Begin anew if this computer's addresses have changed or the last start failed."""
        now = (self._only_ip,) if self._only_ip else own_ips()[0]
        if self._zeroconf is not None and now == self._ips:
            return True
        await self.close()
        return await self.start()

    async def close(self) -> None:
        """Say goodbye to the network and stop; never raises."""
        zeroconf, self._zeroconf = self._zeroconf, None
        browser, self._browser = self._browser, None
        for task in list(self._resolving):
            task.cancel()
        with contextlib.suppress(OSError, ZeroconfError, TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                if browser is not None:
                    await browser.async_cancel()
                if zeroconf is not None:
                    await zeroconf.async_unregister_all_services()
                    await zeroconf.async_close()

    def _open(self) -> AsyncZeroconf:
        if self._only_ip is not None:
            return AsyncZeroconf(interfaces=[self._only_ip])
        try:
            return AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.All)
        except OSError:
            # A computer without IPv6, or with an interface that refuses its multicast.
            return AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.V4Only)

    def _announcement(self) -> AsyncServiceInfo:
        instance = self._node_id.hex()[:INSTANCE_HEX]
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=self._port,
            addresses=[ipaddress.ip_address(ip).packed for ip in self._ips],
            properties={"group": self._group_hash, "node": self._node_id.hex()},
            server=f"colla-{instance}.local.",
        )

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed or len(self._resolving) >= RESOLVING_MAX:
            return
        self._spawn(self._resolve(zeroconf, AsyncServiceInfo(service_type, name)))

    async def _resolve(self, zeroconf: Zeroconf, info: AsyncServiceInfo) -> None:
        try:
            known = await info.async_request(zeroconf, RESOLVE_TIMEOUT_S * 1000)
        except (OSError, ZeroconfError) as error:
            logger.debug("an announcement could not be resolved: %s", error)
            return
        node_id = self._node_of(info) if known else None
        if node_id is None or info.port is None:
            return
        heard = (join(address, info.port) for address in info.parsed_scoped_addresses())
        addresses = sort_targets(heard).numeric
        if addresses:
            logger.debug("found %s at %s", short(node_id), ", ".join(addresses))
            self._found(node_id, addresses)

    def _node_of(self, info: AsyncServiceInfo) -> NodeId | None:
        """The other node of this group that is announced, or None. Anybody on the network may announce anything."""
        properties = info.properties
        if properties.get(b"group") != self._group_hash.encode():
            return None
        try:
            node_id = bytes.fromhex((properties.get(b"node") or b"").decode())
        except ValueError:
            return None
        return NodeId(node_id) if len(node_id) == KEY_BYTES and node_id != self._node_id else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._resolving[task] = None
        task.add_done_callback(lambda done: self._resolving.pop(done, None))
