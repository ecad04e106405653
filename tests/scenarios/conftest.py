"""What scenarios share: a group in virtual time with all safety checks on, for both elections and several seeds.

`COLLA_SCENARIO_SEEDS=50` runs fifty seeds of each instead of the usual few. A failure names the one that replays it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from colla.model.ids import ServiceId
from colla.protocol.views import Election
from colla.sim.checkers import SafetyChecks
from colla.sim.consistency import settle
from colla.sim.group import SimGroup

SEEDS = int(os.environ.get("COLLA_SCENARIO_SEEDS", "2"))
MEETING_S = 5.0
"""Those who joined one after the other know each other after this time."""
FORMING_S = 15.0
"""A new group with a deployed service is consistent within this time."""


class Scenario:
    """A group, its checkers, and waiting for consistency."""

    def __init__(self, group: SimGroup) -> None:
        self.group = group
        self.checks = SafetyChecks(group)
        self.services: dict[str, ServiceId] = {}

    def settle(self, within_s: float, stays_s: float = 3.0) -> float:
        """Wait until the group is consistent and stays so; how long that took. No acknowledged write may be lost."""
        return settle(self.group, within_s, self.checks, stays_s)


NewScenario = Callable[..., Scenario]


@pytest.fixture(params=[election.value for election in Election])
def election(request: pytest.FixtureRequest) -> Election:
    return Election(request.param)


@pytest.fixture(params=range(SEEDS))
def seed(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def new_scenario(request: pytest.FixtureRequest, election: Election, seed: int) -> NewScenario:
    """`new_scenario(nodes, replicas=…)`: so many nodes of one member each, and the service `web` running."""

    def new(nodes: int, replicas: int = 3, **options: object) -> Scenario:
        name = request.node.nodeid
        scenario = Scenario(SimGroup(seed, election, replay=f"pytest '{name}'", **options))  # type: ignore[arg-type]
        scenario.group.grow(nodes)
        scenario.group.run(MEETING_S)
        if replicas:
            scenario.services["web"] = scenario.group.deploy("web", replicas)
            scenario.settle(FORMING_S)
        return scenario

    return new
