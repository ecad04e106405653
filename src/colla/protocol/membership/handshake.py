"""What `admission` keeps of each open link, and what it needs of the record book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.model.record import SignedRecord
from colla.protocol.membership.bodies import Body
from colla.protocol.membership.messages import Greeting
from colla.protocol.membership.proofs import Collector


class Ledger(Protocol):
    """What it needs of the record book; the router joins it to the multicast."""

    def write(self, body: Body, now: Instant) -> bool:
        """Write a membership record of this node and spread it; False while this node may not write yet."""

    def receive(self, records: Sequence[SignedRecord], now: Instant) -> None:
        """Merge records of the membership topic that were judged."""

    def seen(self, nodes: Sequence[NodeId]) -> Sequence[tuple[bytes, int]]:
        """The logs of these nodes, by name, and the highest number of each that is held here."""


@dataclass(slots=True)
class Link:
    """One open link, from `LinkOpened` to `LinkClosed`."""

    serial: int
    opened_s: float
    greeted_s: float
    """When this node greeted last."""
    greeting: Greeting | None = None
    accepted: bool = False
    heard: int = 0
    """Messages before acceptance, bounded."""
    proof: Collector | None = None
    """What arrived of the proof that was asked for."""
    farewell: Collector | None = None
    """What arrived of the records by which this node does not belong any more."""
