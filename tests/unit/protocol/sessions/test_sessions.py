"""Sessions: two nodes become equal, and no peer can make a session endless."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.effects import Send
from colla.protocol.records.summary import Frontier, Segment
from colla.protocol.sessions.messages import (
    Closing,
    Delta,
    Finished,
    Inventory,
    InventoryWanted,
    Opening,
    RecordsWanted,
    Summary,
    Wanted,
)

NOTES = "notes"


def give(box: Any, *records: Any) -> None:
    box.book.receive([record.signed for record in records], box.lab.now)
    box.take_up()


def conversation(group: Any) -> list[str]:
    """Run until nothing is under way; returns the kinds of the messages."""
    said = []
    group.perform_all()
    while group.wire:
        said.append(type(group.deliver()[2]).__name__)
        group.perform_all()
    return said


def ends(box: Any) -> list[tuple[bool, bool]]:
    return [(one.equal, one.complete) for one in box.ended]


def test_equal_nodes_exchange_two_messages(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.open(second)
    assert conversation(group) == ["Opening", "Closing"]
    assert ends(first) == ends(second) == [(True, True)]


def test_both_get_what_they_lack(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")), lab.forge(5, 2, lab.key("b")))
    give(second, lab.forge(6, 1, lab.key("c")))
    first.open(second)
    said = conversation(group)
    assert said.count("Delta") == 2 and said.count("Finished") == 2 and "InventoryWanted" not in said
    assert len(lab.contents(first.book)) == 3 and lab.contents(first.book) == lab.contents(second.book)
    assert ends(first) == ends(second) == [(True, True)]


def test_a_long_delta_is_cut_and_asked_on(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(delta_records_max=4))
    first, second = group.boxes
    give(
        first,
        *[
            lab.forge(author, number, lab.key(f"{author} {number}"))
            for author in (5, 6)
            for number in range(1, 6)
        ],
    )
    first.open(second)
    said = conversation(group)
    assert said.count("Delta") == 3
    assert ends(second) == [(True, True)]
    assert lab.contents(first.book) == lab.contents(second.book)


def test_a_delta_stays_within_its_bytes(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(delta_bytes_max=10_000))
    first, second = group.boxes
    give(first, *[lab.forge(5, number, lab.key(str(number)), b"x" * 4000) for number in range(1, 8)])
    give(first, lab.forge(5, 8, lab.key("large"), b"x" * 30_000))
    first.open(second)
    sizes = []
    group.perform_all()
    while group.wire:
        message = group.deliver()[2]
        if isinstance(message, Delta):
            sizes.append([len(record.payload) for record in message.records])
        group.perform_all()
    assert [len(one) for one in sizes] == [2, 2, 2, 1, 1], "the large one travels, alone"
    assert ends(second) == [(True, True)]


def test_a_truncated_delta_moves_the_frontier_to_its_last_record(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(delta_records_max=3))
    first, second = group.boxes
    give(first, *[lab.forge(5, number, lab.key(str(number))) for number in range(1, 9)])
    second.open(first)
    group.perform_all()
    while not lab.contents(second.book):
        group.deliver()
        group.perform_all()
    assert [one.number for one in second.book.summary((NOTES,))] == [3]
    group.wire.clear()
    group.pass_time(60)
    assert ends(first) == ends(second) == [(False, False)]
    assert len(lab.contents(second.book)) == 3
    group.meet(second, first)
    assert lab.contents(first.book) == lab.contents(second.book)


def test_records_ahead_of_a_gap_are_exchanged_too(lab: ModuleType) -> None:
    """Frontiers are equal, contents are not: only an inventory tells."""
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 3, lab.key("c")), lab.forge(5, 4, lab.key("d")))
    give(second, lab.forge(5, 4, lab.key("d")), lab.forge(5, 6, lab.key("f")))
    first.open(second)
    said = conversation(group)
    assert said.count("Inventory") == 2
    assert len(lab.contents(first.book)) == 3
    assert lab.contents(first.book) == lab.contents(second.book)
    assert ends(first) == ends(second) == [(True, True)]


def test_a_long_inventory_is_turned_page_by_page(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(inventory_entries_max=4, delta_records_max=3))
    first, second = group.boxes
    give(first, *[lab.forge(5, number, lab.key(str(number))) for number in range(2, 20)])
    give(second, *[lab.forge(5, number, lab.key(str(number))) for number in range(3, 24, 2)])
    first.open(second)
    conversation(group)
    assert lab.contents(first.book) == lab.contents(second.book)
    assert len(lab.contents(first.book)) == 20
    assert ends(first) == ends(second) == [(True, True)]


def test_a_record_below_equal_frontiers_is_found(lab: ModuleType) -> None:
    """One node's frontier claims a record that it does not hold, for whatever reason: it gets it."""
    group = lab.Lab(2)
    first, second = group.boxes
    two, three = lab.forge(5, 2, lab.key("b")), lab.forge(5, 3, lab.key("c"))
    segment = Segment(lab.name_of(three), 0, 3)
    first.book.receive_segments((segment,), [three.signed], (NOTES,), group.now)
    second.book.receive_segments((segment,), [two.signed, three.signed], (NOTES,), group.now)
    assert first.book.summary((NOTES,)) == second.book.summary((NOTES,))
    first.open(second)
    conversation(group)
    assert lab.contents(first.book) == lab.contents(second.book)
    assert len(lab.contents(first.book)) == 2


