"""Commands that start this computer's node: `group create`, `join`, `up`. The only commands that import the node.

Invariant: whoever founds or joins ends with a node that runs and a folder that is whole, or with nothing.
"""

from __future__ import annotations

import enum
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from colla.cli.command import COMPUTER_PANEL, GROUP_PANEL, Here, command
from colla.cli.contributing import Gives, ask_contribution, decide, describe, inspect_computer, reasonable
from colla.cli.groups import look, several
from colla.cli.waiting import until, wait_for_end
from colla.client.client import Client
from colla.client.folders import LOG_NAME, groups
from colla.client.types import ApiError, NodeReport
from colla.model.contribution import GIVES_NOTHING, Contribution
from colla.model.errors import CollaError

START_TIMEOUT_S = 40.0
JOIN_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
END_TIMEOUT_S = 10.0
START_ERRORS = "start.err"
"""What a node that starts in the background says on stderr: why it could not."""
ERROR_CHARACTERS_MAX = 2000
ROOM_BYTES_MIN = 1024 * 1024


class ElectionName(enum.StrEnum):
    """The two elections."""

    HASHING = "hashing"
    CONTENTION = "contention"


MemberOption = Annotated[str | None, typer.Option("--member", help="My name in the group; else the login.")]
ComputerOption = Annotated[str | None, typer.Option("--computer", help="This computer's name in the group.")]
PortOption = Annotated[
    int,
    typer.Option("--port", min=0, max=65535, help="UDP port for the group; 0 takes a free one and keeps it."),
]
GatewayPortOption = Annotated[
    int | None,
    typer.Option("--gateway-port", min=0, max=65535, help="TCP port of the gateway on this computer (8642)."),
]
LanOption = Annotated[
    bool, typer.Option("--lan/--no-lan", help="Find the group's computers on the local network.")
]


async def create(
    here: Here,
    name: Annotated[str, typer.Argument(help="The group's name: small letters, digits, hyphens.")],
    gives: Gives,
    election: Annotated[
        ElectionName, typer.Option("--election", help="How the master of a service is found. For good.")
    ] = ElectionName.HASHING,
    member: MemberOption = None,
    computer: ComputerOption = None,
    port: PortOption = 0,
    gateway_port: GatewayPortOption = None,
    lan: LanOption = True,
    up: Annotated[
        bool, typer.Option("--up/--no-up", help="Start this computer's node (the default).")
    ] = True,
) -> None:
    """Found a group on this computer, and start its node.

    Unless told otherwise this computer gives what is reasonable: all five agents, half its cores, a quarter of its memory,
    10 GB of disk, web sites and contained programs.
    """
    from colla.node.founding import found_group

    mine = inspect_computer(here.home)
    contribution = decide(gives, reasonable(mine), mine)
    folder = found_group(
        here.home,
        name,
        election.value,
        member or _login_name(),
        computer or _computer_name(),
        contribution,
        port,
        gateway_port,
        lan,
    )
    if not up:
        _say_ready(here, folder, None, contribution)
        return
    try:
        with here.out.progress(f"starting the first node of {name}"):
            node = await start_in_background(folder)
    except BaseException:
        # Nobody else knows of this group yet.
        await _stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _say_ready(here, folder, node, contribution)


