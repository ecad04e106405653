"""Acknowledged writes: durable on min(2, present nodes), and the answer says on how many."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.effects import Persist
from colla.model.errors import CollaError
from colla.protocol.multicast.multicast import Carried
from colla.protocol.records.writes import Held, RecordsNews, WriteConcluded

NOTES = "notes"


def concluded(box: Any) -> list[tuple[int | None, int]]:
    return [(one.request_id, one.copies) for one in box.concluded]


def test_a_write_is_concluded_when_a_second_node_holds_it(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.write("a", b"x", request=7)
    assert concluded(first) == []
    group.run()
    assert concluded(first) == [(7, 2)]
    assert lab.contents(second.book) == lab.contents(first.book)


def test_alone_one_copy_is_all_there_can_be(lab: ModuleType) -> None:
    group = lab.Lab(1)
    (only,) = group.boxes
    only.write("a", request=7)
    assert concluded(only) == [], "it is not on the disk yet"
    only.perform()
    assert concluded(only) == [(7, 1)]


def test_the_copy_counts_only_when_it_is_on_the_other_disk(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    first.write("a", request=7)
    while first.queue:
        first.perform()
    group.deliver()
    assert isinstance(second.queue[0], Persist)
    second.perform()
    assert second.durable.records == first.durable.records
    second.perform()
    (held,) = [message for _, _, message in (group.deliver(),)]
    assert isinstance(held, Held)
    assert concluded(first) == [(7, 2)]


def test_nothing_leaves_before_it_is_durable_here(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first = group.boxes[0]
    first.write("a", request=7)
    assert isinstance(first.queue[0], Persist)


def test_without_an_answer_the_write_is_concluded_after_a_while_and_says_so(lab: ModuleType) -> None:
    group = lab.Lab(3)
    first = group.boxes[0]
    group.lose = lambda sender, receiver, message: True
    first.write("a", request=7)
    group.run()
    assert concluded(first) == []
    group.pass_time(group.config.copies_timeout_s + 0.1)
    assert concluded(first) == [(7, 1)]
    group.pass_time(10)
    assert concluded(first) == [(7, 1)], "once"


def test_a_late_disk_is_waited_for(lab: ModuleType) -> None:
    group = lab.Lab(1)
    (only,) = group.boxes
    only.write("a", request=7)
    persist = only.queue.pop(0)
    group.perform_all()
    group.pass_time(10)
    assert concluded(only) == []
    only.writes.persisted(persist.id, group.now)
    assert only.writes.concluded() == [WriteConcluded(7, 1)]


def test_a_failed_disk_concludes_with_no_copy(lab: ModuleType) -> None:
    group = lab.Lab(1)
    (only,) = group.boxes
    only.write("a", request=7)
    only.writes.persist_failed(only.queue[0].id)
    assert only.writes.concluded() == [WriteConcluded(7, 0)]
    only.writes.persist_failed(12345)
    assert only.writes.concluded() == []


def test_only_some_are_asked_and_all_are_told(lab: ModuleType) -> None:
    group = lab.Lab(8)
    first = group.boxes[0]
    asked = []
    group.lose = lambda sender, receiver, message: (
        (
            asked.append(message) if isinstance(message, Held) else None  # type: ignore[func-returns-value]
        )
        or False
    )
    first.write("a", request=7)
    group.run()
    assert len(asked) == group.config.copies_asked
    assert len(set(group.fingerprints())) == 1
    assert concluded(first) == [(7, 2)]


def test_one_who_was_not_asked_is_not_counted(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    group.lose = lambda sender, receiver, message: True
    first.write("a", request=7)
    group.run()
    (record,) = first.book.all_records(NOTES)
    stranger = lab.Lab(3).boxes[2]
    first.receive(stranger.id, Held(record.log.id, (record.number,)))
    first.receive(second.id, Held(record.log.id, (99,)))
    assert concluded(first) == []
    first.receive(second.id, Held(record.log.id, (record.number,)))
    assert concluded(first) == [(7, 2)]


def test_a_write_of_several_records_needs_all_of_them_elsewhere(lab: ModuleType) -> None:
    config = RecordConfig(multicast_batch_records_max=2)
    group = lab.Lab(2, config=config)
    first, second = group.boxes
    items = [(lab.key(name), name.encode()) for name in "abc"]
    changes = first.writes.submit(7, NOTES, items, [second.id], group.now)
    first.take_up()
    assert [change.key for change in changes] == [key for key, _ in items]
    group.perform_all()
    assert len(group.wire) == 2, "three records in batches of two"
    group.deliver(1)
    group.perform_all()
    group.deliver(1)
    assert concluded(first) == [], "only one of two batches is held"
    group.run()
    assert concluded(first) == [(7, 2)]


def test_batches_fit_into_frames(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    items = [(lab.key(str(number)), b"x" * 40_000) for number in range(8)]
    first.writes.submit(7, NOTES, items, [second.id], group.now)
    first.take_up()
    group.run()
    assert concluded(first) == [(7, 2)]
    assert len(second.book.all_records(NOTES)) == 8


def test_no_items_are_written_at_once(lab: ModuleType) -> None:
    (only,) = lab.Lab(1).boxes
    only.writes.submit(7, NOTES, [], [], only.lab.now)
    assert only.writes.concluded() == [WriteConcluded(7, 1)]
    assert only.outbox.drain() == []


def test_too_many_writes_on_their_way_are_refused(lab: ModuleType) -> None:
    (only,) = lab.Lab(1, config=RecordConfig(writes_pending_max=2)).boxes
    only.write("a", request=1)
    only.write("b", request=2)
    with pytest.raises(CollaError) as caught:
        only.write("c", request=3)
    assert caught.value.code == "busy"
    assert len(only.book.all_records(NOTES)) == 2
    only.lab.run()
    only.write("c", request=3)


def test_news_with_too_many_records_are_dropped(lab: ModuleType) -> None:
    group = lab.Lab(2, config=RecordConfig(multicast_batch_records_max=2))
    first, second = group.boxes
    signed = tuple(lab.forge(5, number, lab.key(str(number))).signed for number in (1, 2, 3))
    news = RecordsNews(signed, True)
    second.receive(first.id, Carried(first.id, group.codec.encode(news)))
    assert lab.contents(second.book) == []
    group.run()
    assert second.notices == ["peer_misbehaved"]


def test_rejected_news_are_not_acknowledged(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    bad = lab.tamper(lab.forge(0, 1, lab.key("a")), body=b"forged")
    good = lab.forge(0, 2, lab.key("b"))
    second.receive(first.id, Carried(first.id, group.codec.encode(RecordsNews((bad, good.signed), True))))
    sent = [effect.message for effect in second.queue if hasattr(effect, "message")]
    assert sent == [Held(good.log.id, (2,))]


def test_news_that_were_known_are_acknowledged_again(lab: ModuleType) -> None:
    group = lab.Lab(2)
    first, second = group.boxes
    good = lab.forge(0, 1, lab.key("b"))
    for _ in range(2):
        second.receive(first.id, Carried(first.id, group.codec.encode(RecordsNews((good.signed,), True))))
    sent = [effect.message for effect in second.queue if hasattr(effect, "message")]
    assert sent == [Held(good.log.id, (1,))] * 2


@pytest.mark.parametrize("cut", range(12))
def test_a_crash_between_any_two_effects_loses_nothing_acknowledged(lab: ModuleType, cut: int) -> None:
    """The author crashes after `cut` effects; what it had answered is there, and no number is given twice."""
    group = lab.Lab(2)
    first, second = group.boxes
    for number in range(4):
        first.write("abca"[number], b"%d" % number, request=number)
    for _ in range(min(cut, len(first.queue))):
        first.perform()
        while group.wire:
            group.deliver()
            while second.queue:
                second.perform()
    answered = [one.request_id for one in first.concluded]
    first = group.restart(first)
    held = {record.body for record in group.ever.values()}
    assert all(b"%d" % request in held for request in answered)
    first.write("d", b"after", request=9)
    group.run()
    group.meet_all()
    assert len(set(group.fingerprints())) == 1
    assert first.notices == [] and second.notices == []
    by_number = [record.number for record in group.ever.values()]
    assert len(by_number) == len(set(by_number))
