"""How a command runs an experiment: options that all share, a progress bar on a terminal, plain lines in a pipe, Ctrl-C.

The experiment runs in a thread of its own, so that Ctrl-C is heard at once; the cases run in processes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from colla.cli.command import Here
from colla.cli.formats import duration_text, parse_duration

if TYPE_CHECKING:
    from colla.sim.lab.experiment import Heading, Outcome

C = TypeVar("C", bound=Any)
R = TypeVar("R")

SAY_EVERY_S = 30.0
"""In a pipe, how often a long experiment says how far it is."""
EXPERIMENT_PANEL = "Running"


@dataclass(frozen=True)
class RunOptions:
    """Options of every experiment."""

    seed: Annotated[
        int, typer.Option("--seed", help="All randomness comes from it.", rich_help_panel=EXPERIMENT_PANEL)
    ] = 1
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-j",
            min=1,
            help="How many at a time. Default: all cores.",
            rich_help_panel=EXPERIMENT_PANEL,
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Begin nothing more after so long, as 10m. Calling again goes on.",
            rich_help_panel=EXPERIMENT_PANEL,
        ),
    ] = None
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Forget the results of earlier runs.", rich_help_panel=EXPERIMENT_PANEL),
    ] = False

    def budget_s(self) -> float | None:
        """The budget in seconds. Raises `typer.BadParameter`."""
        if self.budget is None:
            return None
        try:
            return parse_duration(self.budget)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


async def conduct(
    here: Here,
    options: RunOptions,
    title: str,
    cases: Sequence[C],
    execute: Callable[[C], R],
    result_type: type[R],
    heading: Heading,
    path: Path | None,
    on_result: Callable[[C, R], None] = lambda case, result: None,
) -> Outcome[C, R]:
    """Run the cases as `colla.sim.lab.experiment.conduct` does, and show how far it is. Raises `CollaError` as it."""
    from colla.sim.lab.experiment import conduct as run

    if options.fresh and path is not None:
        _forget(path)
    stopped = threading.Event()
    with _shown(here, title) as progress:
        running = asyncio.create_task(
            asyncio.to_thread(
                run,
                cases,
                execute,
                result_type,
                heading,
                path=path,
                processes=options.processes or os.cpu_count(),
                budget_s=options.budget_s(),
                progress=progress,
                on_result=on_result,
                stop=stopped.is_set,
            )
        )
        try:
            outcome = await asyncio.shield(running)
        except asyncio.CancelledError:
            stopped.set()
            left = (await running).missing
            if path is not None:
                here.out.note(f"Broken off; {left} left. The same command goes on where it stopped.")
            raise
    if outcome.missing:
        here.out.warn(
            f"the budget is used up: {outcome.missing} of {len(cases)} are left; call again to go on"
        )
    return outcome


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


@contextmanager
def _shown(here: Here, title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then in a pipe, nothing for programs."""
    if here.out.json:
        yield lambda done, total: None
        return
    if not here.out.watched:
        yield _Lines(here, title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, Remaining(), transient=True, console=here.out.errors) as bar:
        shown = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


class _Lines:
    """Progress where nobody watches."""

    def __init__(self, here: Here, title: str) -> None:
        self._here = here
        self._title = title
        self._began_s = time.monotonic()
        self._said_s = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_EVERY_S or done == total:
            self._said_s = now_s
            took = duration_text(now_s - self._began_s)
            self._here.out.note(f"{self._title}: {done} of {total} after {took}")
