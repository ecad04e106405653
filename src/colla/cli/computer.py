"""Commands on this computer: what it gives, when it stops, how it finds the others."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from colla.cli.command import COMPUTER_PANEL, Here, command
from colla.cli.contributing import EVERYBODY, Gives, decide, describe, inspect_computer
from colla.cli.formats import count_text
from colla.cli.waiting import until, wait_for_end
from colla.client.client import Client
from colla.client.folders import LEFT_FOLDER, LOG_NAME
from colla.client.text import clean
from colla.client.types import ContributeAnswer
from colla.model.contribution import AgentKind, Contribution
from colla.model.errors import CollaError

STOP_TIMEOUT_S = 30.0
LEAVE_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 120.0
LOG_CHUNK_BYTES = 64 * 1024
LOG_LOOK_S = 0.2


async def down(
    here: Here,
    keep_replicas: Annotated[
        bool,
        typer.Option("--keep-replicas", help="Let the replicas here run on; `colla up` finds them again."),
    ] = False,
) -> None:
    """Stop this computer's node. It says goodbye, so that the group replaces its replicas at once."""
    async with here.client() as client:
        node = await client.node()
        with here.out.progress(f"{node.name} says goodbye"):
            await client.shut_down(keep_replicas=keep_replicas)
            await _ended(node.pid)
    if here.out.json:
        here.out.answer({"stopped": node.name})
        return
    here.out.say(f"{node.name} has stopped. `colla up` starts it again.")


async def _ended(pid: int, timeout_s: float = STOP_TIMEOUT_S) -> None:
    if not await wait_for_end(pid, timeout_s):
        raise CollaError(
            "timeout", f"The node has not stopped yet (process {pid}).", "Look with `colla log -f`."
        )


async def log(
    here: Here,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="The newest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what this computer's node wrote into its log. Works when it does not run, too."""
    path = here.folder() / LOG_NAME
    if not path.exists():
        raise CollaError("no_log", f"There is no log yet ({path}).", "`colla up` starts the node.")
    position, newest = _read_end(path, lines)
    _show_lines(here, newest)
    while follow:
        await asyncio.sleep(LOG_LOOK_S)
        position, new = _read_from(path, position)
        _show_lines(here, new)


def _show_lines(here: Here, lines: list[str]) -> None:
    for line in lines:
        if here.out.json:
            here.out.answer(line)
        else:
            here.out.say(line)


def _read_end(path: Path, lines: int) -> tuple[int, list[str]]:
    with path.open("rb") as stream:
        size = position = stream.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= lines:
            step = min(LOG_CHUNK_BYTES, position)
            position -= step
            stream.seek(position)
            data = stream.read(step) + data
    return size, data.decode("utf-8", "replace").splitlines()[-lines:]


def _read_from(path: Path, position: int) -> tuple[int, list[str]]:
    """Whole lines after `position`; a log that began anew is read from its start."""
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) < position:
            position = 0
        stream.seek(position)
        data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    return position + len(whole), whole.decode("utf-8", "replace").splitlines()


async def contribute(here: Here, gives: Gives) -> None:
    """Show what this computer gives to the group, or change it: at once, and nobody can override it.

    A change holds at once: what may no longer run here stops, and the group starts it elsewhere.
    """
    async with here.client() as client:
        now = (await client.node()).contribution
        if not gives.says_something:
            if here.out.json:
                here.out.answer(now)
            else:
                here.out.pairs(describe(now))
            return
        answer = await client.contribute(decide(gives, now, inspect_computer(here.home)))
        await _warn_of_strangers(here, client, gives.members or [])
    if here.out.json:
        here.out.answer(answer)
        return
    here.out.pairs(describe(answer.contribution))
    if answer.replicas_left:
        running = "1 replica runs" if answer.replicas_left == 1 else f"{answer.replicas_left} replicas run"
        here.out.note(f"{running} here now; what may not stay moves or stops.")


async def _warn_of_strangers(here: Here, client: Client, names: list[str]) -> None:
    """A name that nobody bears is perhaps mistyped, perhaps of somebody who has not joined yet."""
    if not names:
        return
    known = [name for member in await client.members() for name in (member.name, member.id)]
    for name in names:
        if name not in (*known, EVERYBODY):
            here.out.warn(f"There is no member {name!r} in the group now.")


async def drain(
    here: Here,
    undo: Annotated[bool, typer.Option("--undo", help="Take new replicas again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it is empty (the default).")
    ] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, help="Seconds to wait.")] = DRAIN_TIMEOUT_S,
) -> None:
    """Empty this computer: it takes no new replicas, and those that it has move to others first."""
    async with here.client() as client:
        answer = await _change(client, draining=not undo)
        if not undo and wait and answer.replicas_left:
            await _refuse_to_wait_in_vain(client, answer.replicas_left)
            await _wait_until_empty(here, client, timeout)
            answer = ContributeAnswer((await client.node()).contribution, 0)
    if here.out.json:
        here.out.answer(answer)
        return
    if undo:
        here.out.say("This computer takes replicas again.")
    elif wait:
        here.out.say("This computer is empty. `colla drain --undo` opens it again.")
    else:
        here.out.say(f"This computer empties itself: {count_text(answer.replicas_left, 'replica')} left.")


