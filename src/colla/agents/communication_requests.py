"""What the API asks about messages and events, and what is answered. As in `requests`: exactly one answer each.

Finding waits: `wait_s` is how long, at most, an empty answer is held back until there is something to find.
"""

from __future__ import annotations

import msgspec

from colla.agents.requests import Request
from colla.model.ids import MemberId, NodeId, ServiceId
from colla.protocol.messaging.mailbox import Received


class SendMessage(Request, frozen=True):
    """Send a text to members; to all the others when `to` is empty. Answer: `MessageSent`."""

    to: tuple[MemberId, ...]
    text: str
    reply_to: bytes = b""


class MessageSent(msgspec.Struct, frozen=True):
    """The message is durable on `copies` nodes, sealed for so many computers of its recipients."""

    message: bytes
    computers: int
    copies: int


class FindMessages(Request, frozen=True):
    """Messages behind a place: to this member, or sent by this member. Answer: `MessagesFound`."""

    after: int = 0
    sent: bool = False
    unread: bool = False
    limit: int = 64
    wait_s: float = 0.0


class MessagesFound(msgspec.Struct, frozen=True):
    """The messages in order; `place` is where to go on. `last`: no more can be found now."""

    messages: tuple[Received, ...]
    place: int
    last: bool


class MarkRead(Request, frozen=True):
    """The member has read these messages: on every computer, and the authors are told. Answer: `MarkedRead`."""

    messages: tuple[bytes, ...]


class MarkedRead(msgspec.Struct, frozen=True):
    """So many of them were not read before."""

    count: int


class PublishEvent(Request, frozen=True):
    """Publish an event under a topic's name. `data` is JSON text. Answer: `EventPublished`."""

    topic: str
    data: bytes
    service: ServiceId = ServiceId(b"")


class EventPublished(msgspec.Struct, frozen=True):
    """The event is durable on `copies` nodes."""

    event: bytes
    copies: int


class FindEvents(Request, frozen=True):
    """Events behind a place, or behind where a subscriber is; of some topics or all. Answer: `EventsFound`.

    A new subscriber begins at the end, or with `past` at the beginning of what is kept.
    """

    after: int = 0
    subscriber: str = ""
    topics: tuple[str, ...] = ()
    past: bool = False
    limit: int = 256
    wait_s: float = 0.0


class FoundEvent(msgspec.Struct, frozen=True):
    """One event. `data` is JSON text for an application's, empty for the group's; `kind` and `text` the other way."""

    place: int
    id: bytes
    topic: str
    author: NodeId
    member: MemberId
    at_ms: int
    data: bytes
    kind: str
    text: str
    service: ServiceId
    about_node: NodeId
    about_member: MemberId


class EventsFound(msgspec.Struct, frozen=True):
    """The events in order; `place` is where to go on. `last`: no more can be found now."""

    events: tuple[FoundEvent, ...]
    place: int
    last: bool


class TakeEvents(Request, frozen=True):
    """The subscriber has taken everything up to that place. Answer: `Subscriber`."""

    subscriber: str
    place: int


class ForgetSubscriber(Request, frozen=True):
    """Drop a subscriber's cursor. Answer: `Subscriber`, as it was."""

    subscriber: str


class Subscriber(msgspec.Struct, frozen=True):
    """Where a subscriber is."""

    name: str
    place: int


WRITING = (SendMessage, MarkRead, PublishEvent)
"""Those that must wait until the node may write."""
