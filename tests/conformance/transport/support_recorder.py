"""A node's ear for tests: records what links report and lets a test wait for a condition over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from colla.model.ids import NodeId
from colla.node.links import LinkStream

WAIT_S = 20.0


class Recorder:
    """Implements `LinkEvents`."""

    def __init__(self) -> None:
        self.events: list[tuple[str, NodeId, str]] = []
        self.opened: dict[NodeId, int] = {}
        self.up: dict[NodeId, tuple[str, ...]] = {}
        self.closed: dict[NodeId, list[str]] = {}
        self.frames: dict[NodeId, list[bytes]] = {}
        self.slow: list[NodeId] = []
        self.streams: asyncio.Queue[tuple[NodeId, str, LinkStream]] = asyncio.Queue()
        self._changed = asyncio.Event()

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        assert peer not in self.up, "opened twice without being closed"
        self.up[peer] = addresses
        self.opened[peer] = self.opened.get(peer, 0) + 1
        self._changed.set()

    def link_closed(self, peer: NodeId, reason: str) -> None:
        assert peer in self.up, "closed without being open"
        del self.up[peer]
        self.closed.setdefault(peer, []).append(reason)
        self._changed.set()

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        assert peer in self.up, "a frame without a link"
        self.frames.setdefault(peer, []).append(frame)
        self._changed.set()

    def dial_slow(self, peer: NodeId) -> None:
        self.slow.append(peer)
        self._changed.set()

    def addresses_changed(self) -> None:
        self._changed.set()

    def stream_opened(self, peer: NodeId, kind: str, stream: LinkStream) -> None:
        self.streams.put_nowait((peer, kind, stream))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; it is looked at after each event."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def frames_from(self, peer: NodeId, count: int) -> list[bytes]:
        """The frames from `peer`, once there are at least `count`."""
        await self.until(lambda: len(self.frames.get(peer, [])) >= count)
        return self.frames[peer]
