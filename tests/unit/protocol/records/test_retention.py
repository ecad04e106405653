"""Streams keep the newest records of each log: by number on every node, by bytes as their author says."""

from __future__ import annotations

from types import ModuleType

from colla.kernel.effects import DropRecord, Persist
from colla.protocol.records.retention import Retention

KEPT = Retention(5, 100_000)


def numbers(book: object, lab: ModuleType) -> list[int]:
    return [number for _, number, _, _ in lab.contents(book)]


def frontier(book: object, lab: ModuleType) -> int:
    (only,) = book.summary((lab.TOPIC,))  # type: ignore[attr-defined]
    return only.number


def test_the_newest_are_kept_whatever_their_key(lab: ModuleType) -> None:
    book = lab.make_book(retention=KEPT)
    for place in range(12):
        book.write(lab.TOPIC, [(lab.key("same" if place % 2 else "other"), b"%d" % place)], lab.instant())
    assert numbers(book, lab) == [8, 9, 10, 11, 12]
    assert len(book.versions(lab.TOPIC, lab.key("same"))) == 3
    assert frontier(book, lab) == 12


def test_what_is_dropped_counts_as_held(lab: ModuleType) -> None:
    """One record far ahead: what lies more than the retention below it is not waited for."""
    book = lab.make_book(retention=KEPT)
    book.receive([lab.forge(1, 1, lab.key("a")).signed, lab.forge(1, 20, lab.key("b")).signed], lab.instant())
    assert numbers(book, lab) == [20]
    assert frontier(book, lab) == 15
    book.receive([lab.forge(1, 16, lab.key("c")).signed], lab.instant())
    assert frontier(book, lab) == 16


def test_old_records_are_neither_verified_nor_held(lab: ModuleType) -> None:
    book = lab.make_book(retention=KEPT)
    book.receive([lab.forge(1, 20, lab.key("b")).signed], lab.instant())
    forged = lab.tamper(lab.forge(1, 15, lab.key("a")), body=b"forged")
    received = book.receive([forged], lab.instant())
    assert received.rejected == 0 and received.changes == [] and received.persist_id is None


def test_an_author_keeps_no_more_than_its_bytes(lab: ModuleType) -> None:
    book = lab.make_book(retention=Retention(100, 5000))
    other = lab.make_book(1, retention=Retention(100, 5000))
    for place in range(30):
        (record,), _ = book.write(lab.TOPIC, [(lab.key("a"), bytes(900))], lab.instant())
        other.receive([record.signed], lab.instant())
        assert sum(one.size for one in book.all_records(lab.TOPIC)) <= 5000 + 300
        assert lab.contents(other) == lab.contents(book), place
    assert len(lab.contents(book)) == 4
    book.write(lab.TOPIC, [(lab.key("a"), bytes(20_000))], lab.instant())
    assert numbers(book, lab) == [31], "one that is larger than all that is kept is held alone"


def test_stamps_grow_along_the_log_although_the_clock_goes_back(lab: ModuleType) -> None:
    book = lab.make_book(retention=KEPT)
    for seconds in (50.0, 10.0, 10.0, 60.0):
        book.write(lab.TOPIC, [(lab.key("a"), b"")], lab.instant(seconds))
    stamps = [record.stamp for record in book.all_records(lab.TOPIC)]
    assert stamps == sorted(stamps) and len(dict.fromkeys(stamps)) == 4


def test_a_node_that_was_away_for_long_gets_the_newest_in_one_session(lab: ModuleType) -> None:
    group = lab.Lab(2, retention=Retention(50, 10**6))
    writer, away = group.boxes
    writer.write("first", b"")
    group.run()
    group.lose = lambda sender, receiver, message: True
    for place in range(400):
        writer.write(f"{place}", b"%d" % place)
        group.run()
    group.lose = lambda sender, receiver, message: False
    group.meet(*group.boxes)
    assert away.ended[-1].equal and numbers(away.book, lab) == list(range(352, 402))
    assert away.book.summary((lab.TOPIC,)) == writer.book.summary((lab.TOPIC,))
    fresh = group.restart(away)
    assert numbers(fresh.book, lab) == list(range(352, 402)) and frontier(fresh.book, lab) == 401


def test_a_version_that_keeps_less_clears_the_disk(lab: ModuleType) -> None:
    durable = lab.Durable({}, {})
    book = lab.make_book(durable=durable, retention=Retention(10, 10**6))
    for place in range(10):
        book.write(lab.TOPIC, [(lab.key("a"), b"%d" % place)], lab.instant())
    lab.persist(book, durable)
    assert len(durable.records) == 10
    book = lab.make_book(durable=durable, retention=Retention(4, 10**6))
    assert numbers(book, lab) == [7, 8, 9, 10] and frontier(book, lab) == 10
    (effect,) = book._outbox.drain()
    assert isinstance(effect, Persist) and len(effect.writes) == 6
    assert all(isinstance(write, DropRecord) for write in effect.writes)
