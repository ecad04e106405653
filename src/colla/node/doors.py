"""The doors of a node's gateway: the member's own on loopback, and the one that the owner contributes.

`contribute.gateway` is `ADDRESS:PORT`, such as `0.0.0.0:80`; that door serves public services only.
"""

from __future__ import annotations

import logging
from random import SystemRandom

from colla.access.gateway import Door, Gateway
from colla.access.interface import Resolver, Tunnels
from colla.model.errors import CollaError

log = logging.getLogger(__name__)


class Doors:
    """Opens and closes the doors as settings and contribution say."""

    def __init__(self, resolver: Resolver, tunnels: Tunnels) -> None:
        self._resolver = resolver
        self._tunnels = tunnels
        self._own = Gateway(resolver, tunnels, SystemRandom())
        self._contributed: Gateway | None = None
        self._contribution = ""

    async def open_own(self, port: int, *, fixed: bool) -> str:
        """Open the member's own door; returns its address. A port that is taken is an error when it is `fixed`."""
        try:
            port = await self._own.listen(Door(port=port))
        except CollaError as error:
            if fixed:
                raise
            log.warning("%s Taking another port.", error)
            port = await self._own.listen(Door(port=0))
        return f"127.0.0.1:{port}"

    async def contribute(self, gateway: str) -> None:
        """Open, move or close the contributed door. Raises `CollaError` (`bad_gateway`, `port_in_use`)."""
        if gateway == self._contribution:
            return
        door = parse_gateway(gateway) if gateway else None
        await self._close_contributed()
        if door is not None:
            self._contributed = Gateway(self._resolver, self._tunnels, SystemRandom())
            await self._contributed.listen(door)
        self._contribution = gateway

    async def close(self) -> None:
        """Close all doors."""
        await self._close_contributed()
        await self._own.close()

    async def _close_contributed(self) -> None:
        contributed, self._contributed = self._contributed, None
        self._contribution = ""
        if contributed is not None:
            await contributed.close()


def parse_gateway(text: str) -> Door:
    """The contributed door of `ADDRESS:PORT`. Raises `CollaError("bad_gateway")`."""
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise CollaError(
            "bad_gateway",
            f"{text!r} is no address for a gateway.",
            "Write it as ADDRESS:PORT, as in 0.0.0.0:80.",
        )
    return Door(address=address.removeprefix("[").removesuffix("]"), port=int(port), public_only=True)
