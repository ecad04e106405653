"""The figure of the validation: shares of consistent runs over iterations, beside those of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colla.sim.lab.figures import COLOURS, figure
from colla.sim.validation.case import Setting
from colla.sim.validation.profile import Profile
from colla.sim.validation.report import PAPERS_SHARES, Group

ITERATIONS_SHOWN = 5
STYLES = {Profile.PAPER: "-", Profile.PLAIN: "--"}


def draw(path: Path, groups: Sequence[Group]) -> None:
    """Write `path` with .png and .svg: the largest group of each profile and election, and how it depends on the size.

    Raises `CollaError` (`lab_missing`) without matplotlib.
    """
    usual = [g for g in groups if g.setting is Setting.USUAL and g.profile in STYLES and g.counted]
    with figure(path, columns=2, width_in=9.0, height_in=3.8) as (_, (left, right)):
        for number, group in enumerate(_main(usual)):
            _curve(left, group, COLOURS[number % len(COLOURS)])
        left.plot(
            list(PAPERS_SHARES),
            list(PAPERS_SHARES.values()),
            "k*",
            markersize=10,
            label="the paper",
            zorder=5,
        )
        left.set(xlabel="iterations", ylabel="share of runs consistent for good", ylim=(0.0, 1.03))
        left.set_xticks(range(1, ITERATIONS_SHOWN + 1))
        left.legend(loc="lower right")
        right.set(xlabel="computers", ylabel="consistent after one iteration", ylim=(0.0, 1.03))
        kinds = dict.fromkeys((group.profile, group.election) for group in usual)
        for number, (profile, election) in enumerate(kinds):
            of_kind = [g for g in usual if (g.profile, g.election) == (profile, election)]
            _sizes(right, sorted(of_kind, key=lambda g: g.nodes), COLOURS[number % len(COLOURS)])
        if kinds:
            right.legend(loc="lower left")


def _main(groups: Sequence[Group]) -> list[Group]:
    """For each profile and election, the size with the most runs."""
    best: dict[tuple[str, str], Group] = {}
    for group in groups:
        name = (group.profile.value, group.election.value)
        if name not in best or len(group.results) > len(best[name].results):
            best[name] = group
    return list(best.values())


def _curve(axes: Any, group: Group, colour: str) -> None:
    numbers = range(1, ITERATIONS_SHOWN + 1)
    shares = [group.within(number) for number in numbers]
    label = f"{group.profile}, {group.election}, {group.nodes} computers"
    axes.plot(
        numbers, [s.share for s in shares], STYLES[group.profile], marker="o", color=colour, label=label
    )
    axes.fill_between(numbers, [s.low for s in shares], [s.high for s in shares], color=colour, alpha=0.15)


def _sizes(axes: Any, groups: Sequence[Group], colour: str) -> None:
    shares = [group.within(1) for group in groups]
    spread = [[s.share - s.low for s in shares], [s.high - s.share for s in shares]]
    first = groups[0]
    axes.errorbar(
        [group.nodes for group in groups],
        [s.share for s in shares],
        spread,
        fmt=STYLES[first.profile],
        marker="o",
        capsize=3,
        color=colour,
        label=f"{first.profile}, {first.election}",
    )
