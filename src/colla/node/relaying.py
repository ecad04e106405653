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

    async def start(self) -> None:
        """Run this node's relay if it is contributed, and begin to look for others'. Raises `CollaError`."""
        await self.contribution_changed()
        self._looking = asyncio.create_task(self._look(), name="relays")

    async def contribution_changed(self) -> None:
        """The owner decided anew."""
        url = self._core().contribution.relay
        if url == self._url:
            return
        if self._relay is not None:
            await self._relay.close()
            self._relay = None
        self._url = ""
        if url:
            self._relay = Relay(self._admits)
            await self._relay.start("0.0.0.0", relay_port(url))
            self._url = url

    async def close(self) -> None:
        """Stop looking, stop relaying."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._relay is not None:
            await self._relay.close()

    def _admits(self, node: NodeId) -> bool:
        return self._core().membership.node(node) is not None

    async def _look(self) -> None:
        while True:
            wanted = self._offered()
            for url in [url for url in self._used if url not in wanted]:
                del self._used[url]
                await self._links.drop_relay(url)
            for url in wanted:
                if url not in self._used and await self._links.use_relay(url):
                    self._used[url] = None
                    log.info("using the relay %s of a member", url)
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
