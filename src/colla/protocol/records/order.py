"""Which records replace which: pure functions over the records of one key (DESIGN section 4).

Two relations, both read from what authors *said they knew* (`seen`), never guessed from clocks:

- *replaces*, within one log: a record replaces an earlier one of its key that its author had seen, and a
  tombstone replaces everything earlier about its subject. What is replaced is not kept. The relation is
  transitive, because a record's `seen` of its own log is below its own number; so what a node holds is a pure
  function of the set of records that it was ever given, whatever their order.
- *dominates*, between logs: a record that had seen another is a later word on the key. Dominated records are
  kept, since merging cannot judge whether the later word had the authority to be spoken; views judge that.

Of the undominated records of a key the winner is the one with the later stamp, then the higher log id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colla.model.ids import LogId
from colla.model.record import Record, Seen, Stamp

NUMBER_MAX = 2**53
WALL_MS_MAX = 2**48
COUNTER_MAX = 2**32
"""Bounds of what a record may carry, so that no peer can make arithmetic overflow on another's node."""


def seen_number(record: Record, log: LogId) -> int:
    """Up to which number the author of `record` had seen `log` on this key; 0 when not at all."""
    for entry in record.seen:
        if entry.log == log:
            return entry.number
    return 0


def dominates(later: Record, earlier: Record) -> bool:
    """Whether the author of `later` had seen `earlier`. Both are of one key."""
    return later.digest != earlier.digest and seen_number(later, earlier.log.id) >= earlier.number


def _rank(record: Record) -> tuple[Stamp, LogId, bytes, int, bytes]:
    return (record.stamp, record.log.id, record.log.node, record.number, record.digest)


def undominated(records: Sequence[Record]) -> list[Record]:
    """The records of one key that no other of `records` dominates, the winner first.

    Only liars can write a circle of records that dominate each other; then all of them are concurrent.
    """
    if len(records) > 1:
        free = [one for one in records if not any(dominates(other, one) for other in records)]
        records = sorted(free or records, key=_rank, reverse=True)
    return list(records)


def next_stamp(records: Sequence[Record], wall_ms: int) -> Stamp:
    """The stamp of an overwrite of `records`: `max(now, seen) + 1`, within the bounds of a stamp."""
    wall_ms = min(max(wall_ms, 0), WALL_MS_MAX)
    if not records:
        return Stamp(wall_ms)
    stamp = max(record.stamp for record in records).next(wall_ms)
    return stamp if stamp.counter <= COUNTER_MAX else Stamp(stamp.wall_ms, COUNTER_MAX)


def seen_of(records: Sequence[Record], highest: Callable[[LogId], int], entries_max: int) -> tuple[Seen, ...]:
    """The version vector of all that `records` (every one held of a key) tell their next author.

    What a record claims to have seen counts only up to the `highest` number known of that log: otherwise one
    liar's claim to have seen the future would be handed on by honest authors. When the vector is too long,
    the undominated records stay in it; those they dominate stay dominated by them.
    """
    vector: dict[LogId, int] = {}

    def note(log: LogId, number: int) -> None:
        if number > vector.get(log, 0) and (log in vector or len(vector) < entries_max):
            vector[log] = number

    for record in undominated(records):
        note(record.log.id, record.number)
    for record in records:
        note(record.log.id, record.number)
    for record in records:
        for entry in record.seen:
            note(entry.log, min(entry.number, highest(entry.log)))
    return tuple(Seen(log, vector[log]) for log in sorted(vector))
