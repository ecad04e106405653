"""What the API asks about messages and events: refusals, pages, and answers that are held back until there is news."""

from __future__ import annotations

from typing import Any

import pytest

from colla.agents.communication_requests import (
    EventsFound,
    FindEvents,
    FindMessages,
    ForgetSubscriber,
    MarkedRead,
    MarkRead,
    MessageSent,
    MessagesFound,
    PublishEvent,
    SendMessage,
    Subscriber,
    TakeEvents,
)
from colla.agents.foundation import TOPICS
from colla.kernel.config import Config, HappeningsConfig, MessagingConfig
from colla.kernel.effects import Refusal
from colla.model.ids import MemberId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, TOPIC_MESSAGES
from colla.sim.group import SimGroup

CONFIG = Config(
    messaging=MessagingConfig(text_bytes_max=100, recipients_named_max=2),
    happenings=HappeningsConfig(data_bytes_max=100, waiting_max=1, found_max=5, found_bytes_max=150),
)


@pytest.fixture
def group() -> SimGroup:
    made = SimGroup(3, config=CONFIG)
    made.grow(2)
    made.run(3.0)
    return made


def ben(group: SimGroup) -> MemberId:
    return group.owner(group[1]).id


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda group: SendMessage((), " \n"), "empty_message"),
        (lambda group: SendMessage((), "x" * 101), "too_large"),
        (lambda group: SendMessage((MemberId(b"x" * 32),), "hello"), "not_found"),
        (
            lambda group: SendMessage(tuple(MemberId(bytes([n]) * 32) for n in range(3)), "hello"),
            "too_many_recipients",
        ),
        (lambda group: PublishEvent("group", b"1"), "bad_topic"),
        (lambda group: PublishEvent("shop", b"1" * 101), "too_large"),
        (lambda group: FindEvents(subscriber="x" * 65), "bad_subscriber"),
        (lambda group: TakeEvents("nobody", 1), "not_found"),
        (lambda group: ForgetSubscriber("nobody"), "not_found"),
    ],
)
def test_what_cannot_be(group: SimGroup, request_of: Any, code: str) -> None:
    refusal = group.answer(group[0], request_of(group))
    assert isinstance(refusal, Refusal) and refusal.code == code


def test_a_message_to_oneself_and_another_is_sent_and_received(group: SimGroup) -> None:
    me = group.owner(group[0]).id
    sent = group.answer(group[0], SendMessage((me, ben(group)), "to both"))
    assert isinstance(sent, MessageSent) and sent.computers == 2
    group.run(2.0)
    for computer, own in ((group[0], True), (group[1], False)):
        found = group.answer(computer, FindMessages())
        assert isinstance(found, MessagesFound) and [one.id for one in found.messages] == [sent.message]
        found = group.answer(computer, FindMessages(sent=True))
        assert isinstance(found, MessagesFound) and bool(found.messages) == own


def test_pages_are_bounded_by_number_and_bytes(group: SimGroup) -> None:
    for number in range(7):
        group.answer(group[0], PublishEvent("shop", b"%d" % number))
    for _ in range(3):
        group.answer(group[0], PublishEvent("shop", b"1" * 80))
    sizes, after = [], 0
    while True:
        found = group.answer(group[1], FindEvents(after=after, topics=("shop",), limit=1000))
        assert isinstance(found, EventsFound)
        sizes.append(len(found.events))
        after = found.place
        if found.last:
            break
    assert sizes == [5, 3, 1, 1]


def test_an_answer_waits_for_news_and_no_longer_than_it_may(group: SimGroup) -> None:
    waiting = group[1].ask(FindEvents(topics=("shop",), wait_s=10.0))
    second = group[1].ask(FindEvents(topics=("shop",), wait_s=10.0))
    group.run(1.0)
    assert not waiting.answered
    assert second.answered and second.result.events == (), "only so many may wait"
    group.answer(group[0], PublishEvent("other", b"1"))
    group.run(1.0)
    assert not waiting.answered, "it is no news of that topic"
    group.answer(group[0], PublishEvent("shop", b"1"))
    group.run(1.0)
    assert waiting.answered and [event.data for event in waiting.result.events] == [b"1"]
    late = group[1].ask(FindMessages(wait_s=3.0))
    group.run(2.5)
    assert not late.answered
    group.run(1.0)
    assert late.answered and late.result.messages == ()


def test_a_subscriber_begins_now_or_with_the_past(group: SimGroup) -> None:
    group.answer(group[0], PublishEvent("shop", b"1"))
    group.run(1.0)
    now = group.answer(group[1], FindEvents(subscriber="now", topics=("shop",)))
    past = group.answer(group[1], FindEvents(subscriber="past", topics=("shop",), past=True))
    assert isinstance(now, EventsFound) and isinstance(past, EventsFound)
    assert (len(now.events), len(past.events)) == (0, 1)
    assert group.answer(group[1], TakeEvents("past", past.place)) == Subscriber("past", past.place)
    again = group.answer(group[1], FindEvents(subscriber="past", topics=("shop",)))
    assert isinstance(again, EventsFound) and again.events == ()
    assert group.answer(group[1], ForgetSubscriber("past")) == Subscriber("past", past.place)


def test_marking_counts_what_is_in_the_inbox_and_unread(group: SimGroup) -> None:
    sent = group.answer(group[0], SendMessage((ben(group),), "hello"))
    assert isinstance(sent, MessageSent)
    group.run(2.0)
    assert group.answer(group[1], MarkRead((sent.message, sent.message, b"?" * 16))) == MarkedRead(1)
    assert group.answer(group[1], MarkRead((sent.message,))) == MarkedRead(0)
    assert group.answer(group[0], MarkRead((sent.message,))) == MarkedRead(0), "one's own is not in the inbox"


def test_who_has_just_started_waits_for_the_permission_to_write(group: SimGroup) -> None:
    group.crash(group[0], group[1])
    group.restart(group[0])
    asked = group[0].ask(SendMessage((ben(group),), "as soon as I may"))
    group.run(1.0)
    assert not asked.answered
    group.until(lambda: asked.answered, 15.0, "it may write, being alone")
    assert isinstance(asked.result, MessageSent) and asked.result.copies == 1
    group.restart(group[1])
    mailbox = group[1].core.communication.correspondence.mailbox
    group.until(lambda: [one.read for one in mailbox.inbox(0)] == [False], 15.0, "it came")


def test_with_peers_of_an_older_version_only_writing_is_allowed_in_the_end(group: SimGroup) -> None:
    """They hold neither messages nor events: no session ever covers these, and no fork of a log can be known there."""
    found = group[0].core.foundation
    found.book._open.clear()
    found.book.opened((TOPIC_MEMBERSHIP, TOPIC_CATALOGUE))
    assert not found.book.writable(TOPIC_MESSAGES)
    found.opening_due(group[0].clock.now())
    assert all(found.book.writable(topic) for topic in TOPICS)
