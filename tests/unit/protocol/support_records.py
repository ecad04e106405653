"""A small laboratory for records: nodes with a book, sessions, multicast and writes, and wires between them.

Everything happens in memory, one effect or message at a time, so that a test can lose, delay, repeat or cut
whatever it wants between any two of them. A node's effects are carried out strictly in order: whatever is sent
after a `Persist` leaves after it is durable, as the shell promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from colla.kernel.codec import Codec
from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Effect, Notify, Persist, Send, StoreRecord, WakeAt, Write
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import GroupId, LogId, NodeId, digest
from colla.model.keys import SecretKey
from colla.model.record import Key, Log, Payload, Record, Seen, SignedRecord, Stamp, parse_record, sign_record
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.records.book import RecordBook
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.records.retention import Retention
from colla.protocol.records.summary import log_name
from colla.protocol.records.writes import RecordsNews, WriteConcluded, Writes
from colla.protocol.sessions.sessions import SessionEnded, Sessions
from colla.protocol.views import Identity

TOPIC = "notes"
GROUP = GroupId(digest(b"the group of the tests"))
TOMBSTONE = "gone"
MESSAGES = (*Sessions.MESSAGES, *Multicast.MESSAGES, *Writes.MESSAGES)
FRAME_BYTES_MAX = 256 * 1024


def secret(number: int) -> SecretKey:
    return SecretKey(digest(b"node %d" % number))


def instant(seconds: float = 0.0) -> Instant:
    return Instant(seconds, 1_000_000.0 + seconds)


def key(name: str, kind: str = "note") -> Key:
    return Key(kind, name.encode())


def accept(record: Record) -> None:
    """Validates nothing, but that a body saying `invalid` is."""
    if record.body == b"invalid":
        raise ValueError("the body says so")


def forge(
    author: int,
    number: int,
    about: Key,
    body: bytes = b"",
    *,
    log: bytes = b"",
    seen: dict[bytes, int] | None = None,
    stamp: Stamp | None = None,
    group: GroupId = GROUP,
    topic: str = TOPIC,
) -> Record:
    """A signed record with whatever content, honest or not."""
    by = secret(author)
    log_id = LogId(log or log_of(author))
    entries = tuple(Seen(LogId(one), upto) for one, upto in sorted((seen or {}).items()))
    payload = Payload(
        Log(NodeId(by.public), log_id, topic), number, about, stamp or Stamp(number), entries, body
    )
    return sign_record(group, by, payload)


def log_of(author: int, nth: int = 0) -> bytes:
    """The id of a log that forged records of that author stand in."""
    return digest(b"log %d %d" % (author, nth))[:16]


def name_of(record: Record) -> bytes:
    """The name of the record's log."""
    return log_name(record.log)


def make_book(
    number: int = 0,
    durable: Durable | None = None,
    config: RecordConfig | None = None,
    retention: Retention | None = None,
    quota: Quota = UNBOUNDED,
) -> RecordBook:
    """A book that may be written to, on an outbox of its own. Every start has other randomness, as in life."""
    identity = Identity(GROUP, secret(number))
    rng = Random(f"{number} {len(durable.cells) if durable else 0}")
    book = RecordBook(identity, config or RecordConfig(), rng, Outbox(1), durable or Durable({}, {}))
    book.register(TOPIC, accept, tombstone=TOMBSTONE, retention=retention, quota=quota)
    book.opened()
    return book


def persist(book: RecordBook, durable: Durable) -> None:
    """Carry out what the book asked its disk for."""
    for effect in book._outbox.drain():
        if isinstance(effect, Persist):
            durable.apply(effect.writes)


def contents(book: RecordBook, topic: str = TOPIC) -> list[tuple[bytes, int, Key, bytes]]:
    """All that a book holds, in a form that tests compare and print."""
    return [(record.log.id, record.number, record.key, record.body) for record in book.all_records(topic)]


