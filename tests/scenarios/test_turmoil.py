"""Anything, in any order; then peace: the group is consistent again, and nothing that was acknowledged is lost."""

from __future__ import annotations

import pytest

from colla.sim.faults import Turmoil
from colla.sim.network import Line

ACTS = 25
PEACE_S = 180.0


@pytest.mark.parametrize("loss", [0.0, 0.01], ids=["good lines", "bad lines"])
def test_peace_after_turmoil(new_scenario, loss):
    scenario = new_scenario(6, line=Line(loss=loss))
    turmoil = Turmoil(scenario.group)
    turmoil.run(ACTS)
    turmoil.peace()
    try:
        scenario.settle(PEACE_S, stays_s=10.0)
    except AssertionError as error:
        error.add_note("\n".join(turmoil.log))
        raise
    assert scenario.checks.acknowledged
