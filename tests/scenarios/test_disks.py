"""Crashes between any two effects, disks that are full, slow or wiped: nothing acknowledged is lost."""

from __future__ import annotations

import msgspec
import pytest

from colla.kernel.effects import LaunchReplica, Persist
from colla.kernel.events import MessageReceived
from colla.model.contribution import AgentKind
from colla.protocol.supervision.messages import Offer
from colla.sim.disk import DiskSpeed

ONE_SEED = pytest.mark.parametrize("seed", [0])
"""A sweep over places to crash at needs no further seeds."""


def is_offer(event):
    return isinstance(event, MessageReceived) and isinstance(event.message, Offer)


def claims(effect):
    return isinstance(effect, Persist) and any(
        getattr(write, "name", "").startswith("claimed-ballot/") for write in effect.writes
    )


def without(computer, agent):
    """The computer of the author must not be the one that crashes: it carries this agent no more."""
    gives = computer.settings.contribution
    agents = tuple(kind for kind in gives.agents if kind is not agent)
    computer.contribute(msgspec.structs.replace(gives, agents=agents))


@ONE_SEED
@pytest.mark.parametrize("number", range(14))
def test_a_crash_between_any_two_effects_of_a_launch(new_scenario, number):
    """An executor dies at its n-th effect after it was offered a replica, and comes back."""
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    without(group[0], AgentKind.EXECUTOR)
    group.run(1.0)
    crash = group.crash_at_effect(number, power=number % 2 == 0, begin=is_offer)
    web = group.deploy("web", replicas=2, at=group[0])
    group.until(lambda: crash.computer is not None, 20.0, "an executor crashed")
    group.run(1.0)
    group.restart(crash.computer)
    scenario.settle(75.0)
    assert group.running(web) == 2


@ONE_SEED
@pytest.mark.parametrize("number", range(0, 18, 2))
def test_a_crash_between_any_two_effects_of_a_claim(new_scenario, number):
    """A dispatcher dies at its n-th effect from where it makes its ballot durable."""
    scenario = new_scenario(4, replicas=0)
    group = scenario.group
    without(group[0], AgentKind.DISPATCHER)
    group.run(1.0)
    crash = group.crash_at_effect(number, power=True, effect=claims)
    web = group.deploy("web", replicas=2, at=group[0])
    group.until(lambda: crash.computer is not None, 20.0, "the dispatcher crashed")
    group.run(1.0)
    group.restart(crash.computer)
    scenario.settle(75.0)
    assert group.running(web) == 2


class CrashAfterLaunch:
    """The first node that launches a replica dies before it carries out anything more."""

    def __init__(self):
        self.computer = None

    def will_step(self, computer, event):
        pass

    def stepped(self, computer, event, effects):
        pass

    def performed(self, computer, effect):
        if self.computer is None and isinstance(effect, LaunchReplica):
            self.computer = computer
            computer.process.trap = lambda later: computer.kill() or True


def test_a_crash_in_the_launch_itself_leaves_no_stray(new_scenario):
    """The replica runs, but whoever launched it died before it knew: it is recovered or stopped, never doubled."""
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    without(group[0], AgentKind.EXECUTOR)
    group.run(1.0)
    crash = CrashAfterLaunch()
    group.observers.append(crash)
    web = group.deploy("web", replicas=2, at=group[0])
    group.until(lambda: crash.computer is not None, 20.0, "an executor crashed")
    group.run(0.2)
    assert crash.computer.environment.replicas
    group.restart(crash.computer)
    scenario.settle(75.0)
    assert all(len(computer.environment.replicas) <= 1 for computer in group.computers)
    assert group.running(web) == 2


def test_a_full_disk_on_one_node(new_scenario):
    """It restarts from what is durable until there is room; the others do not suffer, and nothing is lost."""
    scenario = new_scenario(5)
    group, web = scenario.group, scenario.services["web"]
    full = group.running_on(web)[0]
    full.disk.fill()
    writers = [computer for computer in group.computers if computer is not full]
    for number in range(3):
        group.deploy(f"s{number}", replicas=1, at=writers[number])
        group.run(3.0)
    refused = full.ask(group.creation("mine", full))
    group.until(lambda: refused.answered, 45.0, "the owner of the full disk is told")
    assert refused.refusal is not None
    assert group.running(web) >= 3
    full.disk.free()
    scenario.settle(90.0)
    assert full.core.catalogue.fingerprint() == group[0].core.catalogue.fingerprint()


def test_a_slow_disk_causes_no_false_death(new_scenario):
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    for computer in group.computers[:2]:
        computer.disk.speed = DiskSpeed(flush_s=0.6, slow_share=0.3, slow_s=2.5)
    for number in range(4):
        group.deploy(f"s{number}", replicas=1, at=group[number])
        group.run(4.0)
        assert group.running(web) >= 3
    absences = [
        notice.text
        for computer in group.computers
        for _, notice in computer.notices
        if notice.kind == "node_absent"
    ]
    assert not absences
    scenario.settle(120.0)


def test_a_wiped_disk_comes_back_empty(new_scenario):
    """A computer whose disk was replaced joins the others again by its key, and gets everything."""
    scenario = new_scenario(4)
    group = scenario.group
    wiped = group[2]
    wiped.wipe()
    group.run(10.0)
    wiped.settings.peers = tuple((one.node, (one.address,)) for one in group.computers if one is not wiped)
    wiped.start()
    group.until(lambda: group.joined(wiped), 60.0, "it is known to belong")
    scenario.settle(90.0)
