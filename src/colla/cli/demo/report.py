"""The demo's result: what each act measured, as a table, and whether everything held. Pure but for printing.

The targets are those of the project for real processes of this kind; a missed target is shown, a failed request or a lost
service fails the demo.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.cli.demo.requests import Dark, RequestLog, Tally, tally
from colla.cli.output import Output


class Act(msgspec.Struct):
    """One act: seconds after its blow, None where it does not apply."""

    name: str
    began_s: float
    ended_s: float = 0.0
    detected_s: float | None = None
    taken_over_s: float | None = None
    full_s: float | None = None
    target_s: float | None = None


def tally_acts(acts: Sequence[Act], log: RequestLog, dark: Sequence[Dark]) -> list[Tally]:
    """What the client saw in each act: from its beginning to that of the next one."""
    ends = [act.began_s for act in acts[1:]] + [float("inf")]
    return [tally(log.asked, act.began_s, end_s, dark) for act, end_s in zip(acts, ends, strict=True)]


def show(out: Output, acts: Sequence[Act], tallies: Sequence[Tally], whole: Tally, dark_s: float) -> None:
    """Print the table and the sums."""
    rows = [_row(act, each) for act, each in zip(acts, tallies, strict=True)]
    columns = ("ACT", "DETECTED", "TAKEN OVER", "FULL NUMBER", "TARGET", "SENT", "FAILED", "P99", "LONGEST")
    out.table(columns, rows)
    out.say("")
    out.say(
        f"{whole.sent} requests, {whole.failed} failed, answered by {whole.replicas} replicas; half within "
        f"{whole.p50_ms:.0f} ms, 99 % within {whole.p99_ms:.0f} ms, the longest took {whole.longest_ms:.0f} ms."
    )
    if dark_s:
        out.say(
            f"Not counted: {dark_s:.1f} s in which every computer was off, until the first replica lived again."
        )
    for text in whole.examples:
        out.say(f"  failed: {text}", "red")


def _row(act: Act, each: Tally) -> tuple[str, ...]:
    return (
        act.name,
        seconds(act.detected_s),
        seconds(act.taken_over_s),
        seconds(act.full_s),
        "–" if act.target_s is None else f"≤ {act.target_s:.0f} s",
        str(each.sent),
        str(each.failed),
        f"{each.p99_ms:.0f} ms",
        f"{each.longest_ms:.0f} ms",
    )


def seconds(value: float | None) -> str:
    """`2.4 s`, `kept` for no time at all, or a dash."""
    return "–" if value is None else f"{value:.1f} s" if value else "kept"


def missed(acts: Sequence[Act]) -> list[str]:
    """The acts that took longer than their target, in words."""
    return [
        f"{act.name}: {act.full_s:.1f} s instead of {act.target_s:.0f} s"
        for act in acts
        if act.full_s is not None and act.target_s is not None and act.full_s > act.target_s
    ]


class Result(msgspec.Struct, frozen=True):
    """What `colla demo --json` answers."""

    acts: tuple[Act, ...]
    tallies: tuple[Tally, ...]
    whole: Tally
    dark_s: float
    missed: tuple[str, ...]
    took_s: float


def dark_seconds(dark: Sequence[Dark]) -> float:
    """How long nothing could answer, in all."""
    return sum(each.until_s - each.from_s for each in dark)