async def _refuse_to_wait_in_vain(client: Client, replicas: int) -> None:
    """Nothing can move while no other computer that runs replicas is here."""
    for each in await client.computers():
        gone = each.me or each.phase in ("absent", "left")
        if not (gone or each.paused or each.draining) and AgentKind.EXECUTOR in each.agents:
            return
    raise CollaError(
        "nowhere_to_go",
        f"{count_text(replicas, 'replica')} cannot move: no other computer that takes replicas is here.",
        "They run on here until one is; it takes no new ones. `colla pause` stops them, `colla drain --undo` ends this.",
    )


async def _wait_until_empty(here: Here, client: Client, timeout_s: float) -> None:
    with here.out.progress("replicas move to other computers") as progress:

        async def left() -> int:
            replicas = (await client.node()).replicas
            progress.update(f"replicas move to other computers: {replicas} left")
            return replicas

        replicas = await until(left, lambda count: count == 0, timeout_s)
    if replicas:
        raise CollaError(
            "timeout",
            f"{count_text(replicas, 'replica')} could not move: no other computer takes them now.",
            "They run on here until one does. `colla pause` stops them.",
        )


async def pause(here: Here) -> None:
    """Stop all replicas on this computer at once, and take none until `colla resume`."""
    async with here.client() as client:
        answer = await _change(client, paused=True)
    if here.out.json:
        here.out.answer(answer)
        return
    here.out.say("This computer is paused: it runs nothing for the group. `colla resume` ends that.")


async def resume(here: Here) -> None:
    """End a pause or a drain: this computer takes replicas again."""
    async with here.client() as client:
        answer = await _change(client, paused=False, draining=False)
    if here.out.json:
        here.out.answer(answer)
        return
    here.out.say("This computer takes replicas again.")


async def _change(client: Client, **changes: bool) -> ContributeAnswer:
    contribution: Contribution = (await client.node()).contribution
    return await client.contribute(msgspec.structs.replace(contribution, **changes))


async def leave(
    here: Here,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait until the replicas here have moved.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete its keys and files instead of keeping them.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also as the only administrator; the most senior member follows.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Leave the group with this computer, for good. Needs no other computer and nobody's consent.

    Its replicas move to others first (unless --now), it says goodbye, the node stops, and its folder is put aside. Your other
    computers stay; with the last one you leave the group, and your services stop unless somebody adopts them.
    """
    folder = here.folder()
    async with here.client() as client:
        node = await client.node()
        fate = "deleted" if delete else f"kept under {here.home / LEFT_FOLDER}"
        here.out.note(
            f"{node.name} leaves {node.group_name}: it stops, and its keys and files here are {fate}."
        )
        if not yes and not here.out.ask("Leave?", default=False):
            raise CollaError("not_confirmed", "Nothing was changed.", "Confirm it, or give --yes.")
        with here.out.progress("replicas move to other computers, then goodbye"):
            await client.leave(now=now, anyway=anyway)
            await _ended(node.pid, LEAVE_TIMEOUT_S)
    kept = _put_aside(folder, here.home, delete=delete)
    if here.out.json:
        here.out.answer({"left": node.group_name, "kept": str(kept) if kept else ""})
        return
    here.out.say(f"{node.name} has left {node.group_name}." + (f" Its files are in {kept}." if kept else ""))


def _put_aside(folder: Path, home: Path, *, delete: bool) -> Path | None:
    """Take the folder out of the groups of this computer."""
    if delete:
        shutil.rmtree(folder)
        return None
    aside = home / LEFT_FOLDER / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    aside.parent.mkdir(mode=0o700, exist_ok=True)
    return folder.rename(aside)


async def connect(
    here: Here,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="HOST:PORT of a computer of the group.")],
) -> None:
    """Reach out to a computer of the group at an address, as when all addresses have changed."""
    name, _, port = address.rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise typer.BadParameter(
            f"{clean(address)!r} is no HOST:PORT, as example.org:4242 or [2001:db8::1]:4242"
        )
    async with here.client() as client:
        await client.connect(address)
        present = sum(each.phase == "present" and not each.me for each in await client.computers())
    if here.out.json:
        here.out.answer({"address": address, "present": present})
        return
    here.out.say(f"{address} was tried; {count_text(present, 'other computer')} of the group here.")


def add(app: typer.Typer) -> None:
    """Declare these commands."""

    def declare(body: object, *examples: str) -> None:
        command(app, COMPUTER_PANEL, examples=examples)(body)  # type: ignore[arg-type]

    declare(down, "colla down", "colla down --keep-replicas")
    declare(log, "colla log", "colla log -n 200 -f")
    declare(
        contribute,
        "colla contribute",
        "colla contribute --give all",
        "colla contribute --cpus 1.5 --memory 2GiB --disk 20GB",
        "colla contribute --environments static --for ana --label site=home",
    )
    declare(drain, "colla drain", "colla drain --undo")
    declare(pause, "colla pause")
    declare(resume, "colla resume")
    declare(leave, "colla leave", "colla leave --now --yes")
    declare(connect, "colla connect example.org:4242")
