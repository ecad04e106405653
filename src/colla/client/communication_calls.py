"""What `colla.Client` asks about messages, events and presence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

from colla.client import types
from colla.client.calls import Calls, quoted

TAKEN_EVERY = 64
"""A subscription tells the node so often, at least, up to where it is: after a crash no more come a second time."""


class CommunicationCalls(Calls):
    """Messages between members, events, and who is here."""

    async def send(
        self, text: str, to: Sequence[str] = (), *, to_all: bool = False, reply_to: str = ""
    ) -> types.SendAnswer:
        """Send a text to members, by name or id: at once to those here, to the others when they return."""
        request = types.SendRequest(text, tuple(to), to_all, reply_to)
        return await self._call("POST", "messages", types.SendAnswer, request)

    async def messages(
        self, *, after: int = 0, sent: bool = False, unread: bool = False, limit: int = 64
    ) -> types.MessagesReport:
        """The messages of this member behind a place, oldest first: those that came, or those that were sent."""
        query = _query(after=after, sent=sent, unread=unread, limit=limit)
        return await self._call("GET", "messages", types.MessagesReport, query=query)

    async def follow_messages(
        self, *, after: int = 0, unread: bool = False
    ) -> AsyncIterator[types.MessageReport]:
        """The messages to this member behind a place, then each new one as it comes."""
        query = _query(after=after, unread=unread)
        async for message in self._lines("GET", "messages/follow", types.MessageReport, query=query):
            yield message

    async def mark_read(self, messages: Sequence[str]) -> int:
        """These messages were read; returns how many were not before. Their authors are told."""
        request = types.MarkReadRequest(tuple(messages))
        return (await self._call("POST", "messages/read", types.MarkReadAnswer, request)).count

    async def publish(self, topic: str, data: Any = None) -> types.PublishAnswer:
        """Publish an event: any value that JSON can hold, under a topic such as `shop.orders`."""
        request = types.PublishRequest(topic, data)
        return await self._call("POST", "events", types.PublishAnswer, request)

    async def events(
        self,
        *,
        after: int = 0,
        topics: Sequence[str] = (),
        subscriber: str = "",
        past: bool = False,
        limit: int = 256,
    ) -> types.EventsReport:
        """Events behind a place, or behind where a subscriber is, oldest first; of these topics, or of all."""
        query = _query(after=after, topics=",".join(topics), subscriber=subscriber, past=past, limit=limit)
        return await self._call("GET", "events", types.EventsReport, query=query)

    async def follow_events(
        self, *, after: int = 0, topics: Sequence[str] = (), subscriber: str = "", past: bool = False
    ) -> AsyncIterator[types.EventReport]:
        """Events behind a place, or behind where a subscriber is, then each new one. The cursor is not moved."""
        query = _query(after=after, topics=",".join(topics), subscriber=subscriber, past=past)
        async for event in self._lines("GET", "events/follow", types.EventReport, query=query):
            yield event

    def subscribe(self, name: str, topics: Sequence[str] = (), *, past: bool = False) -> Subscription:
        """Follow events as the subscriber `name`, from where it was: `async with client.subscribe("shop") as events`.

        A new subscriber begins now, or with `past` with all that is kept.
        """
        return Subscription(self, name, topics, past)

    async def taken(self, subscriber: str, place: int) -> types.SubscriberReport:
        """The subscriber has taken all events up to that place. Raises `CollaError("not_found")`."""
        request = types.TakenRequest(place)
        return await self._call(
            "POST", f"subscribers/{quoted(subscriber)}/taken", types.SubscriberReport, request
        )

    async def subscribers(self) -> tuple[types.SubscriberReport, ...]:
        """All subscribers on this computer."""
        return await self._call("GET", "subscribers", tuple[types.SubscriberReport, ...])

    async def forget_subscriber(self, name: str) -> types.SubscriberReport:
        """Drop a subscriber's cursor. Raises `CollaError("not_found")`."""
        return await self._call("DELETE", f"subscribers/{quoted(name)}", types.SubscriberReport)

    async def presence(self) -> tuple[types.PresenceReport, ...]:
        """Who is here, since when and where, and who was here when; by name."""
        return await self._call("GET", "presence", tuple[types.PresenceReport, ...])

    async def follow_presence(self) -> AsyncIterator[types.PresenceReport]:
        """Every member as it is now, then each one again when something about it changes."""
        async for report in self._lines("GET", "presence/follow", types.PresenceReport):
            yield report


class Subscription:
    """Events for one subscriber, each once, in each author's order. Made by `Client.subscribe`.

        async with client.subscribe("bookkeeping", ["shop.orders"]) as events:
            async for event in events:
                book(event.data)

    An event counts as taken when the loop asks for the next one, or leaves the block without an exception. After an
    exception or a crash the event that was being worked on, and at most a few before it, come again.
    """

    def __init__(self, calls: CommunicationCalls, name: str, topics: Sequence[str], past: bool) -> None:
        self._calls = calls
        self._name = name
        self._topics = tuple(topics)
        self._past = past
        self._given = 0
        self._told = 0
        self._untold = 0

    async def __aenter__(self) -> Subscription:
        """The subscriber exists from here on: what is published later waits for it."""
        report = await self._calls.events(
            subscriber=self._name, topics=self._topics, past=self._past, limit=1
        )
        if not report.events:
            await self._calls.taken(self._name, report.place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._tell(self._given)

    async def __aiter__(self) -> AsyncIterator[types.EventReport]:
        lines = self._calls.follow_events(subscriber=self._name, topics=self._topics, past=self._past)
        async for event in lines:
            if self._untold >= TAKEN_EVERY:
                await self._tell(self._given)
            self._given = event.place
            self._untold += 1
            yield event

    async def _tell(self, place: int) -> None:
        if place > self._told:
            await self._calls.taken(self._name, place)
            self._told, self._untold = place, 0


def _query(**values: Any) -> dict[str, str]:
    """Only what is asked for; truth as JSON writes it."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value not in ("", 0, False)
    }
