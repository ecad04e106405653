"""What the runs of the validation come to, as tables, and whether the targets of DESIGN section 16 are met."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.protocol.views import Election
from colla.sim.lab.statistics import Share, mean, percent, quantile, share
from colla.sim.lab.tables import Cell, Table
from colla.sim.validation.case import NEVER, PaperCase, PaperResult, Setting
from colla.sim.validation.profile import Profile

SHOWN_ITERATIONS = (1, 2, 3, 4)
PAPERS_SHARES = {1: 0.85, 2: 0.95}
"""Lázaro, Marquès and Jorba, 2007; alike with both elections."""
TARGETS = {1: 0.95, 2: 0.995}
"""What the lower bounds of the intervals have to reach."""
BUDGET = 2.0
"""So many times the messages of the mechanisms as published."""
CONDITIONS = {"a": "catalogues", "b": "masters", "c": "replicas", "d": "locations"}

Runs = Sequence[tuple[PaperCase, PaperResult]]


class Group(msgspec.Struct, frozen=True):
    """The runs of one profile, election, setting and size."""

    profile: Profile
    election: Election
    setting: Setting
    nodes: int
    results: tuple[PaperResult, ...]

    @property
    def name(self) -> tuple[Cell, ...]:
        """The first cells of its row."""
        return (self.profile.value, self.election.value, self.setting.value, self.nodes)

    @property
    def counted(self) -> tuple[PaperResult, ...]:
        """The runs that were not consistent at the beginning of phase 2 already."""
        return tuple(result for result in self.results if result.reached != 0)

    def within(self, iterations: int) -> Share:
        """How many of the counted were consistent, for good, after at most so many iterations."""
        counted = self.counted
        return share(sum(1 for result in counted if 0 < result.reached <= iterations), len(counted))


NAME_COLUMNS = ("profile", "election", "setting", "computers")


def grouped(runs: Runs) -> list[Group]:
    """All groups, in the order in which their first runs stand."""
    found: dict[tuple[Profile, Election, Setting, int], list[PaperResult]] = {}
    for case, result in runs:
        found.setdefault((case.profile, case.election, case.setting, case.nodes), []).append(result)
    return [Group(*name, tuple(results)) for name, results in found.items()]


def tables(runs: Runs) -> dict[str, Table]:
    """All tables, by the names of their files."""
    groups = grouped(runs)
    iterating = [group for group in groups if group.profile is not Profile.PRODUCT]
    return {
        "consistent": consistent(iterating),
        "last": came_last(iterating),
        "messages": messages(groups),
        "product": product([group for group in groups if group.profile is Profile.PRODUCT]),
        "targets": targets(iterating),
        "runs": each_run(runs),
    }


def consistent(groups: Sequence[Group]) -> Table:
    """Shares of the counted runs that were consistent after 1, 2, 3… iterations."""
    shown = tuple(f"after {number}" for number in SHOWN_ITERATIONS)
    rows: list[tuple[Cell, ...]] = [
        (
            *group.name,
            len(group.results),
            len(group.results) - len(group.counted),
            len(group.counted),
            *(group.within(number).text() for number in SHOWN_ITERATIONS),
            sum(1 for result in group.counted if result.reached == NEVER),
        )
        for group in groups
    ]
    papers = tuple(
        percent(PAPERS_SHARES[number]) if number in PAPERS_SHARES else None for number in SHOWN_ITERATIONS
    )
    rows.append(("the paper", "both", Setting.USUAL.value, None, None, None, None, *papers, None))
    columns = (*NAME_COLUMNS, "runs", "at the start", "counted", *shown, "never")
    return Table("Consistent after so many iterations, with 95 % intervals", columns, tuple(rows))


def came_last(groups: Sequence[Group]) -> Table:
    """Of the counted runs, how many had each of (a) to (d) still failing one iteration before the end."""
    rows = []
    for group in groups:
        counted = group.counted
        shares = [
            share(sum(1 for result in counted if kind in result.last), len(counted)).share
            for kind in CONDITIONS
        ]
        rows.append((*group.name, len(counted), *(percent(part) if counted else None for part in shares)))
    columns = (*NAME_COLUMNS, "counted", *(f"({kind}) {text}" for kind, text in CONDITIONS.items()))
    return Table("What came last (several may have come together)", columns, tuple(rows))


def messages(groups: Sequence[Group]) -> Table:
    """What phase 2 costs, and how that compares with the mechanisms as published."""
    plain = {
        (group.election, group.nodes): mean([result.messages for result in group.results])
        for group in groups
        if group.profile is Profile.PLAIN and group.setting is Setting.USUAL
    }
    rows = []
    for group in groups:
        sent = mean([result.messages for result in group.results])
        base = plain.get((group.election, group.nodes))
        rows.append(
            (
                *group.name,
                sent,
                mean([result.sent_bytes for result in group.results]),
                None if base is None else sent / base,
                mean([float(result.active) for result in group.results]),
            )
        )
    columns = (*NAME_COLUMNS, "messages", "bytes", "times plain", "active services")
    return Table("Per connected computer and iteration, in phase 2", columns, tuple(rows))


def product(groups: Sequence[Group]) -> Table:
    """Seconds until the product is consistent, of the runs that were not at the beginning."""
    rows = []
    for group in groups:
        seconds = [result.reached_s for result in group.counted if result.reached_s is not None]
        rows.append(
            (
                *group.name,
                len(group.results),
                len(group.results) - len(group.counted),
                *(quantile(seconds, at) for at in (0.5, 0.9, 0.99)),
                max(seconds, default=float("nan")),
                sum(1 for result in group.counted if result.reached == NEVER),
            )
        )
    columns = (
        *NAME_COLUMNS,
        "runs",
        "at the start",
        "p50 (s)",
        "p90 (s)",
        "p99 (s)",
        "longest (s)",
        "never",
    )
    return Table("What ships: seconds until consistent", columns, tuple(rows))


def targets(groups: Sequence[Group]) -> Table:
    """The lower bounds beside what they have to reach, for the usual activity under the paper profile."""
    plain = {
        (group.election, group.nodes): mean([result.messages for result in group.results])
        for group in groups
        if group.profile is Profile.PLAIN and group.setting is Setting.USUAL
    }
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        if group.profile is not Profile.PAPER or group.setting is not Setting.USUAL:
            continue
        name = (group.election.value, group.nodes)
        for iterations, wanted in TARGETS.items():
            found = group.within(iterations)
            row = (*name, f"lower bound after {iterations}", percent(found.low), percent(wanted))
            rows.append((*row, _met(found, wanted)))
        base = plain.get((group.election, group.nodes))
        if base is not None:
            times = mean([result.messages for result in group.results]) / base
            met = "yes" if times <= BUDGET else "no"
            rows.append((*name, "messages, times plain", times, BUDGET, met))
    return Table("Targets", ("election", "computers", "what", "measured", "target", "met"), tuple(rows))


def _met(found: Share, wanted: float) -> str:
    """Whether the lower bound reaches what is wanted, or could not have with so few runs."""
    if found.low >= wanted:
        return "yes"
    return "no" if share(found.of, found.of).low >= wanted else "no: too few runs"


def each_run(runs: Runs) -> Table:
    """One row per run, for whoever wants to look closer."""
    rows = tuple(
        (
            *(case.profile.value, case.election.value, case.setting.value, case.nodes, case.number),
            None if result.reached == NEVER else result.reached,
            result.reached_s,
            " ".join(kinds or "-" for kinds in result.failing),
            result.connected,
            result.existing,
            result.active,
            result.messages,
            result.sent_bytes,
        )
        for case, result in runs
    )
    columns = (
        *NAME_COLUMNS,
        "run",
        "reached",
        "reached (s)",
        "failing",
        "connected",
        "existing",
        "active",
        "messages",
        "bytes",
    )
    return Table("Runs", columns, rows)
