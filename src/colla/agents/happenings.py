"""Events as the API asks for them: published, found, followed by subscribers; and those that the group tells itself.

The group's events have one author each: the node that is responsible for the matter (the master of a service, the
executor of a replica, the node that admitted somebody, the node at which a member changed a service). What it tells
people on its own screen as a notice it tells everybody as a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from colla.agents.administration_requests import Depart
from colla.agents.communication_requests import (
    EventPublished,
    EventsFound,
    FindEvents,
    ForgetSubscriber,
    FoundEvent,
    PublishEvent,
    Subscriber,
    TakeEvents,
)
from colla.agents.foundation import Foundation
from colla.agents.held_requests import HeldRequests
from colla.agents.retelling import event_of_notice, event_of_request, with_service
from colla.kernel.durable import Durable
from colla.kernel.effects import Answer, Notice
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, random_id
from colla.model.record import TOPIC_EVENTS, TOPIC_HAPPENINGS, Key, Record
from colla.protocol.happenings.bodies import (
    KIND_HAPPENED,
    KIND_PUBLISHED,
    Happened,
    Published,
    check_topic,
    encode,
    event_of,
    topic_of,
)
from colla.protocol.happenings.subscribers import Subscribers
from colla.protocol.happenings.telling import Telling
from colla.protocol.journal.journal import Journal
from colla.protocol.views import RecordChange


class Happenings:
    """See the module's docstring."""

    TOPICS = (TOPIC_EVENTS, TOPIC_HAPPENINGS)
    REQUESTS = (PublishEvent, FindEvents, TakeEvents, ForgetSubscriber)

    def __init__(self, foundation: Foundation, durable: Durable) -> None:
        found = self._foundation = foundation
        self._config = found.config.happenings
        self.subscribers = Subscribers(self._config.subscribers_max, found.outbox, durable)
        self.journal = Journal(
            "events",
            self.TOPICS,
            found.book,
            lambda record: found.author_of(record) is not None,
            found.outbox,
            durable,
            self.subscribers.greatest,
        )
        self.held: HeldRequests[FindEvents] = HeldRequests(
            self._config.waiting_max, self._config.wait_s_max, found.outbox
        )
        self._telling = Telling(self._config)
        self._untold: deque[Happened] = deque(maxlen=self._config.told_pending_max)
        self._publishing: dict[int, bytes] = {}
        self._changing: dict[int, Happened] = {}

    def start(self, now: Instant) -> None:
        """Events whose places a crash prevented get them now."""
        self.take((), now)

    def take(self, changes: Sequence[RecordChange], now: Instant) -> None:
        """Records changed, or frontiers moved: answer who waits for what came."""
        if self.journal.take(changes).placed:
            for request_id, request in self.held.all():
                found = self._find(request)
                if found.events:
                    self.held.release(request_id)
                    self._answer(request_id, found)

    # -- requests -------------------------------------------------------------------------------------------

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        """Carry out a request. Raises `CollaError`."""
        match request:
            case PublishEvent():
                self._publish(request_id, request, now)
            case FindEvents(subscriber=name):
                if name:
                    self.subscribers.place(name, 0 if request.past else self.journal.last)
                found = self._find(request)
                if found.events or not self.held.hold(request_id, request, request.wait_s, now):
                    self._answer(request_id, found)
            case TakeEvents(subscriber=name, place=place):
                self._answer(
                    request_id, Subscriber(name, self.subscribers.taken(name, place, self.journal.last))
                )
            case ForgetSubscriber(subscriber=name):
                place = self.subscribers.all().get(name, 0)
                self.subscribers.forget(name)
                self._answer(request_id, Subscriber(name, place))
            case _:
                raise TypeError(f"not about events: {request!r}")

    def due(self, request_id: int) -> bool:
        """A request was held for long enough; False when it is none of these."""
        request = self.held.release(request_id)
        if request is not None:
            self._answer(request_id, self._find(request))
        return request is not None

    def written(self, request_id: int, copies: int, now: Instant) -> None:
        """A write of this request is durable on so many nodes."""
        event = self._publishing.pop(request_id, None)
        if event is not None:
            self._answer(request_id, EventPublished(event, copies))
        changed = self._changing.pop(request_id, None)
        if changed is not None and copies:
            self._tell(changed, now)

    def _publish(self, request_id: int, request: PublishEvent, now: Instant) -> None:
        check_topic(request.topic, self._config.topic_chars_max)
        if len(request.data) > self._config.data_bytes_max:
            limit = (
                f"It may have {self._config.data_bytes_max // 1024} KiB; larger things are shared as objects."
            )
            raise CollaError("too_large", "The event's data is too long.", limit)
        event = random_id(self._foundation.rng)
        self._publishing[request_id] = event
        body = encode(Published(request.topic, request.data, request.service))
        try:
            self._foundation.submit(request_id, TOPIC_EVENTS, [(Key(KIND_PUBLISHED, event), body)], now)
        except CollaError:
            del self._publishing[request_id]
            raise

    def _find(self, request: FindEvents) -> EventsFound:
        place = request.after
        if request.subscriber:
            # A request that is held may outlive its subscriber: then there is nothing to find for it.
            place = self.subscribers.all().get(request.subscriber, self.journal.last)
        limit = max(1, min(request.limit, self._config.found_max))
        found: list[FoundEvent] = []
        size = 0
        for at, record in self.journal.after(place):
            event = self._read(at, record)
            if event is None or (request.topics and event.topic not in request.topics):
                continue
            size += len(event.data)
            if len(found) >= limit or (found and size > self._config.found_bytes_max):
                return EventsFound(tuple(found), found[-1].place, last=False)
            found.append(event)
        return EventsFound(tuple(found), self.journal.last, last=True)

    def _read(self, place: int, record: Record) -> FoundEvent | None:
        quarantine = self._foundation.quarantine
        return quarantine.read("the event", record.key.subject, lambda: self._found(place, record), None)

    def _found(self, place: int, record: Record) -> FoundEvent | None:
        event, member = event_of(record), self._foundation.author_of(record)
        if event is None or member is None:
            return None
        published = isinstance(event, Published)
        return FoundEvent(
            place=place,
            id=record.key.subject,
            topic=topic_of(event),
            author=record.log.node,
            member=member,
            at_ms=record.stamp.wall_ms,
            data=event.data if isinstance(event, Published) else b"",
            kind="" if isinstance(event, Published) else event.kind,
            text="" if isinstance(event, Published) else event.text,
            service=event.service,
            about_node=NodeId(b"") if isinstance(event, Published) else event.node,
            about_member=MemberId(b"") if published or isinstance(event, Published) else event.member,
        )

    def _answer(self, request_id: int, result: Any) -> None:
        self._foundation.outbox.put(Answer(request_id, result))

    # -- what the group tells -------------------------------------------------------------------------------

    def noticed(self, notice: Notice, now: Instant) -> None:
        """This node told its people something: perhaps it concerns everybody."""
        kind = self._telling.kind_of(notice, now)
        if kind:
            self._tell(event_of_notice(self._foundation, kind, notice), now)

    def requested(self, request_id: int, request: Any, now: Instant) -> None:
        """A member changes the group or a service at this node: when it is done, everybody hears of it."""
        change = event_of_request(self._foundation, request) if self._config.group_told else None
        if isinstance(request, Depart) and change is not None:
            # Who is gone tells nothing more.
            self._tell(change, now)
        elif change is not None:
            self._changing[request_id] = change
            while len(self._changing) > self._foundation.config.requests_pending_max:
                # What was refused is never concluded.
                del self._changing[next(iter(self._changing))]

    def flush(self, now: Instant) -> None:
        """Tell what waited for the permission to write."""
        found = self._foundation
        while self._untold and found.book.writable(TOPIC_HAPPENINGS):
            event = with_service(found, self._untold[0])
            try:
                found.tell(TOPIC_HAPPENINGS, [(Key(KIND_HAPPENED, random_id(found.rng)), encode(event))], now)
            except CollaError:
                return
            self._untold.popleft()

    def _tell(self, event: Happened, now: Instant) -> None:
        text = event.text[: self._config.text_chars_max]
        self._untold.append(msgspec.structs.replace(event, text=text))
        self.flush(now)
