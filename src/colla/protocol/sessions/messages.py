"""What two nodes say to each other in a session. Part of the wire format; `session` is the initiator's number.

Opening      →            topics and fingerprint
             ← Summary    frontiers (or Closing, when the fingerprints are equal)
Summary      →
Wanted, InventoryWanted, RecordsWanted ⇄ Delta, Inventory     each side asks for what it lacks
Finished     ⇄            fingerprints; when they differ, once more with hashes in the Summary
"""

from __future__ import annotations

from colla.kernel.messages import Message, Timer
from colla.model.ids import NodeId
from colla.model.record import SignedRecord
from colla.protocol.records.summary import Frontier, Segment


class Opening(Message, frozen=True, tag="s+"):
    """I want a session over these topics; this is my fingerprint over them."""

    session: int
    topics: tuple[str, ...]
    fingerprint: bytes


class Summary(Message, frozen=True, tag="s="):
    """My frontiers, with the logs' hashes in the second round. `topics`: those that the session is about."""

    session: int
    round: int
    topics: tuple[str, ...]
    frontiers: tuple[Frontier, ...]


class Wanted(Message, frozen=True, tag="s?"):
    """Send me the live records of these segments. Answered by `Delta`."""

    session: int
    segments: tuple[Segment, ...]


class InventoryWanted(Message, frozen=True, tag="si?"):
    """Which records do you hold of this log behind that number? Answered by `Inventory`."""

    session: int
    log: bytes
    after: int


class RecordsWanted(Message, frozen=True, tag="sr?"):
    """Send me the records of this log with these digests. Answered by `Delta`."""

    session: int
    log: bytes
    digests: tuple[bytes, ...]


class Delta(Message, frozen=True, tag="s!"):
    """Records. To `Wanted`: all the live ones of `segments`, which are a prefix of those wanted, the last
    perhaps shorter. To `RecordsWanted`: those still held of the first `served` digests.
    """

    session: int
    segments: tuple[Segment, ...]
    records: tuple[SignedRecord, ...]
    served: int = 0


class Inventory(Message, frozen=True, tag="si!"):
    """All that I hold of the log with `after` < number ≤ `through`, as joined 24-byte entries; `more` follows."""

    session: int
    log: bytes
    after: int
    through: int
    entries: bytes
    more: bool


class Finished(Message, frozen=True, tag="s."):
    """I lack nothing any more of what you told me in this round; my fingerprint now."""

    session: int
    round: int
    fingerprint: bytes


class Closing(Message, frozen=True, tag="s-"):
    """The session ends. With the opener's fingerprint when we are equal, else empty and with the reason."""

    session: int
    fingerprint: bytes = b""
    reason: str = ""


class SessionStalled(Timer, frozen=True):
    """Nothing may have come from the peer for a while; stale when `heard` messages were not the last."""

    peer: NodeId
    session: int
    heard: int


Question = Wanted | InventoryWanted | RecordsWanted
