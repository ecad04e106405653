"""The bodies of records that carry messages and receipts. Part of the storage and wire format.

A message is one letter or, where its recipients have many computers, several with the same content, each with the keys
for some of them. Everybody sees who wrote to whom and when; only the recipients see what. Bodies of other kinds are
kept and forwarded, whatever they hold.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from colla.kernel.config import MessagingConfig, QuotaConfig
from colla.model.errors import UNDECODABLE
from colla.model.ids import KEY_BYTES, RANDOM_ID_BYTES, MemberId, NodeId, digest
from colla.model.record import TOPIC_MESSAGES, TOPIC_RECEIPTS, Key, Record
from colla.model.sealing import CONTENT_KEY_BYTES, WRAP_OVERHEAD_BYTES
from colla.protocol.records.book import RecordBook
from colla.protocol.records.quota import Quota
from colla.protocol.records.retention import Retention

KIND_LETTER, KIND_DELIVERED, KIND_READ = "letter", "delivered", "read"
_WRAP_BYTES = CONTENT_KEY_BYTES + WRAP_OVERHEAD_BYTES
_KEY = Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)
_ID = Meta(min_length=RANDOM_ID_BYTES, max_length=RANDOM_ID_BYTES)

MessageId: TypeAlias = Annotated[bytes, _ID]
"""A message's random id (16 bytes)."""


class ContentKey(msgspec.Struct, frozen=True, array_like=True):
    """The key of the content, wrapped for one computer."""

    node: Annotated[NodeId, _KEY]
    wrapped: Annotated[bytes, Meta(min_length=_WRAP_BYTES, max_length=_WRAP_BYTES)]


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """The body of `letter`. `to` is empty for a message to all members. `sealed` is a `Content`."""

    message: MessageId
    to: tuple[Annotated[MemberId, _KEY], ...]
    keys: tuple[ContentKey, ...]
    sealed: bytes


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What only the recipients can read. `reply_to` names the message that this one answers, or is empty."""

    text: str
    reply_to: Annotated[bytes, Meta(max_length=RANDOM_ID_BYTES)] = b""


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """The body of `delivered` and `read`: these messages came to the author's member, or were read there."""

    messages: tuple[MessageId, ...]


_encoder = msgspec.msgpack.Encoder()
_letter = msgspec.msgpack.Decoder(Letter)
_content = msgspec.msgpack.Decoder(Content)
_receipt = msgspec.msgpack.Decoder(Receipt)


def encode(body: Letter | Content | Receipt) -> bytes:
    """The bytes that go into the record, or are sealed."""
    return _encoder.encode(body)


def decode_letter(body: bytes) -> Letter:
    """Raises `ValueError`, as do the others."""
    return _letter.decode(body)


def decode_receipt(body: bytes) -> Receipt:
    return _receipt.decode(body)


def decode_content(data: bytes) -> Content:
    try:
        return _content.decode(data)
    except UNDECODABLE as error:
        raise ValueError(f"the content cannot be read: {error}") from None


def letter_key(message: bytes, part: int) -> Key:
    """The key of one letter of a message."""
    return Key(KIND_LETTER, digest(message + part.to_bytes(4))[:RANDOM_ID_BYTES])


def check_message_record(record: Record) -> None:
    """Raise `ValueError` when a letter breaks the rules."""
    if record.log.topic != TOPIC_MESSAGES:
        raise ValueError("not a record of messages")
    if record.key.kind == KIND_LETTER:
        decode_letter(record.body)


def check_receipt_record(record: Record) -> None:
    """Raise `ValueError` when a receipt breaks the rules."""
    if record.log.topic != TOPIC_RECEIPTS:
        raise ValueError("not a record of receipts")
    if record.key.kind in (KIND_DELIVERED, KIND_READ):
        decode_receipt(record.body)


def register_messages(book: RecordBook, config: MessagingConfig, quotas: QuotaConfig) -> None:
    """Let the book hold messages and receipts, the newest of each log."""
    letters = Retention(config.letters_kept, config.letters_bytes)
    receipts = Retention(config.receipts_kept, config.receipts_bytes)
    book.register(TOPIC_MESSAGES, check_message_record, retention=letters)
    small = Quota(body_bytes_max=quotas.receipts_body_bytes)
    book.register(TOPIC_RECEIPTS, check_receipt_record, retention=receipts, quota=small)
