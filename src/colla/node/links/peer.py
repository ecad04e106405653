"""What this node remembers about one peer, between links and while one is up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from colla.model.ids import NodeId
from colla.node.links.addresses import ADDRESSES_MAX
from colla.node.links.agreement import Agreement
from colla.node.links.frame_queue import FrameQueue
from colla.node.links.link import Link
from colla.node.links.strangers import Allowance

DATAGRAMS_WAITING_MAX = 16
"""Datagrams kept while a link is being opened; older ones are stale anyway."""


class Peer:
    """One peer's addresses, waiting frames, link and dial under way. Owned by `IrohLinks`."""

    __slots__ = (
        "accepted",
        "addresses",
        "agreement",
        "allowance",
        "datagrams",
        "dialling",
        "failed_at",
        "ip",
        "link",
        "link_up",
        "news",
        "node_id",
        "noted",
        "queue",
        "sees_me_at",
        "spoken_at",
        "timer",
        "unreached",
    )

    def __init__(
        self, my_id: NodeId, node_id: NodeId, incarnation: bytes, next_serial: Callable[[], int]
    ) -> None:
        self.node_id = node_id
        self.agreement = Agreement(my_id, node_id, incarnation, next_serial)
        self.accepted = False
        self.noted = False
        """Whether somebody above named this peer, so that it is remembered without a link."""
        self.addresses: tuple[str, ...] = ()
        self.news = asyncio.Event()
        """Set when an address became known."""
        self.queue = FrameQueue()
        self.datagrams: deque[bytes] = deque(maxlen=DATAGRAMS_WAITING_MAX)
        self.link: Link | None = None
        self.link_up = asyncio.Event()
        self.dialling: asyncio.Task[bool] | None = None
        self.failed_at = float("-inf")
        self.unreached = False
        """Whether the last dial failed and no link came up since."""
        self.spoken_at = float("-inf")
        """When packets went to the peer last, as far as dials and links tell while none is up."""
        self.allowance = Allowance()
        self.ip = ""
        """Where the link comes from, for the bounds on strangers."""
        self.sees_me_at = ""
        """The `ip:port` at which this peer said to see this node when it was dialled last."""
        self.timer: asyncio.TimerHandle | None = None

    def note(self, addresses: Iterable[str]) -> None:
        """Remember addresses, these before the older ones; `news` tells the dial under way of new ones."""
        fresh = tuple(dict.fromkeys(addresses))
        if any(address not in self.addresses for address in fresh):
            self.news.set()
        self.addresses = tuple(dict.fromkeys(fresh + self.addresses))[:ADDRESSES_MAX]

    def spoken_to(self, ip: str, since: float) -> bool:
        """Whether packets for this peer may have gone to `ip` since then."""
        spoken = self.link is not None or self.dialling is not None or self.spoken_at > since
        return spoken and (self.ip == ip or any(a.rpartition(":")[0] == ip for a in self.addresses))

    def waiting(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(len(self.queue) or self.datagrams)

    def drop_waiting(self) -> int:
        """Drop everything that waits; how many frames that were."""
        count = self.queue.clear() + len(self.datagrams)
        self.datagrams.clear()
        return count

    def stop_timer(self) -> None:
        """The peer need not be accepted in time any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
