"""The group of commands `colla simulate`."""

from __future__ import annotations

import typer

from colla.cli.command import LAB_PANEL
from colla.cli.simulate import chaos, paper, run, scale

simulate_app = typer.Typer(
    help="Try the mechanisms in virtual time: the paper's validation, random faults, large groups.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    app.add_typer(simulate_app, name="simulate", rich_help_panel=LAB_PANEL)
    for module in (paper, chaos, scale, run):
        module.add(simulate_app)
