"""Environments start slowly, fail, crash, hang, flap or go away: the service goes on elsewhere, and ends up right."""

from __future__ import annotations

from colla.sim.environment import CRASHES, FLAPS, HANGS, SLOW_TO_START, STUBBORN, WELL_BEHAVED, Behaviour

SURVEYED_S = 75.0
"""A survey, a stop that is tried again, and a surplus that is trimmed."""


def bad_on_one(scenario, behaviour):
    """Of the computers that run `web`, one whose replicas behave so from now on, also those started anew."""
    one = scenario.group.running_on(scenario.services["web"])[0]
    one.environment.behaviour = behaviour
    one.environment.crash(scenario.services["web"])
    return one


def test_crash_loops_and_failing_starts_move_elsewhere(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    for behaviour in (CRASHES, Behaviour(fails_to_launch="no memory", fails_share=0.7)):
        bad = bad_on_one(scenario, behaviour)
        group.until(
            lambda bad=bad: sum(one is not bad for one in group.running_on(web)) == 3, 30.0, "runs elsewhere"
        )
        launches = bad.environment.launches
        group.run(60.0)
        assert bad.environment.launches - launches <= 4, "tries there become rare"
        bad.environment.behaviour = WELL_BEHAVED
    scenario.settle(SURVEYED_S)


def test_slow_starts_are_waited_for(new_scenario):
    scenario = new_scenario(4, replicas=0)
    for computer in scenario.group.computers:
        computer.environment.behaviour = SLOW_TO_START
    scenario.group.deploy("slow", replicas=3)
    scenario.settle(75.0, stays_s=40.0)
    launches = sum(computer.environment.launches for computer in scenario.group.computers)
    assert launches == 3, "slow is not dead"


def test_hanging_and_flapping_replicas_are_replaced(new_scenario):
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    for behaviour in (HANGS, FLAPS):
        bad_on_one(scenario, behaviour)
    group.until(lambda: group.running(web) >= 3, 30.0, "all begin")
    group.run(40.0)
    for _ in range(60):
        group.run(2.0)
        assert group.running(web) >= 2, "two that are sound are always there"
    for computer in group.computers:
        computer.environment.behaviour = WELL_BEHAVED
        computer.environment.crash(web)
    scenario.settle(120.0)


def test_an_environment_goes_away_while_its_replicas_must_stop(new_scenario):
    """Nothing may be called stopped that runs on, and nothing be started beside it when the environment is back."""
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    away = group.running_on(web)[0]
    away.detach_environments(25.0)
    group.set_active(web, False)
    group.run(10.0)
    assert group.running_on(web) == [away]
    group.set_active(web, True)
    group.run(20.0)
    scenario.settle(SURVEYED_S)


def test_replicas_that_end_while_their_environment_is_away_are_missed(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    away = group.running_on(web)[0]
    away.detach_environments(5.0)
    away.environment.crash(web)
    scenario.settle(SURVEYED_S)


def test_stubborn_replicas_are_killed(new_scenario):
    scenario = new_scenario(3)
    group, web = scenario.group, scenario.services["web"]
    for computer in group.computers:
        computer.environment.behaviour = STUBBORN
    group.eliminate(web)
    scenario.settle(40.0)
