"""The record book, rule by rule (DESIGN section 4)."""

from __future__ import annotations

from types import ModuleType

import msgspec
import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Notify, Persist, StoreCell, StoreRecord
from colla.kernel.time import Instant
from colla.model.errors import CollaError, InvariantViolation
from colla.model.ids import GroupId
from colla.model.record import Record, SignedRecord, Stamp, sign_record
from colla.protocol.records.book import RecordBook, slot_of
from colla.protocol.records.summary import Segment, log_name

NOTES = "notes"


def numbers(book: RecordBook) -> list[int]:
    return [record.number for record in book.all_records(NOTES)]


def frontier(book: RecordBook) -> list[int]:
    return [one.number for one in book.summary((NOTES,))]


def log_name_of(record: Record) -> bytes:
    return log_name(record.log)


# Writing.


def test_records_are_numbered_signed_and_persisted_with_the_number(lab: ModuleType) -> None:
    book = lab.make_book()
    records, persist_id = book.write(NOTES, [(lab.key("a"), b"1"), (lab.key("b"), b"2")], lab.instant())
    assert [record.number for record in records] == [1, 2]
    (effect,) = book._outbox.drain()
    assert isinstance(effect, Persist) and effect.id == persist_id
    stored = [write for write in effect.writes if isinstance(write, StoreRecord)]
    assert [write.record for write in stored] == [record.signed for record in records]
    assert [write.name for write in effect.writes if isinstance(write, StoreCell)] == ["records/own/notes"]


def test_an_overwrite_replaces_and_has_seen_what_it_replaces(lab: ModuleType) -> None:
    book = lab.make_book()
    book.write(NOTES, [(lab.key("a"), b"1")], lab.instant())
    (second,), _ = book.write(NOTES, [(lab.key("a"), b"2")], lab.instant())
    assert [(entry.log, entry.number) for entry in second.seen] == [(second.log.id, 1)]
    assert numbers(book) == [2]
    assert frontier(book) == [2]


def test_a_node_writes_only_after_it_was_opened(lab: ModuleType) -> None:
    fresh = lab.Lab(1, opened=False).boxes[0].book
    with pytest.raises(CollaError) as caught:
        fresh.write(NOTES, [(lab.key("a"), b"")], lab.instant())
    assert caught.value.code == "not_ready"
    fresh.opened((NOTES,))
    fresh.write(NOTES, [(lab.key("a"), b"")], lab.instant())


def test_a_body_beyond_the_bound_is_refused_before_anything_happens(lab: ModuleType) -> None:
    book = lab.make_book()
    most = RecordConfig().body_bytes_max
    with pytest.raises(CollaError) as caught:
        book.write(NOTES, [(lab.key("a"), b""), (lab.key("b"), b"x" * (most + 1))], lab.instant())
    assert caught.value.code == "too_large"
    assert numbers(book) == [] and book._outbox.drain() == []
    book.write(NOTES, [(lab.key("b"), b"x" * most)], lab.instant())


def test_the_stamp_follows_the_clock_and_what_was_seen(lab: ModuleType) -> None:
    book = lab.make_book()
    (first,), _ = book.write(NOTES, [(lab.key("a"), b"")], Instant(0.0, 50.0))
    assert first.stamp == Stamp(50_000)
    (second,), _ = book.write(NOTES, [(lab.key("a"), b"")], Instant(1.0, 20.0))
    assert second.stamp == Stamp(50_000, 1), "a clock set back does not make an overwrite older"
    (other,), _ = book.write(NOTES, [(lab.key("b"), b"")], Instant(2.0, 21.0))
    assert other.stamp == Stamp(21_000), "the stamp of one key says nothing about another"


def test_a_stamp_at_its_bound_can_be_overwritten_all_the_same(lab: ModuleType) -> None:
    book = lab.make_book()
    last = Stamp(2**48, 2**32)
    book.receive([lab.forge(1, 1, lab.key("a"), b"future", stamp=last).signed], lab.instant())
    (mine,), _ = book.write(NOTES, [(lab.key("a"), b"now")], lab.instant())
    assert mine.stamp == last
    assert book.winner(NOTES, lab.key("a")) == mine, "it has seen the other one, whatever the clocks say"


