"""Topics' names, subscribers' cursors, and what is told how often."""

from __future__ import annotations

import pytest

from colla.kernel.config import HappeningsConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Notice
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import GroupId, LogId, NodeId, ServiceId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_EVENTS, TOPIC_HAPPENINGS, Key, Log, Payload, Stamp, sign_record
from colla.protocol.happenings.bodies import (
    KIND_HAPPENED,
    KIND_PUBLISHED,
    check_happened_record,
    check_published_record,
    check_topic,
    event_of,
)
from colla.protocol.happenings.subscribers import Subscribers
from colla.protocol.happenings.telling import Telling

CONFIG = HappeningsConfig()


def at(seconds: float) -> Instant:
    return Instant(seconds, 1_000_000.0 + seconds)


@pytest.mark.parametrize("topic", ["a", "shop.orders", "a-1_b.c", "x" * CONFIG.topic_chars_max])
def test_good_topics(topic: str) -> None:
    assert check_topic(topic, CONFIG.topic_chars_max) == topic


@pytest.mark.parametrize(
    "topic", ["", "group", "Shop", "a b", ".a", "a.", "a,b", "x" * (CONFIG.topic_chars_max + 1)]
)
def test_bad_topics(topic: str) -> None:
    with pytest.raises(CollaError) as caught:
        check_topic(topic, CONFIG.topic_chars_max)
    assert caught.value.code == "bad_topic"


def restarted(outbox: Outbox, durable: Durable) -> Subscribers:
    for effect in outbox.drain():
        durable.apply(effect.writes)  # type: ignore[attr-defined]
    return Subscribers(3, outbox, durable)


def test_cursors_survive_restarts_and_never_go_back() -> None:
    outbox, durable = Outbox(1), Durable({}, {})
    subscribers = Subscribers(3, outbox, durable)
    assert subscribers.place("shop", 5) == 5
    assert subscribers.place("shop", 9) == 5, "only a new one begins at the end"
    assert subscribers.taken("shop", 8, last=10) == 8
    assert subscribers.taken("shop", 6, last=10) == 8
    assert subscribers.taken("shop", 11, last=10) == 8, "what does not exist cannot be taken"
    subscribers = restarted(outbox, durable)
    assert subscribers.all() == {"shop": 8} and subscribers.greatest == 8
    subscribers.forget("shop")
    assert restarted(outbox, durable).all() == {}


def test_subscribers_are_bounded_and_have_proper_names() -> None:
    subscribers = Subscribers(3, Outbox(1), Durable({}, {}))
    for name in ("a", "b", "c"):
        subscribers.place(name, 0)
    with pytest.raises(CollaError) as caught:
        subscribers.place("d", 0)
    assert caught.value.code == "busy"
    for name in ("x" * 65, "a\x1b[2J"):
        with pytest.raises(CollaError) as caught:
            subscribers.place(name, 0)
        assert caught.value.code == "bad_subscriber"
    for ask in (lambda: subscribers.taken("d", 1, 1), lambda: subscribers.forget("d")):
        with pytest.raises(CollaError) as caught:
            ask()
        assert caught.value.code == "not_found"


def test_what_flaps_is_told_a_few_times_and_then_once_in_a_while() -> None:
    telling = Telling(CONFIG)
    notice = Notice("replica_ready", "a replica is ready", ServiceId(b"s" * 16))
    told = [telling.kind_of(notice, at(second / 10)) for second in range(100)]
    assert told.count("runs") == CONFIG.told_at_once_max
    other = Notice("replica_ready", "a replica is ready", ServiceId(b"t" * 16))
    assert telling.kind_of(other, at(10.0)) == "runs"
    assert telling.kind_of(notice, at(9.9 + CONFIG.told_again_s)) == "runs"
    assert telling.kind_of(Notice("trimmed", "x"), at(10.0)) == ""


def test_a_group_that_tells_nothing() -> None:
    telling = Telling(HappeningsConfig(group_told=False))
    assert telling.kind_of(Notice("repaired", "x"), at(0.0)) == ""


@pytest.mark.parametrize(
    ("topic", "kind"), [(TOPIC_HAPPENINGS, KIND_PUBLISHED), (TOPIC_EVENTS, KIND_HAPPENED)]
)
def test_a_kind_in_the_other_topic_says_nothing(topic: str, kind: str) -> None:
    """Found by fuzzing: nobody had looked at its body, and reading it failed at every node that was asked for events."""
    secret = SecretKey(bytes(32))
    log = Log(NodeId(secret.public), LogId(bytes(16)), topic)
    payload = Payload(log, 1, Key(kind, bytes(16)), Stamp(1), (), b"no event")
    record = sign_record(GroupId(bytes(32)), secret, payload)
    (check_happened_record if topic == TOPIC_HAPPENINGS else check_published_record)(record)
    assert event_of(record) is None
