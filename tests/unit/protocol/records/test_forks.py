"""An old disk comes back: both branches of the log live on, and the node opens a new log (DESIGN section 4)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from colla.kernel.durable import Durable

NOTES = "notes"


def copy(durable: Durable) -> Durable:
    return Durable(dict(durable.records), dict(durable.cells))


def forked(lab: ModuleType, lost: list[tuple[str, bytes]], anew: list[tuple[str, bytes]]) -> Any:
    """Two nodes; the first writes `lost` while its neighbour listens, gets its old disk back, writes `anew` alone."""
    group = lab.Lab(2)
    first, second = group.boxes
    first.write("common", b"common")
    group.run()
    group.meet(first, second)
    group.run()
    old = copy(first.durable)
    for name, body in lost:
        first.write(name, body)
    group.run()
    first = group.restart(first, old)
    group.lose = lambda sender, receiver, message: True
    for name, body in anew:
        first.write(name, body)
    group.run()
    group.lose = lambda sender, receiver, message: False
    return group


def bodies(box: Any, lab: ModuleType, name: str) -> list[bytes]:
    return [record.body for record in box.book.concurrent(NOTES, lab.key(name))]


@pytest.mark.parametrize("opener", [0, 1])
def test_both_branches_live_on_as_concurrent(lab: ModuleType, opener: int) -> None:
    group = forked(lab, [("a", b"lost a"), ("b", b"lost b")], [("a", b"new a"), ("c", b"new c")])
    group.meet(group.boxes[opener], group.boxes[1 - opener])
    group.meet_all()
    for box in group.boxes:
        assert set(bodies(box, lab, "a")) == {b"lost a", b"new a"}
        assert set(bodies(box, lab, "b")) == {b"lost b"}
        assert set(bodies(box, lab, "c")) == {b"new c"}
        assert set(bodies(box, lab, "common")) == {b"common"}
    assert len(set(group.fingerprints())) == 1
    assert group.boxes[0].notices.count("log_forked") == 1


def test_a_shorter_branch_is_kept_too(lab: ModuleType) -> None:
    """The lost branch went on with the key that the new one wrote: it must not swallow it."""
    group = forked(lab, [("a", b"lost 1"), ("a", b"lost 2"), ("a", b"lost 3")], [("a", b"new")])
    group.meet_all()
    for box in group.boxes:
        assert set(bodies(box, lab, "a")) == {b"lost 3", b"new"}


def test_a_longer_branch_does_not_swallow_other_keys(lab: ModuleType) -> None:
    group = forked(lab, [("b", b"lost b")], [("a", b"new 1"), ("a", b"new 2"), ("c", b"new c")])
    group.meet_all()
    for box in group.boxes:
        assert bodies(box, lab, "b") == [b"lost b"]
        assert set(bodies(box, lab, "a")) == {b"new 2"}


def test_the_node_goes_on_in_a_new_log_and_may_settle_the_conflict(lab: ModuleType) -> None:
    group = forked(lab, [("a", b"lost a")], [("a", b"new a")])
    group.meet_all()
    first = group.boxes[0]
    old_logs = {record.log for record in first.book.all_records(NOTES)}
    first.write("a", b"settled")
    group.run()
    group.meet_all()
    for box in group.boxes:
        assert bodies(box, lab, "a") == [b"settled"]
    (winner,) = first.book.concurrent(NOTES, lab.key("a"))
    assert winner.log in old_logs and winner.number == 2, "the second record of the log opened at the fork"


def test_an_old_disk_without_a_new_branch_gets_everything_back(lab: ModuleType) -> None:
    group = forked(lab, [("a", b"lost a"), ("b", b"lost b")], [])
    group.meet(group.boxes[0], group.boxes[1])
    first = group.boxes[0]
    assert bodies(first, lab, "a") == [b"lost a"] and bodies(first, lab, "b") == [b"lost b"]
    first.write("c", b"c")
    group.run()
    (written,) = first.book.concurrent(NOTES, lab.key("c"))
    assert written.number == 1, "others may know more of the old log: never write to it again"
    assert len(set(group.fingerprints())) == 1


def test_what_was_confirmed_is_not_said_again(lab: ModuleType) -> None:
    group = forked(lab, [("a", b"lost")], [("a", b"new")])
    group.meet_all()
    commons = group.boxes[1].book.versions(NOTES, lab.key("common"))
    assert len(commons) == 1


def test_own_records_that_come_back_late_are_no_fork(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first = group.boxes[0]
    first.write("a", b"1")
    (early,) = first.book.all_records(NOTES)
    first.write("a", b"2")
    first.book.receive([early.signed, *[one.signed for one in first.book.all_records(NOTES)]], group.now)
    first.write("a", b"3")
    group.run()
    assert [record.number for record in first.book.all_records(NOTES)] == [3]
    assert first.notices == []


def test_a_forked_node_that_crashes_at_once_has_not_forgotten(lab: ModuleType) -> None:
    """The new log and what is said again in it are durable together."""
    group = forked(lab, [("a", b"lost a")], [("a", b"new a")])
    first, second = group.boxes
    first.open(second)
    while not any(kind == "log_forked" for kind in first.notices):
        group.perform_all()
        if group.wire:
            group.deliver()
    log_before = {record.log for record in first.book.all_records(NOTES)}
    first = group.restart(first)
    assert {record.log for record in first.book.all_records(NOTES)} == log_before
    group.meet_all()
    assert set(bodies(first, lab, "a")) == {b"lost a", b"new a"}
    assert len(set(group.fingerprints())) == 1
