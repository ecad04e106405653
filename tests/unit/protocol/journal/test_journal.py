"""Places: given once, in each author's order, found again after a restart; forks and authors that do not count (yet)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from colla.kernel.durable import Durable
from colla.kernel.outbox import Outbox
from colla.protocol.journal.journal import Journal
from colla.protocol.records.retention import Retention

KEPT = Retention(50, 10**6)


class Reader:
    """A book that is given records, and a journal over it."""

    def __init__(self, lab: ModuleType, durable: Durable | None = None, retention: Retention = KEPT) -> None:
        self.lab = lab
        self.durable = durable or Durable({}, {})
        self.retention = retention
        self.unknown: dict[bytes, None] = {}
        self.start()

    def start(self) -> None:
        lab = self.lab
        self.book = lab.make_book(9, self.durable, retention=self.retention)
        self.outbox = Outbox(2)
        self.journal = Journal(
            "test",
            (lab.TOPIC,),
            self.book,
            lambda record: record.log.node not in self.unknown,
            self.outbox,
            self.durable,
        )
        self.take(())

    def give(self, *records: Any) -> list[int]:
        """The places that are given then."""
        changes = self.book.receive([record.signed for record in records], self.lab.instant()).changes
        return self.take(changes)

    def take(self, changes: Any) -> list[int]:
        taken = self.journal.take(changes)
        self.lab.persist(self.book, self.durable)
        for effect in self.outbox.drain():
            self.durable.apply(effect.writes)  # type: ignore[attr-defined]
        return [place for place, _ in taken.placed]

    def told(self, after: int = 0) -> list[bytes]:
        return [record.body for _, record in self.journal.after(after)]


def note(lab: ModuleType, author: int, number: int, nth: int = 0, name: str = "", **more: Any) -> Any:
    body = b"%d.%d.%d" % (author, nth, number)
    return lab.forge(
        author, number, lab.key(name or body.decode()), body, log=lab.log_of(author, nth), **more
    )


def test_what_is_behind_a_gap_waits(lab: ModuleType) -> None:
    reader = Reader(lab)
    assert reader.give(note(lab, 1, 1), note(lab, 1, 3)) == [1]
    assert reader.told() == [b"1.0.1"]
    assert reader.give(note(lab, 1, 2)) == [2, 3]
    assert reader.told() == [b"1.0.1", b"1.0.2", b"1.0.3"]
    assert reader.told(2) == [b"1.0.3"] and reader.journal.last == 3


def test_a_place_that_was_never_given_counts_as_the_beginning(lab: ModuleType) -> None:
    reader = Reader(lab)
    reader.give(note(lab, 1, 1))
    assert reader.told(7) == [b"1.0.1"]


def test_what_comes_together_is_in_the_order_of_its_stamps(lab: ModuleType) -> None:
    reader = Reader(lab)
    first = [note(lab, 1, number, stamp=lab.Stamp(10 * number)) for number in (1, 2, 3)]
    second = [note(lab, 2, number, stamp=lab.Stamp(15)) for number in (1, 2)]
    reader.give(*first, *second)
    assert reader.told() == [b"1.0.1", b"2.0.1", b"2.0.2", b"1.0.2", b"1.0.3"]


def test_a_clock_that_went_back_changes_no_authors_order(lab: ModuleType) -> None:
    reader = Reader(lab)
    stamps = (50, 10, 60)
    reader.give(*[note(lab, 1, number + 1, stamp=lab.Stamp(stamps[number])) for number in range(3)])
    assert reader.told() == [b"1.0.1", b"1.0.2", b"1.0.3"]


def test_a_second_branch_is_told_when_it_comes_and_what_is_said_again_is_not(lab: ModuleType) -> None:
    reader = Reader(lab)
    reader.give(note(lab, 1, 1), note(lab, 1, 2))
    rival = lab.forge(1, 2, lab.key("rival"), b"rival", log=lab.log_of(1))
    again = lab.forge(1, 1, lab.key("rival"), b"rival", log=lab.log_of(1, 1))
    assert reader.give(rival) == [3]
    assert reader.give(again) == []
    assert reader.told() == [b"1.0.1", b"1.0.2", b"rival"]


def test_nobody_silences_another_by_taking_his_key(lab: ModuleType) -> None:
    reader = Reader(lab)
    reader.give(note(lab, 2, 1, name="same"))
    assert reader.give(note(lab, 1, 1, name="same")) == [2]


def test_an_author_who_is_unknown_is_heard_when_he_is_known(lab: ModuleType) -> None:
    reader = Reader(lab)
    reader.unknown[lab.secret(1).public] = None
    assert reader.give(note(lab, 1, 1), note(lab, 2, 1)) == [1]
    reader.unknown.clear()
    assert reader.take(()) == [2]
    assert reader.told() == [b"2.0.1", b"1.0.1"]


def test_what_is_kept_no_more_has_no_place(lab: ModuleType) -> None:
    reader = Reader(lab, retention=Retention(3, 10**6))
    for number in range(1, 8):
        reader.give(note(lab, 1, number))
    assert reader.told() == [b"1.0.5", b"1.0.6", b"1.0.7"]
    assert len([name for name in reader.durable.cells if name.startswith("journal/")]) == 3
    reader.start()
    assert reader.told(6) == [b"1.0.7"] and reader.journal.last == 7


def test_damaged_cells_are_dropped_and_their_records_told_again(lab: ModuleType) -> None:
    reader = Reader(lab)
    reader.give(note(lab, 1, 1), note(lab, 1, 2))
    reader.durable.cells["journal/test/nonsense"] = b"x"
    reader.durable.cells["journal/test/0000000000000001"] = b"x"
    reader.start()
    assert reader.told() == [b"1.0.2", b"1.0.1"]
    assert "journal/test/nonsense" not in reader.durable.cells


@given(data=st.data())
@settings(max_examples=60)
def test_any_arrival_gives_each_record_one_place_in_its_authors_order(
    lab: ModuleType, data: st.DataObject
) -> None:
    records = [note(lab, author, number) for author in (1, 2) for number in range(1, 6)]
    order = data.draw(st.permutations(records + records[:4]))
    reader = Reader(lab)
    seen: list[bytes] = []
    while order:
        size = data.draw(st.integers(1, 4))
        reader.give(*order[:size])
        order = order[size:]
        if data.draw(st.booleans()):
            reader.start()
        told = reader.told()
        assert told[: len(seen)] == seen, "what was told stays, and nothing comes before it"
        seen = told
    assert sorted(seen) == sorted(record.body for record in records)
    for author in (b"1.", b"2."):
        own = [body for body in seen if body.startswith(author)]
        assert own == sorted(own)
