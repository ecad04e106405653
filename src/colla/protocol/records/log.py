"""One log as this node holds it: its live records, its frontier, and what arrived ahead of it.

Invariants:
- What is held is exactly what no other record of the log ever given to it replaces (see `order`).
- The last record of a log is always held, so a frontier is never above the greatest number held.
- Everything live at or below the frontier is held (DESIGN section 4), as far as peers told the truth: a
  record ahead of a gap is applied at once and moves no frontier.
- Of a stream (see `retention`) nothing at or below the floor is held, and the frontier is never below the floor.
- Nothing beyond the quota is held, whatever came first (see `quota`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection

from colla.model.ids import digest
from colla.model.record import Key, Log, Record
from colla.protocol.records.order import seen_number
from colla.protocol.records.quota import UNBOUNDED, Quota
from colla.protocol.records.retention import Retention, floor_after
from colla.protocol.records.summary import DIGEST_BYTES, NUMBER_BYTES, Page, entry_number, entry_of, log_name


class HeldLog:
    """The live records of one log. `tombstone` is the kind that eliminates its subject, or empty; `retention` makes
    it the log of a stream.
    """

    def __init__(
        self,
        log: Log,
        tombstone: str,
        ahead_numbers_max: int,
        retention: Retention | None = None,
        quota: Quota = UNBOUNDED,
    ) -> None:
        self.log = log
        self.name = log_name(log)
        self._complete = 0
        self._shed_any = False
        self.floor = 0
        self._retention = retention
        self._quota = quota
        self._tombstone = tombstone
        self._ahead_numbers_max = ahead_numbers_max
        self._ahead: dict[int, None] = {}
        self._entries: list[bytes] = []
        self._records: dict[bytes, Record] = {}
        self._by_key: dict[Key, list[Record]] = {}
        self._by_subject: dict[bytes, dict[Key, None]] = {}
        self._gone: dict[bytes, int] = {}
        self._hash: bytes | None = None

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, record_digest: bytes) -> bool:
        return record_digest in self._records

    def record(self, record_digest: bytes) -> Record:
        """The held record of that digest. Raises `KeyError`."""
        return self._records[record_digest]

    @property
    def frontier(self) -> int:
        """Up to where the log is held."""
        # What is beyond the quota counts as held, but not at the end: nobody could tell others of it.
        return min(self._complete, self.highest) if self._shed_any else self._complete

    @property
    def highest(self) -> int:
        """The greatest number held; 0 for an empty log."""
        return entry_number(self._entries[-1]) if self._entries else 0

    @property
    def hash(self) -> bytes:
        """16 bytes over the numbers and digests of all held records."""
        if self._hash is None:
            self._hash = digest(b"".join(self._entries))[:DIGEST_BYTES]
        return self._hash

    def replaced(self, record: Record) -> bool:
        """Whether something held replaces the record."""
        if self._retention is not None:
            return record.number <= self.floor
        if self._gone.get(record.key.subject, 0) > record.number:
            return True
        held = self._by_key.get(record.key, ())
        return any(seen_number(later, self.log.id) >= record.number for later in held)

    def rival(self, record: Record) -> bool:
        """Whether another record with the number of this one is held: the log has two branches."""
        return any(other.digest != record.digest for other in self._at(record.number))

    def add(self, record: Record) -> list[Record]:
        """Hold the record, which is neither held nor replaced; returns what is held no more.

        That is what it replaces, and what is beyond the quota now, which may be the record itself.
        """
        self.note(record.number)
        if self._retention is not None:
            self._insert(record)
            return self._drop_old(record, self._retention.records_max)
        gone = [old for old in self._by_key.get(record.key, ()) if self._replaces(record, old)]
        if self._tombstone and record.key.kind == self._tombstone:
            subject = record.key.subject
            for key in self._by_subject.get(subject, {}):
                gone += [old for old in self._by_key[key] if old.number < record.number and old not in gone]
            self._gone[subject] = max(record.number, self._gone.get(subject, 0))
        for old in gone:
            self._remove(old)
        self._insert(record)
        return gone + self._shed(record.key.subject)

    @property
    def subjects(self) -> Collection[bytes]:
        """What records of the log are about."""
        return self._by_subject

    def _shed(self, subject: bytes) -> list[Record]:
        """Hold no more than the quota, now that there is another record about `subject`."""
        about = self._by_subject[subject]
        gone = self._quota.beyond([one for key in about for one in self._by_key[key]])
        for record in gone:
            self._remove(record)
        if len(self._by_subject) > self._quota.subjects_max:
            last = max(self._by_subject)
            crowded = [one for key in self._by_subject[last] for one in self._by_key[key]]
            for record in crowded:
                self._remove(record)
            gone += crowded
            del self._by_subject[last]
            self._gone.pop(last, None)
        if gone:
            self._shed_any = True
        return gone

    def _insert(self, record: Record) -> None:
        insort(self._entries, entry_of(record.number, record.digest))
        self._records[record.digest] = record
        if self._retention is None:
            self._by_key.setdefault(record.key, []).append(record)
            self._by_subject.setdefault(record.key.subject, {})[record.key] = None
        self._hash = None

    def _drop_old(self, newest: Record, records_max: int) -> list[Record]:
        """Raise the floor as the newest record demands; what is kept no more counts as held."""
        self.floor = floor_after(self.floor, newest, self.highest, records_max)
        gone = self.stretch(0, self.floor)
        for old in gone:
            self._remove(old)
        self._reach(self.floor)
        return gone

    def note(self, number: int) -> None:
        """A verified record of that number is applied: move the frontier if it is the next one."""
        if number == self._complete + 1:
            self._complete = number
            self._close_up()
        elif number > self._complete and len(self._ahead) < self._ahead_numbers_max:
            self._ahead[number] = None

    def advance(self, after: int, through: int) -> None:
        """All live records with `after` < number ≤ `through` were applied: move the frontier.

        Only as far as the author's own signatures reach: a peer's word alone moves nothing.
        """
        through = min(through, self.highest)
        if after <= self._complete:
            self._reach(through)

    def stretch(self, after: int, through: int) -> list[Record]:
        """The held records with `after` < number ≤ `through`, in number order."""
        first = bisect_left(self._entries, entry_of(after + 1, b""))
        last = bisect_left(self._entries, entry_of(through + 1, b""))
        return [self._records[entry[NUMBER_BYTES:]] for entry in self._entries[first:last]]

    def records(self) -> list[Record]:
        """All held records in number order."""
        return [self._records[entry[NUMBER_BYTES:]] for entry in self._entries]

    def page(self, after: int, entries_max: int) -> Page:
        """At most `entries_max` entries behind `after`, whole numbers only, unless one number fills a page."""
        first = bisect_left(self._entries, entry_of(after + 1, b""))
        entries = self._entries[first : first + entries_max]
        if first + len(entries) == len(self._entries):
            return Page(max(after, self.frontier, self.highest), b"".join(entries), False)
        through = entry_number(entries[-1])
        if (
            entry_number(self._entries[first + len(entries)]) == through
            and entry_number(entries[0]) < through
        ):
            through -= 1
        kept = [entry for entry in entries if entry_number(entry) <= through]
        return Page(through, b"".join(kept), True)

    def _at(self, number: int) -> list[Record]:
        return self.stretch(number - 1, number)

    def _replaces(self, later: Record, earlier: Record) -> bool:
        return seen_number(later, self.log.id) >= earlier.number

    def _remove(self, record: Record) -> None:
        del self._records[record.digest]
        del self._entries[bisect_left(self._entries, entry_of(record.number, record.digest))]
        if self._retention is not None:
            return
        same_key = self._by_key[record.key]
        same_key.remove(record)
        if not same_key:
            del self._by_key[record.key]
            del self._by_subject[record.key.subject][record.key]

    def _reach(self, through: int) -> None:
        """Let the frontier stand at `through` at least."""
        if self._complete < through:
            self._complete = through
            for number in [number for number in self._ahead if number <= through]:
                del self._ahead[number]
            self._close_up()

    def _close_up(self) -> None:
        while self._complete + 1 in self._ahead:
            self._complete += 1
            del self._ahead[self._complete]
