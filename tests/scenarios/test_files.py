"""The kept scenario files, each with both elections: safe all the time, consistent when the faults are over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from colla.sim.scenario.play import run_scenario
from colla.sim.scenario.scenario import load_scenario

FILES = sorted((Path(__file__).parent / "files").glob("*.toml"))
SEEDS = {
    "a-clock-of-the-future-at-the-door": 9792,
    "orders-for-what-is-eliminated": 7021,
    "answers-that-wait-for-a-slow-disk": 8554,
    "an-elimination-that-was-not-written-down": 18634,
    "let-in-by-who-was-taken-out": 25092,
    "promised-and-not-written-down-yet": 38188,
    "counting-again-after-a-lost-disk": 35917,
}
"""With which the fault showed, where it needs chance."""


@pytest.mark.parametrize(
    ("file", "seed"), [pytest.param(file, SEEDS.get(file.stem, 1), id=file.stem) for file in FILES]
)
def test_a_kept_scenario(file, seed, election):
    scenario = msgspec.structs.replace(load_scenario(file), election=election)
    outcome = run_scenario(
        scenario, seed, f"colla simulate run {file} --seed {seed} --election {election.value}"
    )
    assert not outcome.failed, outcome.report
    assert sum(outcome.acts.values()) >= len(scenario.acts) / 2, "most acts must find something to do"
