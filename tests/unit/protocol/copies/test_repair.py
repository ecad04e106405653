"""When copies are remade, when given up, and what a placing does while its nodes live, die or fall silent."""

from __future__ import annotations

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import ForgetObject, Send
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.messages import CopyAnswer, CopyProgress, KeepCopy, PlacingDue
from colla.protocol.copies.placing import CopyPlacing
from colla.protocol.copies.repair import CopyRepair, Counted

CONFIG = CopiesConfig(remake_bytes_s=10.0, remake_burst_bytes=100.0, objects_counted_max=2)
NOW = Instant(10_000.0, 1_000_000.0)
LATER = NOW.later(CONFIG.remake_after_s)
OBJECT = ObjectId(b"o" * 32)
SIZE = 60


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


A, B, C, D, E = (node(number) for number in range(1, 6))
ALL = (A, B, C, D, E)


class World:
    """One node's repair, and what it asks for."""

    def __init__(self, me: NodeId = A, holds: bool = True) -> None:
        self.outbox = Outbox(1)
        self.placing = CopyPlacing(CONFIG, self.outbox)
        self.holdings = Holdings([(OBJECT, SIZE)] if holds else [], () if holds else (OBJECT,))
        self.excess_bytes = 0
        self.repair = CopyRepair(
            me, CONFIG, self.outbox, self.holdings, self.placing, lambda: self.excess_bytes
        )

    def judge(self, holders: tuple[NodeId, ...], now: Instant = NOW, **more: object) -> list[ObjectId]:
        ranked = more.pop("ranked", ALL)
        wanted = more.pop("object", OBJECT)
        return self.repair.judge([Counted(wanted, SIZE, ranked, holders, bool(more.get("in_use")))], now)  # type: ignore[arg-type]

    def asked(self) -> list[NodeId]:
        effects = self.outbox.drain()
        return [e.to for e in effects if isinstance(e, Send) and isinstance(e.message, KeepCopy)]

    def forgotten(self) -> list[ObjectId]:
        return [e.object for e in self.outbox.drain() if isinstance(e, ForgetObject)]


def test_below_two_copies_they_are_remade_at_once() -> None:
    world = World()
    world.judge((A,))
    assert world.asked() == [B, C]


def test_one_missing_of_three_waits_for_an_hour_without_a_break() -> None:
    world = World()
    world.judge((A, B))
    world.judge((A, B, C), LATER.later(-10))
    world.judge((A, B), LATER)
    assert world.asked() == []
    world.judge((A, B), LATER.later(CONFIG.remake_after_s))
    assert world.asked() == [C]


def test_only_the_first_holder_remakes() -> None:
    world = World(me=B)
    world.judge((A,))
    world.judge((A, B))
    assert world.asked() == []
    world.judge((B,))
    assert world.asked() == [A, C]


def test_a_remake_under_way_is_not_begun_again_until_it_is_over() -> None:
    world = World()
    world.judge((A,))
    assert world.asked() == [B, C]
    world.judge((A,))
    assert world.asked() == []
    assert world.placing.drop(lambda other: other != A, NOW) == [], "the next ones are asked"
    placed = world.placing.drop(lambda other: other != A, NOW)
    assert [world.repair.placed(one) for one in placed] == [True]
    world.asked()
    world.judge((A,))
    assert world.asked() == [B, C]


def test_what_is_not_urgent_is_bound_by_a_rate_and_what_is_urgent_is_not() -> None:
    world = World()
    objects = [ObjectId(bytes([number]) * 32) for number in range(4)]
    for one in objects:
        world.holdings.add(one, SIZE)
        world.judge((A, B), object=one)
    asked = []
    for one in objects:
        world.judge((A, B), LATER, object=one)
        asked.append(world.asked())
    assert asked == [[C], [C], [], []], "a burst, and a debt"
    world.judge((A,), LATER, object=objects[2])
    assert world.asked() == [B, C]
    world.judge((A, B), LATER.later(1), object=objects[3])
    assert world.asked() == []
    world.judge((A, B), LATER.later(10), object=objects[3])
    assert world.asked() == [C]


def test_a_copy_that_no_repository_holds_is_offered_by_whoever_has_it() -> None:
    world = World(me=node(9))
    world.judge(())
    assert world.asked() == [A, B, C]


def test_a_copy_too_many_goes_after_an_hour_in_which_the_others_held_it() -> None:
    world = World(me=D)
    world.judge((A, B, C, D))
    world.judge((A, C, D), NOW.later(10))
    world.judge((A, B, C, D), NOW.later(20))
    world.judge((A, B, C, D), NOW.later(CONFIG.surplus_kept_s + 10))
    assert world.forgotten() == []
    world.judge((A, B, C, D), NOW.later(CONFIG.surplus_kept_s + 20))
    assert world.forgotten() == [OBJECT]


