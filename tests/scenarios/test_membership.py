"""Who belongs changes while everything runs: removal at once, across a partition, and of who was away."""

from __future__ import annotations

from colla.agents.administration_requests import (
    AdoptService,
    GiveRole,
    GroupChanged,
    RemoveMember,
    RetireComputer,
)
from colla.agents.requests import CreateService
from colla.kernel.effects import Refusal
from colla.protocol.views import Role

CUT_OFF_S = 2.0


def member_of(group, computer):
    return group[0].core.membership.owner_of(computer.node)


def belongs(at, computer):
    return at.core.membership.node(computer.node) is not None


def linked(computer):
    return computer.core.foundation.admission.peers()


def test_a_removed_member_is_cut_off_and_its_services_stop_until_adopted(new_scenario):
    scenario = new_scenario(4, replicas=2)
    group = scenario.group
    removed = group[2]
    his = group.deploy("his", replicas=2, at=removed)
    scenario.settle(30.0)
    ended = group.answer(group[0], RemoveMember(member_of(group, removed), "moved away"))
    assert isinstance(ended, GroupChanged)
    group.until(lambda: not linked(removed), CUT_OFF_S, "it has no link left")
    assert not any(belongs(one, removed) for one in group.computers)
    group.until(lambda: group.running(his) == 0, 5.0, "its service stops, on its own computer too")
    assert "moved away" in removed.core.administration.why_out()
    adopted = group.answer(group[0], AdoptService(his, member_of(group, group[1])))
    assert isinstance(adopted, GroupChanged)
    removed.power_off()
    group.until(lambda: group.running(his) == 2, 20.0, "its new owner lets it run")
    scenario.settle(60.0)


def test_what_was_written_on_the_other_side_of_a_partition_vanishes(new_scenario):
    scenario = new_scenario(5, replicas=2)
    group = scenario.group
    removed, misled = group[3], group[4]
    before = group.deploy("before", replicas=1, at=removed)
    scenario.settle(30.0)
    group.partition(group.computers[:3], group.computers[3:])
    group.run(6.0)
    during = group.deploy("during", replicas=1, at=removed)
    group.until(lambda: group.running(during) == 1, 20.0, "its side runs what it wrote")
    group.answer(group[0], RemoveMember(member_of(group, removed)))
    group.heal()
    group.until(lambda: not belongs(misled, removed) and not belongs(removed, removed), 60.0, "all know")
    group.until(lambda: group.running(during) == 0, 10.0, "what it wrote unseen stops")
    for computer in (*group.computers[:3], misled):
        assert computer.core.catalogue.service(during) is None
        kept = computer.core.catalogue.service(before)
        assert kept is not None and not kept.active
    removed.power_off()
    scenario.settle(60.0)


def test_a_guest_uses_and_does_not_offer_and_who_was_away_learns_why(new_scenario):
    scenario = new_scenario(4, replicas=2)
    group = scenario.group
    guest, away = group[2], group[3]
    group.answer(group[0], GiveRole(member_of(group, guest), Role.GUEST))
    group.run(1.0)
    refused = group.answer(guest, CreateService(group.specification("more", guest), 1, True))
    assert isinstance(refused, Refusal) and refused.code == "guest"
    away.power_off()
    group.run(10.0)
    group.answer(group[0], RetireComputer(away.node, "stolen"))
    group.run(1.0)
    group.restart(away)
    group.until(lambda: not belongs(away, away), 30.0, "it gets the records that say so")
    assert "stolen" in away.core.administration.why_out()
    group.until(lambda: not linked(away), 10.0, "nobody lets it in")
    away.power_off()
    scenario.settle(60.0)
