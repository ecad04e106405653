"""The signed record: the unit of the group's persistent, replicated knowledge (DESIGN section 4).

A record is encoded once, by its author; everybody else carries those bytes verbatim, so the signature holds
for ever and a body of a kind that this version does not know travels unharmed. The group's id is not carried:
the signature is made over `group id + payload`, which binds the record to its group at no cost.
"""

from __future__ import annotations

from functools import total_ordering

import msgspec

from colla.model.errors import UNDECODABLE
from colla.model.ids import GroupId, LogId, NodeId, digest
from colla.model.keys import SIGNATURE_BYTES, SecretKey, verify
from colla.model.sharing import shared

TOPIC_MEMBERSHIP = "membership"
TOPIC_CATALOGUE = "catalogue"
TOPIC_MESSAGES = "messages"
TOPIC_RECEIPTS = "receipts"
TOPIC_EVENTS = "events"
TOPIC_HAPPENINGS = "happenings"
TOPIC_OBJECTS = "objects"


@total_ordering
class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """A hybrid logical clock reading (Kulkarni et al., 2014): wall clock in milliseconds, then a counter.

    It orders concurrent records for display and choice; it never decides whether a record is accepted.
    """

    wall_ms: int
    counter: int = 0

    def __lt__(self, other: Stamp) -> bool:
        return (self.wall_ms, self.counter) < (other.wall_ms, other.counter)

    def next(self, wall_ms: int) -> Stamp:
        """The smallest stamp above this one that is not behind the wall clock."""
        if wall_ms > self.wall_ms:
            return Stamp(wall_ms, 0)
        return Stamp(self.wall_ms, self.counter + 1)


class Key(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What a record is about: a short kind (`spec`, `wanted`, `node`, …) and the raw id of its subject."""

    kind: str
    subject: bytes = b""


class Log(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The name of a log: its author, its random id and its topic."""

    node: NodeId
    id: LogId
    topic: str


class Seen(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The author knew this key's records of log `log` up to `number`."""

    log: LogId
    number: int


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """What the author signs. `number` counts 1, 2, 3… within the log; `body` is encoded by its topic."""

    log: Log
    number: int
    key: Key
    stamp: Stamp
    seen: tuple[Seen, ...]
    body: bytes


class SignedRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record as it travels and as it is stored: the author's exact bytes and the signature over them."""

    payload: bytes
    signature: bytes


class Record(msgspec.Struct, frozen=True):
    """A decoded record beside its verbatim bytes. Made by `sign_record` or `open_record` only."""

    signed: SignedRecord
    content: Payload
    digest: bytes

    @property
    def log(self) -> Log:
        return self.content.log

    @property
    def number(self) -> int:
        return self.content.number

    @property
    def key(self) -> Key:
        return self.content.key

    @property
    def stamp(self) -> Stamp:
        return self.content.stamp

    @property
    def seen(self) -> tuple[Seen, ...]:
        return self.content.seen

    @property
    def body(self) -> bytes:
        return self.content.body

    @property
    def size(self) -> int:
        """Bytes of payload and signature."""
        return len(self.signed.payload) + len(self.signed.signature)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Payload)


def sign_record(group: GroupId, secret: SecretKey, content: Payload) -> Record:
    """Encode and sign a record; `secret` is the key of the node that `content.log` names."""
    payload = _encoder.encode(content)
    signed = SignedRecord(payload, secret.sign(group + payload))
    return Record(signed, content, digest(payload)[:16])


def parse_record(signed: SignedRecord) -> Record:
    """Decode a record without judging its signature (for bytes that were verified before, as on our own disk).

    Raises `ValueError` when the payload is malformed.
    """
    return _parse(signed.payload, signed.signature)


@shared
def _parse(payload: bytes, signature: bytes) -> Record:
    try:
        content = _decoder.decode(payload)
    except UNDECODABLE as error:
        raise ValueError(f"malformed record: {error}") from None
    if content.number < 1 or len(signature) != SIGNATURE_BYTES:
        raise ValueError("malformed record: impossible number or signature length")
    return Record(SignedRecord(payload, signature), content, digest(payload)[:16])


def open_record(group: GroupId, signed: SignedRecord) -> Record:
    """Decode and verify a record from elsewhere. Raises `ValueError` when it is malformed or not its author's."""
    record = parse_record(signed)
    if not verify(record.log.node, group + signed.payload, signed.signature):
        raise ValueError("the signature of the record is not its author's")
    return record
