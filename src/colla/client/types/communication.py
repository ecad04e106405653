"""Types of the local API about messages, events and presence."""

from __future__ import annotations

from typing import Any

import msgspec


class SendRequest(msgspec.Struct, frozen=True):
    """A text for the members named, or with `to_all` for all the others. `reply_to` is the id of a message, or empty."""

    text: str
    to: tuple[str, ...] = ()
    to_all: bool = False
    reply_to: str = ""


class SendAnswer(msgspec.Struct, frozen=True):
    """The message is durable on `copies` nodes; `computers` of its recipients can read it."""

    message: str
    computers: int
    copies: int


class MessageReport(msgspec.Struct, frozen=True):
    """One message. `to` is empty for one to all members. A message that is not `readable` was sent before this computer
    belonged to its member. `delivered_s` and `read_s`: when it came to each recipient (of a message that was sent here).
    """

    id: str
    place: int
    sender: str
    computer: str
    to: tuple[str, ...]
    at_s: float
    text: str
    reply_to: str = ""
    read: bool = False
    readable: bool = True
    delivered_s: dict[str, float] = {}
    read_s: dict[str, float] = {}


class MessagesQuery(msgspec.Struct, frozen=True):
    """Messages behind the place `after`: those that came, or with `sent` those that were sent."""

    after: int = 0
    sent: bool = False
    unread: bool = False
    limit: int = 64


class MessagesReport(msgspec.Struct, frozen=True):
    """Messages in order. `place` is where to go on; `last` tells that there are no more now."""

    messages: tuple[MessageReport, ...]
    place: int
    last: bool


class MarkReadRequest(msgspec.Struct, frozen=True):
    """The ids of messages that were read."""

    messages: tuple[str, ...]


class MarkReadAnswer(msgspec.Struct, frozen=True):
    """So many of them were not read before."""

    count: int


class PublishRequest(msgspec.Struct, frozen=True):
    """An application's event: the name of its topic, and any JSON value of at most 16 KiB."""

    topic: str
    data: Any = None


class PublishAnswer(msgspec.Struct, frozen=True):
    """The event is durable on `copies` nodes."""

    event: str
    copies: int


class EventReport(msgspec.Struct, frozen=True):
    """One event. An application's has `data`; the group's (topic `group`) has `kind`, `text` and whom it concerns."""

    id: str
    place: int
    topic: str
    at_s: float
    member: str
    computer: str
    data: Any = None
    kind: str = ""
    text: str = ""
    service: str = ""
    about_computer: str = ""
    about_member: str = ""


class EventsQuery(msgspec.Struct, frozen=True):
    """Events behind the place `after`, or behind where `subscriber` is. `topics` are separated by commas; none: all.

    A new subscriber begins with what comes from now on, or with `past` with all that is kept.
    """

    after: int = 0
    subscriber: str = ""
    topics: str = ""
    past: bool = False
    limit: int = 256


class EventsReport(msgspec.Struct, frozen=True):
    """Events in order. `place` is where to go on; `last` tells that there are no more now."""

    events: tuple[EventReport, ...]
    place: int
    last: bool


class TakenRequest(msgspec.Struct, frozen=True):
    """The subscriber has taken all events up to this place."""

    place: int


class SubscriberReport(msgspec.Struct, frozen=True):
    """A subscriber of this computer, and up to which place it has taken the events."""

    name: str
    place: int


class PresenceReport(msgspec.Struct, frozen=True):
    """One member, for people: here or not, since when, on which computers, and what those that are here give together.

    `seen_s` is when this computer last knew one of the member's computers here; 0.0 when it never did.
    """

    member: str
    role: str
    here: bool
    me: bool
    since_s: float
    seen_s: float
    computers: tuple[str, ...]
    computers_away: tuple[str, ...]
    cpus: float
    memory_bytes: int
    disk_bytes: int
    environments: tuple[str, ...]
