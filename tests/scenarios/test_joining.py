"""People come: with tickets that were raced, through others than who invited them, while others are away."""

from __future__ import annotations

import msgspec
import pytest

from colla.agents.requests import CreateService, InvitePerson, PlaceObject, TicketIssued, Written
from colla.model.contribution import GIVES_NOTHING, AgentKind
from colla.protocol.views import Election
from colla.sim.computer import Asked, Computer
from colla.sim.group import GIVES, SimGroup


def test_joining_through_another_while_the_inviter_is_away(new_scenario):
    scenario = new_scenario(4, replicas=2)
    group = scenario.group
    inviter = group[2]
    ticket = group.invite(inviter)
    group.run(2.0)
    group.crash(inviter)
    group.run(6.0)
    joiner = group.prepare_join(ticket)
    joiner.start()
    group.until(lambda: group.joined(joiner), 15.0, "it joined")
    group.run(10.0)
    assert all(one.core.membership.node(joiner.node) is not None for one in group.up())
    group.restart(inviter)
    group.until(lambda: inviter.core.membership.node(joiner.node) is not None, 20.0, "the inviter knows")
    scenario.settle(60.0)


def test_a_ticket_raced_on_two_sides(new_scenario):
    """Two people use one ticket on two sides of a partition: after healing one of them belongs, everywhere."""
    scenario = new_scenario(5, replicas=2)
    group = scenario.group
    inviter = group[0]
    ticket = group.invite(inviter)
    group.run(5.0)
    one, other = group.prepare_join(ticket), group.prepare_join(ticket)
    group.partition([inviter, group[1], one], [group[2], group[3], group[4], other])
    group.run(8.0)
    for joiner in (one, other):
        joiner.start()
    group.run(12.0)
    assert group.joined(one), "the inviter's side admits at once"
    group.heal()
    group.run(60.0)
    members = group.computers[:5]
    for computer in [*members, one]:
        names = {info.id for info in computer.core.membership.nodes()}
        assert one.node in names, "the inviter's log names the holder"
        assert other.node not in names
    assert len({computer.core.membership.fingerprint() for computer in members}) == 1
    other.power_off()
    scenario.settle(90.0)


def test_a_used_and_an_expired_ticket_are_refused(new_scenario):
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    ticket = group.invite(group[0])
    first = group.prepare_join(ticket)
    first.start()
    group.until(lambda: group.joined(first), 15.0, "the first joined")
    group.run(3.0)
    second = group.prepare_join(ticket)
    second.start()
    group.run(20.0)
    assert not group.joined(second)
    assert all(one.core.membership.node(second.node) is None for one in group.computers[:4])
    issued = group.answer(group[1], InvitePerson(expiry_s=60.0))
    assert isinstance(issued, TicketIssued)
    group.run(90.0)
    late = group.prepare_join(issued.text)
    late.start()
    group.run(20.0)
    assert not group.joined(late)


def test_many_join_at_once(new_scenario):
    scenario = new_scenario(3, replicas=3)
    group = scenario.group
    joiners = [group.prepare_join(group.invite(group[number % 3])) for number in range(6)]
    for joiner in joiners:
        joiner.start()
    group.until(lambda: all(map(group.joined, joiners)), 30.0, "all joined")
    scenario.settle(60.0)
    assert all(len(computer.core.membership.nodes()) == 9 for computer in group.computers)


def put(group: SimGroup, computer: Computer, creation: CreateService) -> Asked:
    """Put the files of a service, as `colla deploy` does before it creates it."""
    computer.put_object(creation.specification.object, creation.specification.object_bytes)
    return computer.ask(PlaceObject(creation.specification.object, creation.specification.object_bytes))


@pytest.mark.parametrize("election", list(Election))
@pytest.mark.parametrize("seed", range(6))
def test_who_joined_deploys_at_once(seed: int, election: Election) -> None:
    """A laptop that gives nothing joins and puts before it heard who is here: its files must reach a disk all the same."""
    group = SimGroup(seed, election)
    group.grow(1)
    group.run(2.0)
    laptop = group.prepare_join(group.invite(group[0]), GIVES_NOTHING)
    laptop.start()
    group.until(lambda: group.joined(laptop), 15.0, "it joined")
    creation = group.creation("web", laptop, 1)
    placing = put(group, laptop, creation)
    group.until(lambda: placing.answered, 10.0, "its files are placed")
    assert placing.result.copies == 1, placing.result
    written = group.answer(laptop, creation)
    assert isinstance(written, Written)
    group.until(lambda: group.running(written.service) == 1, 6.0, "its replica runs")


def test_files_that_no_repository_holds_are_offered_by_who_has_them() -> None:
    """They were put while nobody gave any disk; then somebody does."""
    agents = tuple(kind for kind in GIVES.agents if kind is not AgentKind.REPOSITORY)
    no_disk = msgspec.structs.replace(GIVES, agents=agents)
    group = SimGroup(3, contribution=no_disk)
    group.grow(2, [no_disk, GIVES_NOTHING])
    group.run(2.0)
    creation = group.creation("web", group[1], 1)
    placing = put(group, group[1], creation)
    group.until(lambda: placing.answered, 10.0, "it is known that nobody keeps files")
    assert placing.result.copies == 0
    written = group.answer(group[1], creation)
    assert isinstance(written, Written)
    group.run(5.0)
    assert group.running(written.service) == 0
    group[0].contribute(GIVES)
    group.until(lambda: group.running(written.service) == 1, 90.0, "its replica runs")
