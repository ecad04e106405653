"""Placing, keeping and forgetting copies of objects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import FetchObject, ForgetObject, Send
from colla.kernel.events import FetchFailed, ObjectFetched
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.keeping import CopyKeeping
from colla.protocol.copies.messages import CopyAnswer, KeepCopy, PlacingDue
from colla.protocol.copies.placing import CopiesPlaced, CopyPlacing
from colla.protocol.copies.upkeep import Upkeep

OBJECT = ObjectId(b"o" * 32)
NOW = Instant(100.0, 1_000_000.0)
CONFIG = CopiesConfig()
LATE = NOW.later(CONFIG.put_timeout_s)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


def asked(outbox: Outbox) -> list[NodeId]:
    """Whom the placing asked since the last look."""
    return [
        effect.to
        for effect in outbox.drain()
        if isinstance(effect, Send) and isinstance(effect.message, KeepCopy)
    ]


def fetches(outbox: Outbox) -> list[FetchObject]:
    """What is to be fetched since the last look."""
    return [effect for effect in outbox.drain() if isinstance(effect, FetchObject)]


def begin(outbox: Outbox, candidates: list[NodeId], wanted: int = 3) -> tuple[CopyPlacing, int]:
    placing = CopyPlacing(CONFIG, outbox)
    nonce, placed = placing.begin(OBJECT, 10, wanted, candidates, [node(0)], (node(0),), NOW)
    assert placed is None
    return placing, nonce


def test_a_placing_asks_as_many_as_are_missing_and_concludes_when_they_kept() -> None:
    outbox = Outbox(1)
    placing, nonce = begin(outbox, [node(1), node(2), node(3)])
    assert asked(outbox) == [node(1), node(2)]
    assert placing.answered(node(1), CopyAnswer(OBJECT, nonce, True), NOW) is None
    placed = placing.answered(node(2), CopyAnswer(OBJECT, nonce, True), NOW)
    assert placed == CopiesPlaced(nonce, OBJECT, (node(0), node(1), node(2)), 3, ())


def test_who_refuses_or_is_silent_or_gone_is_replaced_by_the_next() -> None:
    outbox = Outbox(1)
    placing, nonce = begin(outbox, [node(1), node(2), node(3), node(4), node(5)])
    asked(outbox)
    assert placing.answered(node(1), CopyAnswer(OBJECT, nonce, False, "full"), NOW) is None
    assert asked(outbox) == [node(3)]
    assert placing.drop(lambda other: other == node(2), NOW) == []
    assert asked(outbox) == [node(4)]
    assert placing.due(PlacingDue(nonce, 3), LATE) is None
    assert asked(outbox) == [node(5)]
    placed = placing.answered(node(5), CopyAnswer(OBJECT, nonce, True), NOW)
    assert placed is not None
    assert placed.holders == (node(0), node(5))
    assert placed.reasons == ("full", "no answer in time", "no answer in time")


def test_a_timer_of_an_earlier_round_is_stale() -> None:
    outbox = Outbox(1)
    placing, nonce = begin(outbox, [node(1), node(2), node(3)])
    placing.answered(node(1), CopyAnswer(OBJECT, nonce, False, "full"), NOW)
    asked(outbox)
    assert placing.due(PlacingDue(nonce, 1), NOW) is None
    assert asked(outbox) == []


def test_answers_of_others_count_for_nothing() -> None:
    outbox = Outbox(1)
    placing, nonce = begin(outbox, [node(1)], wanted=2)
    assert placing.answered(node(9), CopyAnswer(OBJECT, nonce, True), NOW) is None
    assert placing.answered(node(1), CopyAnswer(ObjectId(b"x" * 32), nonce, True), NOW) is None
    placed = placing.answered(node(1), CopyAnswer(OBJECT, nonce, True), NOW)
    assert placed is not None
    assert placing.answered(node(1), CopyAnswer(OBJECT, nonce, True), NOW) is None


@given(st.lists(st.sampled_from(["kept", "refused", "silent"]), min_size=6, max_size=6), st.integers(1, 5))
def test_a_placing_concludes_once_with_as_many_copies_as_there_can_be(fates: list[str], wanted: int) -> None:
    outbox = Outbox(1)
    placing = CopyPlacing(CONFIG, outbox)
    candidates = [node(number) for number in range(1, 7)]
    nonce, placed = placing.begin(OBJECT, 10, wanted, candidates, [], (node(0),), NOW)
    concluded = [placed] if placed is not None else []
    rounds = 0
    waiting = asked(outbox)
    while waiting or not concluded:
        rounds += 1
        for peer in waiting:
            fate = fates[peer[0] - 1]
            if fate != "silent":
                done = placing.answered(peer, CopyAnswer(OBJECT, nonce, fate == "kept", fate), NOW)
                concluded += [done] if done is not None else []
        waiting = asked(outbox)
        for number in range(1, 20):
            if waiting or concluded:
                break
            late = placing.due(PlacingDue(nonce, number), NOW.later(rounds * CONFIG.put_timeout_s))
            concluded += [late] if late is not None else []
            waiting = asked(outbox)
        assert rounds < 50
    assert len(concluded) == 1
    assert len(concluded[0].holders) == min(wanted, fates.count("kept"))


def test_a_copy_is_fetched_once_for_all_who_asked_and_all_are_answered() -> None:
    outbox, holdings = Outbox(1), Holdings([])
    keeping = CopyKeeping(CONFIG, outbox, holdings, lambda: 1000)
    keeping.asked(node(1), KeepCopy(OBJECT, 10, (node(1),), 7), NOW)
    keeping.asked(node(2), KeepCopy(OBJECT, 10, (node(1),), 8), NOW)
    (fetch,) = fetches(outbox)
    assert keeping.fetched(ObjectFetched(fetch.id, OBJECT, 10))
    answers = [(effect.to, effect.message) for effect in outbox.drain() if isinstance(effect, Send)]
    assert answers == [(node(1), CopyAnswer(OBJECT, 7, True)), (node(2), CopyAnswer(OBJECT, 8, True))]


def test_a_failed_fetch_refuses_and_may_be_asked_again() -> None:
    outbox = Outbox(1)
    keeping = CopyKeeping(CONFIG, outbox, Holdings([]), lambda: 1000)
    keeping.asked(node(1), KeepCopy(OBJECT, 10, (node(1),), 7), NOW)
    (fetch,) = fetches(outbox)
    assert keeping.failed(FetchFailed(fetch.id, OBJECT, "nobody has it"))
    (answer,) = outbox.drain()
    assert isinstance(answer, Send)
    assert answer.message == CopyAnswer(OBJECT, 7, False, "nobody has it")
    keeping.asked(node(1), KeepCopy(OBJECT, 10, (node(1),), 9), NOW)
    assert len(fetches(outbox)) == 1


def test_what_is_promised_counts_against_the_owners_disk() -> None:
    outbox = Outbox(1)
    keeping = CopyKeeping(CONFIG, outbox, Holdings([]), lambda: 25)
    for number in range(3):
        keeping.asked(node(1), KeepCopy(ObjectId(bytes([number]) * 32), 10, (node(1),), number), NOW)
    refused = [
        effect.message
        for effect in outbox.drain()
        if isinstance(effect, Send) and isinstance(effect.message, CopyAnswer) and not effect.message.kept
    ]
    assert [answer.nonce for answer in refused] == [2]


def test_own_objects_take_nothing_of_what_the_owner_gives_until_the_group_counts_on_them() -> None:
    outbox, holdings = Outbox(1), Holdings([])
    keeping = CopyKeeping(CONFIG, outbox, holdings, lambda: 25)
    holdings.add(OBJECT, 20, own=True)
    large = ObjectId(b"l" * 32)
    holdings.add(large, 30, own=True)
    assert holdings.bytes_given() == 0
    keeping.asked(node(1), KeepCopy(OBJECT, 20, (node(1),), 1), NOW)
    keeping.asked(node(1), KeepCopy(large, 30, (node(1),), 2), NOW)
    keeping.asked(node(1), KeepCopy(ObjectId(b"s" * 32), 10, (node(1),), 3), NOW)
    answers = [e.message for e in outbox.drain() if isinstance(e, Send) and isinstance(e.message, CopyAnswer)]
    assert [(answer.nonce, answer.kept) for answer in answers] == [(1, True), (2, False), (3, False)]
    assert holdings.bytes_given() == 20
    holdings.add(large, 30)
    assert holdings.bytes_given() == 50
    holdings.remove(OBJECT)
    holdings.remove(large)
    assert holdings.bytes_given() == 0


def test_what_is_unreferenced_is_forgotten_only_after_an_unbroken_while() -> None:
    outbox, holdings = Outbox(1), Holdings([(OBJECT, 10)])
    upkeep = Upkeep(CONFIG, outbox, holdings)
    upkeep.look([], NOW)
    upkeep.look([OBJECT], NOW.later(CONFIG.unreferenced_kept_s - 1))
    upkeep.look([], NOW.later(CONFIG.unreferenced_kept_s))
    upkeep.look([], NOW.later(2 * CONFIG.unreferenced_kept_s - 1))
    assert outbox.drain() == []
    upkeep.look([], NOW.later(2 * CONFIG.unreferenced_kept_s))
    (forget,) = outbox.drain()
    assert isinstance(forget, ForgetObject)
    assert forget.object == OBJECT