def test_the_long_seen_keeps_what_matters(lab: ModuleType) -> None:
    config = RecordConfig(seen_entries_max=4)
    book = lab.make_book(config=config)
    for author in range(1, 7):
        book.receive([lab.forge(author, 1, lab.key("a"), b"%d" % author).signed], lab.instant())
    (mine,), _ = book.write(NOTES, [(lab.key("a"), b"")], lab.instant())
    strongest = sorted(lab.log_of(author) for author in range(1, 7))[-4:]
    assert [entry.log for entry in mine.seen] == strongest, "equal stamps: the highest log ids rank first"


# Concurrency.


def test_concurrent_records_are_both_kept_and_the_later_stamp_wins(lab: ModuleType) -> None:
    book = lab.make_book()
    early = lab.forge(1, 1, lab.key("a"), b"early", stamp=Stamp(10))
    late = lab.forge(2, 1, lab.key("a"), b"late", stamp=Stamp(11))
    book.receive([late.signed, early.signed], lab.instant())
    assert book.concurrent(NOTES, lab.key("a")) == (late, early)


def test_equal_stamps_are_decided_by_the_log_id(lab: ModuleType) -> None:
    book = lab.make_book()
    low = lab.forge(1, 1, lab.key("a"), log=b"\x01" * 16, stamp=Stamp(5))
    high = lab.forge(2, 1, lab.key("a"), log=b"\x02" * 16, stamp=Stamp(5))
    book.receive([high.signed, low.signed], lab.instant())
    assert book.winner(NOTES, lab.key("a")) == high


def test_what_was_seen_is_dominated_whatever_the_stamps_say(lab: ModuleType) -> None:
    book = lab.make_book()
    old = lab.forge(1, 1, lab.key("a"), b"old", stamp=Stamp(1000))
    new = lab.forge(2, 1, lab.key("a"), b"new", stamp=Stamp(1), seen={lab.log_of(1): 1})
    book.receive([old.signed, new.signed], lab.instant())
    assert book.concurrent(NOTES, lab.key("a")) == (new,)
    assert book.versions(NOTES, lab.key("a")) == tuple(sorted((old, new), key=lambda one: one.log))


def test_domination_survives_the_record_in_between(lab: ModuleType) -> None:
    """b has seen a, c has seen b: whoever never met b still knows that c is later than a."""
    one, two, three = lab.make_book(1), lab.make_book(2), lab.make_book(3)
    about = lab.key("a")
    (a,), _ = one.write(NOTES, [(about, b"a")], lab.instant())
    two.receive([a.signed], lab.instant())
    (b,), _ = two.write(NOTES, [(about, b"b")], lab.instant())
    three.receive([b.signed], lab.instant())
    (c,), _ = three.write(NOTES, [(about, b"c")], lab.instant())
    # Three never met a, but b told that a was seen; it hands on only what it has heard of itself.
    four = lab.make_book(4)
    four.receive([c.signed, a.signed, b.signed], lab.instant())
    assert [record.body for record in four.concurrent(NOTES, about)] == [b"c"]


def test_a_lie_about_the_future_is_not_handed_on(lab: ModuleType) -> None:
    """A member claims to have seen a million records of another's log: honest overwrites do not repeat that."""
    book = lab.make_book()
    about = lab.key("a")
    honest = lab.forge(1, 1, about, b"honest")
    lie = lab.forge(2, 1, about, b"lie", seen={lab.log_of(1): 1_000_000})
    book.receive([honest.signed, lie.signed], lab.instant())
    (mine,), _ = book.write(NOTES, [(about, b"mine")], lab.instant())
    assert {entry.log: entry.number for entry in mine.seen}[lab.log_of(1)] == 1


