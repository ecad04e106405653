"""Groups whose mechanisms run once per iteration, without heartbeats: what the validation of the paper found."""

from __future__ import annotations

from collections import Counter

import pytest

from colla.kernel.effects import Effect, Send
from colla.kernel.events import Event
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.election.messages import Bequest, Claim, MasterDelta, MasterQuery
from colla.protocol.supervision.messages import InventoryQuery
from colla.protocol.views import Election, PresencePhase
from colla.sim.computer import Computer
from colla.sim.consistency import failing
from colla.sim.gathering import gather
from colla.sim.group import SimGroup
from colla.sim.network import DROP, PASS, Parcel, Rule, Verdict
from colla.sim.validation.profile import Profile, configuration

ITERATION_S = 20.0
NOW = Instant(100.0, 1_000_000.0)
BOTH = pytest.mark.parametrize("election", list(Election))


class Sent:
    """Counts the messages that computers send, by sender and kind."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, type]] = Counter()

    def will_step(self, computer: Computer, event: Event) -> None:
        pass

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        pass

    def performed(self, computer: Computer, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.counts[computer.name, type(effect.message)] += 1


class FirstHandLost(Rule):
    """What masters say of themselves unasked does not reach this computer."""

    def __init__(self, name: str) -> None:
        self._name = name

    def judge(self, parcel: Parcel) -> Verdict:
        message = parcel.message
        first_hand = isinstance(message, Claim) or (isinstance(message, MasterDelta) and message.mine)
        return DROP if first_hand and parcel.target == self._name else PASS


class QuestionsLost(Rule):
    """No master hears from the loser what that had started, nor learns it by asking."""

    def judge(self, parcel: Parcel) -> Verdict:
        return DROP if isinstance(parcel.message, Bequest | InventoryQuery) else PASS


def begin(count: int, election: Election = Election.HASHING, seed: int = 3) -> SimGroup:
    """A group at the beginning of an iteration, everybody known to everybody."""
    group = SimGroup(seed, election, configuration(Profile.PAPER, ITERATION_S))
    gather(group, count)
    for computer in group.computers:
        computer.start()
    next_iteration(group, 2)
    return group


def next_iteration(group: SimGroup, count: int = 1) -> None:
    """Let time pass until `count` iterations have ended."""
    for _ in range(count):
        group.run(ITERATION_S - group.world.now_s % ITERATION_S)


def test_a_question_without_answer_is_judged_in_its_round() -> None:
    """The alarm that judges it was not set when the question was asked: a crash was found one iteration later."""
    group = begin(8)
    group.run(ITERATION_S - 1.0)
    group.crash(group[5])
    group.run(1.0)
    next_iteration(group)
    for one in group.up():
        entry = one.core.presence.entry(group[5].node)
        assert entry is not None
        assert entry.phase is PresencePhase.ABSENT, one.name


def test_the_living_are_not_suspected() -> None:
    group = begin(8)
    next_iteration(group, 10)
    assert not [n for one in group.computers for _, n in one.notices if n.kind == "node_suspected"]


@BOTH
def test_a_master_of_whom_nothing_is_new_is_not_silent(election: Election) -> None:
    """Only heartbeats had proved to a secondary that its master hears it: without them it asked for the master in vain."""
    group = begin(14, election)
    for number in range(3):
        group.deploy(f"s{number}", replicas=1)
    next_iteration(group, 2)
    sent = Sent()
    group.observers.append(sent)
    next_iteration(group, 6)
    assert not [name for name, kind in sent.counts if kind is MasterQuery]


@BOTH
def test_who_hears_late_of_an_active_service_does_not_claim_it(election: Election) -> None:
    """What a session told was taken for an activation just now: who came back claimed at once what others mastered."""
    group = begin(5, election)
    late = group[4]
    group.crash(late)
    next_iteration(group, 2)
    services = [group.deploy(f"s{number}", replicas=1) for number in range(8)]
    next_iteration(group)
    masters = {service: group.master_of(service) for service in services}
    sent = Sent()
    group.observers.append(sent)
    group.restart(late)
    next_iteration(group)
    assert all(late.core.catalogue.service(service) is not None for service in services)
    assert not sent.counts[late.name, Claim]
    assert {service: group.master_of(service) for service in services} == masters


@BOTH
def test_what_the_loser_started_the_winner_adopts(election: Election) -> None:
    """Replicas that a master had started before it met a stronger one were found only when nobody had claimed them for long."""
    group = begin(8, election)
    services = [group.deploy(f"s{number}", replicas=3) for number in range(8)]
    next_iteration(group)
    loser = group.master_of(services[0])
    group.partition([loser], [one for one in group.computers if one is not loser])
    next_iteration(group, 4)
    assert len(group.masters(services[0])) == 2
    group.heal()
    next_iteration(group, 2)
    kinds, texts = failing(group, group.up())
    assert not kinds, texts


@BOTH
def test_a_replica_that_no_master_named_in_an_iteration_is_told_in_it(election: Election) -> None:
    """Executors looked for such replicas before masters spoke, and told of them an iteration later."""
    group = begin(8, election)
    services = [group.deploy(f"s{number}", replicas=3) for number in range(8)]
    next_iteration(group)
    loser = group.master_of(services[0])
    group.partition([loser], [one for one in group.computers if one is not loser])
    next_iteration(group, 4)
    group.heal()
    group.network.add(QuestionsLost())
    next_iteration(group, 2)
    kinds, texts = failing(group, group.up())
    assert not kinds, texts


def test_what_one_of_a_side_learns_its_side_learns() -> None:
    """Each node holds one session per iteration: without passing on, two sides needed several to know the same."""
    group = begin(24)
    sides = [group.computers[number::8] for number in range(8)]
    group.partition(*sides)
    next_iteration(group, 3)
    for number, side in enumerate(sides):
        group.deploy(f"s{number}", replicas=1, at=side[0])
    next_iteration(group)
    group.heal()
    next_iteration(group, 2)
    assert len(group.catalogues()) == 1
    assert len(group[0].core.catalogue.services()) == 8


def test_of_several_that_come_back_at_once_each_is_met() -> None:
    """Everybody met the one that was seen first, and what the others knew or lacked waited for an iteration more."""
    group = begin(12)
    foundation = group[0].core.foundation
    came = [group[number].node for number in (3, 6, 9)]
    met: Counter[NodeId] = Counter()
    for _ in range(60):
        for node in came:
            foundation.met(node, NOW)
        met.update(foundation.epidemic_partners())
    assert sorted(met) == sorted(came)
    assert min(met.values()) >= 10


@BOTH
def test_a_master_known_by_hearsay_is_asked_before_it_is_doubted(election: Election) -> None:
    """Whoever had heard of a master from others only forgot it after a while, until the answers to a survey came."""
    group = begin(16, election)
    deaf = group[5]
    group.network.add(FirstHandLost(deaf.name))
    services = [group.deploy(f"s{number}", replicas=1, at=group[0]) for number in range(6)]
    services = [service for service in services if group.master_of(service) is not deaf]

    def known() -> dict[bytes, Computer]:
        now = deaf.clock.now()
        found = {service: deaf.core.dispatcher.master_of(service, now) for service in services}
        return {service: group.of(node) for service, node in found.items() if node}

    group.until(lambda: len(known()) == len(services), 3 * ITERATION_S)
    for _ in range(2 * int(ITERATION_S)):
        group.run(1.0)
        assert known() == {service: group.master_of(service) for service in services}


@BOTH
def test_a_service_activated_again_is_not_mastered_by_a_ghost(election: Election) -> None:
    """Executors obeyed the higher ballots of an earlier activation: its new master stepped down for one that was none."""
    group = begin(8, election, seed=5)
    services = [group.deploy(f"s{number}", replicas=2) for number in range(6)]
    for _ in range(2):
        for service in services:
            group.crash(group.master_of(service))
            next_iteration(group)
            group.restart(*[one for one in group.computers if not one.runs])
        next_iteration(group)
        for service in services:
            group.set_active(service, False)
        next_iteration(group)
        for service in services:
            group.set_active(service, True)
        next_iteration(group, 2)
        kinds, texts = failing(group, group.up())
        assert not kinds, texts
