"""Routes about messages and events, and about who is here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec

from colla.agents.communication_requests import (
    EventPublished,
    EventsFound,
    FindEvents,
    FindMessages,
    ForgetSubscriber,
    FoundEvent,
    MarkedRead,
    MarkRead,
    MessageSent,
    MessagesFound,
    PublishEvent,
    SendMessage,
    Subscriber,
    TakeEvents,
)
from colla.agents.requests import Request
from colla.client import types
from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, RANDOM_ID_BYTES, MemberId, parse_hex
from colla.node import people
from colla.node.api.routes import WRITE_ERRORS, Call, Route
from colla.protocol.messaging.bodies import KIND_DELIVERED, KIND_READ
from colla.protocol.messaging.mailbox import Received

WAIT_S: Final = 20.0
"""A stream asks the agents anew so often; they answer at once when there is something."""
RESTING_S: Final = 1.0
"""While the agents start again (a full disk, a fault) a stream waits so long before it asks again."""
EMPTY_PAUSE_S: Final = 0.1
"""After an answer without news: where too many wait already, the agents answer at once."""
PASSING: Final = ("disk_failed", "internal", "timeout", "busy")
PRESENCE_AT_MOST_S: Final = 1.0
"""What changes without a notice (a contribution, a name) is seen this late."""


# -- messages -----------------------------------------------------------------------------------------------


async def _send(call: Call[types.SendRequest]) -> types.SendAnswer:
    body = call.body
    if body.to_all == bool(body.to):
        raise CollaError("bad_usage", "Name the members who shall get the message, or send it to all.")
    to = tuple(_member(call, name) for name in body.to)
    reply_to = _id(body.reply_to) if body.reply_to else b""
    sent: MessageSent = await call.ask(SendMessage(to, body.text, reply_to))
    return types.SendAnswer(sent.message.hex(), sent.computers, sent.copies)


async def _messages(call: Call[types.MessagesQuery]) -> types.MessagesReport:
    body = call.body
    found: MessagesFound = await call.ask(FindMessages(body.after, body.sent, body.unread, body.limit))
    reports = tuple(_reports(call, found.messages, sent=body.sent))
    return types.MessagesReport(reports, found.place, found.last)


async def _follow_messages(call: Call[types.MessagesQuery]) -> AsyncIterator[types.MessageReport]:
    body, after = call.body, call.body.after
    while not call.node.stop_wanted.is_set():
        request = FindMessages(after, body.sent, body.unread, body.limit, WAIT_S)
        found: MessagesFound | None = await _patiently(call, request)
        if found is None:
            continue
        after = found.place
        for report in _reports(call, found.messages, sent=body.sent):
            yield report
        if not found.messages:
            await asyncio.sleep(EMPTY_PAUSE_S)


async def _mark_read(call: Call[types.MarkReadRequest]) -> types.MarkReadAnswer:
    marked: MarkedRead = await call.ask(MarkRead(tuple(_id(one) for one in call.body.messages)))
    return types.MarkReadAnswer(marked.count)


def _reports(call: Call[Any], messages: tuple[Received, ...], *, sent: bool) -> Iterator[types.MessageReport]:
    core = call.node.core
    receipts = core.communication.correspondence.mailbox.receipts() if sent else {}
    for message in messages:
        times = receipts.get(message.id, {})
        delivered, read = (
            {
                _name(call, member): at_ms / 1000
                for (member, kind), at_ms in sorted(times.items())
                if kind == wanted
            }
            for wanted in (KIND_DELIVERED, KIND_READ)
        )
        yield types.MessageReport(
            id=message.id.hex(),
            place=message.place,
            sender=_name(call, message.member),
            computer=core.node_name(message.author),
            to=tuple(_name(call, member) for member in message.to),
            at_s=message.sent_ms / 1000,
            text=message.content.text if message.content is not None else "",
            reply_to=message.content.reply_to.hex() if message.content is not None else "",
            read=message.read,
            readable=message.content is not None,
            # Whoever has read it got it, whatever became of the first receipt.
            delivered_s=read | delivered,
            read_s=read,
        )


# -- events -------------------------------------------------------------------------------------------------


async def _publish(call: Call[types.PublishRequest]) -> types.PublishAnswer:
    data = msgspec.json.encode(call.body.data)
    published: EventPublished = await call.ask(PublishEvent(call.body.topic, data))
    return types.PublishAnswer(published.event.hex(), published.copies)


async def _events(call: Call[types.EventsQuery]) -> types.EventsReport:
    found: EventsFound = await call.ask(_asked(call.body, call.body.after, 0.0))
    return types.EventsReport(tuple(_event(call, event) for event in found.events), found.place, found.last)


async def _follow_events(call: Call[types.EventsQuery]) -> AsyncIterator[types.EventReport]:
    body, after = call.body, call.body.after
    while not call.node.stop_wanted.is_set():
        found: EventsFound | None = await _patiently(call, _asked(body, after, WAIT_S))
        if found is None:
            continue
        for event in found.events:
            yield _event(call, event)
        # From here on by place: the subscriber's own cursor moves only as it says what it has taken.
        body, after = msgspec.structs.replace(body, subscriber=""), found.place
        if not found.events:
            await asyncio.sleep(EMPTY_PAUSE_S)


def _asked(body: types.EventsQuery, after: int, wait_s: float) -> FindEvents:
    topics = tuple(topic for topic in body.topics.split(",") if topic)
    return FindEvents(after, body.subscriber, topics, body.past, body.limit, wait_s)


def _event(call: Call[Any], event: FoundEvent) -> types.EventReport:
    core = call.node.core
    service = core.catalogue.service(event.service) if event.service else None
    return types.EventReport(
        id=event.id.hex(),
        place=event.place,
        topic=event.topic,
        at_s=event.at_ms / 1000,
        member=_name(call, event.member),
        computer=core.node_name(event.author),
        data=_json(event.data),
        kind=event.kind,
        text=event.text,
        service=core.shown_name(service) if service is not None else event.service.hex(),
        about_computer=core.node_name(event.about_node) if event.about_node else "",
        about_member=_name(call, event.about_member) if event.about_member else "",
    )


async def _taken(call: Call[types.TakenRequest]) -> types.SubscriberReport:
    subscriber: Subscriber = await call.ask(TakeEvents(call.path["name"], call.body.place))
    return types.SubscriberReport(subscriber.name, subscriber.place)


async def _subscribers(call: Call[None]) -> tuple[types.SubscriberReport, ...]:
    every = call.node.core.communication.happenings.subscribers.all()
    return tuple(types.SubscriberReport(name, place) for name, place in sorted(every.items()))


async def _forget(call: Call[None]) -> types.SubscriberReport:
    subscriber: Subscriber = await call.ask(ForgetSubscriber(call.path["name"]))
    return types.SubscriberReport(subscriber.name, subscriber.place)


# -- presence -----------------------------------------------------------------------------------------------


async def _presence(call: Call[None]) -> tuple[types.PresenceReport, ...]:
    return people.presence_reports(call.node)


async def _follow_presence(call: Call[None]) -> AsyncIterator[types.PresenceReport]:
    told: dict[str, types.PresenceReport] = {}
    while not call.node.stop_wanted.is_set():
        for report in people.presence_reports(call.node):
            # Time alone is no news.
            news = msgspec.structs.replace(report, seen_s=0.0, since_s=0.0)
            if told.get(report.member) != news:
                told[report.member] = news
                yield report
        await call.node.notices.news(PRESENCE_AT_MOST_S)


# -- shared -------------------------------------------------------------------------------------------------


async def _patiently(call: Call[Any], request: Request) -> Any:
    """Ask, whatever passing trouble the agents have; None when there is no answer yet."""
    try:
        return await call.ask(request)
    except CollaError as error:
        if error.code not in PASSING or call.node.stop_wanted.is_set():
            raise
        await asyncio.sleep(RESTING_S)
        return None


def _member(call: Call[Any], text: str) -> MemberId:
    """The member of that name or id. Raises `CollaError("not_found")`."""
    for member in call.node.core.membership.members():
        if text in (member.name, member.id.hex()):
            return member.id
    raise CollaError("not_found", f"There is no member called {text!r}.", "`colla members` lists them.")


def _name(call: Call[Any], member: MemberId) -> str:
    membership = call.node.core.membership
    info = membership.member(member) or membership.former_member(member)
    return info.name if info is not None else member[: KEY_BYTES // 4].hex()


def _id(text: str) -> bytes:
    try:
        return parse_hex(text, RANDOM_ID_BYTES, "message's id")
    except ValueError as error:
        raise CollaError("bad_request", str(error)) from None


def _json(data: bytes) -> Any:
    """What an application published; a program of another version may have written what is no JSON."""
    try:
        return msgspec.json.decode(data) if data else None
    except msgspec.DecodeError:
        return None


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "messages",
        "Messages to this member behind a place, or sent by this member.",
        _messages,
        types.MessagesReport,
        types.MessagesQuery,
    ),
    Route(
        "POST",
        "messages",
        "Send a text to members: at once to those here, to the others when they return.",
        _send,
        types.SendAnswer,
        types.SendRequest,
        ("not_found", "bad_usage", "empty_message", "too_large", "too_many_recipients", *WRITE_ERRORS),
    ),
    Route(
        "GET",
        "messages/follow",
        "Messages behind a place, then each new one as it comes.",
        _follow_messages,
        types.MessageReport,
        types.MessagesQuery,
    ),
    Route(
        "POST",
        "messages/read",
        "These messages were read; their authors are told.",
        _mark_read,
        types.MarkReadAnswer,
        types.MarkReadRequest,
        WRITE_ERRORS,
    ),
    Route(
        "GET",
        "events",
        "Events of the group and of applications behind a place, or behind where a subscriber is.",
        _events,
        types.EventsReport,
        types.EventsQuery,
        ("bad_subscriber", "busy"),
    ),
    Route(
        "POST",
        "events",
        "Publish an application's event.",
        _publish,
        types.PublishAnswer,
        types.PublishRequest,
        ("bad_topic", "too_large", *WRITE_ERRORS),
    ),
    Route(
        "GET",
        "events/follow",
        "Events behind a place, or behind where a subscriber is, then each new one as it comes.",
        _follow_events,
        types.EventReport,
        types.EventsQuery,
        ("bad_subscriber", "busy"),
    ),
    Route(
        "GET",
        "subscribers",
        "The subscribers of this computer, and up to where each has taken the events.",
        _subscribers,
        tuple[types.SubscriberReport, ...],
    ),
    Route(
        "POST",
        "subscribers/{name}/taken",
        "The subscriber has taken all events up to a place.",
        _taken,
        types.SubscriberReport,
        types.TakenRequest,
        ("not_found",),
    ),
    Route(
        "DELETE",
        "subscribers/{name}",
        "Forget where a subscriber was.",
        _forget,
        types.SubscriberReport,
        errors=("not_found",),
    ),
    Route(
        "GET",
        "presence",
        "Who is here, since when and where, and who was here when.",
        _presence,
        tuple[types.PresenceReport, ...],
    ),
    Route(
        "GET",
        "presence/follow",
        "Every member as it is now, then each one again when something about it changes.",
        _follow_presence,
        types.PresenceReport,
    ),
)
