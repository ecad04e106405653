"""How news spreads: every node passes on what it did not know, over the links that it has anyway.

The links of the rings form an expander, so a flood reaches everybody in two or three hops by several ways, which is what
makes a lost message harmless. News is collected for a tenth of a second, so that a healing partition, in
which everybody has something to say, costs few messages. What a node itself begins is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colla.kernel.config import PresenceConfig
from colla.kernel.messages import Message
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.messages import Claim, News, NewsDue, SignedAnnouncement

CLOCK_GRAIN_S = 1e-6
"""Timers may come back a rounding error early."""

Spread = Callable[[Message, Sequence[NodeId], Instant], None]


@dataclass(slots=True)
class _Item:
    """The latest about one node. `wide` goes to all links, else to some; `repeats` are still to come."""

    claim: Claim | None
    announcement: SignedAnnouncement | None
    wide: bool
    repeats: int
    due_s: float


class Gossip:
    """News that is to leave. Holds one item per node, the latest."""

    def __init__(
        self,
        config: PresenceConfig,
        outbox: Outbox,
        spread: Spread,
        recipients: Callable[[bool], Sequence[NodeId]],
    ) -> None:
        """`recipients(wide)` names the accepted peers to tell."""
        self._config = config
        self._outbox = outbox
        self._spread = spread
        self._recipients = recipients
        self._items: dict[NodeId, _Item] = {}
        self._flushed_s = float("-inf")
        self._serial = 0
        self._due_s: float | None = None

    def begin(
        self, node: NodeId, claim: Claim | None, announcement: SignedAnnouncement | None, now: Instant
    ) -> None:
        """This node has something to say about `node`: tell all, several times."""
        self._add(node, claim, announcement, True, self._config.news_repeats - 1, now)

    def pass_on(
        self, node: NodeId, claim: Claim | None, announcement: SignedAnnouncement | None, now: Instant
    ) -> None:
        """This node heard something new about `node`: tell the neighbours."""
        self._add(node, claim, announcement, False, 0, now)

    def timer(self, timer: NewsDue, now: Instant) -> None:
        """Collected or repeated news is due."""
        if timer.serial == self._serial:
            self._due_s = None
            self.flush(now)

    def flush(self, now: Instant) -> None:
        """Send what is due, unless something was sent a moment ago: then soon."""
        if not self._items:
            return
        if now.boot_s < self._flushed_s + self._config.news_batch_s - CLOCK_GRAIN_S:
            self._schedule(now)
            return
        for wide in (True, False):
            due = [
                item
                for item in self._items.values()
                if item.wide == wide and item.due_s <= now.boot_s + CLOCK_GRAIN_S
            ]
            recipients = self._recipients(wide) if due else ()
            for begin in range(0, len(due) if recipients else 0, self._config.news_items_max):
                self._spread(_news(due[begin : begin + self._config.news_items_max]), recipients, now)
                self._flushed_s = now.boot_s
        for node, item in list(self._items.items()):
            if item.due_s <= now.boot_s + CLOCK_GRAIN_S:
                if item.repeats:
                    item.repeats -= 1
                    item.due_s = now.boot_s + self._config.news_repeat_s
                else:
                    del self._items[node]
        self._schedule(now)

    def _add(
        self,
        node: NodeId,
        claim: Claim | None,
        announcement: SignedAnnouncement | None,
        wide: bool,
        repeats: int,
        now: Instant,
    ) -> None:
        self._items.pop(node, None)
        self._items[node] = _Item(claim, announcement, wide, repeats, now.boot_s)
        if len(self._items) > self._config.news_pending_max:
            # Sessions repair what is dropped here.
            self._items.pop(next(iter(self._items)))

    def _schedule(self, now: Instant) -> None:
        if not self._items:
            return
        soonest_s = min(item.due_s for item in self._items.values())
        due_s = max(soonest_s, self._flushed_s + self._config.news_batch_s)
        if self._due_s is None or due_s < self._due_s:
            self._due_s = due_s
            self._serial += 1
            self._outbox.wake_in(max(0.0, due_s - now.boot_s), NewsDue(self._serial), now)


def _news(items: Sequence[_Item]) -> News:
    return News(
        tuple(item.claim for item in items if item.claim is not None),
        tuple(item.announcement for item in items if item.announcement is not None),
    )
