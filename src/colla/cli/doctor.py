"""`colla doctor`: what is right and wrong with this computer and its connections, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import typer

from colla.cli.command import COMPUTER_PANEL, Here, command
from colla.cli.formats import MIB, size_text
from colla.client.client import Client
from colla.client.types import DoctorLine
from colla.model.errors import CollaError

DISK_FREE_BYTES_MIN = 500 * MIB
MEMORY_FREE_BYTES_MIN = 200 * MIB
OK, WARNING, PROBLEM = "ok", "warning", "problem"


async def doctor(here: Here) -> None:
    """Look for what is wrong on this computer and with its connections. Exits with 1 if something is."""
    folder = here.folder()
    lines = [*inspect_here(folder)]
    try:
        async with Client(folder) as client:
            lines.append(DoctorLine(OK, "node", f"It runs (process {(await client.node()).pid})."))
            lines += await client.doctor()
    except CollaError as error:
        lines.append(DoctorLine(PROBLEM, "node", error.message, error.hint))
    if here.out.json:
        here.out.answer(lines)
    else:
        here.out.table(
            ("", "WHAT", "FOUND", "DO"),
            [(line.verdict, line.subject, line.text, line.hint or "–") for line in lines],
        )
    problems = [line.subject for line in lines if line.verdict == PROBLEM]
    if problems:
        raise CollaError("problems", f"Something is wrong with: {', '.join(problems)}.")


def inspect_here(folder: Path) -> list[DoctorLine]:
    """What can be seen without a node."""
    lines = [_disk(folder), _memory(), _sandbox()]
    if not os.access(folder, os.W_OK):
        hint = "Give yourself the right to write there."
        lines.append(DoctorLine(PROBLEM, "folder", f"{folder} cannot be written.", hint))
    return lines


def _disk(folder: Path) -> DoctorLine:
    free = shutil.disk_usage(folder).free
    text = f"{size_text(free)} free where {folder} is."
    if free < DISK_FREE_BYTES_MIN:
        return DoctorLine(
            PROBLEM, "disk", text, f"Make room: below {size_text(DISK_FREE_BYTES_MIN)} writing fails soon."
        )
    return DoctorLine(OK, "disk", text)


def _memory() -> DoctorLine:
    free = psutil.virtual_memory().available
    text = f"{size_text(free)} available."
    if free < MEMORY_FREE_BYTES_MIN:
        return DoctorLine(
            WARNING, "memory", text, "Close programs, or give less: colla contribute --memory 0"
        )
    return DoctorLine(OK, "memory", text)


def _sandbox() -> DoctorLine:
    if shutil.which("bwrap"):
        return DoctorLine(OK, "sandbox", "bubblewrap is installed: programs of others run contained.")
    hint = (
        "Install bubblewrap (apt install bubblewrap). Without it Landlock holds them, which is weaker (Linux 6.12 or newer)."
        if sys.platform.startswith("linux")
        else "Web sites run here; programs of others only with --unsandboxed, which is dangerous."
    )
    return DoctorLine(
        WARNING, "sandbox", "bubblewrap is not installed: programs are not given by default.", hint
    )


def add(app: typer.Typer) -> None:
    """Declare the command."""
    command(app, COMPUTER_PANEL, examples=("colla doctor", "colla doctor --json"))(doctor)
