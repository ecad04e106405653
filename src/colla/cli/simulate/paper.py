"""`colla simulate paper`: the validation of the paper, repeated and improved."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from colla.cli.command import LAB_PANEL, Here, command
from colla.cli.simulate.conducting import RunOptions, conduct
from colla.cli.up import ElectionName

if TYPE_CHECKING:
    from colla.sim.validation.plan import Plan

RESULTS_NAME = "paper.jsonl"
FIGURE_NAME = "consistent"
ACTIVITY_PANEL = "Activity (probabilities per tick and computer)"
HIDDEN_TABLES = ("runs",)
"""Written, but too long to be shown."""


class ProfileName(enum.StrEnum):
    """See `colla.sim.validation.profile`."""

    PAPER = "paper"
    PLAIN = "plain"
    PRODUCT = "product"


class SettingName(enum.StrEnum):
    """See `colla.sim.validation.case`."""

    USUAL = "usual"
    RETURN = "return"
    HEAL = "heal"
    LOSSES = "losses"


def _probability(name: str, text: str) -> object:
    return typer.Option(name, min=0.0, max=1.0, help=text, rich_help_panel=ACTIVITY_PANEL)


def _seconds(name: str, text: str) -> object:
    return typer.Option(name, min=1.0, help=text, rich_help_panel=ACTIVITY_PANEL)


@dataclass(frozen=True)
class ActivityOptions:
    """What happens in phase 1, and how long both phases last."""

    tick_s: Annotated[float, _seconds("--tick", "Seconds of a tick, and of an iteration.")] = 20.0
    active_s: Annotated[float, _seconds("--active", "Seconds of phase 1, with activity.")] = 360.0
    quiet_s: Annotated[float, _seconds("--quiet", "Seconds of phase 2, without.")] = 180.0
    disconnect: Annotated[float, _probability("--disconnect", "A computer disconnects.")] = 0.05
    reconnect: Annotated[float, _probability("--reconnect", "A disconnected one returns.")] = 0.2
    create: Annotated[float, _probability("--create", "Its member creates a service.")] = 0.25
    delete: Annotated[float, _probability("--delete", "Its member eliminates one.")] = 0.1
    activate: Annotated[float, _probability("--activate", "Its member activates one.")] = 0.1
    deactivate: Annotated[float, _probability("--deactivate", "Its member deactivates one.")] = 0.05
    use: Annotated[float, _probability("--use", "Its member uses one more.")] = 0.25
    failing: Annotated[float, _probability("--failing", "Of those that disconnect, who fails.")] = 0.5


@dataclass(frozen=True)
class PlanOptions:
    """What is run."""

    profile: Annotated[
        list[ProfileName] | None,
        typer.Option("--profile", help="Only these: paper, plain (as published), product (what ships)."),
    ] = None
    plain: Annotated[bool, typer.Option("--plain", help="Only the mechanisms as published.")] = False
    election: Annotated[list[ElectionName] | None, typer.Option("--election", help="Only this election.")] = (
        None
    )
    setting: Annotated[
        list[SettingName] | None,
        typer.Option("--setting", help="Only these: usual, return, heal, losses."),
    ] = None
    nodes: Annotated[
        list[int] | None,
        typer.Option("--nodes", min=2, help="Only these sizes. Default: 20, 5, 10, 50, 100."),
    ] = None
    runs: Annotated[
        int | None,
        typer.Option("--runs", min=1, help="So many of each. Default: 1300 at 20 computers, else 200."),
    ] = None
    full: Annotated[bool, typer.Option("--full", help="10,000 runs at 20 computers.")] = False


async def paper(
    here: Here,
    options: RunOptions,
    plan: PlanOptions,
    activity: ActivityOptions,
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The folder for results, tables and the figure.")
    ] = Path("colla-paper"),
) -> None:
    """Repeat the paper's validation: how many iterations until a group is consistent after much activity?

    Phase 1: services are created, activated, used, deactivated and eliminated; computers fail, lose their line and return.
    Phase 2: only the internal mechanisms run. Counted are the iterations until all connected computers hold the same
    catalogue, every active service has one master that all know, the replicas asked for run, and user agents hand out
    living ones; judged by what is true in the simulation. With both elections, beside the paper's 85 % and 95 %.

    The default takes hours. Stopped or out of --budget, the same command goes on where it was.
    """
    from colla.sim.lab.figures import need_matplotlib
    from colla.sim.lab.tables import joined, write_csv, write_json
    from colla.sim.validation.case import PaperResult, run_case
    from colla.sim.validation.picture import draw
    from colla.sim.validation.report import grouped, tables

    need_matplotlib()
    planned = _plan(options, plan, activity)
    outcome = await conduct(
        here,
        options,
        "runs",
        planned.cases(),
        run_case,
        PaperResult,
        planned.heading(),
        out / RESULTS_NAME,
    )
    found = tables(outcome.results)
    shown = {name: table for name, table in found.items() if name not in HIDDEN_TABLES and table.rows}
    for name, table in found.items():
        write_csv(out / f"{name}.csv", table)
    answer = {name: table.builtins() for name, table in shown.items()}
    write_json(out / "summary.json", answer)
    (out / "tables.md").write_text(joined(list(shown.values())), encoding="utf-8")
    draw(out / FIGURE_NAME, grouped(outcome.results))
    if here.out.json:
        here.out.answer(answer)
        return
    for name, table in shown.items():
        if here.out.terminal:
            here.out.table(table.columns, table.cells(), title=table.title)
        else:
            here.out.table((), [[name, *cells] for cells in table.cells()])
    here.out.note(f"Tables, figure and all runs are in {out}.")


def _plan(options: RunOptions, given: PlanOptions, activity: ActivityOptions) -> Plan:
    from colla.sim.validation.plan import Plan

    chosen: dict[str, Any] = {
        "profiles": [ProfileName.PLAIN] if given.plain else given.profile,
        "elections": given.election,
        "settings": given.setting,
        "nodes": given.nodes and list(dict.fromkeys(given.nodes)),
        "runs": given.runs,
    }
    said = {name: value for name, value in chosen.items() if value}
    return msgspec.convert(
        {"seed": options.seed, "full": given.full, "activity": dataclasses.asdict(activity), **said}, Plan
    )


def add(app: typer.Typer) -> None:
    """Declare this command."""
    command(
        app,
        LAB_PANEL,
        examples=(
            "colla simulate paper --nodes 20 --runs 50 --profile paper --profile plain",
            "colla simulate paper --budget 10m",
            "colla simulate paper --setting heal --runs 100",
            "colla simulate paper --full --processes 8 --out results",
        ),
    )(paper)