def test_a_circle_of_liars_still_has_a_winner(lab: ModuleType) -> None:
    book = lab.make_book()
    one = lab.forge(1, 1, lab.key("a"), seen={lab.log_of(2): 1}, stamp=Stamp(1))
    two = lab.forge(2, 1, lab.key("a"), seen={lab.log_of(1): 1}, stamp=Stamp(2))
    book.receive([one.signed, two.signed], lab.instant())
    assert book.concurrent(NOTES, lab.key("a")) == (two, one)


# Tombstones.


def test_a_tombstone_takes_the_earlier_records_of_its_subject_along(lab: ModuleType) -> None:
    book = lab.make_book()
    book.write(
        NOTES, [(lab.key("a"), b"1"), (lab.key("a", "other"), b"2"), (lab.key("b"), b"3")], lab.instant()
    )
    book.write(NOTES, [(lab.key("a", "gone"), b"")], lab.instant())
    assert [(record.key.kind, record.number) for record in book.all_records(NOTES)] == [
        ("note", 3),
        ("gone", 4),
    ]
    assert frontier(book) == [4]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_tombstone_beats_what_comes_late(lab: ModuleType, order: tuple[int, int]) -> None:
    book = lab.make_book()
    pair = [lab.forge(1, 1, lab.key("a"), b"x"), lab.forge(1, 2, lab.key("a", "gone"))]
    for place in order:
        book.receive([pair[place].signed], lab.instant())
    assert [record.key.kind for record in book.all_records(NOTES)] == ["gone"]
    assert frontier(book) == [2]


# Frontiers.


def test_a_record_ahead_of_a_gap_is_applied_but_moves_no_frontier(lab: ModuleType) -> None:
    book = lab.make_book()
    three = lab.forge(1, 3, lab.key("c"), b"3")
    received = book.receive([three.signed], lab.instant())
    assert [change.key for change in received.changes] == [lab.key("c")]
    assert book.winner(NOTES, lab.key("c")) == three
    assert frontier(book) == [0]
    book.receive([lab.forge(1, 1, lab.key("a")).signed], lab.instant())
    assert frontier(book) == [1]
    book.receive([lab.forge(1, 2, lab.key("b")).signed], lab.instant())
    assert frontier(book) == [3]


def test_a_segment_moves_the_frontier_over_what_is_no_longer_live(lab: ModuleType) -> None:
    book = lab.make_book()
    seven = lab.forge(1, 7, lab.key("a"), b"7", seen={lab.log_of(1): 6})
    name = log_name_of(seven)
    book.receive_segments((Segment(name, 0, 7),), [seven.signed], (NOTES,), lab.instant())
    assert frontier(book) == [7]


def test_a_peers_word_alone_moves_nothing(lab: ModuleType) -> None:
    """A segment that claims more than the author ever signed."""
    book = lab.make_book()
    one = lab.forge(1, 1, lab.key("a"))
    book.receive_segments((Segment(log_name_of(one), 0, 10**9),), [one.signed], (NOTES,), lab.instant())
    assert frontier(book) == [1]
    book.receive_segments((Segment(b"?" * 16, 0, 10**9),), [], (NOTES,), lab.instant())
    assert frontier(book) == [1]


def test_a_segment_with_a_forged_record_moves_nothing(lab: ModuleType) -> None:
    book = lab.make_book()
    one, three = lab.forge(1, 1, lab.key("a")), lab.forge(1, 3, lab.key("c"))
    bad = lab.tamper(lab.forge(1, 2, lab.key("b")), body=b"forged")
    received = book.receive_segments(
        (Segment(log_name_of(one), 0, 3),), [one.signed, bad, three.signed], (NOTES,), lab.instant()
    )
    assert received.rejected == 1
    assert numbers(book) == [1, 3]
    assert frontier(book) == [1]


