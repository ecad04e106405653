"""The order in which this node took the records of streams: what readers on this node count by.

Records come in any order, from many authors. Readers (an inbox, a subscriber that was away) want each author's in
order, each once, and a position to go on from. So every record gets a *place*, 1, 2, 3…, as soon as everything before
it in its log is held. Places are this node's own and mean nothing elsewhere.

Invariants:
- A place is given once, lasts as long as its record, and is on the disk before anybody is told of it.
- Of each log the places grow with the numbers. The exception is a second branch that an old disk brought to light: its
  records come when they come.
- No key of an author has two places: what a node says again in a new log after such a fork is the same once more.
- A record that does not count (yet), and all after it in its log, wait for the membership.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell, Write
from colla.kernel.outbox import Outbox
from colla.model.record import Key, Log, Record, Stamp
from colla.protocol.views import RecordChange

CELL_PREFIX = "journal/"


class Taken(msgspec.Struct, frozen=True):
    """What changed: records with their new places, in order, and records that are kept no more."""

    placed: list[tuple[int, Record]]
    gone: list[Record]


class HeldStreams(Protocol):
    """What a journal reads of the records."""

    def all_records(self, topic: str) -> tuple[Record, ...]: ...
    def versions(self, topic: str, key: Key) -> tuple[Record, ...]: ...
    def complete(self, topic: str, after: Mapping[Log, int]) -> list[tuple[Log, int, list[Record]]]: ...


class Journal:
    """The places of all records of some streams."""

    def __init__(
        self,
        name: str,
        topics: tuple[str, ...],
        records: HeldStreams,
        counts: Callable[[Record], bool],
        outbox: Outbox,
        durable: Durable,
        given_before: int = 0,
    ) -> None:
        """`counts` tells whether a record's author had the right to write it; `given_before` is a place known to be given."""
        self._topics = topics
        self._records = records
        self._counts = counts
        self._outbox = outbox
        self._prefix = f"{CELL_PREFIX}{name}/"
        self._order: list[int] = []
        self._at: dict[int, Record] = {}
        self._place_of: dict[bytes, int] = {}
        self._keys: dict[tuple[str, Key], tuple[int, ...]] = {}
        self._upto: dict[Log, int] = {}
        self._last = given_before
        self._restore(durable)

    @property
    def last(self) -> int:
        """The greatest place given; 0 when none is."""
        return self._last

    def after(self, place: int) -> Iterable[tuple[int, Record]]:
        """The records behind that place, in order. A place that this node never gave counts as 0: nothing is lost."""
        first = bisect_right(self._order, place if place <= self._last else 0)
        return ((at, self._at[at]) for at in self._order[first:])

    def take(self, changes: Sequence[RecordChange] = ()) -> Taken:
        """Give places to what is complete now; returns the new records, and those that are kept no more.

        `changes` are the keys with other records than before. To be called as well after a session, which may have
        moved frontiers, and when the membership changed.
        """
        fresh: list[Record] = []
        gone: list[Record] = []
        for change in changes:
            if change.topic in self._topics:
                fresh += self._late(change)
                gone += self._gone(change)
        for topic in self._topics:
            for log, frontier, records in self._records.complete(topic, self._upto):
                waiting = next((record for record in records if not self._counts(record)), None)
                self._upto[log] = frontier if waiting is None else waiting.number - 1
                fresh += [record for record in records if record.number <= self._upto[log]]
        writes: list[Write] = [DropCell(self._cell(place)) for place in map(self._forget, gone)]
        taken = [record for record in _in_order(fresh) if self._give(record)]
        placed = [(self._place_of[record.digest], record) for record in taken]
        writes += [StoreCell(self._cell(place), record.digest) for place, record in placed]
        if writes:
            self._outbox.persist(*writes)
        return Taken(placed, gone)

    # Inside.

    def _late(self, change: RecordChange) -> list[Record]:
        """Records of a branch that comes to light although its log was complete without it."""
        return [
            record
            for record in self._records.versions(change.topic, change.key)
            if record.number <= self._upto.get(record.log, 0)
            and record.digest not in self._place_of
            and self._counts(record)
        ]

    def _gone(self, change: RecordChange) -> list[Record]:
        placed = [self._at[place] for place in self._keys.get((change.topic, change.key), ())]
        held = {one.digest: None for one in self._records.versions(change.topic, change.key)}
        return [record for record in placed if record.digest not in held]

    def _give(self, record: Record) -> bool:
        """Give the next place, unless the same was said before."""
        places = self._keys.get((record.log.topic, record.key), ())
        if any(self._at[place].log.node == record.log.node for place in places):
            return False
        self._last += 1
        self._put(self._last, record)
        return True

    def _put(self, place: int, record: Record) -> None:
        self._order.append(place)
        self._at[place] = record
        self._place_of[record.digest] = place
        key = (record.log.topic, record.key)
        self._keys[key] = (*self._keys.get(key, ()), place)

    def _forget(self, record: Record) -> int:
        place = self._place_of.pop(record.digest)
        del self._at[place]
        key = (record.log.topic, record.key)
        self._keys[key] = tuple(other for other in self._keys[key] if other != place)
        if not self._keys[key]:
            del self._keys[key]
        del self._order[bisect_right(self._order, place) - 1]
        return place

    def _cell(self, place: int) -> str:
        return f"{self._prefix}{place:016x}"

    def _restore(self, durable: Durable) -> None:
        held = {
            record.digest: record for topic in self._topics for record in self._records.all_records(topic)
        }
        lost: list[Write] = []
        for name in sorted(name for name in durable.cells if name.startswith(self._prefix)):
            record = held.get(durable.cells[name])
            place = _place_in(name.removeprefix(self._prefix))
            if record is None or place is None or record.digest in self._place_of:
                lost.append(DropCell(name))
            else:
                self._put(place, record)
            self._last = max(self._last, place or 0)
        if lost:
            self._outbox.persist(*lost)


def _in_order(records: Iterable[Record]) -> list[Record]:
    """By stamp, as far as the order of each log allows: a record is never put before one of a lower number."""
    latest: dict[Log, Stamp] = {}
    ranked: list[tuple[Stamp, Log, int, bytes, Record]] = []
    by_log = sorted(
        {one.digest: one for one in records}.values(), key=lambda one: (one.log, one.number, one.digest)
    )
    for record in by_log:
        stamp = latest[record.log] = max(record.stamp, latest.get(record.log, record.stamp))
        ranked.append((stamp, record.log, record.number, record.digest, record))
    return [one[-1] for one in sorted(ranked, key=lambda one: one[:4])]


def _place_in(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
