"""`colla simulate paper`: the validation of the paper, repeated and improved."""

from __future__ import annotations

import typer


def add(app: typer.Typer) -> None:
    """Declare this command."""
