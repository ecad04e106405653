"""The program `colla`: all commands, in panels."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import colla
from colla.cli import (
    autostart,
    communication,
    computer,
    doctor,
    environment,
    files,
    group,
    groups,
    lab,
    membership,
    secret,
    services,
    up,
    use,
)
from colla.cli.command import GROUP_PANEL, SHARE_PANEL
from colla.cli.simulate import app as simulate

HELP = """\
Keep a group's services alive on the computers that its members own.

No server, no coordinator: any computer of the group can be unplugged at any moment, \
and each member alone decides what their own give.
"""
EPILOG = """\
[bold]Begin[/bold]

$ colla group create our-club

$ colla invite

$ colla deploy ./site

[bold]Exit codes[/bold]

0 done · 1 refused or failed · 2 used wrongly · 3 no node runs on this computer · 4 what was named is not there

5 did not happen in time · 130 interrupted

[bold]In scripts[/bold]

In a pipe, lists are lines with columns separated by tabs; --json answers in JSON. Errors stand on stderr.
"""

app = typer.Typer(
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
group_app = typer.Typer(
    help="Found a group, or show this one.", no_args_is_help=True, rich_markup_mode="rich"
)

object_app = typer.Typer(
    help="The group's files: put, get, list, and what more can be done with them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"colla {colla.__version__}\n")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """The options before the command."""


app.add_typer(group_app, name="group", rich_help_panel=GROUP_PANEL)
group.add(app, group_app)
groups.add(group_app)
membership.add(app)
services.add(app)
secret.add(app)
use.add(app)
app.add_typer(object_app, name="object", rich_help_panel=SHARE_PANEL)
files.add(app, object_app)
communication.add(app)
up.add(app, group_app)
computer.add(app)
autostart.add(app)
environment.declare(app)
doctor.add(app)
lab.add(app)
simulate.add(app)
