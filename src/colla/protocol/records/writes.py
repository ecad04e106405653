"""Writing with an acknowledgement: a write is answered when it is durable on min(2, present nodes), and the
answer says on how many (DESIGN section 4).

The author multicasts its new records; a few recipients are asked to say when they hold them. They answer at
once: their `Held` leaves only after the records are on their disk, since every `Send` waits for the `Persist`
effects before it. Whoever misses the multicast gets the records in a session.

Invariants: every submitted request is concluded exactly once (unless the node ends before); a copy counts only
when it is durable, this node's own included; nothing is written before the book may be written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from colla.kernel.config import RecordConfig
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import LogId, NodeId
from colla.model.record import Key, Record, SignedRecord
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.records.book import RecordBook
from colla.protocol.rendezvous import nearest
from colla.protocol.views import Identity, RecordChange


class RecordsNews(Message, frozen=True, tag="rn"):
    """New records of their author, carried by multicast. `ack_wanted`: say `Held` to the author."""

    records: tuple[SignedRecord, ...]
    ack_wanted: bool


class Held(Message, frozen=True, tag="rh"):
    """I hold these records of your log durably."""

    log: LogId
    numbers: tuple[int, ...]


class WriteOverdue(Timer, frozen=True):
    """The asked nodes had time enough: conclude with the copies there are. Stale when concluded."""

    persist_id: int


class WriteConcluded(msgspec.Struct, frozen=True):
    """The write is durable on `copies` nodes, own included; 0 when this node could not store it."""

    request_id: int | None
    copies: int


class _Pending(msgspec.Struct):
    """A write that is on its way. `acks`: which of its numbers each other node holds."""

    request_id: int | None
    log: LogId
    numbers: tuple[int, ...]
    asked: tuple[NodeId, ...]
    durable_here: bool = False
    overdue: bool = False
    acks: dict[NodeId, dict[int, None]] = {}

    @property
    def copies(self) -> int:
        whole = sum(1 for held in self.acks.values() if len(held) == len(self.numbers))
        return whole + (1 if self.durable_here else 0)


class Writes:
    """The writes of this node, and the answers to those of others.

    Calls return the keys that changed here; what was concluded is fetched with `concluded`.
    """

    MESSAGES: ClassVar[tuple[type[Message], ...]] = (RecordsNews, Held)
    TIMERS: ClassVar[tuple[type[Timer], ...]] = (WriteOverdue,)

    def __init__(
        self,
        identity: Identity,
        config: RecordConfig,
        outbox: Outbox,
        book: RecordBook,
        multicast: Multicast,
    ) -> None:
        self._node = identity.node
        self._config = config
        self._outbox = outbox
        self._book = book
        self._multicast = multicast
        self._pending: dict[int, _Pending] = {}
        self._concluded: list[WriteConcluded] = []

    def submit(
        self,
        request_id: int | None,
        topic: str,
        items: Sequence[tuple[Key, bytes]],
        recipients: Sequence[NodeId],
        now: Instant,
    ) -> list[RecordChange]:
        """Write the items and tell `recipients`, the other nodes present. No items are a write on one node.

        Raises `CollaError`: `not_ready` before the book may be written to, `busy` when too many writes are on
        their way, `too_large` for a body that is.
        """
        if len(self._pending) >= self._config.writes_pending_max:
            raise CollaError("busy", "Too many changes are on their way.", "Try again in a few seconds.")
        if not items:
            self._concluded.append(WriteConcluded(request_id, 1))
            return []
        records, persist_id = self._book.write(topic, items, now)
        others = [node for node in dict.fromkeys(recipients) if node != self._node]
        asked = nearest(records[0].digest, others)[: self._config.copies_asked]
        rest = [node for node in others if node not in asked]
        for batch in self._batches(records):
            self._multicast.spread(RecordsNews(batch, True), asked, now)
            self._multicast.spread(RecordsNews(batch, False), rest, now)
        numbers = tuple(record.number for record in records)
        self._pending[persist_id] = _Pending(request_id, records[0].log.id, numbers, tuple(asked))
        self._outbox.wake_in(self._config.copies_timeout_s, WriteOverdue(persist_id), now)
        return [RecordChange(topic, key) for key in dict.fromkeys(key for key, _ in items)]

    def message(self, peer: NodeId, message: Message, now: Instant) -> list[RecordChange]:
        """News of an author (`peer` being its claimed origin), or an acknowledgement of `peer`."""
        match message:
            case RecordsNews(records=signed, ack_wanted=ack_wanted):
                if len(signed) > self._config.multicast_batch_records_max:
                    text = "News with too many records was dropped."
                    self._outbox.notify("peer_misbehaved", text, node=peer)
                    return []
                received = self._book.receive(signed, now)
                if ack_wanted:
                    self._acknowledge(signed)
                return received.changes
            case Held(log=log, numbers=numbers):
                self._count(peer, log, numbers)
            case _:
                pass
        return []

    def persisted(self, persist_id: int, now: Instant) -> None:
        """A `Persist` is done; not necessarily one of ours."""
        del now
        pending = self._pending.get(persist_id)
        if pending is not None:
            pending.durable_here = True
            self._settle(persist_id, pending)

    def persist_failed(self, persist_id: int) -> None:
        """A `Persist` failed: the write is not here, and nothing of it left this node."""
        pending = self._pending.pop(persist_id, None)
        if pending is not None:
            self._concluded.append(WriteConcluded(pending.request_id, 0))

    def timer(self, timer: Timer, now: Instant) -> None:
        """The nodes asked had time enough: conclude with the copies there are, once there is one here."""
        del now
        pending = self._pending.get(timer.persist_id) if isinstance(timer, WriteOverdue) else None
        if pending is not None and isinstance(timer, WriteOverdue):
            pending.overdue = True
            self._settle(timer.persist_id, pending)

    def concluded(self) -> list[WriteConcluded]:
        """The writes concluded since the last call."""
        done, self._concluded = self._concluded, []
        return done

    def pass_on(self, records: Sequence[Record], recipients: Sequence[NodeId], now: Instant) -> None:
        """Tell others of records, of whatever authors, that they may lack as this node did."""
        for batch in self._batches(records):
            self._multicast.spread(RecordsNews(batch, False), recipients, now)

    def _batches(self, records: Sequence[Record]) -> list[tuple[SignedRecord, ...]]:
        batches: list[list[SignedRecord]] = []
        size = 0
        for record in records:
            full = bool(batches) and len(batches[-1]) >= self._config.multicast_batch_records_max
            if not batches or full or size + record.size > self._config.delta_bytes_max:
                batches.append([])
                size = 0
            batches[-1].append(record.signed)
            size += record.size
        return [tuple(batch) for batch in batches]

    def _acknowledge(self, signed: Sequence[SignedRecord]) -> None:
        """Tell the authors which of the records are held now."""
        held: dict[tuple[NodeId, LogId], list[int]] = {}
        for one in signed:
            record = self._book.holds(one)
            if record is not None and record.log.node != self._node:
                held.setdefault((record.log.node, record.log.id), []).append(record.number)
        for (author, log), numbers in held.items():
            self._outbox.send(author, Held(log, tuple(numbers)))

    def _count(self, peer: NodeId, log: LogId, numbers: Sequence[int]) -> None:
        for number in numbers[: self._config.multicast_batch_records_max]:
            self._book.acknowledged(log, number)
        for persist_id, pending in list(self._pending.items()):
            ours = [number for number in numbers if pending.log == log and number in pending.numbers]
            if ours and peer in pending.asked:
                pending.acks.setdefault(peer, {}).update(dict.fromkeys(ours))
                self._settle(persist_id, pending)

    def _settle(self, persist_id: int, pending: _Pending) -> None:
        """Conclude the write if it is durable here and on enough other nodes, or its time is over."""
        enough = pending.copies >= min(self._config.copies_wanted, 1 + len(pending.asked))
        if pending.durable_here and (enough or pending.overdue):
            del self._pending[persist_id]
            self._concluded.append(WriteConcluded(pending.request_id, pending.copies))
