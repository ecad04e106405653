"""Sessions over whole tables: two nodes find in a few small messages what one of them knows better.

A digest goes first; equal tables cost that one message. Otherwise the receiver answers with an index, and the
sender with the rows that are newer on its side and the names of those that are newer on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from colla.kernel.config import PresenceConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.messages import TableDigest, TableIndex, TableRows
from colla.protocol.presence.table import Table

INDEX_AT_MOST_EVERY_S = 0.5
"""A peer that asks again and again gets whole indexes no more often than this."""


class Exchange:
    """The sessions of this node. After one that found a difference comes another, until the tables are equal."""

    def __init__(self, config: PresenceConfig, outbox: Outbox, rng: Random, table: Table) -> None:
        self._config = config
        self._outbox = outbox
        self._rng = rng
        self._table = table
        self._again_s: dict[NodeId, float] = {}
        self._left: dict[NodeId, int] = {}
        self._indexed_s: dict[NodeId, float] = {}
        self._next_s: float | None = None

    def begin(self, peer: NodeId, now: Instant) -> None:
        """Compare tables with the peer now, and once more soon in case messages get lost."""
        self._left[peer] = self._config.table_agains_max
        self._again_s[peer] = now.boot_s + self._config.table_again_s
        self._compare(peer)

    def end(self, peer: NodeId) -> None:
        """The link is gone."""
        for remembered in (self._again_s, self._indexed_s):
            remembered.pop(peer, None)
        self._left.pop(peer, None)

    def round(self, accepted: Sequence[NodeId], now: Instant) -> None:
        """Once a second: sessions that are due again, and now and then one with anybody."""
        for peer in [peer for peer, due_s in self._again_s.items() if due_s <= now.boot_s]:
            del self._again_s[peer]
            self._compare(peer)
        if self._next_s is None or now.boot_s >= self._next_s:
            first = self._next_s is None
            self._next_s = now.boot_s + self._rng.uniform(0.5, 1.5) * self._config.table_interval_s
            if accepted and not first:
                peer = self._rng.choice(accepted)
                self._left[peer] = self._config.table_agains_max
                self._compare(peer)

    def _compare(self, peer: NodeId) -> None:
        self._outbox.send(peer, TableDigest(self._table.digest()), unbarriered=True)

    # Messages.

    def digest(self, peer: NodeId, message: TableDigest, now: Instant) -> None:
        """Answer with the index unless the tables are equal."""
        last_s = self._indexed_s.get(peer, float("-inf"))
        if message.digest == self._table.digest() or now.boot_s - last_s < INDEX_AT_MOST_EVERY_S:
            return
        self._indexed_s[peer] = now.boot_s
        for page in self._table.index():
            self._outbox.send(peer, page, unbarriered=True)

    def index(self, peer: NodeId, message: TableIndex, now: Instant) -> None:
        """Answer with what is newer here, and ask for what is newer there."""
        newer, older = self._table.compare(message)
        size = self._config.news_items_max
        for begin in range(0, max(len(newer), len(older)), size):
            rows = self._table.rows_of(newer[begin : begin + size])
            wanted = tuple(older[begin : begin + size])
            self._outbox.send(peer, TableRows(rows, wanted), unbarriered=True)
        left = self._left.get(peer, self._config.table_agains_max)
        if (newer or older) and left > 0:
            self._left[peer] = left - 1
            self._again_s[peer] = now.boot_s + self._config.table_again_s

    def wanted(self, peer: NodeId, nodes: Sequence[NodeId]) -> None:
        """The peer asked for rows."""
        rows = self._table.rows_of(nodes[: self._config.news_items_max])
        if rows:
            self._outbox.send(peer, TableRows(rows, ()), unbarriered=True)
