"""Replicas, objects and computers fail; the group repairs what it can, and tells what it cannot."""

from __future__ import annotations

import pytest

from colla.sim.environment import Behaviour


def test_a_replica_crashes(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    group.running_on(web)[0].environment.crash(web)
    group.until(lambda: group.running(web) == 3, 10.0, "three replicas serve again")
    scenario.settle(20.0)


def test_the_only_replica_dies_with_its_computer(new_scenario):
    """In a small group, whether or not the service's master dies with it: section 16 gives four seconds."""
    scenario = new_scenario(3, replicas=1)
    group, web = scenario.group, scenario.services["web"]
    group.crash(group.running_on(web)[0])
    group.until(lambda: group.running(web) == 1, 4.0, "it answers again")
    scenario.settle(60.0)


def test_a_hanging_replica_is_replaced(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    sick = group.running_on(web)[0]
    sick.environment.hang(web)
    group.until(lambda: group.running(web) == 3, 60.0, "three replicas serve again")
    scenario.settle(60.0)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(fails_to_launch="no such command"),
        Behaviour(never_listens=True),
        Behaviour(crash_after_s=0.1),
    ],
    ids=["fails to launch", "never listens", "crashes at once"],
)
def test_where_it_does_not_run_it_runs_elsewhere(new_scenario, behaviour):
    """On two of five computers the program does not work; another service there is not touched."""
    scenario = new_scenario(5, replicas=5)
    group, web = scenario.group, scenario.services["web"]
    for computer in group.computers[1:3]:
        computer.environment.behaviours["picky"] = behaviour
    picky = group.deploy("picky", replicas=3)
    group.until(lambda: group.running(picky) == 3, 90.0, "it runs where it can")
    launches = sum(computer.environment.launches for computer in group.computers)
    group.run(30.0)
    assert sum(computer.environment.launches for computer in group.computers) - launches <= 8, "no back-off"
    assert group.running(web) == 5


def test_a_lost_object_is_copied_again(new_scenario):
    scenario = new_scenario(5, replicas=1)
    group, web = scenario.group, scenario.services["web"]
    site = group[0].core.catalogue.service(web).specification.object
    holders = [computer for computer in group.computers if site in computer.objects.sizes]
    assert len(holders) >= 3
    # All copies but one go, two with their computers.
    group.crash(*holders[1:3])
    for computer in holders[3:]:
        computer.objects.damage(site)
        computer.objects.read(site)
    up = [computer for computer in group.computers if computer.up]
    group.until(
        lambda: sum(site in computer.objects.sizes for computer in up) >= 2, 60.0, "a second copy is made"
    )
    scenario.settle(60.0)


def test_a_corrupt_object_is_fetched_again(new_scenario):
    scenario = new_scenario(4, replicas=1)
    group, web = scenario.group, scenario.services["web"]
    site = group[0].core.catalogue.service(web).specification.object
    running = group.running_on(web)[0]
    for computer in group.computers:
        if computer is not running:
            computer.objects.damage(site)
    scaled = group.scale(web, 3)
    group.until(lambda: group.running(web) == 3, 60.0, "it runs from the one sound copy")
    assert scaled.refusal is None
    scenario.settle(30.0)


def test_suspend_and_resume(new_scenario):
    """A laptop with the master and a replica sleeps for ten minutes; nothing of what it believed holds."""
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    laptop = group.master_of(web)
    laptop.suspend()
    group.until(lambda: group.masters(web) not in ([], [laptop]), 15.0, "somebody else masters web")
    group.until(lambda: group.running(web) == 3, 15.0, "three replicas serve")
    blog = group.deploy("blog", replicas=1, at=group.up()[0])
    group.run(120.0)
    laptop.resume()
    group.until(lambda: laptop.core.catalogue.service(blog) is not None, 30.0, "it knows what happened")
    scenario.settle(75.0, stays_s=10.0)


@pytest.mark.parametrize("slept_s", [8.0, 45.0, 600.0])
def test_who_wakes_up_is_back_at_once(new_scenario, slept_s: float):
    """The others closed its links while it slept and could not be told: it trusts none of them."""
    scenario = new_scenario(5, replicas=0)
    group = scenario.group
    laptop = group[2]
    group.run(5.0)
    laptop.suspend()
    group.run(slept_s)
    laptop.resume()
    others = [one for one in group.computers if one is not laptop]
    group.until(lambda: all(one.core.presence.is_present(laptop.node) for one in others), 3.0, "it is back")


def test_a_short_sleep(new_scenario):
    scenario = new_scenario(4)
    group = scenario.group
    group[1].suspend()
    group.run(8.0)
    group[1].resume()
    scenario.settle(75.0)


def test_a_cold_start_of_all(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    blog = group.deploy("blog", replicas=2, at=group[1])
    scenario.settle(15.0)
    group.crash(*group.computers)
    group.run(3600.0)
    for computer in group.computers:
        group.restart(computer)
        group.run(1.5)
    group.until(lambda: group.running(web) == 3 and group.running(blog) == 2, 30.0, "everything runs again")
    scenario.settle(60.0)


def test_agents_restart_and_replicas_go_on(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    before = {name for one in group.computers for name in one.environment.replicas}
    for computer in group.running_on(web):
        computer.kill()
        group.run(0.5)
        computer.start()
        assert group.running(web) == 3
        group.run(3.0)
    scenario.settle(60.0)
    after = {name for one in group.computers for name in one.environment.replicas}
    assert len(before & after) == 3, "they were adopted, not started anew"


def test_stalls_make_no_absence(new_scenario):
    """A starved computer, whose loop stands still for up to two seconds again and again, is not taken for dead."""
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    rng = group.world.random("stalls")
    for _ in range(12):
        rng.choice(group.computers).stall(rng.uniform(0.2, 2.0))
        group.run(rng.uniform(2.5, 4.0))
        assert group.running(web) >= 3
    absences = [
        notice.text
        for computer in group.computers
        for _, notice in computer.notices
        if notice.kind == "node_absent"
    ]
    assert not absences
    scenario.settle(60.0)
