"""The owner has the last word, at once, with or without the others."""

from __future__ import annotations

import msgspec

from colla.model.contribution import GIVES_NOTHING
from colla.sim.group import GIVES


def change(computer, **changes):
    return computer.contribute(msgspec.structs.replace(computer.settings.contribution, **changes))


def test_owners_refuse(new_scenario):
    """Of six, one is paused, one gives no environment, one runs only its own, one gives nothing."""
    scenario = new_scenario(6, replicas=0)
    group = scenario.group
    change(group[1], paused=True)
    change(group[2], environments=())
    change(group[3], own_only=True)
    change(group[4], agents=GIVES_NOTHING.agents)
    group.run(2.0)
    web = group.deploy("web", replicas=4, at=group[0])
    scenario.settle(30.0)
    assert group.running_on(web) == [group[0], group[5]]
    own = group.deploy("own", replicas=1, at=group[3])
    scenario.settle(30.0)
    change(group[1], paused=False)
    group.until(lambda: group.running(web) == 3, 30.0, "the one that is willing again runs it")
    assert group.running(own) == 1
    scenario.settle(30.0)


def test_an_owner_refuses_a_member_later(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    refusing = next(computer for computer in group.running_on(web) if computer is not group[0])
    change(refusing, members=(group.owner(refusing).name,))
    group.until(lambda: refusing not in group.running_on(web), 3.0, "its replica stops at once")
    group.until(lambda: group.running(web) == 3, 15.0, "another takes its place")
    scenario.settle(30.0)


def test_a_paused_computer_stops_without_anybody(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    alone = group.running_on(web)[0]
    group.partition([alone], [one for one in group.computers if one is not alone])
    group.run(1.0)
    asked = change(alone, paused=True)
    group.run(2.0)
    assert asked.answered and asked.refusal is None
    assert not alone.environment.replicas
    group.heal()
    scenario.settle(120.0)


def test_a_drain_moves_replicas_first(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    draining = group.running_on(web)[0]
    change(draining, draining=True)
    fewest = 3

    def moved():
        nonlocal fewest
        fewest = min(fewest, group.running(web))
        return not draining.environment.replicas

    group.until(moved, 20.0, "the draining computer is empty")
    assert fewest == 3, "another replica serves before this one stops"
    scenario.settle(20.0)


def test_a_master_drains_and_leaves(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    master = group.master_of(web)
    change(master, draining=True)
    group.until(lambda: not master.environment.replicas, 20.0, "it is empty")
    master.stop()
    group.until(lambda: group.masters(web) not in ([], [master]), 10.0, "somebody else masters web")
    assert group.running(web) >= 2
    scenario.settle(20.0)


def test_capacity_is_kept(new_scenario):
    """Two places for replicas on each of three computers: never more, whatever is asked."""
    small = msgspec.structs.replace(GIVES, replicas_max=2)
    scenario = new_scenario(3, replicas=0, contribution=small)
    group = scenario.group
    services = [group.deploy(f"s{number}", replicas=3, at=group[number]) for number in range(2)]
    group.until(lambda: all(group.running(one) == 3 for one in services), 30.0, "all six places are taken")
    more = group.deploy("more", replicas=1, at=group[0])
    group.run(15.0)
    assert group.running(more) == 0
    assert all(len(computer.environment.replicas) <= 2 for computer in group.computers)
    group.eliminate(services[1], at=group[1])
    group.until(lambda: group.running(more) == 1, 30.0, "a place became free")
    scenario.settle(20.0)
