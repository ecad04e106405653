"""Commands to try colla out. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colla.cli.command import LAB_PANEL, Here, command
from colla.cli.up import ElectionName


async def demo(
    here: Here,
    site: Annotated[
        Path | None, typer.Option("--site", exists=True, file_okay=False, help="Your own web site instead.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let the group run on at the end.")] = False,
    election: Annotated[
        ElectionName, typer.Option("--election", help="How the master of a service is found.")
    ] = ElectionName.HASHING,
) -> None:
    """Watch six computers die one by one, in turns and all at once, while two services stay alive. Under three minutes.

    Real processes in a temporary folder, real links, real disks. It fails if a service is lost, or if a request of its
    client fails while a replica lives.
    """
    from colla.cli.demo.play import play

    await play(here.out, election.value, site, keep=keep)


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    command(
        app,
        LAB_PANEL,
        examples=("colla demo", "colla demo --keep", "colla demo --site ./site --election contention"),
    )(demo)