def test_what_is_written_meanwhile_ends_the_session_unequal_but_complete(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")))
    first.open(second)
    group.perform_all()
    serial = 0
    while group.wire:
        _, _, message = group.deliver()
        if isinstance(message, Finished):
            serial += 1
            give(second, lab.forge(6, serial, lab.key(f"new {serial}")))
        group.perform_all()
    assert [complete for _, complete in ends(first)] == [True]
    group.meet(first, second)
    assert lab.contents(first.book) == lab.contents(second.book)


def test_only_topics_that_both_allow_are_shared(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    for box in group.boxes:
        box.book.register("secrets", lab.accept)
    first.topics = ("secrets", NOTES)
    give(
        first,
        lab.forge(5, 1, lab.key("a")),
        lab.forge(5, 1, lab.key("s"), topic="secrets", log=lab.log_of(5, 1)),
    )
    first.sessions.open(second.id, ("secrets", NOTES), group.now)
    first.take_up()
    conversation(group)
    assert len(second.book.all_records(NOTES)) == 1
    assert second.book.all_records("secrets") == ()
    assert first.ended[0].topics == (NOTES,)


def test_a_peer_that_asks_for_what_it_may_not_have_gets_nothing(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    second.book.register("secrets", lab.accept)
    secret = lab.forge(5, 1, lab.key("s"), topic="secrets")
    give(second, secret, lab.forge(6, 1, lab.key("a")))
    second.receive(first.id, Opening(1, (NOTES,), b""))
    name = lab.name_of(secret)
    second.queue.clear()
    second.receive(first.id, Wanted(1, (Segment(name, 0, 9),)))
    second.receive(first.id, InventoryWanted(1, name, 0))
    second.receive(first.id, RecordsWanted(1, name, (secret.digest,)))
    answers = [effect.message for effect in second.queue if isinstance(effect, Send)]
    assert answers == [
        Delta(1, (Segment(name, 0, 0),), ()),
        Inventory(1, name, 0, 0, b"", False),
        Delta(1, (), (), 1),
    ]


def test_records_of_other_topics_are_rejected(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.book.register("secrets", lab.accept)
    record = lab.forge(5, 1, lab.key("s"), topic="secrets")
    first.open(second)
    (opening,) = [effect.message for effect in first.queue if isinstance(effect, Send)]
    first.queue.clear()
    first.receive(second.id, Summary(opening.session, 1, (NOTES,), (Frontier(lab.name_of(record), 1),)))
    first.receive(second.id, Delta(opening.session, (Segment(lab.name_of(record), 0, 1),), (record.signed,)))
    assert first.book.all_records("secrets") == ()
    assert first.book.rejections == {"other_topic": 1}


def test_refused_when_no_topic_is_shared(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    second.topics = ()
    first.open(second)
    assert conversation(group) == ["Opening", "Closing"]
    assert ends(first) == [(False, False)] and ends(second) == []


def test_a_peer_that_is_no_longer_allowed_is_told(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")))
    first.open(second)
    group.perform_all()
    group.deliver()
    group.perform_all()
    second.topics = ()
    conversation(group)
    assert ends(second) == [(False, False)] and ends(first) == [(False, False)]
    assert lab.contents(second.book) == []


@pytest.mark.parametrize("who", [(0, 1), (1, 0)])
def test_both_open_at_once(lab: ModuleType, who: tuple[int, int]) -> None:
    group = lab.Lab(2)
    for place in who:
        give(group.boxes[place], lab.forge(5 + place, 1, lab.key(str(place))))
    for place in who:
        group.boxes[place].open(group.boxes[1 - place])
    conversation(group)
    assert lab.contents(group.boxes[0].book) == lab.contents(group.boxes[1].book)
    assert [ends(box) for box in group.boxes] == [[(True, True)], [(True, True)]]


def test_an_opening_that_was_lost_does_not_block_the_peers(lab: ModuleType) -> None:
    """Both directions: whoever opens second gets its session at once, not after a timeout."""
    for place in (0, 1):
        group = lab.Lab(2)
        first, second = group.boxes[place], group.boxes[1 - place]
        give(first, lab.forge(5, 1, lab.key("a")))
        group.lose = lambda sender, receiver, message: True
        first.open(second)
        group.run()
        group.lose = lambda sender, receiver, message: False
        second.open(first)
        conversation(group)
        assert lab.contents(first.book) == lab.contents(second.book)
        assert len(lab.contents(second.book)) == 1


def test_opening_twice_is_opening_once(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.open(second)
    first.open(second)
    first.sessions.open(first.id, (NOTES,), group.now)
    assert conversation(group) == ["Opening", "Closing"]


def test_a_peer_that_restarted_gets_a_new_session(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")))
    second.open(first)
    group.perform_all()
    group.deliver()
    second = group.restart(second)
    second.open(first)
    conversation(group)
    assert lab.contents(first.book) == lab.contents(second.book)
    assert ends(second) == [(True, True)]


@pytest.mark.parametrize("lost", range(7))
def test_any_lost_message_costs_time_only(lab: ModuleType, lost: int) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")), lab.forge(7, 3, lab.key("z")))
    give(second, lab.forge(6, 1, lab.key("b")))
    first.open(second)
    group.perform_all()
    for _ in range(lost):
        group.deliver()
        group.perform_all()
    if group.wire:
        group.wire.pop(0)
    group.run()
    group.pass_time(60)
    assert not first.sessions.is_open(second.id) and not second.sessions.is_open(first.id)
    group.meet(first, second)
    assert lab.contents(first.book) == lab.contents(second.book)
    assert len(lab.contents(first.book)) == 3


def test_a_silent_peer_is_given_up_and_a_slow_one_is_not(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(delta_records_max=1))
    first, second = group.boxes
    give(first, *[lab.forge(5, number, lab.key(str(number))) for number in range(1, 8)])
    second.open(first)
    group.perform_all()
    run, group.run = group.run, group.perform_all
    while group.wire:
        group.deliver()
        group.perform_all()
        group.pass_time(group.config.session_timeout_s * 0.4)
    group.run = run
    assert ends(second) == [(True, True)], "it took far longer than the timeout, but something always came"


def test_resuming_from_sleep_ends_all_sessions(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.open(second)
    assert [ended.complete for ended in first.sessions.resumed()] == [False]
    assert not first.sessions.is_open(second.id)


def test_too_many_sessions_are_refused(lab: ModuleType) -> None:
    group = lab.Lab(4, config=RecordConfig(sessions_open_max=2))
    first, *others = group.boxes
    give(first, lab.forge(5, 1, lab.key("a")))
    for number, other in enumerate(others):
        first.receive(other.id, Opening(number, (NOTES,), b""))
    assert isinstance(first.queue[-1].message, Closing)
    first.sessions.open(others[2].id, (NOTES,), group.now)
    assert not first.sessions.is_open(others[2].id)


# What sessions tell the book.


def test_a_complete_session_permits_writing(lab: ModuleType) -> None:
    group = lab.Lab(2, opened=False)
    first, second = group.boxes
    assert not first.book.writable(NOTES)
    group.meet(first, second)
    assert first.book.writable(NOTES) and second.book.writable(NOTES)


def test_an_interrupted_session_does_not(lab: ModuleType) -> None:
    group = lab.Lab(2, opened=False)
    first, second = group.boxes
    give(second, lab.forge(5, 1, lab.key("a")))
    first.open(second)
    group.perform_all()
    group.deliver()
    group.perform_all()
    group.wire.clear()
    group.pass_time(60)
    assert not first.book.writable(NOTES)


def test_a_proof_is_bounded_and_proves_itself(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    give(first, *[lab.forge(5, number, lab.key(str(number)), b"x" * 100) for number in range(1, 10)])
    size = first.book.all_records(NOTES)[0].size
    proof = first.sessions.proof_for((), 3 * size + 20, (NOTES,))
    assert len(proof) == 3
    second.book.receive(proof, group.now)
    rest = first.sessions.proof_for(second.book.summary((NOTES,)), 10**6, (NOTES,))
    assert len(rest) == 6
    assert first.sessions.proof_for((), 10, (NOTES,)) == ()


def test_more_logs_than_a_summary_tells_become_equal_in_some_sessions(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(summary_logs_max=4))
    first, second = group.boxes
    give(first, *[lab.forge(5 + author, 1, lab.key("a")) for author in range(10)])
    for _ in range(40):
        group.meet(second, first)
    assert len(lab.contents(second.book)) == 10