class Box:
    """One node of the laboratory."""

    def __init__(self, lab: Lab, number: int, durable: Durable, start_number: int) -> None:
        self.lab = lab
        self.number = number
        self.identity = Identity(GROUP, secret(number))
        self.id = self.identity.node
        self.durable = durable
        self.start_number = start_number
        self.queue: list[Effect] = []
        self.outbox = Outbox(start_number)
        rng = Random(f"{lab.seed} {number} {start_number}")
        on_disk = Durable(dict(durable.records), dict(durable.cells))
        self.book = RecordBook(self.identity, lab.config, rng, self.outbox, on_disk)
        self.book.register(TOPIC, accept, tombstone=TOMBSTONE, retention=lab.retention, quota=lab.quota)
        self.sessions = Sessions(self.identity, lab.config, rng, self.outbox, self.book)
        self.multicast = Multicast(self.identity, lab.config, rng, self.outbox, lab.codec)
        self.writes = Writes(self.identity, lab.config, self.outbox, self.book, self.multicast)
        self.concluded: list[WriteConcluded] = []
        self.ended: list[SessionEnded] = []
        self.notices: list[str] = []
        self.spread_to_me: list[Message] = []
        self.topics: tuple[str, ...] = (TOPIC,)
        self.take_up()

    def write(self, name: str, body: bytes = b"", kind: str = "note", request: int | None = None) -> None:
        """Write one record and tell the other nodes of the laboratory."""
        others = [box.id for box in self.lab.boxes if box is not self]
        self.writes.submit(request, TOPIC, [(key(name, kind), body)], others, self.lab.now)
        self.take_up()

    def open(self, other: Box) -> None:
        self.sessions.open(other.id, (TOPIC,), self.lab.now)
        self.take_up()

    def receive(self, peer: NodeId, message: Message) -> None:
        now = self.lab.now
        if isinstance(message, Sessions.MESSAGES):
            concluded = self.sessions.message(peer, message, now, self.topics)
            self.ended += [one for one in concluded if isinstance(one, SessionEnded)]
        elif isinstance(message, Multicast.MESSAGES):
            for origin, inner in self.multicast.message(peer, message, now):
                self.spread_to_me.append(inner)
                if isinstance(inner, RecordsNews):
                    self.writes.message(origin, inner, now)
        else:
            self.writes.message(peer, message, now)
        self.take_up()

    def due(self, timer: Timer) -> None:
        if isinstance(timer, Sessions.TIMERS):
            concluded = self.sessions.timer(timer, self.lab.now)
            self.ended += [one for one in concluded if isinstance(one, SessionEnded)]
        else:
            self.writes.timer(timer, self.lab.now)
        self.take_up()

    def take_up(self) -> None:
        """Queue what was put into the outbox."""
        self.queue += self.outbox.drain()
        self.concluded += self.writes.concluded()

    def perform(self) -> Effect:
        """Carry out the first effect of the queue."""
        effect = self.queue.pop(0)
        match effect:
            case Persist(id=persist_id, writes=writes):
                self.durable.apply(writes)
                self.lab.note(writes)
                self.writes.persisted(persist_id, self.lab.now)
                self.take_up()
            case Send(to=to, message=message):
                self.lab.post(self, to, message)
            case WakeAt(at_s=at_s, timer=timer):
                self.lab.timers.append((at_s, self, timer))
            case Notify(notice=notice):
                self.notices.append(notice.kind)
            case _:
                raise AssertionError(f"nobody carries out {effect!r}")
        return effect


