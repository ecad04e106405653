"""The bodies of records that carry events. Part of the storage and wire format.

Applications publish under topic names of their own (`published`); what happens to the group's members and services is
told by the one node that is responsible (`happened`). Both are streams of records, in two topics, so that a talkative
application pushes nothing of the group's history out. Bodies of other kinds are kept and forwarded.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.kernel.config import HappeningsConfig, QuotaConfig
from colla.model.errors import CollaError
from colla.model.ids import RANDOM_ID_BYTES, MemberId, NodeId, ServiceId
from colla.model.record import TOPIC_EVENTS, TOPIC_HAPPENINGS, Record
from colla.protocol.records.book import RecordBook
from colla.protocol.records.quota import Quota
from colla.protocol.records.retention import Retention

KIND_PUBLISHED, KIND_HAPPENED = "published", "happened"
GROUP_TOPIC = "group"
"""The name under which subscribers find the group's own events; no application may use it."""
TOPIC_PATTERN = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")

NAME_CHARS_MAX, TEXT_CHARS_MAX = 256, 4096
"""Of what others write; what this version writes itself is shorter (`HappeningsConfig`)."""

_OptionalKey = Meta(max_length=32)


class Published(msgspec.Struct, frozen=True, array_like=True):
    """An application's event. `data` is JSON text; `service` names the service that published it, or is empty."""

    topic: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
    data: bytes
    service: Annotated[ServiceId, Meta(max_length=RANDOM_ID_BYTES)] = ServiceId(b"")


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """An event of the group: `kind` is stable, `text` is for people, the rest names whom it concerns, or is empty."""

    kind: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
    text: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
    service: Annotated[ServiceId, Meta(max_length=RANDOM_ID_BYTES)] = ServiceId(b"")
    node: Annotated[NodeId, _OptionalKey] = NodeId(b"")
    member: Annotated[MemberId, _OptionalKey] = MemberId(b"")


_encoder = msgspec.msgpack.Encoder()
_published = msgspec.msgpack.Decoder(Published)
_happened = msgspec.msgpack.Decoder(Happened)


def encode(body: Published | Happened) -> bytes:
    """The bytes that go into the record."""
    return _encoder.encode(body)


def event_of(record: Record) -> Published | Happened | None:
    """The event in a held record; None for kinds that this version does not know, in the topic where they stand."""
    what = (record.log.topic, record.key.kind)
    if what == (TOPIC_EVENTS, KIND_PUBLISHED):
        return _published.decode(record.body)
    if what == (TOPIC_HAPPENINGS, KIND_HAPPENED):
        return _happened.decode(record.body)
    return None


def topic_of(event: Published | Happened) -> str:
    """Under which name subscribers find it."""
    return event.topic if isinstance(event, Published) else GROUP_TOPIC


def check_topic(topic: str, chars_max: int) -> str:
    """Return the name of an application's topic, or raise `CollaError("bad_topic")`."""
    if topic == GROUP_TOPIC or len(topic) > chars_max or TOPIC_PATTERN.fullmatch(topic) is None:
        raise CollaError(
            "bad_topic",
            f"{topic!r} cannot name a topic of events.",
            f"Use 1 to {chars_max} lower-case letters, digits, dots and hyphens, as in 'shop.orders', but not 'group'.",
        )
    return topic


def check_published_record(record: Record) -> None:
    """Raise `ValueError` when an application's event breaks the rules."""
    if record.log.topic != TOPIC_EVENTS:
        raise ValueError("not a record of events")
    if record.key.kind == KIND_PUBLISHED and _published.decode(record.body).topic == GROUP_TOPIC:
        raise ValueError("no application speaks for the group")


def check_happened_record(record: Record) -> None:
    """Raise `ValueError` when an event of the group breaks the rules."""
    if record.log.topic != TOPIC_HAPPENINGS:
        raise ValueError("not a record of happenings")
    if record.key.kind == KIND_HAPPENED:
        _happened.decode(record.body)


def register_events(book: RecordBook, config: HappeningsConfig, quotas: QuotaConfig) -> None:
    """Let the book hold events, the newest of each log; the group's and the applications' apart."""
    book.register(
        TOPIC_HAPPENINGS,
        check_happened_record,
        retention=Retention(config.group_kept, config.group_bytes),
        quota=Quota(body_bytes_max=quotas.group_events_body_bytes),
    )
    book.register(
        TOPIC_EVENTS,
        check_published_record,
        retention=Retention(config.events_kept, config.events_bytes),
        quota=Quota(body_bytes_max=quotas.events_body_bytes),
    )
