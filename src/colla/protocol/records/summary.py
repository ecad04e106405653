"""How nodes speak about logs: names, frontiers and segments. Part of the wire format.

A log's name is a hash over node, random id and topic, so that nobody can speak of another's log by reusing
its id, and a summary stays small.
"""

from __future__ import annotations

import msgspec

from colla.model.ids import digest
from colla.model.record import Log, SignedRecord

NAME_BYTES = 16
DIGEST_BYTES = 16
NUMBER_BYTES = 8
ENTRY_BYTES = NUMBER_BYTES + DIGEST_BYTES

_encoder = msgspec.msgpack.Encoder()


def log_name(log: Log) -> bytes:
    """The name of a log in summaries: 16 bytes of BLAKE3 over its node, id and topic."""
    return digest(_encoder.encode(log))[:NAME_BYTES]


class Frontier(msgspec.Struct, frozen=True, array_like=True):
    """Everything live of the log `log` (a name) at or below `number` is held. `hash` is over all that is held
    of the log, or empty where it is not asked for.
    """

    log: bytes
    number: int
    hash: bytes = b""


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """The live records of a log with `after` < number ≤ `through`."""

    log: bytes
    after: int
    through: int


class Segments(msgspec.Struct, frozen=True):
    """Some segments and all their live records, in number order within each log."""

    segments: tuple[Segment, ...]
    records: tuple[SignedRecord, ...]


class Page(msgspec.Struct, frozen=True):
    """What is held of a log with `after` < number ≤ `through`: (number, digest) entries of 24 bytes, joined.

    `more` tells that the log goes on behind `through`.
    """

    through: int
    entries: bytes
    more: bool


def entry_of(number: int, record_digest: bytes) -> bytes:
    """One entry of an inventory: the number (8 bytes, big endian) and the record's digest."""
    return number.to_bytes(NUMBER_BYTES) + record_digest


def entry_number(entry: bytes) -> int:
    """The number in an entry."""
    return int.from_bytes(entry[:NUMBER_BYTES])
