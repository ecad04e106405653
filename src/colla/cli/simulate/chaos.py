"""`colla simulate chaos`: many random scenarios, each with every safety check on, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colla.cli.command import LAB_PANEL, Here, command
from colla.cli.simulate.conducting import RunOptions, conduct
from colla.model.errors import CollaError

if TYPE_CHECKING:
    from colla.sim.lab.tables import Table
    from colla.sim.scenario.chaos import Seed
    from colla.sim.scenario.play import Outcome

RESULTS_NAME = "chaos.jsonl"
FAILURES_SHOWN_MAX = 10


async def chaos(
    here: Here,
    options: RunOptions,
    count: Annotated[
        int, typer.Option("--count", min=1, help="How many seeds, beginning with --seed.")
    ] = 200,
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The folder for results, tables and failures.")
    ] = Path("colla-chaos"),
) -> None:
    """Run random scenarios: everything fails, people do everything, then peace must make the group consistent again.

    Each seed composes one scenario of up to 8 computers and a minute of faults, even seeds with the hashing election, odd
    ones with contention. Safety is checked after every step. Failures are written with their story and their scenario,
    and `colla simulate run` runs one again and reduces it. Fails if anything was violated.
    """
    from colla.sim.lab.experiment import heading
    from colla.sim.lab.tables import write_csv
    from colla.sim.scenario.chaos import EXPERIMENT, Seed, acts_table, failures_table, run_seed, summary
    from colla.sim.scenario.play import Outcome

    cases = [Seed(seed) for seed in range(options.seed, options.seed + count)]
    outcome = await conduct(
        here,
        options,
        "random scenarios",
        cases,
        run_seed,
        Outcome,
        heading(EXPERIMENT, {}),
        out / RESULTS_NAME,
        lambda case, result: _note_failure(here, out, case, result),
    )
    results = [result for _, result in outcome.results]
    tables = (summary(results), acts_table(results), failures_table(results))
    for table, name in zip(tables, ("summary", "acts", "failures"), strict=True):
        write_csv(out / f"{name}.csv", table)
    if here.out.json:
        here.out.answer({table.title.lower(): table.builtins() for table in tables})
    else:
        for table in tables:
            _show(here, table)
    failed = sum(result.failed for result in results)
    if failed:
        raise CollaError(
            "violated",
            f"{failed} of {len(results)} scenarios failed.",
            f"Their stories are in {out / 'failures'}; colla simulate run --seed SEED runs one again.",
        )


def _show(here: Here, table: Table) -> None:
    if table.rows:
        here.out.table(table.columns, table.cells(), title=table.title)


def _note_failure(here: Here, out: Path, case: Seed, result: Outcome) -> None:
    """Write down a failure as soon as it is there."""
    if not result.failed:
        return
    from colla.sim.scenario.compose import compose
    from colla.sim.scenario.scenario import write_scenario

    folder = out / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case.seed}.txt").write_text(result.report, encoding="utf-8")
    (folder / f"{case.seed}.toml").write_text(write_scenario(compose(case.seed)), encoding="utf-8")
    here.out.warn(f"seed {case.seed}: {result.why}")


def add(app: typer.Typer) -> None:
    """Declare this command."""
    command(
        app,
        LAB_PANEL,
        examples=(
            "colla simulate chaos",
            "colla simulate chaos --count 20000 --budget 1h",
            "colla simulate chaos --seed 5000 --count 100 --out other",
        ),
    )(chaos)
