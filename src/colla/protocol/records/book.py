"""The records that this node holds, and the only place where they change (DESIGN section 4).

Owns: every topic's logs, frontiers and own numbers, in memory and (through `Persist`) on the disk.

Invariants:
- What is held is a pure function of the set of records ever received, in whatever order, however often.
- Nothing unverified is held; nothing is signed under a number that was signed before.
- Every change of a step leaves in one `Persist`, all or none, ahead of what tells others about it.
- Nothing is held beyond the quotas of its author: see `quota`.
- A slot on the disk is the hash of the record in it, so that damage is seen when the node starts: then the
  frontiers of the topic begin anew and sessions bring back what was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, DropRecord, StoreCell, StoreRecord, Write
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import CollaError, InvariantViolation
from colla.model.ids import LogId, NodeId, digest, short
from colla.model.keys import verify
from colla.model.record import Key, Log, Payload, Record, SignedRecord, sign_record
from colla.protocol.records.log import HeldLog
from colla.protocol.records.order import next_stamp, seen_of
from colla.protocol.records.own import OwnLogs
from colla.protocol.records.quarantine import Quarantine
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.records.retention import Retention, floor_claim
from colla.protocol.records.room import Rooms
from colla.protocol.records.shape import ENVELOPE_BYTES_MAX, parse_shaped
from colla.protocol.records.shelf import Shelf
from colla.protocol.records.summary import DIGEST_BYTES, Segment, log_name
from colla.protocol.records.topic import Topic, Validate
from colla.protocol.views import Identity, RecordChange

FRONTIER_CELL_PREFIX = "records/frontier/"


class Received(msgspec.Struct, frozen=True):
    """What came of a batch: the keys that changed, the id of the Persist if any, how many were rejected."""

    changes: list[RecordChange]
    persist_id: int | None
    rejected: int


class _Merge:
    """What one step does to the book, until it is persisted."""

    def __init__(self) -> None:
        self.stored: dict[bytes, StoreRecord] = {}
        self.dropped: dict[bytes, DropRecord | DropCell] = {}
        self.changed: dict[tuple[str, Key], None] = {}
        self.frontiers: dict[Log, tuple[HeldLog, int]] = {}
        self.own: dict[str, None] = {}
        self.spoiled: dict[bytes, None] = {}
        self.malformed = False
        self.rejected = 0

    def touch(self, held: HeldLog) -> None:
        """Remember the log's frontier as it was before this step."""
        self.frontiers.setdefault(held.log, (held, held.frontier))


