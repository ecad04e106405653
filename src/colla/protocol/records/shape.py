"""What a record must look like before anything of it is believed: lengths, orders and bounds.

Pure and the same on every node, so that all agree on which records exist. Bodies are judged by their topics.
"""

from __future__ import annotations

from colla.kernel.config import RecordConfig
from colla.model.ids import KEY_BYTES, RANDOM_ID_BYTES
from colla.model.keys import SIGNATURE_BYTES
from colla.model.record import Record, SignedRecord, parse_record
from colla.protocol.records.order import COUNTER_MAX, NUMBER_MAX, WALL_MS_MAX

TOPIC_CHARS_MAX = 32
KIND_CHARS_MAX = 32
SUBJECT_BYTES_MAX = 64
ENVELOPE_BYTES_MAX = 4096
"""A payload's length beyond its body: names, key, stamp and the longest `seen`."""


def parse_shaped(signed: SignedRecord, config: RecordConfig) -> Record:
    """Decode a record and check its shape; its signature is not judged. Raises `ValueError`."""
    if len(signed.payload) > config.body_bytes_max + ENVELOPE_BYTES_MAX:
        raise ValueError("the record is too long")
    if len(signed.signature) != SIGNATURE_BYTES:
        raise ValueError("the signature has the wrong length")
    record = parse_record(signed)
    check_shape(record, config)
    return record


def check_shape(record: Record, config: RecordConfig) -> None:
    """Raise `ValueError` when a length, an order or a bound of the record is wrong."""
    content = record.content
    if len(content.body) > config.body_bytes_max:
        raise ValueError("the body is too long")
    if len(content.log.node) != KEY_BYTES or len(content.log.id) != RANDOM_ID_BYTES:
        raise ValueError("the log has a malformed node or id")
    if not 1 <= len(content.log.topic) <= TOPIC_CHARS_MAX or not 1 <= len(content.key.kind) <= KIND_CHARS_MAX:
        raise ValueError("the topic or the kind is empty or too long")
    if len(content.key.subject) > SUBJECT_BYTES_MAX:
        raise ValueError("the subject is too long")
    if not 1 <= content.number <= NUMBER_MAX:
        raise ValueError("the number is out of bounds")
    if not (0 <= content.stamp.wall_ms <= WALL_MS_MAX and 0 <= content.stamp.counter <= COUNTER_MAX):
        raise ValueError("the stamp is out of bounds")
    _check_seen(record, config.seen_entries_max)


def _check_seen(record: Record, entries_max: int) -> None:
    if len(record.seen) > entries_max:
        raise ValueError("`seen` has too many entries")
    before = b""
    for entry in record.seen:
        if len(entry.log) != RANDOM_ID_BYTES or entry.log <= before:
            raise ValueError("`seen` is not in the order of its logs")
        if not 1 <= entry.number <= NUMBER_MAX:
            raise ValueError("a number in `seen` is out of bounds")
        if entry.log == record.log.id and entry.number >= record.number:
            raise ValueError("the record claims to have seen itself")
        before = entry.log