def test_a_segment_behind_a_gap_moves_nothing(lab: ModuleType) -> None:
    book = lab.make_book()
    five = lab.forge(1, 5, lab.key("e"))
    book.receive_segments((Segment(log_name_of(five), 4, 5),), [five.signed], (NOTES,), lab.instant())
    assert frontier(book) == [0]


def test_what_is_below_the_frontier_and_missing_is_applied_when_it_comes(lab: ModuleType) -> None:
    book = lab.make_book()
    three = lab.forge(1, 3, lab.key("c"))
    book.receive_segments((Segment(log_name_of(three), 0, 3),), [three.signed], (NOTES,), lab.instant())
    assert frontier(book) == [3]
    missing = lab.forge(1, 2, lab.key("b"))
    assert book.receive([missing.signed], lab.instant()).changes
    assert book.winner(NOTES, lab.key("b")) == missing


def test_numbers_ahead_are_bounded(lab: ModuleType) -> None:
    book = lab.make_book(config=RecordConfig(ahead_numbers_max=2))
    for number in (3, 4, 5, 2):
        book.receive([lab.forge(1, number, lab.key(str(number))).signed], lab.instant())
    book.receive([lab.forge(1, 1, lab.key("1")).signed], lab.instant())
    # The numbers of 5 and 2 were forgotten, their records were not; a session moves the frontier on.
    assert numbers(book) == [1, 2, 3, 4, 5]
    assert frontier(book) == [1]


# What is rejected.


def bad_records(lab: ModuleType) -> dict[str, tuple[str, SignedRecord]]:
    good = lab.forge(1, 1, lab.key("a"), b"x")
    config = RecordConfig()
    long_seen = {b"%016d" % place: 1 for place in range(config.seen_entries_max + 1)}
    return {
        "tampered": ("bad_signature", lab.tamper(good, body=b"y")),
        "foreign_group": ("bad_signature", lab.forge(1, 1, lab.key("a"), group=GroupId(b"?" * 32)).signed),
        "garbage": ("malformed", SignedRecord(b"\xc1garbage", b"s" * 64)),
        "empty": ("malformed", SignedRecord(b"", b"")),
        "short_signature": ("malformed", SignedRecord(good.signed.payload, b"s" * 63)),
        "too_long": ("malformed", lab.forge(1, 1, lab.key("a"), b"x" * (config.body_bytes_max + 1)).signed),
        "payload_too_long": ("malformed", SignedRecord(b"\x00" * 1_000_000, b"s" * 64)),
        "number_zero": ("malformed", lab.forge(1, 0, lab.key("a")).signed),
        "number_huge": ("malformed", lab.forge(1, 2**60, lab.key("a")).signed),
        "stamp_huge": ("malformed", lab.forge(1, 1, lab.key("a"), stamp=Stamp(2**60)).signed),
        "stamp_negative": ("malformed", lab.forge(1, 1, lab.key("a"), stamp=Stamp(-1)).signed),
        "seen_itself": ("malformed", lab.forge(1, 1, lab.key("a"), seen={lab.log_of(1): 1}).signed),
        "seen_too_long": ("malformed", lab.forge(1, 1, lab.key("a"), seen=long_seen).signed),
        "seen_short_id": ("malformed", lab.forge(1, 1, lab.key("a"), seen={b"x": 1}).signed),
        "log_id_short": ("malformed", lab.forge(1, 1, lab.key("a"), log=b"x").signed),
        "kind_empty": ("malformed", lab.forge(1, 1, lab.key("a", "")).signed),
        "kind_long": ("malformed", lab.forge(1, 1, lab.key("a", "k" * 33)).signed),
        "subject_long": ("malformed", lab.forge(1, 1, lab.key("s" * 65)).signed),
        "other_topic": ("other_topic", lab.forge(1, 1, lab.key("a"), topic="unheard").signed),
        "invalid_body": ("invalid_body", lab.forge(1, 1, lab.key("a"), b"invalid").signed),
    }


