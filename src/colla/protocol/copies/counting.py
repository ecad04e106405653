"""Counting copies: which of the nodes that should hold these objects do hold them?

A count asks each of the first ranked repository agents once, and concludes when all have answered or
`query_timeout_s` is over. Invariants: it concludes exactly once; only those who were asked are counted; at most
`counts_open_max` are open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.messages import CopiesHeld, CopyCountDue, CopyQuery


class CopiesCounted(msgspec.Struct, frozen=True):
    """A count is over: who holds which object, this node included."""

    nonce: int
    holders: dict[ObjectId, tuple[NodeId, ...]]


class _Count(msgspec.Struct):
    """An open count, and whose answers are missing: how many of each node."""

    holders: dict[ObjectId, list[NodeId]]
    missing: dict[NodeId, int]


class CopyCounting:
    """All counts that this node began. `ranked` gives the present repository agents, nearest to an object first."""

    def __init__(
        self,
        me: NodeId,
        config: CopiesConfig,
        outbox: Outbox,
        holdings: Holdings,
        ranked: Callable[[ObjectId], list[NodeId]],
    ) -> None:
        self._me = me
        self._config = config
        self._outbox = outbox
        self._holdings = holdings
        self.ranked = ranked
        self._open: dict[int, _Count] = {}

    def begin(self, objects: Sequence[ObjectId], now: Instant) -> tuple[int, CopiesCounted | None]:
        """Begin a count; returns its nonce, and its conclusion when there is nobody to ask (or too many are open)."""
        nonce = self._outbox.new_id()
        count = _Count({one: [self._me] if self._holdings.holds(one) else [] for one in objects}, {})
        if len(self._open) < self._config.counts_open_max:
            self._ask(nonce, count)
        self._open[nonce] = count
        if not count.missing:
            return nonce, self._conclude(nonce)
        self._outbox.wake_in(self._config.query_timeout_s, CopyCountDue(nonce), now)
        return nonce, None

    def answered(self, peer: NodeId, answer: CopiesHeld) -> CopiesCounted | None:
        """Somebody says what it holds of what it was asked about."""
        count = self._open.get(answer.nonce)
        if count is None or peer not in count.missing:
            return None
        for object_id in answer.objects[: self._config.objects_per_query_max]:
            holders = count.holders.get(object_id)
            if holders is not None and peer not in holders:
                holders.append(peer)
        count.missing[peer] -= 1
        if not count.missing[peer]:
            del count.missing[peer]
        return None if count.missing else self._conclude(answer.nonce)

    def due(self, timer: CopyCountDue) -> CopiesCounted | None:
        """There was time enough to answer."""
        return self._conclude(timer.nonce) if timer.nonce in self._open else None

    def _ask(self, nonce: int, count: _Count) -> None:
        questions: dict[NodeId, list[ObjectId]] = {}
        asked_max = self._config.copies + self._config.extra_asked
        for object_id in count.holders:
            for node in self.ranked(object_id)[:asked_max]:
                if node != self._me:
                    questions.setdefault(node, []).append(object_id)
        step = self._config.objects_per_query_max
        for node, objects in questions.items():
            for first in range(0, len(objects), step):
                self._outbox.send(node, CopyQuery(tuple(objects[first : first + step]), nonce))
                count.missing[node] = count.missing.get(node, 0) + 1

    def _conclude(self, nonce: int) -> CopiesCounted:
        count = self._open.pop(nonce)
        return CopiesCounted(nonce, {one: tuple(holders) for one, holders in count.holders.items()})
