"""Many random scenarios: one case for each seed, and what they come to as tables.

For `lab.experiment.conduct`: a case is a seed, its result the `Outcome` of the scenario composed from it.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

import msgspec

from colla.protocol.views import Election
from colla.sim.lab.statistics import quantile
from colla.sim.lab.tables import Table
from colla.sim.scenario.compose import compose
from colla.sim.scenario.play import Outcome, run_scenario

EXPERIMENT = "chaos"
RARELY = (50_000, 20, 50)
"""Most objects of a simulation are gone at once and make no circles: looking for those rarely saves a twentieth."""


class Seed(msgspec.Struct, frozen=True):
    """One case: the random scenario of this seed, run with this seed."""

    seed: int

    @property
    def key(self) -> str:
        return str(self.seed)


def run_seed(case: Seed) -> Outcome:
    """Run one."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        return run_scenario(compose(case.seed), case.seed, replay_command(case.seed))
    finally:
        gc.set_threshold(*before)


def replay_command(seed: int) -> str:
    """What a person types to see the same again."""
    return f"colla simulate run --seed {seed}"


def summary(outcomes: Sequence[Outcome]) -> Table:
    """What was run and found, by election and in all. Seconds are virtual."""
    elections = list(Election)
    rows = [
        _row(election.value, [one for one in outcomes if elections[one.seed % len(elections)] is election])
        for election in elections
    ]
    columns = (
        "election",
        "seeds",
        "virtual hours",
        "messages",
        "steps checked",
        "writes checked",
        "acts",
        "violations",
        "consistent after s, p50",
        "p99",
        "max",
    )
    return Table("Chaos", columns, (*rows, _row("both", list(outcomes))))


def _row(name: str, outcomes: list[Outcome]) -> tuple[str | int | float | None, ...]:
    took_s = sorted(one.consistent_s for one in outcomes if one.consistent_s is not None)
    return (
        name,
        len(outcomes),
        sum(one.virtual_s for one in outcomes) / 3600.0,
        sum(one.messages for one in outcomes),
        sum(one.steps for one in outcomes),
        sum(one.writes for one in outcomes),
        sum(sum(one.acts.values()) for one in outcomes),
        sum(one.failed for one in outcomes),
        *((quantile(took_s, at) if took_s else None) for at in (0.5, 0.99, 1.0)),
    )


def acts_table(outcomes: Sequence[Outcome]) -> Table:
    """How often each kind of act found something to do, and in how many scenarios."""
    counts: dict[str, int] = {}
    scenarios: dict[str, int] = {}
    for outcome in outcomes:
        for kind, count in outcome.acts.items():
            counts[kind] = counts.get(kind, 0) + count
            scenarios[kind] = scenarios.get(kind, 0) + 1
    rows = tuple((kind, counts[kind], scenarios[kind]) for kind in sorted(counts))
    return Table("Acts", ("act", "times", "scenarios"), rows)


def failures_table(outcomes: Sequence[Outcome]) -> Table:
    """What went wrong: failures of one sort together, with the first seeds that show it."""
    sorts: dict[str, list[int]] = {}
    for outcome in outcomes:
        if outcome.failed:
            sorts.setdefault(outcome.sort, []).append(outcome.seed)
    rows = tuple((sort, len(seeds), ", ".join(map(str, seeds[:8]))) for sort, seeds in sorted(sorts.items()))
    return Table("Failures", ("what", "times", "seeds"), rows)