class RecordBook(Shelf):
    """Implements `views.RecordsView`; the one writer of records. Topics must be registered before use."""

    def __init__(
        self, identity: Identity, config: RecordConfig, rng: Random, outbox: Outbox, durable: Durable
    ) -> None:
        super().__init__(config)
        self.identity = identity
        self.quarantine = Quarantine(outbox)
        self.rejections: dict[str, int] = {}
        self._outbox = outbox
        self._durable = durable
        self._own = OwnLogs(identity.node, rng, durable)
        self._open: dict[str, None] = {}
        self._rooms = Rooms(self._topics, config.unknown_authors_bytes_max)
        self._excessive: dict[NodeId, None] = {}
        self._worn: dict[str, None] = {}

    # Topics and the start.

    def register(
        self,
        topic: str,
        validate: Validate,
        tombstone: str = "",
        retention: Retention | None = None,
        quota: Quota = UNBOUNDED,
    ) -> None:
        """Hold records of `topic`, restoring what the disk has of it. With `retention` it is a stream.

        `validate` raises `ValueError` for a body that breaks the topic's rules; it must be pure and let bodies
        of unknown kinds pass. A record of the kind `tombstone` replaces all earlier ones of its subject in
        its log.
        """
        if topic in self._topics:
            raise InvariantViolation(f"the topic {topic} is registered twice")
        held = self._topics[topic] = Topic(topic, validate, tombstone, self._config, retention, quota)
        damaged: list[Write] = []
        for (of_topic, slot), signed in self._durable.records.items():
            if of_topic == topic and not self._restore(held, slot, signed):
                damaged.append(DropRecord(topic, slot))
        if damaged:
            self._begin_anew(topic, damaged)
        else:
            self._restore_frontiers(held)
        self._drop_beyond_bounds(held)

    def judge_authors(self, known: Callable[[NodeId], bool]) -> None:
        """From now on, records of authors that `known` denies are held within a bound only."""
        self._rooms.judge_authors(
            known, [record for topic in self._topics.values() for record in topic.records()]
        )

    def bound_members(self, nodes_of_member: Callable[[NodeId], Sequence[NodeId]], bytes_max: int) -> None:
        """From now on, of the nodes that belong to one member no more is held than that, all together."""
        self._rooms.bound_members(nodes_of_member, bytes_max)

    def opened(self, topics: Sequence[str] | None = None) -> None:
        """A session over these topics (None: all) is complete, or nobody was there in time: writing is allowed."""
        for topic in self._topics if topics is None else topics:
            self._open[topic] = None

    def writable(self, topic: str) -> bool:
        """Whether this node may write: after a start it first meets somebody, lest it fork its own log."""
        return topic in self._open

    # Writing.

    def write(self, topic: str, items: Sequence[tuple[Key, bytes]], now: Instant) -> tuple[list[Record], int]:
        """Sign and hold one record per item; returns them and the id of their `Persist`.

        Raises `CollaError` `not_ready` before the node may write, `too_large` for a body beyond the bound,
        `quota_reached` when this node has written as much as one may.
        """
        if not self.writable(topic):
            raise CollaError(
                "not_ready",
                "This node has just started and has met nobody yet.",
                "Try again in a few seconds.",
            )
        bytes_max = min(self._config.body_bytes_max, self._topic(topic).quota.body_bytes_max)
        for key, body in items:
            if len(body) > bytes_max:
                limit = f"It may have {bytes_max} bytes at most."
                raise CollaError("too_large", f"The record {key.kind!r} is too large.", limit)
        self._check_quota(topic, items)
        merge = _Merge()
        records = [self._write_one(topic, key, body, now, merge) for key, body in items]
        persist_id = self._persist(merge)
        if persist_id is None:
            raise InvariantViolation("a write changed nothing")
        return records, persist_id

    def acknowledged(self, log: LogId, number: int) -> None:
        """Another node holds that record of ours."""
        self._own.acknowledged(log, number)

    def session_confirmed(self, topics: Sequence[str]) -> None:
        """A session found another node's records equal to ours: all of our logs are known elsewhere."""
        news = [topic for topic in topics if self._own.confirm_all(topic)]
        if news:
            self._outbox.persist(*[self._own.cell(topic) for topic in news])

    # Merging what others give.

    def receive(self, signed: Sequence[SignedRecord], now: Instant) -> Received:
        """Verify, merge and persist records from elsewhere. Bad ones are counted, never raised."""
        return self.receive_segments((), signed, None, now)

    def receive_segments(
        self,
        segments: Sequence[Segment],
        signed: Sequence[SignedRecord],
        topics: Sequence[str] | None,
        now: Instant,
    ) -> Received:
        """As `receive`, for records that are all the live ones of `segments`: frontiers move.

        Records of other topics than `topics` (None: any) are rejected. A segment with a record that does not
        verify moves nothing.
        """
        del now  # Nothing is accepted or refused by a clock; the caller's moment is part of every step.
        merge = _Merge()
        admitted: list[Record] = []
        for one in signed:
            record = self._admit(one, topics, merge)
            if record is not None:
                admitted.append(record)
        for topic in self._forked(admitted):
            self._fork(topic, merge)
        for record in admitted:
            self._apply(record, merge)
        for segment in segments:
            held = self._by_name.get(segment.log)
            if held is not None and segment.log not in merge.spoiled and not merge.malformed:
                merge.touch(held)
                held.advance(segment.after, segment.through)
        persist_id = self._persist(merge)
        changes = [RecordChange(topic, key) for topic, key in merge.changed]
        return Received(changes, persist_id, merge.rejected)

    # Inside.

    def _restore(self, topic: Topic, slot: bytes, signed: SignedRecord) -> bool:
        """Hold a record of the disk; False when it is damaged."""
        if slot_of(signed) != slot:
            return False
        try:
            record = parse_shaped(signed, self._config)
        except ValueError:
            return False
        if topic.quota.earliest_logs or self._make_room_for_log(topic, record.log, _Merge()):
            topic.add(record)
            held = topic.log_of(record.log)
            self._by_name[held.name] = held
        return True

    def _drop_beyond_bounds(self, topic: Topic) -> None:
        """Another version of colla may have kept more of a stream, or of an author, than this one does."""
        if topic.retention is None and not topic.shed:
            return
        kept = {slot_of(record.signed): None for record in topic.records()}
        on_disk = [slot for of_topic, slot in self._durable.records if of_topic == topic.name]
        gone = [DropRecord(topic.name, slot) for slot in on_disk if slot not in kept]
        if gone:
            self._outbox.persist(*gone)

    def _begin_anew(self, topic: str, damaged: list[Write]) -> None:
        """Records on the disk are damaged, nobody knows which: claim nothing, so that sessions bring them back."""
        cells = f"{FRONTIER_CELL_PREFIX}{topic}/"
        damaged += [DropCell(name) for name in self._durable.cells if name.startswith(cells)]
        if self._own.current(topic) is not None:
            self._own.renew(topic)
            damaged.append(self._own.cell(topic))
        self._outbox.persist(*damaged)
        text = f"Damaged records of {topic} on this disk were dropped; other nodes may have them."
        self._outbox.notify("records_damaged", text, node=self.identity.node)

    def _restore_frontiers(self, topic: Topic) -> None:
        for held in topic.logs():
            value = self._durable.cells.get(_frontier_cell(topic.name, held))
            own = self._own.current(topic.name)
            if own is not None and self._own.is_current(held.log):
                held.advance(0, own.number)
            elif value is not None:
                held.advance(0, int.from_bytes(value))

    def _admit(self, signed: SignedRecord, topics: Sequence[str] | None, merge: _Merge) -> Record | None:
        """One record, decoded and judged; None when it changes nothing: known, replaced or rejected."""
        try:
            record = parse_shaped(signed, self._config)
        except ValueError:
            merge.malformed = True
            self._reject("malformed", merge)
            return None
        if self._is_old_news(record):
            return None
        fault = self._fault(record, topics)
        if fault == "":
            return record
        if fault == "over_quota":
            # Its author is to blame, not whoever passes it on.
            self._note_excess(record.log.node)
            return None
        self._reject(fault, merge)
        if fault != "invalid_body":
            # An invalid body was signed by its author: nobody can mend it, so it holds no segment up.
            merge.spoiled[log_name(record.log)] = None
        return None

    def _is_old_news(self, record: Record) -> bool:
        """Whether the record changes nothing, so that its signature need not be verified."""
        topic = self._topics.get(record.log.topic)
        held = None if topic is None else topic.find(record.log)
        if held is None or self._own.is_current(record.log):
            return held is not None and record.digest in held
        return record.digest in held or (record.number <= held.frontier and held.replaced(record))

    def _fault(self, record: Record, topics: Sequence[str] | None) -> str:
        """Why the record cannot be held; empty when it can."""
        topic = self._topics.get(record.log.topic)
        node = record.log.node
        if topic is None or (topics is not None and record.log.topic not in topics):
            return "other_topic"
        if topic.quota.earliest_logs and not topic.takes(record.log):
            return "too_many_logs"
        if not verify(node, self.identity.group + record.signed.payload, record.signed.signature):
            return "bad_signature"
        if record.number > topic.quota.numbers_max or len(record.body) > topic.quota.body_bytes_max:
            return "over_quota"
        validity = self.quarantine.read(
            "the record", record.digest, lambda: _validity(topic, record), "invalid_body"
        )
        if validity:
            return validity
        if not self._rooms.has_room(node, record.size):
            self._full[node] = None
            return "over_quota"
        return "" if self._rooms.take_unknown(record) else "unknown_author"

    def _reject(self, why: str, merge: _Merge) -> None:
        merge.rejected += 1
        self.rejections[why] = self.rejections.get(why, 0) + 1

    def _apply(self, record: Record, merge: _Merge) -> None:
        topic = self._topics[record.log.topic]
        if not self._make_room_for_log(topic, record.log, merge):
            return
        held = topic.log_of(record.log)
        self._by_name[held.name] = held
        if record.digest in held:
            return
        merge.touch(held)
        replaced = topic.add(record)
        if replaced is None:
            return
        if any(old.digest == record.digest for old in replaced):
            self._note_excess(record.log.node)
        slot = slot_of(record.signed)
        merge.stored[slot] = StoreRecord(topic.name, slot, record.signed)
        merge.changed[topic.name, record.key] = None
        for old in replaced:
            self._drop(topic, old, merge)

    def _drop(self, topic: Topic, record: Record, merge: _Merge) -> None:
        slot = slot_of(record.signed)
        merge.dropped[slot] = DropRecord(topic.name, slot)
        merge.changed[topic.name, record.key] = None

    def _persist(self, merge: _Merge) -> int | None:
        """Put all that the step changed into one `Persist`; None when nothing changed."""
        writes: list[Write] = []
        for slot, drop in merge.dropped.items():
            # What came and went within one step never reaches the disk.
            if merge.stored.pop(slot, None) is None:
                writes.append(drop)
        writes += merge.stored.values()
        for held, before in merge.frontiers.values():
            if held.frontier != before and not self._own.is_current(held.log):
                cell = _frontier_cell(held.log.topic, held)
                writes.append(StoreCell(cell, held.frontier.to_bytes(8)))
        writes += [self._own.cell(topic) for topic in merge.own]
        return self._outbox.persist(*writes) if writes else None

    def _write_one(self, topic: str, key: Key, body: bytes, now: Instant, merge: _Merge) -> Record:
        held = self._topic(topic)
        versions = held.versions(key)
        log = self._own.log(topic)
        number = self._own.next_number(topic)
        if held.retention is not None:
            before = held.log_of(log).records()
            seen = floor_claim(log.id, before, len(body), held.retention.bytes_max)
            # The stamps of a stream grow along the log, whatever the clock does.
            stamp = next_stamp(before[-1:], now.wall_ms)
        else:
            seen = seen_of(versions, held.highest, self._config.seen_entries_max)
            stamp = next_stamp(versions, now.wall_ms)
        return self._sign(Payload(log, number, key, stamp, seen, body), merge)

    def _sign(self, payload: Payload, merge: _Merge) -> Record:
        record = sign_record(self.identity.group, self.identity.secret, payload)
        try:
            self._topic(payload.log.topic).validate(record)
        except ValueError as error:
            raise InvariantViolation(f"this node wrote a record that no node accepts: {error}") from error
        merge.own[payload.log.topic] = None
        self._apply(record, merge)
        return record

    # Forks: an old copy of this node's disk came back.

    def _forked(self, records: Sequence[Record]) -> list[str]:
        """The topics whose present own log has, among `records`, ones that this node did not write."""
        topics: dict[str, None] = {}
        for record in records:
            if self._own.is_current(record.log):
                own = self._own.current(record.log.topic)
                held = self._topics[record.log.topic].find(record.log)
                strange = held is None or held.rival(record) or not held.replaced(record)
                if own is not None and (record.number > own.number or strange):
                    topics[record.log.topic] = None
        return list(topics)

    def _fork(self, topic: str, merge: _Merge) -> None:
        """Open a new log and say again there what our branch says and nobody had confirmed.

        With the stamp and the `seen` that it had, so that it stays concurrent to the other branch.
        """
        own = self._own.current(topic)
        if own is None or topic in self._worn:
            return
        if self._topic(topic).has_all_logs(self.identity.node):
            # Numbers of this log were given out twice, and there is no other: it is not written to any more.
            self._worn[topic] = None
            return
        old_log = self._own.log(topic)
        held = self._topic(topic).find(old_log)
        branch = [] if held is None else held.stretch(own.confirmed, own.number)
        branch = [record for record in branch if record in self.concurrent(topic, record.key)]
        self._own.renew(topic)
        merge.own[topic] = None
        if held is not None:
            # The frontier of a log that is not (any more) the own one has a cell of its own.
            merge.frontiers[old_log] = (held, -1)
        for record in branch:
            log = self._own.log(topic)
            number = self._own.next_number(topic)
            self._sign(Payload(log, number, record.key, record.stamp, record.seen, record.body), merge)
        text = f"An old disk came back: {topic} has two branches, {len(branch)} records were kept beside."
        self._outbox.notify("log_forked", text, node=self.identity.node)

    # Quotas.

    def _make_room_for_log(self, topic: Topic, log: Log, merge: _Merge) -> bool:
        """Whether the log may be held; another one of its author may have to go for it."""
        if not topic.takes(log):
            topic.shed = True
            self._note_excess(log.node)
            return False
        crowded_out = topic.make_room(log)
        if crowded_out is not None:
            held, records = crowded_out
            del self._by_name[held.name]
            merge.frontiers.pop(held.log, None)
            merge.dropped[held.name] = DropCell(_frontier_cell(topic.name, held))
            for record in records:
                self._drop(topic, record, merge)
            self._note_excess(log.node)
        return True

    def _check_quota(self, topic: str, items: Sequence[tuple[Key, bytes]]) -> None:
        """Raise `CollaError` when other nodes would drop what this one is about to write.

        What it wrote before it can always change: all its subjects together fit one log.
        """
        held, me = self._topic(topic), self.identity.node
        new = held.new_subjects(me, [key.subject for key, _ in items])
        size = sum(len(body) + ENVELOPE_BYTES_MAX for _, body in items)
        own = self._own.current(topic)
        fits = (
            (not new or new + held.subjects_of(me) <= held.quota.subjects_max)
            and (own.number if own is not None else 0) + len(items) <= held.quota.numbers_max
            and self._rooms.has_room(me, size + (self._rooms.reserve if new else 0))
            and held.takes(self._own.log(topic))
            and topic not in self._worn
        )
        if not fits:
            raise CollaError(
                "quota_reached",
                f"This computer has written as much about {topic} as one computer may.",
                "Another computer of yours can go on. Many files fit under one name, as a folder.",
            )

    def _note_excess(self, author: NodeId) -> None:
        """Count what was dropped, and tell people once who has written more than one may."""
        self.rejections["over_quota"] = self.rejections.get("over_quota", 0) + 1
        if author not in self._excessive:
            self._excessive[author] = None
            text = f"What {short(author)} wrote beyond its quota was dropped."
            self._outbox.notify("quota_exceeded", text, node=author)


def _validity(topic: Topic, record: Record) -> str:
    try:
        topic.validate(record)
    except (ValueError, RecursionError):
        return "invalid_body"
    return ""


def slot_of(signed: SignedRecord) -> bytes:
    """Where a record stands on the disk: a hash over it, so that damage shows."""
    return digest(signed.payload + signed.signature)[:DIGEST_BYTES]


def _frontier_cell(topic: str, held: HeldLog) -> str:
    return f"{FRONTIER_CELL_PREFIX}{topic}/{held.name.hex()}"
