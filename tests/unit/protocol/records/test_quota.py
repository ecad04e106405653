"""Whoever writes more than one may crowds out only its own records, and everybody drops the same ones."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Notify, StoreRecord
from colla.model.errors import CollaError
from colla.model.record import Record
from colla.protocol.records.quota import Quota

TIGHT = Quota(numbers_max=12, subjects_max=3, subject_records_max=2)
TWO_LOGS = RecordConfig(logs_per_node_max=2)
ORDERS = 20


def flood(lab: ModuleType, rng: Random) -> list[Record]:
    """What a liar might write: too many logs, subjects, versions and numbers, with honest claims now and then."""
    records = []
    for log in (lab.log_of(1, nth) for nth in range(4)):
        for number in rng.sample(range(1, 15), 10):
            seen = {log: number - 1} if number > 1 and rng.random() < 0.3 else {}
            body = bytes([rng.randrange(3)])
            records.append(lab.forge(1, number, lab.key(rng.choice("abcdef")), body, log=log, seen=seen))
    return records


def give(book: Any, records: list[Record], lab: ModuleType, rng: Random) -> None:
    """In pieces of any size."""
    start = 0
    while start < len(records):
        size = rng.randint(1, 5)
        book.receive([record.signed for record in records[start : start + size]], lab.instant())
        start += size


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_of_a_flood_does_not_depend_on_its_order(seed: int, lab: ModuleType) -> None:
    rng = Random(seed)
    records = flood(lab, rng)
    kept: list[tuple[Any, Any]] = []
    for _ in range(ORDERS):
        rng.shuffle(records)
        book = lab.make_book(config=TWO_LOGS, quota=TIGHT)
        give(book, records, lab, rng)
        kept.append((lab.contents(book), book.contents(lab.TOPIC)))
        assert book.rejections["over_quota"] > 0
    assert all(one == kept[0] for one in kept)
    logs = {log for log, *_ in kept[0][0]}
    assert len(logs) == 2
    for log in logs:
        mine = [(number, about) for of, number, about, _ in kept[0][0] if of == log]
        subjects = [about.subject for _, about in mine]
        assert len(set(subjects)) <= 3 and max(subjects.count(one) for one in subjects) <= 2
        assert all(number <= 12 for number, _ in mine)


@pytest.mark.parametrize("seed", range(4))
def test_sessions_about_a_flood_end_in_equality_and_others_are_unaffected(seed: int, lab: ModuleType) -> None:
    rng = Random(seed)
    pair = lab.Lab(2, config=TWO_LOGS, quota=TIGHT)
    records = flood(lab, rng)
    for box in pair.boxes:
        give(box.book, rng.sample(records, len(records) * 2 // 3), lab, rng)
        box.take_up()
    pair.boxes[0].write("honest", b"kept")
    pair.run()
    for _ in range(2):
        pair.meet(*pair.boxes)
    one, other = pair.boxes
    assert lab.contents(one.book) == lab.contents(other.book)
    assert one.book.fingerprint((lab.TOPIC,)) == other.book.fingerprint((lab.TOPIC,))
    assert [record.body for record in other.book.versions(lab.TOPIC, lab.key("honest"))] == [b"kept"]
    assert one.ended[-1].equal
    assert "records_rejected" not in one.notices + other.notices


def test_the_excess_is_noticed_once_and_names_its_author(lab: ModuleType) -> None:
    book = lab.make_book(quota=TIGHT)
    for number in range(1, 9):
        book.receive([lab.forge(1, number, lab.key(f"k{number}")).signed], lab.instant())
    notices = [effect.notice for effect in book._outbox.drain() if isinstance(effect, Notify)]
    assert [(notice.kind, notice.node) for notice in notices] == [("quota_exceeded", lab.secret(1).public)]
    assert book.rejections == {"over_quota": 5}


def test_what_was_dropped_is_on_no_disk(lab: ModuleType) -> None:
    rng = Random(5)
    durable = Durable({}, {})
    book = lab.make_book(0, durable, config=TWO_LOGS, quota=TIGHT)
    give(book, flood(lab, rng), lab, rng)
    lab.persist(book, durable)
    held = {record.signed for record in book.all_records(lab.TOPIC)}
    assert set(durable.records.values()) == held
    again = lab.make_book(0, durable, config=TWO_LOGS, quota=TIGHT)
    assert lab.contents(again) == lab.contents(book)
    assert again.fingerprint((lab.TOPIC,)) == book.fingerprint((lab.TOPIC,))


def test_what_an_earlier_version_kept_beyond_the_quota_goes_at_the_start(lab: ModuleType) -> None:
    durable = Durable({}, {})
    before = lab.make_book(0, durable)
    records = [lab.forge(1, number, lab.key(f"k{number}")) for number in range(1, 9)]
    before.receive([record.signed for record in records], lab.instant())
    lab.persist(before, durable)
    assert len(durable.records) == 8
    after = lab.make_book(0, durable, quota=TIGHT)
    lab.persist(after, durable)
    assert len(durable.records) == len(after.all_records(lab.TOPIC)) == 3


def test_an_author_is_refused_in_time_and_can_still_change_what_there_is(lab: ModuleType) -> None:
    book = lab.make_book(config=TWO_LOGS, quota=TIGHT)
    for nth in range(3):
        book.write(lab.TOPIC, [(lab.key(f"k{nth}"), b"")], lab.instant())
    with pytest.raises(CollaError) as refused:
        book.write(lab.TOPIC, [(lab.key("one more"), b"")], lab.instant())
    assert refused.value.code == "quota_reached"
    book.write(lab.TOPIC, [(lab.key("k0"), b"changed")], lab.instant())
    book.write(lab.TOPIC, [(lab.key("k1", lab.TOMBSTONE), b"")], lab.instant())
    assert book.winner(lab.TOPIC, lab.key("k0")).body == b"changed"
    assert book.rejections == {}
    reader = lab.make_book(9, config=TWO_LOGS, quota=TIGHT)
    reader.receive([record.signed for record in book.all_records(lab.TOPIC)], lab.instant())
    assert lab.contents(reader) == lab.contents(book)


def test_where_the_earliest_logs_count_no_later_one_takes_their_place(lab: ModuleType) -> None:
    book = lab.make_book(config=TWO_LOGS, quota=Quota(numbers_max=3, earliest_logs=True))
    order = sorted(
        (lab.log_of(1, nth) for nth in range(4)),
        key=lambda log: lab.name_of(lab.forge(1, 1, lab.key("a"), log=log)),
    )
    for log in reversed(order):
        book.receive([lab.forge(1, 1, lab.key("a"), log=log).signed], lab.instant())
    assert {record.log.id for record in book.all_records(lab.TOPIC)} == set(order[2:])
    assert book.rejections == {"too_many_logs": 2}
    book.receive([lab.forge(1, 4, lab.key("b"), log=order[3]).signed], lab.instant())
    assert book.rejections["over_quota"] == 1
    for _ in range(3):
        book.write(lab.TOPIC, [(lab.key("mine"), b"")], lab.instant())
    with pytest.raises(CollaError, match="as one computer may"):
        book.write(lab.TOPIC, [(lab.key("mine"), b"")], lab.instant())


def test_a_body_beyond_the_quota_is_refused_at_both_ends(lab: ModuleType) -> None:
    book = lab.make_book(quota=Quota(body_bytes_max=100))
    with pytest.raises(CollaError, match="too large"):
        book.write(lab.TOPIC, [(lab.key("a"), bytes(101))], lab.instant())
    received = book.receive([lab.forge(1, 1, lab.key("a"), bytes(101)).signed], lab.instant())
    assert (received.rejected, received.persist_id, book.rejections) == (0, None, {"over_quota": 1})


def test_a_forged_signature_blames_nobody(lab: ModuleType) -> None:
    book = lab.make_book(config=TWO_LOGS, quota=TIGHT)
    for nth in range(2):
        book.receive([lab.forge(1, 1, lab.key("a"), log=lab.log_of(1, nth)).signed], lab.instant())
    before = lab.contents(book)
    for nth in range(2, 12):
        signed = lab.forge(1, 1, lab.key("a"), log=lab.log_of(1, nth)).signed
        forged = type(signed)(signed.payload, bytes(64))
        book.receive([forged], lab.instant())
    assert lab.contents(book) == before
    assert book.rejections == {"bad_signature": 10}
    stored = [w for e in book._outbox.drain() for w in getattr(e, "writes", ()) if isinstance(w, StoreRecord)]
    assert len(stored) == 2


def test_all_computers_of_a_member_fill_no_more_than_one_member_may(lab: ModuleType) -> None:
    pair = lab.Lab(2)
    first, second = (lab.secret(number).public for number in (5, 6))
    for box in pair.boxes:
        box.book.bound_members(lambda node: (first, second) if node in (first, second) else (node,), 20_000)
    records = [
        lab.forge(5 + number % 2, number, lab.key(f"k{number}"), bytes(1000)) for number in range(1, 31)
    ]
    for number, box in enumerate(pair.boxes):
        given = records if number else records[::-1]
        for record in given:
            box.book.receive([record.signed], pair.now)
        box.take_up()
    pair.run()
    assert [box.notices.count("quota_exceeded") for box in pair.boxes] == [2, 2]
    for _ in range(2):
        pair.meet(*pair.boxes)
    for box in pair.boxes:
        held = sum(record.size for record in box.book.all_records(lab.TOPIC))
        assert 15_000 < held <= 20_000
    for _ in range(15):
        pair.boxes[0].write("mine", bytes(100))
    pair.run()
    assert pair.boxes[1].book.winner(lab.TOPIC, lab.key("mine")) is not None
