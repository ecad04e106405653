"""Many worlds of `membership_world`, to be broken off and resumed: `python -m colla.sim.lab.membership_hunt --seeds 10000`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from colla.sim.lab.experiment import conduct, heading
from colla.sim.lab.membership_checks import Findings, run
from colla.sim.lab.membership_world import Case

TOLD_EVERY = 500
TWIN_EVERY = 4
"""The twin takes as long as all the rest."""


def main() -> int:
    """Run the worlds and tell what was found; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Who belongs, under partitions: many seeded worlds.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=None, help="all cores if not given")
    parser.add_argument("--file", type=Path, default=None, help="keep results here, and go on from there")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    cases = [Case(seed, twin=seed % TWIN_EVERY == 0) for seed in seeds]
    outcome = conduct(
        cases,
        run,
        Findings,
        heading(
            "membership", {"steps": cases[0].steps, "lawless": cases[0].lawless, "twin_every": TWIN_EVERY}
        ),
        path=given.file,
        processes=given.processes,
        progress=lambda done, total: (
            print(f"{done} of {total}", flush=True) if done % TOLD_EVERY == 0 else None
        ),
    )
    found = [findings for _, findings in outcome.results]
    for findings in found:
        for problem in findings.problems:
            print(f"seed {findings.seed}: {problem}")
    broken = sum(bool(findings.problems) for findings in found)
    print(
        f"{len(found)} worlds, {sum(f.nodes for f in found)} nodes, {sum(f.records for f in found)} records, "
        f"{sum(f.acts for f in found)} acts, {sum(f.void for f in found)} void records, "
        f"{sum(f.ended for f in found)} computers taken out, {sum(f.partitions for f in found)} partitions, "
        f"{sum(f.twin for f in found)} compared with the twin, {outcome.took_s:.0f} s: "
        f"{broken} with a broken promise"
    )
    return 1 if broken or not outcome.complete else 0


if __name__ == "__main__":
    sys.exit(main())