async def join(
    here: Here,
    ticket: Annotated[list[str], typer.Argument(help="The ticket, as `colla invite` printed it.")],
    gives: Gives,
    member: MemberOption = None,
    computer: ComputerOption = None,
    port: PortOption = 0,
    gateway_port: GatewayPortOption = None,
    lan: LanOption = True,
    timeout: Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds to wait.")] = JOIN_TIMEOUT_S,
) -> None:
    """Join a group with a ticket, and start this computer's node.

    Asks what this computer should give; where nobody can answer it gives nothing until you say `colla contribute`.
    """
    from colla.node.founding import prepare_join

    # Chats break long lines, and people paste the whole command.
    text = "".join(word for word in ticket if word not in ("colla", "join"))
    mine = inspect_computer(here.home)
    if gives.says_something or here.out.json or not sys.stdin.isatty():
        contribution = decide(gives, GIVES_NOTHING, mine)
    else:
        contribution = ask_contribution(here.out, mine)
    before = groups(here.home)
    folder = prepare_join(
        here.home,
        text,
        member or _login_name(),
        computer or _computer_name(),
        contribution,
        port,
        gateway_port,
        lan,
    )
    try:
        text = f"asking the computers of {folder.name} to let this one in"
        with here.out.progress(text) as progress:
            await start_in_background(folder)
            node = await _wait_until_joined(folder, timeout, lambda why: progress.update(f"{text}: {why}"))
    except BaseException:
        # An attempt that was cut off earlier may have been granted: its keys are not thrown away.
        await _stop(folder)
        if folder not in before:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    _say_ready(here, folder, node, contribution)


async def _wait_until_joined(folder: Path, timeout_s: float, tell: Callable[[str], None]) -> NodeReport:
    def settled(report: NodeReport) -> bool:
        if report.join_problem:
            tell(report.join_problem)
        return report.joined or bool(report.join_problem and not report.join_again)

    async with Client(folder) as client:
        node = await until(client.node, settled, timeout_s)
    if node.joined:
        return node
    if node.join_problem and not node.join_again:
        raise CollaError("join_refused", node.join_problem)
    if node.join_problem:
        raise CollaError("timeout", node.join_problem, "Then join again, with the same ticket.")
    raise CollaError(
        "timeout",
        f"No computer of {node.group_name} answered within {timeout_s:.0f} s.",
        "At least one of them must be on and reachable; `colla doctor` there says whether it is. Then join again.",
    )


async def _stop(folder: Path) -> None:
    """Stop the node of this folder, if one runs."""
    with suppress(CollaError):
        async with Client(folder) as client:
            pid = (await client.node()).pid
            await client.shut_down()
            await wait_for_end(pid, STOP_TIMEOUT_S)


def _say_ready(here: Here, folder: Path, node: NodeReport | None, contribution: Contribution) -> None:
    out = here.out
    if out.json:
        out.answer(node if node is not None else {"folder": str(folder)})
        return
    if node is None:
        out.say(f"The group {folder.name} is founded in {folder}. `colla up` starts its first node.")
        return
    out.say(f"{node.member_name} is in {node.group_name} with the computer {node.name}, which is up.")
    gives = dict(describe(contribution))
    if contribution == GIVES_NOTHING:
        out.note("It gives nothing. `colla contribute` changes that at any time.")
    else:
        out.note(
            f"It gives {gives['cpus']} cores, {gives['memory']} memory, {gives['disk']} disk, and runs "
            f"{gives['environments']}. `colla contribute` changes that at any time."
        )
    out.note(
        f"Services are at http://NAME.localhost:{node.gateway.rpartition(':')[2]}/. Next: colla invite, colla deploy"
    )


async def up(
    here: Here,
    background: Annotated[bool, typer.Option("--background", "-b", help="Start it and return.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write the log into its file only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details as well.")] = False,
) -> None:
    """Start this computer's node. It stays in the foreground and says goodbye on Ctrl-C, unless --background.

    Replicas that ran on while it was down are found again. With --background and without --group the nodes of all groups of
    this computer are started.
    """
    if background:
        await _start_all(here)
        return
    folder = here.folder()
    await _refuse_second(folder)
    words = [("--quiet", quiet), ("--verbose", verbose), ("--json", here.out.json)]
    # The node takes this process's place: it needs none of the command line's libraries.
    line = [sys.executable, "-m", "colla.node", str(folder), *(word for word, wanted in words if wanted)]
    os.execv(sys.executable, line)