def test_what_a_service_runs_from_and_what_should_be_here_stays() -> None:
    for me, in_use in ((D, True), (C, False)):
        world = World(me=me)
        world.judge((A, B, C, D), in_use=in_use)
        world.judge((A, B, C, D), NOW.later(2 * CONFIG.surplus_kept_s), in_use=in_use)
        assert world.forgotten() == []


def test_in_a_small_group_no_copy_is_too_many() -> None:
    world = World(me=node(9))
    world.judge((A, B), ranked=(A, B))
    world.judge((A, B), NOW.later(2 * CONFIG.surplus_kept_s), ranked=(A, B))
    assert world.forgotten() == []


def test_when_the_owner_gives_less_copies_go_as_soon_as_others_have_them() -> None:
    for me, goes in ((C, True), (B, False), (A, False)):
        world = World(me=me)
        world.excess_bytes = 1
        world.judge((A, B, C))
        assert world.forgotten() == ([OBJECT] if goes else []), "two who are ranked before are enough"
    world = World(me=A)
    world.excess_bytes = 1
    world.judge((A, B, C))
    assert world.asked() == [D], "else one more is made first"
    world.judge((A, B, C, D))
    assert world.forgotten() == [OBJECT]


def test_only_as_much_goes_as_is_too_much_and_nothing_that_runs() -> None:
    world = World(me=D)
    other = ObjectId(b"p" * 32)
    world.holdings.add(other, SIZE)
    world.excess_bytes = SIZE
    both = [Counted(one, SIZE, ALL, (A, B, C, D), False) for one in (OBJECT, other)]
    world.repair.judge(both, NOW)
    assert world.forgotten() == [OBJECT]
    world.judge((A, B, C, D), in_use=True)
    assert world.forgotten() == []


def test_all_owners_who_give_less_at_once_lose_nothing() -> None:
    gone = []
    for me in (A, B, C):
        world = World(me=me)
        world.excess_bytes = 1
        world.judge((A, B, C), ranked=(A, B, C))
        gone += [me] if world.forgotten() else []
    assert gone == [C]


def test_a_part_is_healed_where_a_copy_should_be() -> None:
    assert World(holds=False).judge((B,)) == [OBJECT]
    assert World(me=node(9), holds=False).judge((B,)) == []
    assert World(me=E, holds=False).judge((B, C)) == [OBJECT]
    assert World(me=E, holds=False).judge((B, C, D)) == []
    assert World(me=E, holds=False).judge((B, C, D), in_use=True) == [OBJECT]


def test_all_objects_are_counted_in_their_turn() -> None:
    world = World()
    objects = [ObjectId(bytes([number]) * 32) for number in range(5)]
    for one in objects:
        world.holdings.add(one, 1)
    seen: dict[ObjectId, None] = {}
    for _ in range(3):
        window = world.repair.window(objects)
        assert len(window) == CONFIG.objects_counted_max
        seen.update(dict.fromkeys(window))
    assert sorted(seen) == objects


# Placing


def test_who_says_that_it_is_about_it_gets_more_time() -> None:
    outbox = Outbox(1)
    placing = CopyPlacing(CONFIG, outbox)
    nonce, _ = placing.begin(OBJECT, SIZE, 2, [B, C, D], [], (A,), NOW)
    almost, over = NOW.later(CONFIG.put_timeout_s - 1), NOW.later(CONFIG.put_timeout_s)
    placing.progressed(B, CopyProgress(OBJECT, nonce, 40), almost)
    outbox.drain()
    assert placing.due(PlacingDue(nonce, 1), over) is None
    asked = [e.to for e in outbox.drain() if isinstance(e, Send)]
    assert asked == [D], "C was silent and is replaced, B is not"
    progress = placing.progress(nonce)
    assert progress is not None
    assert (progress.kept, progress.wanted, progress.done_bytes) == (0, 2, (40, 0))


def test_a_copy_on_a_node_that_died_before_the_end_does_not_count() -> None:
    outbox = Outbox(1)
    placing = CopyPlacing(CONFIG, outbox)
    nonce, _ = placing.begin(OBJECT, SIZE, 3, [B, C, D, E], [A], (A,), NOW)
    assert placing.answered(B, CopyAnswer(OBJECT, nonce, True), NOW) is None
    outbox.drain()
    assert placing.drop(lambda other: other in (B, C), NOW) == []
    assert [e.to for e in outbox.drain() if isinstance(e, Send)] == [D, E]
    assert placing.answered(D, CopyAnswer(OBJECT, nonce, True), NOW) is None
    placed = placing.answered(E, CopyAnswer(OBJECT, nonce, True), NOW)
    assert placed is not None
    assert placed.holders == (A, D, E)
