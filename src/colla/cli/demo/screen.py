"""What a person sees while the demo runs: the story line by line, and on a terminal the group below it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from colla.cli.demo.computers import Computer
from colla.cli.demo.watching import RUNNING, TOOK_OVER, UNPLUGGED, Moment, running
from colla.client.text import clean
from colla.client.types import StatusReport

TOLD = {
    UNPLUGGED: "bold red",
    "suspected": "yellow",
    "absent": "red",
    "present": "green",
    TOOK_OVER: "cyan",
    RUNNING: "",
    "spare_started": "dim",
    "refused": "yellow",
}
"""The moments that are shown, and how."""
FRESH_PER_S = 4


class Screen:
    """Writes on stderr, so that the result on stdout stays alone. `quiet` shows nothing, for programs."""

    def __init__(self, computers: dict[str, Computer], *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._computers = computers
        self._began_s = self._zero_s = time.time()
        self._live: Live | None = None
        self.view: Callable[[], StatusReport | None] = lambda: None
        self.count: Callable[[], str] = lambda: ""

    def open(self) -> None:
        """Begin to show the group below the story, on a terminal."""
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._below,
                console=self._console,
                refresh_per_second=FRESH_PER_S,
                transient=True,
            )
            self._live.start()

    def close(self) -> None:
        """Show the story only."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def act(self, title: str) -> None:
        """A new act: seconds count from here."""
        self._zero_s = time.time()
        since = f"{self._zero_s - self._began_s:.0f} s"
        if self._console.is_terminal:
            self._console.print(
                Rule(Text(f"{title}  ({since})", style="bold"), align="left"), soft_wrap=False
            )
        else:
            self._console.print(Text(f"== {title} ({since})"))

    def line(self, text: str, style: str = "", at_s: float | None = None) -> None:
        """One line of the story, with the seconds since the act began."""
        since_s = (time.time() if at_s is None else at_s) - self._zero_s
        self._console.print(Text.assemble((f"{since_s:7.2f} s  ", "dim"), (clean(text), style)))

    def tell(self, moment: Moment) -> None:
        """Show a moment if it belongs to the story."""
        style = TOLD.get(moment.kind)
        if style is None or moment.at_s < self._zero_s:
            return
        who = f"{moment.seen_by}: " if moment.seen_by else ""
        what = f"{moment.service}: " if moment.service and not moment.text.startswith(moment.service) else ""
        self.line(f"{who}{what}{moment.text}", style, moment.at_s)

    def _below(self) -> RenderableType:
        report = self.view()
        table = Table(box=None, padding=(0, 2, 0, 0))
        services = [each for each in report.services if each.active] if report is not None else []
        for column in ("COMPUTER", "OWNER", "IS", *(each.name.upper() for each in services)):
            table.add_column(column, header_style="dim")
        phases = {each.name: each.phase for each in report.computers} if report is not None else {}
        for computer in self._computers.values():
            phase = phases.get(computer.name, "–") if computer.on else "unplugged"
            cells = [Text(computer.name), Text(computer.owner), Text(phase, style=TOLD.get(phase, ""))]
            for service in services:
                here = computer.name in running(service, self._computers)
                master = service.master == computer.name
                cells.append(
                    Text(("● " if here else "  ") + ("master" if master and computer.on else ""), "green")
                )
            table.add_row(*cells)
        return Group(Text(""), table, Text(self.count(), style="bold"))
