"""Merging and exchanging records, against any order of events that Hypothesis can think of."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colla.protocol.records.retention import Retention

AUTHORS = 3
NUMBERS_MAX = 5
KEPT = Retention(3, 700)
"""So little that every longer run of a stream drops records, by their number and by their bytes."""
both = pytest.mark.parametrize("retention", [None, KEPT], ids=["by key", "stream"])

# (author, log, number, key, tombstone, body, what its author claims to have seen of which log)
CONTENT = st.tuples(
    st.integers(0, AUTHORS - 1),
    st.integers(0, 1),
    st.integers(1, NUMBERS_MAX),
    st.sampled_from("ab"),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([b"x", b"y"]),
    st.dictionaries(
        st.tuples(st.integers(0, AUTHORS - 1), st.integers(0, 1)), st.integers(1, NUMBERS_MAX), max_size=3
    ),
)


def forged(lab: ModuleType, contents: list[Any]) -> list[Any]:
    """Records as liars would write them, forked logs included; only what has no valid shape is left out."""
    records = []
    for author, log, number, name, tombstone, body, claims in contents:
        seen = {lab.log_of(*of): upto for of, upto in claims.items() if of != (author, log) or upto < number}
        kind = lab.TOMBSTONE if tombstone else "note"
        about = lab.key(name, kind)
        records.append(lab.forge(author, number, about, body, log=lab.log_of(author, log), seen=seen))
    return records


@both
@given(contents=st.lists(CONTENT, max_size=12), data=st.data())
@settings(max_examples=200)
def test_merge_is_a_function_of_the_set(
    retention: Retention | None, lab: ModuleType, contents: list[Any], data: st.DataObject
) -> None:
    records = forged(lab, contents)
    expected = lab.twin(records, retention)
    order = data.draw(st.permutations(records + records[: len(records) // 2]))
    book = lab.make_book(9, retention=retention)
    start = 0
    while start < len(order):
        size = data.draw(st.integers(1, 4))
        received = book.receive([record.signed for record in order[start : start + size]], lab.instant())
        assert received.rejected == 0
        start += size
    held = {record.digest: record for record in book.all_records(lab.TOPIC)}
    assert held == expected
    for name in "ab":
        for kind in ("note", lab.TOMBSTONE):
            about = lab.key(name, kind)
            versions = [record for record in expected.values() if record.key == about]
            assert {record.digest for record in book.versions(lab.TOPIC, about)} == {
                record.digest for record in versions
            }


@given(contents=st.lists(CONTENT, max_size=12), data=st.data())
@settings(max_examples=60)
def test_equal_sets_have_equal_views_and_hashes(
    lab: ModuleType, contents: list[Any], data: st.DataObject
) -> None:
    records = forged(lab, contents)
    books = []
    for number in (8, 9):
        book = lab.make_book(number)
        for record in data.draw(st.permutations(records)):
            book.receive([record.signed], lab.instant())
        books.append(book)
    one, other = books
    assert one.contents(lab.TOPIC) == other.contents(lab.TOPIC)
    for name in "ab":
        about = lab.key(name)
        assert one.concurrent(lab.TOPIC, about) == other.concurrent(lab.TOPIC, about)
        assert one.winner(lab.TOPIC, about) == other.winner(lab.TOPIC, about)


@both
@given(contents=st.lists(CONTENT, max_size=12), data=st.data())
@settings(max_examples=60)
def test_forged_sets_become_equal_in_sessions(
    retention: Retention | None, lab: ModuleType, contents: list[Any], data: st.DataObject
) -> None:
    """Forked and lying logs too: whatever two nodes were given, one session makes them equal."""
    records = forged(lab, contents)
    pair = lab.Lab(2, retention=retention)
    given_to = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(records), max_size=len(records)))
    for record, who in zip(records, given_to, strict=True):
        for box in pair.boxes:
            if who in (box.number, 2):
                box.book.receive([record.signed], pair.now)
                box.take_up()
    pair.run()
    pair.meet(*pair.boxes)
    expected = lab.twin(records, retention)
    for box in pair.boxes:
        assert {record.digest for record in box.book.all_records(lab.TOPIC)} == set(expected)
        assert [ended.complete for ended in box.ended] == [True]


# Most steps are carried out to the disk and onto the wire at once; `slowly` leaves a node with effects undone.
SLOWLY = st.sampled_from([False, False, False, True])
OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 2), st.sampled_from("abc"), SLOWLY),
    st.tuples(st.just("write"), st.integers(0, 1), st.sampled_from("ab"), st.just(False)),
    st.tuples(st.just("gone"), st.integers(0, 2), st.sampled_from("abc"), SLOWLY),
    st.tuples(st.just("open"), st.integers(0, 2), st.integers(0, 2), SLOWLY),
    st.tuples(st.just("perform"), st.integers(0, 2), st.integers(1, 4), st.just(False)),
    st.tuples(st.just("deliver"), st.integers(0, 7), st.integers(1, 4), SLOWLY),
    st.tuples(st.just("deliver"), st.just(-1), st.integers(1, 6), st.just(False)),
    st.tuples(st.just("lose"), st.integers(0, 7), st.integers(1, 2), st.just(False)),
    st.tuples(st.just("repeat"), st.integers(0, 7), st.just(0), st.just(False)),
    st.tuples(st.just("meet"), st.integers(0, 2), st.integers(0, 2), st.just(False)),
    st.tuples(st.just("wait"), st.integers(1, 6), st.just(0), SLOWLY),
    st.tuples(st.just("crash"), st.integers(0, 2), st.just(0), st.just(False)),
)


def carry_out(group: Any, lab: ModuleType, operation: tuple[str, int, Any, bool], serial: int) -> None:
    what, one, two, slowly = operation
    boxes = group.boxes
    if what == "write":
        boxes[one].write(two, b"%d" % serial, request=serial)
    elif what == "gone":
        boxes[one].write(two, b"", lab.TOMBSTONE, request=serial)
    elif what == "open" and one != two:
        boxes[one].open(boxes[two])
    elif what == "meet" and one != two:
        boxes[one].open(boxes[two])
        group.run()
    elif what == "perform":
        for _ in range(min(two, len(boxes[one].queue))):
            boxes[one].perform()
        return
    elif what == "deliver":
        for _ in range(two):
            if group.wire:
                group.deliver(one % len(group.wire))
                if not slowly:
                    group.perform_all()
    elif what == "lose":
        for _ in range(two):
            if group.wire:
                group.wire.pop(one % len(group.wire))
        return
    elif what == "repeat" and group.wire:
        group.wire.append(group.wire[one % len(group.wire)])
    elif what == "wait":
        let_time_pass(group, one)
    elif what == "crash":
        group.restart(boxes[one])
    if not slowly:
        group.perform_all()


def let_time_pass(group: Any, seconds: int) -> None:
    group.now = group.now.later(float(seconds))
    for at_s, box, timer in list(group.timers):
        if at_s <= group.now.boot_s:
            group.timers.remove((at_s, box, timer))
            if group.boxes[box.number] is box:
                box.due(timer)


def check_frontiers(group: Any, lab: ModuleType) -> None:
    """No frontier claims what is not held: of all that exists, what is live is held below it."""
    in_memory = [record for box in group.boxes for record in box.book.all_records(lab.TOPIC)]
    live = lab.twin([*group.ever.values(), *in_memory], group.retention)
    for box in group.boxes:
        held = {record.digest for record in box.book.all_records(lab.TOPIC)}
        frontiers = {frontier.log: frontier.number for frontier in box.book.summary((lab.TOPIC,))}
        for digest, record in live.items():
            log = box.book._topics[lab.TOPIC].find(record.log)
            if log is not None and record.number <= frontiers[log.name]:
                assert digest in held


@both
@given(operations=st.lists(OPERATION, max_size=60), seed=st.integers(0, 99))
@settings(max_examples=150)
def test_nodes_that_crash_and_lose_messages_become_equal(
    retention: Retention | None, lab: ModuleType, operations: list[Any], seed: int
) -> None:
    group = lab.Lab(3, seed, retention=retention)
    acknowledged: dict[int, tuple[str, int]] = {}
    for serial, operation in enumerate(operations):
        carry_out(group, lab, operation, serial)
        check_frontiers(group, lab)
        for box in group.boxes:
            for concluded in box.concluded:
                acknowledged[concluded.request_id] = (operations[concluded.request_id], concluded.copies)
    group.run()
    group.meet_all()
    assert len(set(group.fingerprints())) == 1
    views = group.views()
    assert views[0] == views[1] == views[2]
    expected = lab.twin(list(group.ever.values()), retention)
    for box in group.boxes:
        assert {record.digest for record in box.book.all_records(lab.TOPIC)} == set(expected)
    bodies = {record.body for record in group.ever.values()}
    for request, (written, copies) in acknowledged.items():
        assert copies >= 1
        if written[0] == "write":
            assert b"%d" % request in bodies


@both
@given(operations=st.lists(OPERATION, max_size=40), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_restart_from_disk_gives_the_same_view(
    retention: Retention | None, lab: ModuleType, operations: list[Any], seed: int
) -> None:
    group = lab.Lab(3, seed, retention=retention)
    for serial, operation in enumerate(operations):
        carry_out(group, lab, operation, serial)
    group.run()
    for box in list(group.boxes):
        before = (lab.contents(box.book), box.book.summary((lab.TOPIC,), hashes=True))
        fresh = group.restart(box)
        assert (lab.contents(fresh.book), fresh.book.summary((lab.TOPIC,), hashes=True)) == before


@both
@given(
    before=st.lists(OPERATION, max_size=15),
    between=st.lists(OPERATION, max_size=15),
    after=st.lists(OPERATION, max_size=20),
    seed=st.integers(0, 99),
)
@settings(max_examples=80)
def test_an_old_disk_that_comes_back_loses_nothing(
    retention: Retention | None,
    lab: ModuleType,
    before: list[Any],
    between: list[Any],
    after: list[Any],
    seed: int,
) -> None:
    group = lab.Lab(3, seed, retention=retention)
    for serial, operation in enumerate(before):
        carry_out(group, lab, operation, serial)
    group.perform_all()
    old = lab.Durable(dict(group.boxes[0].durable.records), dict(group.boxes[0].durable.cells))
    for serial, operation in enumerate(between):
        carry_out(group, lab, operation, 100 + serial)
    group.restart(group.boxes[0], old)
    group.forget_lost()
    group.wire.clear()
    for serial, operation in enumerate(after):
        carry_out(group, lab, operation, 200 + serial)
    group.run()
    group.meet_all()
    group.meet_all()
    assert len(set(group.fingerprints())) == 1
    expected = lab.twin(list(group.ever.values()), retention)
    for box in group.boxes:
        assert {record.digest for record in box.book.all_records(lab.TOPIC)} == set(expected)


def test_the_laboratory_is_deterministic(lab: ModuleType) -> None:
    def run() -> list[bytes]:
        group = lab.Lab(3, 5)
        rng = Random(5)
        for serial in range(60):
            group.boxes[rng.randrange(3)].write(rng.choice("abc"), b"%d" % serial)
            group.run()
        return list(group.fingerprints())

    assert run() == run()
