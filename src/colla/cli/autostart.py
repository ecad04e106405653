"""`colla autostart`: let the node start with the computer, by a systemd user unit or a launchd agent.

Writes files that the system reads when the user logs in; runs nothing itself, so that its only effect is what it shows.
"""

from __future__ import annotations

import plistlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from colla.cli.command import COMPUTER_PANEL, Here, command
from colla.cli.groups import several
from colla.model.errors import CollaError

UNIT = """\
[Unit]
Description=colla: this computer's node of the group {group}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
# The programs of the environments are the node's to stop; after a crash the replicas run on and are found again.
KillMode=process
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


class Autostart(msgspec.Struct, frozen=True):
    """Files to write (path → content), links to make (link → target), and what the person still has to do."""

    files: dict[str, bytes]
    links: dict[str, str]
    then: tuple[str, ...]


async def autostart(
    here: Here,
    remove: Annotated[
        bool, typer.Option("--remove", help="Do not start with the computer any more.")
    ] = False,
) -> None:
    """Start this computer's node with the computer; in several groups all nodes, unless --group names one.

    Writes a systemd user unit (Linux) or a launchd agent (macOS) for each and says what is left to do; it starts nothing now.
    """
    names: list[str] = []
    then: list[str] = []
    for folder in several(here):
        plan = plan_autostart(sys.platform, Path.home(), folder, sys.executable)
        if plan is None:
            raise CollaError(
                "not_supported",
                "colla knows no way to start with this system by itself.",
                f"Let the system run this at login: {shlex.join(node_command(sys.executable, folder))}",
            )
        if remove:
            _remove(plan)
        else:
            _write(plan)
        names += [*plan.files, *plan.links]
        then += [line for line in plan.then if line not in then]
    if here.out.json:
        here.out.answer({"removed" if remove else "written": names})
        return
    for name in names:
        here.out.say(f"{'removed' if remove else 'written'}: {name}")
    for line in () if remove else then:
        here.out.note(line)


def node_command(python: str, folder: Path) -> list[str]:
    """What starts the node of this folder."""
    return [python, "-m", "colla", "up", "--home", str(folder.parent), "--group", folder.name]


def plan_autostart(platform: str, home: Path, folder: Path, python: str) -> Autostart | None:
    """What to write on this kind of system; None where there is no way."""
    words = node_command(python, folder)
    if platform.startswith("linux"):
        name = f"colla-{folder.name}.service"
        units = home / ".config" / "systemd" / "user"
        unit = UNIT.format(group=folder.name, command=" ".join(_unit_word(word) for word in words))
        return Autostart(
            files={str(units / name): unit.encode()},
            # This link is what `systemctl --user enable` makes.
            links={str(units / "default.target.wants" / name): str(units / name)},
            then=(
                "It starts when you log in. To start it with the computer, before you log in: loginctl enable-linger",
                f"To start it now: systemctl --user daemon-reload && systemctl --user start {name}",
            ),
        )
    if platform == "darwin":
        label = f"org.colla.{folder.name}"
        path = home / "Library" / "LaunchAgents" / f"{label}.plist"
        content = plistlib.dumps(
            {
                "Label": label,
                "ProgramArguments": words,
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},
                "AbandonProcessGroup": True,
            }
        )
        then = (f"It starts when you log in. To start it now: launchctl load {shlex.quote(str(path))}",)
        return Autostart({str(path): content}, {}, then)
    return None


def _unit_word(word: str) -> str:
    """A word as systemd reads it: % and $ mean something to it, and quotes hold spaces together."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in word for character in " \t'\"\\;") else escaped


def _write(plan: Autostart) -> None:
    for name, content in plan.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in plan.links.items():
        link = Path(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _remove(plan: Autostart) -> None:
    for name in (*plan.links, *plan.files):
        Path(name).unlink(missing_ok=True)


def add(app: typer.Typer) -> None:
    """Declare the command."""
    command(app, COMPUTER_PANEL, examples=("colla autostart", "colla autostart --remove"))(autostart)
