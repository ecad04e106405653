"""`colla simulate scale`: what a group costs and how quick it is, from ten nodes to a thousand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colla.cli.command import LAB_PANEL, Here, command
from colla.cli.simulate.conducting import RunOptions, conduct

RESULTS_NAME = "scale.jsonl"


async def scale(
    here: Here,
    options: RunOptions,
    nodes: Annotated[
        list[int] | None,
        typer.Option("--nodes", "-n", min=2, help="A size; may be given several times. Default: 10 to 1000."),
    ] = None,
    election: Annotated[
        list[str] | None, typer.Option("--election", help="hashing or contention. Default: both.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The folder for results, tables and the figure.")
    ] = Path("colla-scale"),
) -> None:
    """Measure groups of growing size: messages and bytes, how soon news is everywhere, what the simulation takes.

    Each size is one world: all computers are switched on at once; then come an idle time, a time of changes and three
    crashes. A thousand nodes take several GiB of memory and half an hour of a core: use --processes 1 for those.
    """
    from colla.sim.lab.experiment import heading
    from colla.sim.lab.figures import need_matplotlib
    from colla.sim.lab.tables import joined, write_csv, write_json
    from colla.sim.scale.measure import ELECTIONS, Cost, Size, measure
    from colla.sim.scale.summary import SIZES, draw, tables

    need_matplotlib()
    elections = election or ELECTIONS
    unknown = [name for name in elections if name not in ELECTIONS]
    if unknown:
        raise typer.BadParameter(f"no election {unknown[0]}; there are: {', '.join(ELECTIONS)}")
    sizes = sorted(dict.fromkeys(nodes or SIZES))
    cases = [Size(count, one, options.seed) for count in sizes for one in elections]
    outcome = await conduct(
        here, options, "sizes", cases, measure, Cost, heading("scale", {}), out / RESULTS_NAME
    )
    costs = [cost for _, cost in outcome.results]
    made = tables(costs)
    for name, table in made.items():
        write_csv(out / f"{name}.csv", table)
    write_json(out / "scale.json", costs)
    (out / "scale.md").write_text(joined(tuple(made.values())), encoding="utf-8")
    draw(out / "scale", costs)
    if here.out.json:
        here.out.answer({name: table.builtins() for name, table in made.items()})
        return
    for table in made.values():
        here.out.table(table.columns, table.cells(), title=table.title)
    here.out.note(
        f"Written to {out}: tables as CSV and Markdown, everything as JSON, the figure as PNG and SVG."
    )


def add(app: typer.Typer) -> None:
    """Declare this command."""
    command(
        app,
        LAB_PANEL,
        examples=(
            "colla simulate scale --nodes 10 --nodes 50",
            "colla simulate scale --election hashing --processes 1",
        ),
    )(scale)