BAD = [
    "tampered",
    "foreign_group",
    "garbage",
    "empty",
    "short_signature",
    "too_long",
    "payload_too_long",
    "number_zero",
    "number_huge",
    "stamp_huge",
    "stamp_negative",
    "seen_itself",
    "seen_too_long",
    "seen_short_id",
    "log_id_short",
    "kind_empty",
    "kind_long",
    "subject_long",
    "other_topic",
    "invalid_body",
]


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_rejected_counted_and_leave_no_trace(lab: ModuleType, case: str) -> None:
    cases = bad_records(lab)
    assert sorted(cases) == sorted(BAD)
    why, bad = cases[case]
    book = lab.make_book()
    good = lab.forge(2, 1, lab.key("b"))
    received = book.receive([bad, good.signed], lab.instant())
    assert received.rejected == 1
    assert book.rejections == {why: 1}
    assert [record.digest for record in book.all_records(NOTES)] == [good.digest], (
        "the others are not held up"
    )


def test_an_unsorted_seen_is_malformed(lab: ModuleType) -> None:
    good = lab.forge(1, 2, lab.key("a"), seen={b"a" * 16: 1, b"b" * 16: 1})
    content = msgspec.structs.replace(good.content, seen=tuple(reversed(good.content.seen)))
    bad = sign_record(lab.GROUP, lab.secret(1), content)
    book = lab.make_book()
    assert book.receive([bad.signed], lab.instant()).rejected == 1
    assert book.rejections == {"malformed": 1}


def test_unknown_kinds_are_kept_and_forwarded(lab: ModuleType) -> None:
    book = lab.make_book()
    strange = lab.forge(1, 1, lab.key("a", "from-the-future"), b"\xc1 not even msgpack")
    assert book.receive([strange.signed], lab.instant()).rejected == 0
    name = log_name_of(strange)
    assert book.segments([Segment(name, 0, 1)], (NOTES,), 10_000, 10).records == (strange.signed,)


def test_records_of_unknown_authors_are_held_within_a_bound(lab: ModuleType) -> None:
    book = lab.make_book(config=RecordConfig(unknown_authors_bytes_max=600))
    members = {lab.secret(1).public}
    book.judge_authors(lambda node: node in members)
    strangers = [lab.forge(2, number, lab.key(str(number)), b"x" * 40) for number in range(1, 8)]
    received = book.receive([record.signed for record in strangers], lab.instant())
    assert 0 < received.rejected < 7
    assert book.rejections == {"unknown_author": received.rejected}
    assert book.receive([lab.forge(1, 1, lab.key("m")).signed], lab.instant()).rejected == 0
    members.add(lab.secret(2).public)
    assert book.receive([record.signed for record in strangers], lab.instant()).rejected == 0
    assert len(numbers(book)) == 8


def test_a_log_id_that_another_node_uses_too_is_another_log(lab: ModuleType) -> None:
    book = lab.make_book()
    theirs = lab.forge(1, 1, lab.key("a"), b"theirs")
    copied = lab.forge(2, 1, lab.key("a"), b"copied", log=lab.log_of(1))
    book.receive([copied.signed, theirs.signed], lab.instant())
    assert len(book.summary((NOTES,))) == 2
    assert theirs in book.concurrent(NOTES, lab.key("a"))


def test_a_topic_is_registered_once_and_before_use(lab: ModuleType) -> None:
    book = lab.make_book()
    with pytest.raises(InvariantViolation):
        book.register(NOTES, lab.accept)
    with pytest.raises(InvariantViolation):
        book.keys("unheard", "note")


# The disk.


def test_duplicates_are_not_written_again(lab: ModuleType) -> None:
    book = lab.make_book()
    one = lab.forge(1, 1, lab.key("a"))
    assert book.receive([one.signed, one.signed], lab.instant()).persist_id is not None
    again = book.receive([one.signed], lab.instant())
    assert again.persist_id is None and again.changes == []