class Lab:
    """Some nodes. `lose` decides which messages are lost; with `retention` the topic is a stream."""

    def __init__(
        self,
        size: int,
        seed: int = 0,
        config: RecordConfig | None = None,
        *,
        opened: bool = True,
        retention: Retention | None = None,
        quota: Quota = UNBOUNDED,
    ) -> None:
        self.seed = seed
        self.retention = retention
        self.quota = quota
        self.rng = Random(seed)
        self.config = config or RecordConfig()
        self.codec = Codec(MESSAGES, FRAME_BYTES_MAX)
        self.now = instant()
        self.wire: list[tuple[Box, Box, bytes]] = []
        self.timers: list[tuple[float, Box, Timer]] = []
        self.ever: dict[bytes, Record] = {}
        """Every record that ever was on a disk."""
        self.lose: Callable[[Box, Box, Message], bool] = lambda sender, receiver, message: False
        self.boxes = [Box(self, number, Durable({}, {}), 1) for number in range(size)]
        if opened:
            for box in self.boxes:
                box.book.opened()

    def note(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if isinstance(write, StoreRecord):
                record = parse_record(write.record)
                self.ever[record.digest] = record

    def forget_lost(self) -> None:
        """A disk was lost: what is on no disk any more never was."""
        self.ever = {}
        for box in self.boxes:
            self.note([StoreRecord(topic, slot, one) for (topic, slot), one in box.durable.records.items()])

    def box(self, node: NodeId) -> Box:
        return next(box for box in self.boxes if box.id == node)

    def post(self, sender: Box, to: NodeId, message: Message) -> None:
        receiver = next((box for box in self.boxes if box.id == to), None)
        if receiver is not None and not self.lose(sender, receiver, message):
            self.wire.append((sender, receiver, self.codec.encode(message)))

    def deliver(self, place: int = 0) -> tuple[Box, Box, Message]:
        """Hand over the message at that place of the wire. Messages to a node's former life are lost."""
        sender, receiver, frame = self.wire.pop(place)
        message = self.codec.decode(frame)
        receiver = self.boxes[receiver.number]
        receiver.receive(sender.id, message)
        return sender, receiver, message

    def perform_all(self) -> None:
        for box in self.boxes:
            while box.queue:
                box.perform()

    def run(self) -> None:
        """Until nothing is under way; timers do not count."""
        self.perform_all()
        while self.wire:
            self.deliver()
            self.perform_all()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; timers become due in order."""
        until = self.now.boot_s + seconds
        while True:
            due = sorted((one for one in self.timers if one[0] <= until), key=lambda one: one[0])
            if not due:
                break
            self.timers.remove(due[0])
            at_s, box, timer = due[0]
            self.now = self.now.later(max(0.0, at_s - self.now.boot_s))
            if self.boxes[box.number] is box:
                box.due(timer)
            self.run()
        self.now = self.now.later(until - self.now.boot_s)

    def restart(self, box: Box, durable: Durable | None = None, *, opened: bool = True) -> Box:
        """The node's process ends between two effects and starts again from its disk (or another one)."""
        fresh = Box(self, box.number, durable or box.durable, box.start_number + 1)
        self.boxes[box.number] = fresh
        self.wire = [one for one in self.wire if box not in one[:2]]
        if opened:
            fresh.book.opened()
        return fresh

    def meet(self, one: Box, other: Box) -> None:
        """One undisturbed session."""
        one.open(other)
        self.run()

    def meet_all(self) -> None:
        """Sessions until everybody has met everybody twice."""
        for _ in range(2):
            for one in self.boxes:
                for other in self.boxes:
                    if one is not other:
                        self.meet(one, other)

    def fingerprints(self) -> list[bytes]:
        return [box.book.fingerprint((TOPIC,)) for box in self.boxes]

    def views(self) -> list[Any]:
        return [contents(box.book) for box in self.boxes]


def tamper(record: Record, **changes: Any) -> SignedRecord:
    """The record with another content under the old signature."""
    content = msgspec.structs.replace(record.content, **changes)
    return SignedRecord(msgspec.msgpack.encode(content), record.signed.signature)


def twin(records: Sequence[Record], retention: Retention | None = None) -> dict[bytes, Record]:
    """What must be held of a set of records, straight from the definition: the naive twin of the book."""
    if retention is not None:
        return newest(records, retention.records_max)

    def replaces(later: Record, earlier: Record) -> bool:
        if later.log != earlier.log or later.digest == earlier.digest:
            return False
        if later.key == earlier.key:
            knew = [entry.number for entry in later.seen if entry.log == earlier.log.id]
            if knew and knew[0] >= earlier.number:
                return True
        tombstone = later.key.kind == TOMBSTONE and later.key.subject == earlier.key.subject
        return tombstone and later.number > earlier.number

    every = {record.digest: record for record in records}
    return {
        one: record
        for one, record in every.items()
        if not any(replaces(later, record) for later in every.values())
    }


def newest(records: Sequence[Record], records_max: int) -> dict[bytes, Record]:
    """What must be held of a set of records of a stream, straight from the definition."""
    kept: dict[bytes, Record] = {}
    for record in records:
        of_log = [other for other in records if other.log == record.log]
        claims = [entry.number for other in of_log for entry in other.seen if entry.log == other.log.id]
        floor = max(other.number for other in of_log) - records_max
        if record.number > max([floor, *claims]):
            kept[record.digest] = record
    return kept
