"""Streams: topics whose records never replace each other by key, and of which only the newest of each log are kept.

The *floor* of a log is the number up to which its records are kept no more. It is read from the log's own records,
never from a clock, and it only rises:

- every node drops what is `records_max` numbers behind the greatest;
- an author drops earlier when its records have grown beyond `bytes_max`, and says so with `seen`: a record of a stream
  replaces every earlier one that its author claims to have seen of its own log, whatever its key.

So what is held of a log stays a pure function of the set of its records ever received: a record that is dropped could
claim nothing beyond its own number, and the one that counts most is always held. What is dropped counts as held: the
frontier is never below the floor. (A bound in bytes that each node applied to what *it* holds would not do: a node
with gaps would keep what others dropped, and sessions between them would never end in equality.)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.model.ids import LogId
from colla.model.record import Record, Seen
from colla.protocol.records.order import seen_number


class Retention(msgspec.Struct, frozen=True):
    """How much of each log of a stream is kept: at most so many records, and bytes as far as its author is honest."""

    records_max: int
    bytes_max: int


def floor_after(floor: int, newest: Record, highest: int, records_max: int) -> int:
    """The floor of a log that got the record `newest` and whose greatest number is `highest`, itself included."""
    return max(floor, highest - records_max, seen_number(newest, newest.log.id))


def floor_claim(log: LogId, held: Sequence[Record], body_bytes: int, bytes_max: int) -> tuple[Seen, ...]:
    """What the next record of an own log says to have seen, so that with its body no more than `bytes_max` stay.

    `held` are the log's records in number order.
    """
    size = body_bytes
    for record in reversed(held):
        size += record.size
        if size > bytes_max:
            return (Seen(log, record.number),)
    return ()
