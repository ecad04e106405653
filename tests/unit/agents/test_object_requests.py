"""What the API asks about objects: copies are placed, names are written, copies are counted; each is answered once."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

from colla.agents.agent import Context
from colla.agents.object_requests import ObjectRequests
from colla.agents.requests import CopiesFound, CountCopies, NameObject, ObjectNamed, ObjectPlaced, PlaceObject
from colla.kernel.config import Config
from colla.kernel.effects import Answer, Effect, Refusal, Send, WakeAt
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind, Contribution
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.model.keys import SecretKey
from colla.protocol.copies.counting import CopyCounting
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.messages import CopiesHeld, CopyAnswer, CopyQuery, KeepCopy
from colla.protocol.copies.placing import CopyPlacing
from colla.protocol.naming.bodies import Named
from colla.protocol.naming.names import Names
from colla.protocol.views import Identity

ME = SecretKey(b"m" * 32)
OBJECT = ObjectId(b"o" * 32)
NOW = Instant(100.0, 1_000_000.0)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


class World:
    """The views that are read, and the part under test among them."""

    def __init__(self, others: Sequence[NodeId]) -> None:
        self.here = dict.fromkeys(others)
        self.outbox = Outbox(1)
        self.written: list[Any] = []
        self.refuse = False
        self.contribution = Contribution()
        self.holdings = Holdings([])
        self.holdings.add(OBJECT, 10, own=True)
        config = Config()
        self.placing = CopyPlacing(config.copies, self.outbox)
        self.counting = CopyCounting(
            NodeId(ME.public), config.copies, self.outbox, Holdings([]), lambda one: list(self.here)
        )
        context = Context(
            identity=Identity(cast(Any, b"g" * 32), ME),
            config=config,
            rng=Random(1),
            outbox=self.outbox,
            durable=cast(Any, None),
            membership=cast(Any, self),
            presence=cast(Any, self),
            records=cast(Any, None),
            catalogue=cast(Any, None),
            holdings=self.holdings,
            own=cast(Any, self),
            partners=cast(Any, None),
        )
        self.agent = ObjectRequests(
            context, cast(Names, self), self.placing, self.counting, lambda *words: self.written.append(words)
        )

    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]:
        return tuple(self.here)

    def present(self) -> tuple[NodeId, ...]:
        return (NodeId(ME.public), *self.here)

    def nodes(self) -> tuple[NodeId, ...]:
        return (NodeId(ME.public), node(1), node(2))

    def owner_of(self, one: NodeId) -> MemberId:
        return MemberId(one)

    def name(self, named: Named, author: MemberId, expected: ObjectId | None, *, replace: bool) -> list[Any]:
        if self.refuse:
            raise CollaError("name_taken", "It is another's.")
        return [named]

    def effects(self) -> list[Effect]:
        return self.outbox.drain()


def answers(effects: Sequence[Effect]) -> list[Any]:
    return [effect.result for effect in effects if isinstance(effect, Answer)]


def test_copies_of_an_object_go_to_others_when_this_node_keeps_none() -> None:
    world = World([node(1), node(2)])
    world.agent.request(9, PlaceObject(OBJECT, 10), NOW)
    asks = [e for e in world.effects() if isinstance(e, Send) and isinstance(e.message, KeepCopy)]
    assert sorted(ask.to for ask in asks) == [node(1), node(2)]
    for ask in asks:
        placed = world.placing.answered(
            ask.to, CopyAnswer(OBJECT, cast(KeepCopy, ask.message).nonce, True), NOW
        )
        if placed is not None:
            world.agent.placed(placed)
    assert answers(world.effects()) == [ObjectPlaced(2, 2, (), (asks[0].to, asks[1].to))]


def test_the_own_copy_counts_as_far_as_the_owner_gives_room_for_it() -> None:
    for disk_bytes, kept in ((10, True), (9, False)):
        world = World([NodeId(ME.public), node(1)])
        world.contribution = Contribution(agents=(AgentKind.REPOSITORY,), disk_bytes=disk_bytes)
        world.agent.request(9, PlaceObject(OBJECT, 10), NOW)
        (ask,) = [e for e in world.effects() if isinstance(e, Send)]
        refusal = CopyAnswer(OBJECT, cast(KeepCopy, ask.message).nonce, False, "full")
        placed = world.placing.answered(node(1), refusal, NOW)
        assert placed is not None
        world.agent.placed(placed)
        (answer,) = answers(world.effects())
        assert (answer.copies, answer.wanted, answer.reasons) == (1 if kept else 0, 2, ("full",))


def test_an_object_waits_a_moment_for_somebody_to_be_here() -> None:
    world = World([])
    world.agent.request(9, PlaceObject(OBJECT, 10), NOW)
    effects = world.effects()
    assert not [e for e in effects if isinstance(e, Send)]
    (wake,) = [e for e in effects if isinstance(e, WakeAt)]
    world.here[node(1)] = None
    world.agent.presence_changed([], NOW)
    asks = [e for e in world.effects() if isinstance(e, Send) and isinstance(e.message, KeepCopy)]
    assert [ask.to for ask in asks] == [node(1)]
    world.agent.timer(wake.timer, 0.0, NOW)
    assert not [e for e in world.effects() if isinstance(e, Send)], "it is placed once"


def test_an_object_that_nobody_can_keep_is_told_so_in_the_end() -> None:
    world = World([])
    world.agent.request(9, PlaceObject(OBJECT, 10), NOW)
    (wake,) = [e for e in world.effects() if isinstance(e, WakeAt)]
    world.agent.timer(wake.timer, 0.0, NOW)
    assert answers(world.effects()) == [ObjectPlaced(0, 0, ())]


def test_a_name_is_answered_when_its_record_is_durable() -> None:
    world = World([])
    named = Named("notes.txt", OBJECT, 5, 5, 1, False)
    world.agent.request(9, NameObject(named), NOW)
    assert answers(world.effects()) == []
    assert [items for _, _, items, _ in world.written] == [[named]]
    world.agent.written(8, 1)
    world.agent.written(9, 2)
    world.agent.written(9, 2)
    assert answers(world.effects()) == [ObjectNamed("notes.txt", 2)]


def test_a_name_that_cannot_be_is_refused_at_once() -> None:
    world = World([])
    world.refuse = True
    world.agent.request(9, NameObject(Named("notes.txt", OBJECT, 5, 5, 1, False)), NOW)
    assert answers(world.effects()) == [Refusal("name_taken", "It is another's.")]
    assert world.written == []


def test_copies_are_counted_among_those_who_should_hold_them() -> None:
    world = World([node(1), node(2)])
    world.agent.request(9, CountCopies((OBJECT,)), NOW)
    effects = world.effects()
    queries = [e for e in effects if isinstance(e, Send) and isinstance(e.message, CopyQuery)]
    assert [query.to for query in queries] == [node(1), node(2)]
    nonce = cast(CopyQuery, queries[0].message).nonce
    assert world.counting.answered(node(3), CopiesHeld((OBJECT,), nonce)) is None
    assert world.counting.answered(node(1), CopiesHeld((OBJECT,), nonce)) is None
    counted = world.counting.answered(node(2), CopiesHeld((), nonce))
    assert counted is not None
    assert world.agent.counted(counted)
    assert answers(world.effects()) == [CopiesFound({OBJECT: (node(1),)})]


def test_who_does_not_answer_does_not_hold_up_a_count() -> None:
    world = World([node(1)])
    world.agent.request(9, CountCopies((OBJECT,)), NOW)
    (wake,) = [e for e in world.effects() if isinstance(e, WakeAt)]
    counted = world.counting.due(cast(Any, wake.timer))
    assert counted is not None
    assert world.counting.due(cast(Any, wake.timer)) is None
    assert counted.holders == {OBJECT: ()}
