"""What many sizes come to: tables, a figure, and what larger groups would cost if it goes on like this.

Beyond the largest size that was simulated figures are *extrapolated*: a power of the number of nodes is fitted through the
largest three sizes (least squares of the logarithms) and carried on. Rows that were not simulated say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from colla.sim.lab.figures import COLOURS, figure
from colla.sim.lab.statistics import mean, quantile
from colla.sim.lab.tables import Cell, Table
from colla.sim.scale.measure import ITERATION_S, Cost

FITTED = 3
BEYOND = (2_000, 5_000, 10_000)
SIZES = (10, 20, 50, 100, 200, 500, 1000)

Value = Callable[[Cost], float]

GROWING: tuple[tuple[str, Value], ...] = (
    ("messages idle", lambda cost: cost.idle.messages),
    ("KiB idle", lambda cost: cost.idle.bytes / 1024),
    ("messages active", lambda cost: cost.active.messages),
    ("KiB active", lambda cost: cost.active.bytes / 1024),
    ("busiest node, active", lambda cost: cost.active.messages_max),
)
"""Per node and iteration."""


def cost_table(costs: Sequence[Cost]) -> Table:
    """Messages and bytes per node and iteration."""
    rows: list[tuple[Cell, ...]] = []
    for cost in costs:
        growing = [value(cost) for _, value in GROWING]
        rows.append((cost.election, cost.nodes, *growing, cost.meeting.messages, cost.meeting.bytes / 1024))
    columns = (
        "election",
        "nodes",
        *(name for name, _ in GROWING),
        "messages to meet",
        "KiB to meet",
    )
    title = f"Cost: sent per node, in one iteration of {ITERATION_S:g} s; to meet: all that it takes after a power cut"
    return Table(title, columns, tuple(rows))


def speed_table(costs: Sequence[Cost]) -> Table:
    """How soon news is everywhere, and what the simulation itself took."""
    rows: list[tuple[Cell, ...]] = []
    for cost in costs:
        rows.append(
            (
                cost.election,
                cost.nodes,
                cost.meeting_s,
                quantile(cost.changes_s, 0.5),
                quantile(cost.changes_s, 1.0),
                mean(cost.first_known_s),
                quantile(cost.all_known_s, 1.0),
                cost.false_absences,
                cost.node_hours,
                cost.memory_bytes / 2**20,
                cost.processor_s,
                cost.virtual_s / cost.processor_s if cost.processor_s else math.nan,
            )
        )
    columns = (
        "election",
        "nodes",
        "all met, s",
        "change at all, median s",
        "change at all, longest s",
        "crash noticed, mean s",
        "crash known to all, longest s",
        "false absences",
        "node-hours",
        "simulation, MiB",
        "processor, s",
        "× real time",
    )
    return Table("Speed: how soon news is everywhere, and what the simulation took", columns, tuple(rows))


def growth_table(costs: Sequence[Cost]) -> Table:
    """By which power of the number of nodes each cost grows, and what larger groups would pay: extrapolated."""
    rows: list[tuple[Cell, ...]] = []
    for election in dict.fromkeys(cost.election for cost in costs):
        of = sorted((cost for cost in costs if cost.election == election), key=lambda cost: cost.nodes)
        for name, value in (*GROWING, ("messages to meet", lambda cost: cost.meeting.messages)):
            power, at = fit([(cost.nodes, value(cost)) for cost in of[-FITTED:]])
            rows.append((election, name, power, *(at(nodes) for nodes in BEYOND)))
    columns = ("election", "per node and iteration", "grows as nodes to the power", *map(str, BEYOND))
    return Table(
        f"Beyond {max((c.nodes for c in costs), default=0)} nodes: extrapolated", columns, tuple(rows)
    )


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, Callable[[float], float]]:
    """The power law through these points: its exponent, and the law. Not a number with fewer than two positive points."""
    known = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0 and math.isfinite(y)]
    if len(known) < 2:
        return math.nan, lambda x: math.nan
    middle_x, middle_y = mean([x for x, _ in known]), mean([y for _, y in known])
    width = sum((x - middle_x) ** 2 for x, _ in known)
    if not width:
        return math.nan, lambda x: math.nan
    power = sum((x - middle_x) * (y - middle_y) for x, y in known) / width
    return power, lambda x: math.exp(middle_y + power * (math.log(x) - middle_x))


def tables(costs: Sequence[Cost]) -> dict[str, Table]:
    """All of them, by the name of their file."""
    return {"cost": cost_table(costs), "speed": speed_table(costs), "growth": growth_table(costs)}


def draw(path: Path, costs: Sequence[Cost]) -> None:
    """Four panels over the number of nodes, both elections: `path` with .png and .svg. Raises `CollaError`."""
    panels: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = (
        (
            "messages per node and iteration",
            (("idle", lambda c: c.idle.messages), ("active", lambda c: c.active.messages)),
        ),
        (
            "KiB per node and iteration",
            (("idle", lambda c: c.idle.bytes / 1024), ("active", lambda c: c.active.bytes / 1024)),
        ),
        (
            "seconds until all know",
            (
                ("of a change", lambda c: quantile(c.changes_s, 0.5)),
                ("of a crash", lambda c: quantile(c.all_known_s, 1.0)),
            ),
        ),
        (
            "the simulation itself",
            (
                ("MiB of memory", lambda c: c.memory_bytes / 2**20),
                ("seconds of a processor", lambda c: c.processor_s),
            ),
        ),
    )
    elections = tuple(dict.fromkeys(cost.election for cost in costs))
    with figure(path, 2, 2, width_in=8.0, height_in=6.0) as (_, axes):
        for place, (title, lines) in zip(axes.flat, panels, strict=True):
            for number, (label, value) in enumerate(lines):
                for election, style in zip(elections, ("-", "--"), strict=False):
                    of = [cost for cost in costs if cost.election == election]
                    place.plot(
                        [cost.nodes for cost in of],
                        [value(cost) for cost in of],
                        style,
                        marker="o",
                        markersize=3,
                        color=COLOURS[number],
                        label=f"{label}, {election}",
                    )
            place.set(xscale="log", yscale="log" if place is axes.flat[-1] else "linear", title=title)
            if place is not axes.flat[-1]:
                place.set_ylim(bottom=0)
            sizes = sorted(dict.fromkeys(cost.nodes for cost in costs))
            place.set_xticks(sizes, [str(size) for size in sizes], minor=False)
            place.set_xticks([], minor=True)
            place.legend(fontsize=7)
