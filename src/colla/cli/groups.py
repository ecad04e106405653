"""Commands for a computer that is in several groups: which they are, and starting or stopping what all of them need."""

from __future__ import annotations

from pathlib import Path

import msgspec
import typer

from colla.cli.command import GROUP_PANEL, Here, command
from colla.client import folders
from colla.client.client import Client
from colla.model.errors import CollaError


class GroupHere(msgspec.Struct, frozen=True):
    """One group that this computer is in. What only its node knows is empty while that does not run."""

    name: str
    folder: str
    running: bool
    computer: str = ""
    member: str = ""
    gateway: str = ""
    port: int = 0


async def look(folder: Path) -> GroupHere:
    """What can be said of this group now."""
    try:
        async with Client(folder) as client:
            node = await client.node()
    except CollaError as error:
        if error.code != "not_running":
            raise
        return GroupHere(folder.name, str(folder), False)
    return GroupHere(folder.name, str(folder), True, node.name, node.member_name, node.gateway, node.port)


async def list_groups(here: Here) -> None:
    """List the groups that this computer is in. Each has a node, a port and a gateway of its own.

    Where there are several, `--group NAME` says which one a command means.
    """
    found = [await look(folder) for folder in folders.groups(here.home)]
    if here.out.json:
        here.out.answer(found)
        return
    rows = [
        (
            each.name,
            "running" if each.running else "stopped",
            each.computer or "–",
            each.member or "–",
            f"http://NAME.localhost:{each.gateway.rpartition(':')[2]}/" if each.gateway else "–",
            str(each.port) if each.port else "–",
        )
        for each in found
    ]
    here.out.table(("GROUP", "IS", "COMPUTER", "I AM", "SERVICES AT", "PORT"), rows)


def several(here: Here) -> list[Path]:
    """The folders that a command means that can be for all groups: the named one, or every one.

    Raises `CollaError` as `folders.find_group`, but not for there being several.
    """
    found = folders.groups(here.home)
    return [here.folder()] if here.group is not None or not found else found


def add(group: typer.Typer) -> None:
    """Declare the commands."""
    command(group, GROUP_PANEL, name="list", examples=("colla group list",))(list_groups)