async def _start_all(here: Here) -> None:
    """Start what does not run yet of the named group, or of all; one that runs is no fault when there are several."""
    wanted = several(here)
    stopped = [folder for folder in wanted if not (await look(folder)).running]
    if not stopped:
        await _refuse_second(wanted[0])
    nodes = []
    for folder in stopped:
        with here.out.progress(f"starting the node of {folder.name}"):
            nodes.append(await start_in_background(folder))
    if here.out.json:
        here.out.answer(nodes[0] if len(wanted) == 1 else nodes)
        return
    for node in nodes:
        here.out.say(f"{node.name} is up in {node.group_name} (process {node.pid}).")


async def _refuse_second(folder: Path) -> None:
    try:
        async with Client(folder) as client:
            pid = (await client.node()).pid
    except CollaError as error:
        if error.code != "not_running":
            raise
        return
    hint = "`colla status` asks it; `colla down` stops it."
    raise CollaError("already_running", f"The node of {folder.name} runs already (process {pid}).", hint)


async def start_in_background(folder: Path, timeout_s: float = START_TIMEOUT_S) -> NodeReport:
    """Start the node of this folder as a process of its own, and wait until its API answers.

    Raises `CollaError`: what the node said when it could not start, or `timeout`.
    """
    errors = folder / START_ERRORS
    process = _spawn(folder, errors)
    deadline = time.monotonic() + timeout_s

    async def ask() -> NodeReport | None:
        try:
            async with Client(folder) as client:
                return await client.node()
        except CollaError:
            return None

    def settled(report: NodeReport | None) -> bool:
        return report is not None or process.poll() is not None

    try:
        report = await until(ask, settled, deadline - time.monotonic())
    except BaseException:
        _end(process)
        raise
    if report is not None:
        return report
    if process.poll() is None:
        _end(process)
        raise CollaError(
            "timeout", f"The node did not answer within {timeout_s:.0f} s.", f"Look at {folder / LOG_NAME}"
        )
    raise _start_error(errors, process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a node that is not up yet; blocking, since whoever interrupts waits for nothing else."""
    process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _spawn(folder: Path, errors: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "colla.node", str(folder.absolute()), "--quiet", "--json"]
    with errors.open("wb") as stream:
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
            cwd=folder,
        )


def _start_error(errors: Path, code: int) -> CollaError:
    text = errors.read_text("utf-8", "replace").strip()
    if not text and shutil.disk_usage(errors.parent).free < ROOM_BYTES_MIN:
        # What it said went the way of all that is written there.
        return CollaError("disk_full", f"The disk of {errors.parent} is full.", "Free some space.")
    last = text.splitlines()[-1] if text else "it said nothing"
    try:
        said = msgspec.json.decode(last, type=ApiError)
    except msgspec.DecodeError:
        return CollaError(
            "start_failed",
            f"The node ended with {code}: {last[-ERROR_CHARACTERS_MAX:]}",
            "`colla up --verbose` shows all that it says.",
        )
    return CollaError(said.code, said.message[:ERROR_CHARACTERS_MAX], said.hint)


def _login_name() -> str:
    try:
        return label(getpass.getuser(), "member")
    except (OSError, KeyError):
        return "member"


def _computer_name() -> str:
    return label(socket.gethostname().partition(".")[0], "computer")


def label(text: str, otherwise: str) -> str:
    """A name as the group allows it, made from any text; `otherwise` where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or otherwise


def add(app: typer.Typer, group: typer.Typer) -> None:
    """Declare these commands."""
    command(
        group,
        GROUP_PANEL,
        examples=(
            "colla group create our-club",
            "colla group create lab --election contention --member ana --computer nas",
            "colla group create our-club --cpus 2 --disk 50GB --environments static",
        ),
    )(create)
    command(
        app,
        GROUP_PANEL,
        examples=(
            "colla join colla1…",
            "colla join colla1… --give all --computer nas",
            "colla join colla1… --give nothing",
        ),
    )(join)
    command(app, COMPUTER_PANEL, examples=("colla up", "colla up --background"))(up)
