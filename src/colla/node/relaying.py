"""Relays of members: running one where the owner contributes it, and using those that present members offer.

`contribute.relay` is the URL under which others reach this computer's relay, such as `http://203.0.113.7:3340`; the
relay listens on that port of every interface and carries members' packets only, end-to-end encrypted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from colla.agents.router import Router
from colla.model.errors import CollaError
from colla.model.ids import NodeId
from colla.node.links.relay import Relay

log = logging.getLogger(__name__)

LOOK_S = 2.0
RELAYS_MAX = 4
"""Relays used at once; iroh keeps a connection to each."""


class RelayUser(Protocol):
    """What the links offer for relays."""

    async def use_relay(self, url: str) -> bool: ...
    async def drop_relay(self, url: str) -> None: ...


class Relaying:
    """Keeps this node's relay and its use of others' relays as the contributions say."""

    def __init__(self, core: Callable[[], Router], links: RelayUser) -> None:
        self._core = core
        self._links = links
        self._relay: Relay | None = None
        self._url = ""
        self._used: dict[str, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self.problem = ""
        """Why the relay that the owner contributes does not run."""

    async def start(self, url: str) -> None:
        """Run this node's relay if `url` names one, and begin to look for others'.

        A relay that cannot run, as when another program has its port, does not keep the node from starting: it is
        tried again and again, and `problem` tells why.
        """
        self._url = url
        await self._try_again()
        self._looking = asyncio.create_task(self._look(), name="relays")

    async def contribute(self, url: str) -> None:
        """The owner decided anew. Raises `CollaError` (`bad_relay`, `port_in_use`), and then all stays as it was."""
        if url == self._url and not self.problem:
            return
        port = relay_port(url) if url else 0
        if self._relay is None or self._relay.port != port:
            new = await self._run(port) if url else None
            old, self._relay = self._relay, new
            if old is not None:
                await old.close()
        self._url, self.problem = url, ""

    async def close(self) -> None:
        """Stop looking, stop relaying."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._relay is not None:
            await self._relay.close()

    async def _run(self, port: int) -> Relay:
        relay = Relay(self._admits)
        await relay.start("0.0.0.0", port)
        return relay

    async def _try_again(self) -> None:
        """Run the contributed relay if it does not run yet."""
        if not self._url or self._relay is not None:
            return
        try:
            self._relay = await self._run(relay_port(self._url))
        except CollaError as error:
            if str(error) != self.problem:
                log.error("the relay does not run: %s", error)
            self.problem = str(error)
        else:
            self.problem = ""

    def _admits(self, node: NodeId) -> bool:
        return self._core().membership.node(node) is not None

    async def _look(self) -> None:
        while True:
            await self._try_again()
            wanted = self._offered()
            for url in [url for url in self._used if url not in wanted]:
                del self._used[url]
                await self._links.drop_relay(url)
            for url in [url for url in wanted if url not in self._used]:
                # One that does not answer yet is kept as well: the links go on trying until it is dropped.
                self._used[url] = None
                online = await self._links.use_relay(url)
                log.info("the relay %s of a member %s", url, "is used" if online else "does not answer yet")
            if self._relay is not None:
                await self._relay.recheck()
            await asyncio.sleep(LOOK_S)

    def _offered(self) -> Sequence[str]:
        presence = self._core().presence
        urls = []
        for node in presence.present():
            entry = presence.entry(node)
            if entry is not None and entry.announcement.contribution.relay:
                urls.append(entry.announcement.contribution.relay)
        return sorted(dict.fromkeys(urls))[:RELAYS_MAX]


def relay_port(url: str) -> int:
    """The TCP port of a relay's URL. Raises `CollaError("bad_relay")`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CollaError("bad_relay", f"{url!r} is no URL of a relay.", "Use one as http://203.0.113.7:3340.")
    return parts.port or (443 if parts.scheme == "https" else 80)
