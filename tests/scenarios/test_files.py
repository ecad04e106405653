"""The kept scenario files, each with both elections: safe all the time, consistent when the faults are over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from colla.sim.scenario.play import run_scenario
from colla.sim.scenario.scenario import load_scenario

FILES = sorted((Path(__file__).parent / "files").glob("*.toml"))


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_kept_scenario(file, election, seed):
    scenario = msgspec.structs.replace(load_scenario(file), election=election)
    outcome = run_scenario(
        scenario, seed, f"colla simulate run {file} --seed {seed} --election {election.value}"
    )
    assert not outcome.failed, outcome.report
    assert sum(outcome.acts.values()) >= len(scenario.acts) / 2, "most acts must find something to do"
