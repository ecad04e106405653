"""When each node was last known here, by this node's own wall clock: for people, and kept across restarts.

Nothing is decided by it. What is on the disk may be behind by `seen_interval_s` after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import StoreCell
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import UNDECODABLE
from colla.model.ids import NodeId

CELL = "presence/seen"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[bytes, float])


class LastSeen:
    """See the module's docstring."""

    def __init__(self, outbox: Outbox, durable: Durable) -> None:
        """A malformed cell counts as none."""
        self._outbox = outbox
        self._at_s: dict[NodeId, float] = {}
        try:
            found = _decoder.decode(durable.cells.get(CELL, b"\x80"))
        except UNDECODABLE:
            found = {}
        self._at_s = {NodeId(node): at_s for node, at_s in found.items()}

    def at_s(self, node: NodeId) -> float:
        """Unix time in seconds; 0.0 when the node was never seen here."""
        return self._at_s.get(node, 0.0)

    def note(self, nodes: Iterable[NodeId], members: Iterable[NodeId], now: Instant) -> None:
        """These nodes are here, or were until now; of nodes that are no `members` nothing is kept."""
        at_s = dict(self._at_s)
        at_s.update((node, now.wall_s) for node in nodes)
        known = dict.fromkeys(members)
        at_s = {node: at_s[node] for node in sorted(at_s) if node in known}
        if at_s != self._at_s:
            self._at_s = at_s
            self._outbox.persist(StoreCell(CELL, _encoder.encode(at_s)))
