"""Where a command writes: results on stdout, everything else on stderr.

Three readers: a person at a terminal (tables, colours, progress), a pipe (one line per row, columns separated by tabs, no
heading), a program (`--json`: the structs of `client/types.py`; several values as one line each). Invariant: text
from others is cleaned here, in one place, and is never taken for markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from colla.client.text import clean, clean_json
from colla.client.types import ApiError
from colla.model.errors import CollaError

STYLES = {
    "present": "green",
    "ok": "green",
    "runs": "green",
    "yes": "green",
    "active": "green",
    "suspected": "yellow",
    "warning": "yellow",
    "draining": "yellow",
    "paused": "yellow",
    "problem": "red",
    "refused": "red",
    "absent": "red",
    "left": "dim",
    "inactive": "dim",
}
"""Words that have a colour where they fill a cell of a table."""


class Output:
    """See the module's docstring."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._console = Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self._console.is_terminal and not json
        self.watched = self._errors.is_terminal and not json

    @property
    def errors(self) -> Console:
        """The console of stderr, for what draws on it by itself: bars of progress."""
        return self._errors

    def answer(self, value: Any) -> None:
        """The result for a program: JSON on stdout, one line."""
        sys.stdout.write(clean_json(msgspec.json.encode(value).decode()) + "\n")
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A line of the result, for people and pipes. Newlines in it are kept, everything else is cleaned."""
        for line in text.split("\n"):
            self._console.print(Text(clean(line), style=style))

    def write(self, text: str) -> None:
        """A piece of what a program elsewhere wrote, as it was, but for what a terminal would obey."""
        shown = text if not sys.stdout.isatty() else "\n".join(map(clean, text.split("\n")))
        sys.stdout.write(shown)
        sys.stdout.flush()

    def row(self, cells: Sequence[str]) -> None:
        """One line for a pipe: cells separated by tabs."""
        sys.stdout.write("\t".join(clean(cell) for cell in cells) + "\n")
        sys.stdout.flush()

    def note(self, text: str, style: str = "") -> None:
        """Something on the way, on stderr; programs are not told."""
        if not self.json:
            self._errors.print(Text(clean(text), style=style))

    def warn(self, text: str) -> None:
        """Something that the person should know, on stderr; also when a program reads the result."""
        self._errors.print(Text.assemble(("warning: ", "yellow"), clean(text)))

    def fail(self, error: CollaError) -> None:
        """Why it did not work and what to do, on stderr."""
        if self.json:
            report = ApiError(error.code, error.message, error.hint)
            sys.stderr.write(clean_json(msgspec.json.encode(report).decode()) + "\n")
            return
        self._errors.print(Text.assemble(("colla: ", "bold red"), clean(error.message)))
        if error.hint:
            self._errors.print(Text("       " + clean(error.hint)))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
        """Rows for people; in a pipe plain lines."""
        if not self.terminal:
            for row in rows:
                self.row(row)
            return
        table = Table(
            box=None, header_style="bold", padding=(0, 2, 0, 0), title=title or None, title_justify="left"
        )
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(clean(cell), style=STYLES.get(cell, "")) for cell in row))
        # Folding inside columns needs the terminal's width, which soft wrapping would ignore.
        self._console.print(table, soft_wrap=False)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one per line."""
        shown = list(pairs)
        if not self.terminal:
            self.table((), shown)
            return
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._console.print(
                Text.assemble((name.ljust(width + 2), "bold"), (clean(value), STYLES.get(value, "")))
            )

    @contextmanager
    def progress(self, text: str) -> Iterator[Progress]:
        """Show on a terminal that something goes on; in a pipe, say it once."""
        if not self.watched:
            self.note(text)
            yield Progress(None)
            return
        with self._errors.status(Text(clean(text))) as status:
            yield Progress(status)

    @contextmanager
    def bar(self, text: str) -> Iterator[Bar]:
        """Show on a terminal how far something is; in a pipe, say once that it goes on."""
        if not self.watched:
            self.note(text)
            yield Bar(None, 0)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        with RichProgress(*columns, TimeRemainingColumn(), console=self._errors, transient=True) as shown:
            yield Bar(shown, shown.add_task(escape(clean(text)), total=None))

    def ask(self, question: str, *, default: bool) -> bool:
        """A question with yes or no. Where nobody can answer, the default holds."""
        if not sys.stdin.isatty():
            return default
        while True:
            reply = self.ask_text(f"{question} [{'Y/n' if default else 'y/N'}]", "").strip().lower()
            if not reply:
                return default
            if reply in ("y", "yes", "n", "no"):
                return reply.startswith("y")

    def ask_text(self, question: str, default: str) -> str:
        """A question with a free answer; an empty one takes the default."""
        suffix = f" [{default}]" if default else ""
        self._errors.print(Text(f"{question}{suffix}: "), end="")
        sys.stderr.flush()
        reply = sys.stdin.readline()
        if not reply:
            raise KeyboardInterrupt
        return reply.strip() or default


class Bar:
    """A bar with how much is done, how fast it goes and how long it will take."""

    def __init__(self, shown: RichProgress | None, line: int) -> None:
        self._shown = shown
        self._line = TaskID(line)
        self._phase = ""

    def update(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        """So far it is; nothing in a pipe. Another `phase` begins at its own beginning."""
        if self._shown is None:
            return
        if phase != self._phase:
            self._phase = phase
            self._shown.reset(self._line)
        # A name may have brackets, which are no markup.
        self._shown.update(
            self._line, description=escape(clean(phase)), completed=done_bytes, total=total_bytes or None
        )


class Progress:
    """The line that says what is going on."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def update(self, text: str) -> None:
        """Say something else; nothing in a pipe."""
        if self._status is not None:
            self._status.update(Text(clean(text)))