def test_what_comes_and_goes_in_one_step_never_reaches_the_disk(lab: ModuleType) -> None:
    book = lab.make_book()
    one = lab.forge(1, 1, lab.key("a"), b"1")
    two = lab.forge(1, 2, lab.key("a"), b"2", seen={lab.log_of(1): 1})
    book.receive([one.signed, two.signed], lab.instant())
    (effect,) = book._outbox.drain()
    assert isinstance(effect, Persist)
    records = [write for write in effect.writes if not isinstance(write, StoreCell)]
    assert records == [StoreRecord(NOTES, slot_of(two.signed), two.signed)]


def test_a_restart_restores_records_frontiers_and_numbers(lab: ModuleType) -> None:
    durable = Durable({}, {})
    book = lab.make_book(0, durable)
    book.write(NOTES, [(lab.key("a"), b"1"), (lab.key("a"), b"2")], lab.instant())
    seven = lab.forge(1, 7, lab.key("z"))
    book.receive_segments((Segment(log_name_of(seven), 0, 7),), [seven.signed], (NOTES,), lab.instant())
    lab.persist(book, durable)
    again = lab.make_book(0, durable)
    assert lab.contents(again) == lab.contents(book)
    assert again.summary((NOTES,), hashes=True) == book.summary((NOTES,), hashes=True)
    assert sorted(frontier(again)) == [2, 7]
    (third,), _ = again.write(NOTES, [(lab.key("a"), b"3")], lab.instant())
    assert third.number == 3
    assert third.log in {record.log for record in book.all_records(NOTES)}


@pytest.mark.parametrize("damage", ["payload", "signature", "nothing_left"])
def test_damage_on_the_disk_is_seen_and_claims_nothing(lab: ModuleType, damage: str) -> None:
    durable = Durable({}, {})
    book = lab.make_book(0, durable)
    theirs = [lab.forge(1, number, lab.key(str(number)), b"theirs") for number in (1, 2, 3)]
    book.receive([record.signed for record in theirs], lab.instant())
    book.write(NOTES, [(lab.key("own"), b"x")], lab.instant())
    lab.persist(book, durable)
    place = (NOTES, slot_of(theirs[1].signed))
    signed = durable.records[place]
    durable.records[place] = {
        "payload": SignedRecord(signed.payload[:-1] + b"?", signed.signature),
        "signature": SignedRecord(signed.payload, b"?" * 64),
        "nothing_left": SignedRecord(b"", b""),
    }[damage]
    again = lab.make_book(0, durable)
    effects = again._outbox.drain()
    assert [effect.notice.kind for effect in effects if isinstance(effect, Notify)] == ["records_damaged"]
    for effect in effects:
        if isinstance(effect, Persist):
            durable.apply(effect.writes)
    assert place not in durable.records
    assert not any(name.startswith("records/frontier/") for name in durable.cells)
    by_log = {one.log: one.number for one in again.summary((NOTES,))}
    assert by_log[log_name_of(theirs[0])] == 1, "of 1 and 3, only 1 is contiguous"
    (fresh,), _ = again.write(NOTES, [(lab.key("own"), b"y")], lab.instant())
    assert fresh.number == 1, "nobody knows which own records are lost: a new log"


@pytest.mark.parametrize(
    "cell", [b"", b"\xc1", b"\x93\xc4\x01x\x01\x01", b"\x93\xc4\x10" + b"x" * 16 + b"\x01\x05"]
)
def test_a_damaged_cell_means_a_new_log(lab: ModuleType, cell: bytes) -> None:
    durable = Durable({}, {})
    book = lab.make_book(0, durable)
    (old,), _ = book.write(NOTES, [(lab.key("a"), b"1")], lab.instant())
    lab.persist(book, durable)
    durable.cells["records/own/notes"] = cell
    again = lab.make_book(0, durable)
    assert again.winner(NOTES, lab.key("a")) == old
    (new,), _ = again.write(NOTES, [(lab.key("a"), b"2")], lab.instant())
    assert new.log != old.log and new.number == 1
    assert again.winner(NOTES, lab.key("a")) == new
