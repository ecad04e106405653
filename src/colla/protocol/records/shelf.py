"""What a node holds of all topics, to be read: by views, and by sessions that compare it with others.

Nothing changes here; `book` is the one writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from colla.kernel.config import RecordConfig
from colla.model.errors import InvariantViolation
from colla.model.ids import LogId, NodeId, digest
from colla.model.record import Key, Log, Record, SignedRecord
from colla.protocol.records.log import HeldLog
from colla.protocol.records.order import NUMBER_MAX, undominated
from colla.protocol.records.shape import parse_shaped
from colla.protocol.records.summary import Frontier, Page, Segment, Segments, log_name
from colla.protocol.records.topic import Topic


class Shelf:
    """Implements `views.RecordsView` and the questions of sessions. Topics must be registered before use."""

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self._topics: dict[str, Topic] = {}
        self._by_name: dict[bytes, HeldLog] = {}
        self._full: dict[NodeId, None] = {}
        """Authors of whom no more is taken: their members fill more than they may (see `quota`)."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The registered topics, in the order of their registration."""
        return tuple(self._topics)

    # Reading: views.RecordsView.

    def winner(self, topic: str, key: Key) -> Record | None:
        concurrent = self.concurrent(topic, key)
        return concurrent[0] if concurrent else None

    def concurrent(self, topic: str, key: Key) -> tuple[Record, ...]:
        return tuple(undominated(self._topic(topic).versions(key)))

    def versions(self, topic: str, key: Key) -> tuple[Record, ...]:
        return tuple(self._topic(topic).versions(key))

    def keys(self, topic: str, kind: str) -> tuple[Key, ...]:
        return self._topic(topic).keys(kind)

    def all_records(self, topic: str) -> tuple[Record, ...]:
        return tuple(self._topic(topic).records())

    def contents(self, topic: str) -> bytes:
        return self._topic(topic).contents()

    def holds(self, signed: SignedRecord) -> Record | None:
        """The record as held, if these bytes are."""
        try:
            record = parse_shaped(signed, self._config)
        except ValueError:
            return None
        held = self._by_name.get(log_name(record.log))
        return held.record(record.digest) if held is not None and record.digest in held else None

    def held(self, log: LogId, number: int) -> bool:
        """Whether a record of that number is held of a log with that id."""
        return any(held.stretch(number - 1, number) for held in self._by_name.values() if held.log.id == log)

    def complete(self, topic: str, after: Mapping[Log, int]) -> list[tuple[Log, int, list[Record]]]:
        """Of each log whose frontier is beyond `after` (0 where it is not named): its name, the frontier, and the
        records between the two in number order.
        """
        return [
            (held.log, held.frontier, held.stretch(after.get(held.log, 0), held.frontier))
            for held in self._topic(topic).logs()
            if held.frontier > after.get(held.log, 0)
        ]

    def highest_of(self, nodes: Sequence[NodeId]) -> tuple[tuple[bytes, int], ...]:
        """All logs of these nodes in every topic, by name, and the highest number held of each."""
        return tuple(
            (held.name, held.highest)
            for topic in self._topics.values()
            for held in topic.logs()
            if held.log.node in nodes
        )

    # Comparing with others; used by sessions.

    def fingerprint(self, topics: Sequence[str]) -> bytes:
        """A hash over frontiers and live records of these topics: equal ones need no session."""
        return digest(b"".join(self._topic(topic).fingerprint() for topic in sorted(topics)))

    def summary(self, topics: Sequence[str], *, hashes: bool = False) -> tuple[Frontier, ...]:
        """All frontiers of these topics, with the logs' hashes if asked for. Sorted by name within a topic."""
        return tuple(
            Frontier(held.name, held.frontier, held.hash if hashes else b"")
            for topic in topics
            for held in self._topic(topic).logs()
        )

    def hash_of(self, log: bytes) -> bytes:
        """The hash of the log of that name; empty when it is unknown."""
        held = self._by_name.get(log)
        return b"" if held is None else held.hash

    def gaps(self, theirs: Sequence[Frontier]) -> list[Segment]:
        """What a peer with these frontiers has and we lack, as far as frontiers tell."""
        found = []
        for frontier in theirs:
            held = self._by_name.get(frontier.log)
            own = 0 if held is None else held.frontier
            if held is not None and held.log.node in self._full:
                continue
            if own < frontier.number <= NUMBER_MAX:
                found.append(Segment(frontier.log, own, frontier.number))
        return found

    def segments(
        self, wanted: Sequence[Segment], topics: Sequence[str], bytes_max: int, records_max: int
    ) -> Segments:
        """The live records of a prefix of `wanted`, within the budget; the last segment may end earlier.

        Of a log that is unknown here, or of no topic of `topics`, the segment comes back empty. At least one
        record is given, when there is one.
        """
        segments: list[Segment] = []
        records: list[SignedRecord] = []
        for want in wanted:
            held = self._of_topics(want.log, topics)
            through = want.after if held is None else max(want.after, min(want.through, held.frontier))
            for record in () if held is None else held.stretch(want.after, through):
                if records and (record.size > bytes_max or len(records) >= records_max):
                    if record.number - 1 > want.after:
                        segments.append(Segment(want.log, want.after, record.number - 1))
                    return Segments(tuple(segments), tuple(records))
                records.append(record.signed)
                bytes_max -= record.size
            segments.append(Segment(want.log, want.after, through))
        return Segments(tuple(segments), tuple(records))

    def segments_after(
        self, theirs: Sequence[Frontier], topics: Sequence[str], bytes_max: int, records_max: int
    ) -> Segments:
        """What a peer with these frontiers lacks, within the budget."""
        known = {frontier.log: frontier.number for frontier in theirs}
        wanted = [
            Segment(held.name, known.get(held.name, 0), held.frontier)
            for topic in topics
            for held in self._topic(topic).logs()
            if known.get(held.name, 0) < held.frontier
        ]
        return self.segments(wanted, topics, bytes_max, records_max)

    def page(self, log: bytes, after: int, topics: Sequence[str]) -> Page:
        """A page of the inventory of the log of that name; empty when it is unknown or of no such topic."""
        held = self._of_topics(log, topics)
        return (
            Page(after, b"", False) if held is None else held.page(after, self._config.inventory_entries_max)
        )

    def lacking(self, log: bytes, digests: Sequence[bytes]) -> list[bytes]:
        """Which of these digests of records of the log are not held."""
        held = self._by_name.get(log)
        if held is not None and held.log.node in self._full:
            return []
        return [one for one in digests if held is None or one not in held]

    def chosen(
        self, log: bytes, digests: Sequence[bytes], topics: Sequence[str], bytes_max: int
    ) -> tuple[int, tuple[SignedRecord, ...]]:
        """The held ones of a prefix of these digests of a log, and how long the prefix is (at least 1)."""
        held = self._of_topics(log, topics)
        records: list[SignedRecord] = []
        for place, one in enumerate(digests):
            if held is None or one not in held:
                continue
            record = held.record(one)
            if records and record.size > bytes_max:
                return place, tuple(records)
            records.append(record.signed)
            bytes_max -= record.size
        return len(digests), tuple(records)

    # Inside.

    def _topic(self, topic: str) -> Topic:
        found = self._topics.get(topic)
        if found is None:
            raise InvariantViolation(f"the topic {topic} is not registered")
        return found

    def _of_topics(self, log: bytes, topics: Sequence[str]) -> HeldLog | None:
        """The log of that name, if it is known and of one of the topics."""
        held = self._by_name.get(log)
        return held if held is not None and held.log.topic in topics else None
