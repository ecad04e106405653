"""Sessions with a peer that lies or errs: they end, nothing false is believed, and it is said."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from colla.kernel.config import RecordConfig
from colla.kernel.effects import Send
from colla.protocol.records.summary import Frontier, Segment
from colla.protocol.sessions.messages import (
    Closing,
    Delta,
    Finished,
    Inventory,
    InventoryWanted,
    RecordsWanted,
    Summary,
    Wanted,
)

NOTES = "notes"


def give(box: Any, *records: Any) -> None:
    box.book.receive([record.signed for record in records], box.lab.now)
    box.take_up()


def ends(box: Any) -> list[tuple[bool, bool]]:
    return [(one.equal, one.complete) for one in box.ended]


def open_session(lab: ModuleType, config: RecordConfig | None = None) -> tuple[Any, Any, int]:
    """A session that the first node opened; the test plays the second."""
    group = lab.Lab(2, config=config)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")))
    first.open(second)
    (opening,) = [effect.message for effect in first.queue if isinstance(effect, Send)]
    first.queue.clear()
    return first, second, opening.session


def test_bad_answers_end_the_session(lab: ModuleType) -> None:
    name, other = b"n" * 16, b"o" * 16
    hashed = Frontier(name, 0, b"h" * 16)
    signed = tuple(lab.forge(6, number, lab.key(str(number))).signed for number in (1, 2, 3))
    summary = ("summary", 1, (Frontier(name, 9),))
    cases: dict[str, list[Any]] = {
        "unasked delta": [lambda s: Delta(s, (), signed)],
        "unasked inventory": [lambda s: Inventory(s, name, 0, 1, b"", False)],
        "summary of another round": [lambda s: Summary(s, 2, (NOTES,), ())],
        "summary of other topics": [lambda s: Summary(s, 1, ("secrets",), ())],
        "summary of no topics": [lambda s: Summary(s, 1, (), ())],
        "malformed name": [lambda s: Summary(s, 1, (NOTES,), (Frontier(b"x", 1),))],
        "negative frontier": [lambda s: Summary(s, 1, (NOTES,), (Frontier(name, -1),))],
        "too many frontiers": [lambda s: Summary(s, 1, (NOTES,), (Frontier(name, 1),) * 5)],
        "finished too early": [lambda s: Finished(s, 1, b"")],
        "another segment": [summary, lambda s: Delta(s, (Segment(other, 0, 9),), ())],
        "too many segments": [summary, lambda s: Delta(s, (Segment(name, 0, 9),) * 2, ())],
        "segment too long": [summary, lambda s: Delta(s, (Segment(name, 0, 10),), ())],
        "segment backwards": [summary, lambda s: Delta(s, (Segment(name, 0, -1),), ())],
        "too many records": [summary, lambda s: Delta(s, (Segment(name, 0, 9),), signed)],
        "too many asked": [lambda s: Wanted(s, (Segment(name, 0, 1),) * 4)],
        "too many digests": [lambda s: RecordsWanted(s, name, (b"d",) * 3)],
        "no digests": [lambda s: RecordsWanted(s, name, ())],
        "impossible number": [lambda s: InventoryWanted(s, name, -1)],
        "inventory of another log": [
            lambda s: Summary(s, 1, (NOTES,), (hashed,)),
            lambda s: Inventory(s, other, 0, 1, b"", False),
        ],
        "inventory that stands still": [
            lambda s: Summary(s, 1, (NOTES,), (hashed,)),
            lambda s: Inventory(s, name, 0, 0, b"", True),
        ],
        "inventory too long": [
            lambda s: Summary(s, 1, (NOTES,), (hashed,)),
            lambda s: Inventory(s, name, 0, 1, b"x" * 24 * 5, False),
        ],
        "served nothing": [
            lambda s: Summary(s, 1, (NOTES,), (hashed,)),
            lambda s: Inventory(s, name, 0, 1, b"x" * 24, False),
            lambda s: Delta(s, (), (), 0),
        ],
        "served more than asked": [
            lambda s: Summary(s, 1, (NOTES,), (hashed,)),
            lambda s: Inventory(s, name, 0, 1, b"x" * 24, False),
            lambda s: Delta(s, (), (), 2),
        ],
    }
    config = RecordConfig(
        delta_records_max=2, summary_logs_max=4, segments_asked_max=3, inventory_entries_max=4
    )
    for case, steps in cases.items():
        first, second, session = open_session(lab, config)
        for step in steps:
            if isinstance(step, tuple):
                message: Any = Summary(session, 1, (NOTES,), step[2])
            else:
                message = step(session)
            first.receive(second.id, message)
        assert ends(first) == [(False, False)], case
        last = [effect.message for effect in first.queue if isinstance(effect, Send)][-1]
        assert last == Closing(session, reason="misbehaviour"), case
        first.lab.perform_all()
        assert first.notices[-1] == "peer_misbehaved", case


def test_an_endless_peer_is_stopped(lab: ModuleType) -> None:
    """It always has one more segment, and never a record."""
    first, second, session = open_session(lab, RecordConfig(session_messages_max=50))
    name = b"n" * 16
    first.receive(second.id, Summary(session, 1, (NOTES,), (Frontier(name, 2**50),)))
    for number in range(1000):
        if not first.sessions.is_open(second.id):
            break
        first.receive(second.id, Delta(session, (Segment(name, number, number + 1),), ()))
    assert number < 60
    assert ends(first) == [(False, False)]


def test_an_answer_without_segments_ends_the_asking(lab: ModuleType) -> None:
    first, second, session = open_session(lab)
    names = [b"%016d" % number for number in range(3)]
    first.receive(second.id, Summary(session, 1, (NOTES,), tuple(Frontier(name, 5) for name in names)))
    for _ in names:
        first.receive(second.id, Delta(session, (), ()))
    last = [effect.message for effect in first.queue if isinstance(effect, Send)][-1]
    assert isinstance(last, Finished)


def test_messages_of_another_session_are_ignored(lab: ModuleType) -> None:
    first, second, session = open_session(lab)
    first.receive(second.id, Closing(session + 1))
    first.receive(second.id, Finished(session + 1, 1, b""))
    assert first.sessions.is_open(second.id) and first.ended == []


def test_a_rejected_record_in_an_inventory_claims_nothing(lab: ModuleType) -> None:
    first, second, session = open_session(lab)
    good = [lab.forge(6, number, lab.key(str(number))) for number in (1, 2, 3)]
    bad = lab.tamper(good[1], body=b"forged")
    name = lab.name_of(good[0])
    entries = b"".join(number.to_bytes(8) + record.digest for number, record in enumerate(good, 1))
    first.receive(second.id, Summary(session, 1, (NOTES,), (Frontier(name, 3, b"h" * 16),)))
    first.receive(second.id, Delta(session, (), ()))
    first.receive(second.id, Inventory(session, name, 0, 3, entries, False))
    first.receive(second.id, Delta(session, (), (good[0].signed, bad, good[2].signed), 3))
    assert {one.log: one.number for one in first.book.summary((NOTES,))}[name] == 1


def test_a_whole_inventory_moves_the_frontier(lab: ModuleType) -> None:
    first, second, session = open_session(lab)
    seven = lab.forge(6, 7, lab.key("7"))
    name = lab.name_of(seven)
    first.receive(second.id, Summary(session, 1, (NOTES,), (Frontier(name, 7, b"h" * 16),)))
    first.receive(second.id, Delta(session, (), ()))
    first.receive(second.id, Inventory(session, name, 0, 7, (7).to_bytes(8) + seven.digest, False))
    first.receive(second.id, Delta(session, (), (seven.signed,), 1))
    assert {one.log: one.number for one in first.book.summary((NOTES,))}[name] == 7
