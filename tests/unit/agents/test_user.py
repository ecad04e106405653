"""The user agent: whom it asks for locations, what it believes, and how it answers the API."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

from colla.agents.agent import Context
from colla.agents.requests import ExplainService, LocateService, ServiceLocated
from colla.agents.user import UserAgent
from colla.kernel.config import Config
from colla.kernel.effects import Answer, Effect, Refusal, Send, WakeAt
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import MemberId, NodeId, ObjectId, ReplicaId, ServiceId
from colla.model.keys import SecretKey
from colla.model.location import Location
from colla.model.service import Service, Specification
from colla.protocol.catalogue.catalogue import Catalogue
from colla.protocol.locations.messages import AskWhy, Explanation, Locate, Located, LocationFailed
from colla.protocol.secrets.writing import SecretWriting
from colla.protocol.views import Identity, PresenceChange, PresencePhase

ME = SecretKey(b"m" * 32)
SERVICE = ServiceId(b"s" * 16)
OBJECT = ObjectId(b"o" * 32)
OWNER = MemberId(b"w" * 32)
NOW = Instant(100.0, 1_000_000.0)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


class World:
    """The views that a user agent reads, and the agent among them."""

    def __init__(self, others: Sequence[NodeId]) -> None:
        self.here = dict.fromkeys(others)
        self.outbox = Outbox(1)
        specification = Specification("web", OWNER, 1, OBJECT, 10, "static")
        self.existing: Service | None = Service(SERVICE, specification, True, 2)
        context = Context(
            identity=Identity(cast(Any, b"g" * 32), ME),
            config=Config(),
            rng=Random(1),
            outbox=self.outbox,
            durable=cast(Any, None),
            membership=cast(Any, self),
            presence=cast(Any, self),
            records=cast(Any, None),
            catalogue=cast(Any, self),
            holdings=cast(Any, None),
            own=cast(Any, None),
            partners=cast(Any, None),
        )
        self.agent = UserAgent(context, cast(Catalogue, self), cast(SecretWriting, None), lambda *words: None)

    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]:
        return tuple(self.here)

    def present(self) -> tuple[NodeId, ...]:
        return (ME, *self.here)

    def nodes(self) -> tuple[NodeId, ...]:
        return (ME, node(1), node(2))

    def is_present(self, one: NodeId) -> bool:
        return one in self.here

    def owner_of(self, one: NodeId) -> MemberId:
        return MemberId(one)

    def service(self, service: ServiceId) -> Service | None:
        return self.existing

    def effects(self) -> list[Effect]:
        return self.outbox.drain()

    def asked(self) -> list[NodeId]:
        """Whom the agent asked where the service is, since the last look."""
        return [e.to for e in self.effects() if isinstance(e, Send) and isinstance(e.message, Locate)]

    def fire(self, effects: Sequence[Effect], late_s: float = 0.0) -> Instant:
        """Let the last timer among the effects be due; returns the moment."""
        wake = [effect for effect in effects if isinstance(effect, WakeAt)][-1]
        now = NOW.later(wake.at_s - NOW.boot_s + late_s)
        self.agent.timer(wake.timer, late_s, now)
        return now


NOBODY = NodeId(b"")


def located(*numbers: int, authoritative: bool = True, master: NodeId = NOBODY) -> Located:
    places = tuple(Location(SERVICE, ReplicaId(bytes([n]) * 16), node(n)) for n in numbers)
    return Located(SERVICE, master, places, authoritative)


def answers(effects: Sequence[Effect]) -> list[Any]:
    return [effect.result for effect in effects if isinstance(effect, Answer)]


def test_what_the_master_says_is_believed_and_those_gone_are_not_shown() -> None:
    world = World([node(1), node(2), node(3)])
    world.agent.watch(SERVICE, NOW)
    assert world.asked()
    world.agent.message(node(1), located(2, 3), NOW)
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(2), node(3)]
    assert world.agent.master_of(SERVICE) == node(1)
    del world.here[node(2)]
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(3)]


def test_who_is_not_master_leads_to_it_and_is_believed_only_where_nothing_is_known() -> None:
    world = World([node(1), node(2), node(3)])
    world.agent.watch(SERVICE, NOW)
    world.asked()
    world.agent.message(node(2), located(3, authoritative=False, master=node(1)), NOW)
    assert world.asked() == [node(1)]
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(3)]
    world.agent.message(node(1), located(2), NOW)
    world.agent.message(node(3), located(3, authoritative=False, master=node(3)), NOW)
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(2)]


def test_when_the_master_goes_the_last_locations_stand_and_others_are_asked() -> None:
    world = World([node(1), node(2), node(3)])
    world.agent.watch(SERVICE, NOW)
    world.agent.message(node(1), located(1, 2), NOW)
    world.effects()
    del world.here[node(1)]
    world.agent.presence_changed([PresenceChange(node(1), PresencePhase.ABSENT)], NOW)
    assert set(world.asked()) <= {node(2), node(3)}
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(2)]


def test_a_master_that_died_with_its_replica_is_left_before_its_absence_is_known() -> None:
    world = World([node(number) for number in range(1, 6)])
    world.agent.watch(SERVICE, NOW)
    world.agent.message(node(1), located(1), NOW)
    world.effects()
    world.agent.location_failed(SERVICE, ReplicaId(b"\x01" * 16), NOW.later(2.0))
    asked = world.asked()
    assert len(asked) > 1 and asked[0] == node(1)
    # Many requests fail in the same moment; the group is asked once for them.
    world.agent.location_failed(SERVICE, ReplicaId(b"\x01" * 16), NOW.later(2.1))
    assert world.asked() == []
    world.agent.message(asked[1], located(1, authoritative=False, master=node(1)), NOW.later(2.2))
    assert world.asked() == []
    world.agent.message(asked[1], located(1, authoritative=False, master=node(5)), NOW.later(2.2))
    assert world.asked() == [node(5)] and world.agent.master_of(SERVICE) == node(1)
    world.agent.message(node(5), located(4), NOW.later(2.3))
    assert world.agent.master_of(SERVICE) == node(5)
    assert [place.node for place in world.agent.locations(SERVICE)] == [node(4)]


def test_interest_ends_by_itself() -> None:
    world = World([node(1)])
    world.agent.watch(SERVICE, NOW)
    effects = world.effects()
    world.fire(effects, late_s=Config().access.interest_s + 1)
    assert world.asked() == []
    assert not world.agent.is_watching(SERVICE)


def test_a_request_is_asked_again_until_a_master_answers() -> None:
    world = World([node(1)])
    world.agent.request(7, LocateService(SERVICE), NOW)
    effects = world.effects()
    world.agent.message(node(1), located(authoritative=False), NOW)
    world.fire(effects)
    again = world.effects()
    assert any(isinstance(e, Send) and isinstance(e.message, Locate) for e in again)
    assert answers(again) == []
    world.agent.message(node(1), located(1), NOW)
    assert answers(world.effects()) == [ServiceLocated(SERVICE, True)]


def test_without_a_master_a_request_ends_with_what_is_known() -> None:
    world = World([node(1)])
    world.agent.request(7, LocateService(SERVICE), NOW)
    world.agent.request(8, ExplainService(SERVICE), NOW)
    found: list[Any] = []
    effects = world.effects()
    for _ in range(40):
        for wake in [e for e in effects if isinstance(e, WakeAt)]:
            world.agent.timer(wake.timer, 0.0, NOW.later(wake.at_s - NOW.boot_s))
        effects = world.effects()
        found += answers(effects)
    assert ServiceLocated(SERVICE, False) in found
    assert [answer.code for answer in found if isinstance(answer, Refusal)] == ["no_master"]
    assert len(found) == 2


def test_an_explanation_is_followed_to_the_master() -> None:
    world = World([node(1), node(2)])
    world.agent.request(8, ExplainService(SERVICE), NOW)
    world.effects()
    world.agent.message(node(2), Explanation(SERVICE, 8, node(1), 0, 0, 0, ()), NOW)
    asked = [e.to for e in world.effects() if isinstance(e, Send) and isinstance(e.message, AskWhy)]
    assert asked == [node(1)]
    explanation = Explanation(SERVICE, 8, node(1), 3, 2, 2, ())
    world.agent.message(node(1), explanation, NOW)
    assert answers(world.effects()) == [explanation]


def test_a_failed_location_is_hinted_to_the_master_and_asked_anew() -> None:
    world = World([node(1), node(2)])
    world.agent.watch(SERVICE, NOW)
    world.agent.message(node(1), located(2), NOW)
    world.effects()
    world.agent.location_failed(SERVICE, ReplicaId(b"\x02" * 16), NOW.later(1.0))
    messages = [e.message for e in world.effects() if isinstance(e, Send)]
    assert LocationFailed(SERVICE, ReplicaId(b"\x02" * 16)) in messages
    assert any(isinstance(message, Locate) for message in messages)


def test_an_unknown_service_is_told() -> None:
    world = World([node(1)])
    world.existing = None
    world.agent.request(7, LocateService(SERVICE), NOW)
    (refusal,) = answers(world.effects())
    assert refusal.code == "not_found"
