"""Commands on the group's files: put, get, list, and what more can be done with them under `colla object`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from colla.cli.command import SHARE_PANEL, Body, Here, command
from colla.cli.formats import count_text, list_text, short_id, size_text
from colla.cli.output import Bar
from colla.client.client import Client
from colla.client.types import ObjectReport, PutAnswer, TransferReport, VersionReport
from colla.model.errors import CollaError

LOOK_S = 0.2
T = TypeVar("T")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The object's name, like photos/2026.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Also where the name is another member's.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


async def put(
    here: Here,
    path: Annotated[Path, typer.Argument(help="The file or folder.")],
    name: Annotated[
        str | None,
        typer.Argument(
            help="What it is called in the group; else as it is here. With / at its end: below it."
        ),
    ] = None,
    seal: Annotated[
        bool, typer.Option("--seal", help="Only members can read it, not who finds a disk.")
    ] = False,
    sealed_for: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="MEMBER", help="Only this member and you can read it; repeat it."),
    ] = None,
    replace: ReplaceOption = False,
) -> None:
    """Give a file or folder to the group, which keeps copies of it on three computers, as far as there are any.

    It is done when the copies are on the disks. Interrupted, the same command goes on where it stopped; what the group
    has already is not stored or sent again.
    """
    if not path.exists():
        raise CollaError("folder_missing", f"There is no file or folder {path}.", "Check its path.")
    chosen = _name_for(path, name)
    to = tuple(sealed_for or ()) if seal or sealed_for else None
    transfer = secrets.token_hex(8)
    async with here.client() as client:
        work = client.put(path, chosen, sealed_for=to, replace=replace, transfer=transfer)
        answer = await _followed(here, client, transfer, f"putting {chosen}", work)
    if here.out.json:
        here.out.answer(answer)
        return
    _say_put(here, answer)


def _name_for(path: Path, name: str | None) -> str:
    own = path.resolve().name
    if name is None:
        return own
    return name + own if name.endswith("/") else name


def _say_put(here: Here, answer: PutAnswer) -> None:
    files = count_text(answer.files, "file")
    text = f"{answer.name}: {size_text(answer.size_bytes)} in {files}, on {count_text(answer.copies, 'computer')}"
    here.out.say(text)
    if answer.copies < answer.wanted:
        here.out.warn(f"only {answer.copies} of {answer.wanted} copies: {list_text(answer.reasons)}")
    elif answer.wanted < 2:
        here.out.warn("no other computer keeps objects now: if this one is off, nobody can get it")


async def get(
    here: Here,
    name: NameArgument,
    where: Annotated[
        Path | None, typer.Argument(help="The new file or folder, or a folder to put it into; else here.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="ID", help="Another version; `colla object show` lists them."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there.")] = False,
) -> None:
    """Get a file or folder of the group, from several computers at once; every byte is verified.

    Interrupted, the same command goes on where it stopped.
    """
    own = name.rstrip("/").rpartition("/")[2]
    target = Path(own) if where is None else where / own if where.is_dir() else where
    transfer = secrets.token_hex(8)
    async with here.client() as client:
        chosen = await _whole_id(client, name, version) if version else ""
        work = client.get(name, target, version=chosen, replace=replace, transfer=transfer)
        answer = await _followed(here, client, transfer, f"getting {name}", work)
    if here.out.json:
        here.out.answer(answer)
    else:
        files = count_text(answer.files, "file")
        here.out.say(f"{target}: {size_text(answer.size_bytes)} in {files}, from {answer.owner}")


async def _whole_id(client: Client, name: str, beginning: str) -> str:
    found = {one.object for one in await client.object_versions(name) if one.object.startswith(beginning)}
    if len(found) != 1:
        raise CollaError(
            "not_found", f"{name} has no version {beginning}.", f"`colla object show {name}` lists them."
        )
    return found.pop()


async def ls(
    here: Here,
    prefix: Annotated[str, typer.Argument(help="Only names that begin so.")] = "",
) -> None:
    """List the group's files: owner, size, copies, time."""
    async with here.client() as client:
        reports = [report async for report in client.all_objects(prefix)]
    if here.out.json:
        for report in reports:
            here.out.answer(report)
        return
    if not reports:
        here.out.note(
            "no files yet: give one with `colla put FILE`" if not prefix else f"nothing begins with {prefix}"
        )
        return
    here.out.table(
        ("NAME", "OWNER", "SIZE", "FILES", "COPIES", "PUT", ""),
        [
            (
                report.name + ("/" if report.folder else ""),
                report.owner,
                size_text(report.size_bytes),
                str(report.files),
                f"{report.copies} of {report.wanted}",
                _time_text(report.written_s),
                _notes(report),
            )
            for report in reports
        ],
    )


def _notes(report: ObjectReport) -> str:
    notes = []
    if report.sealed:
        notes.append("sealed" if report.readable else "sealed, not for you")
    if report.conflicts:
        notes.append(count_text(report.conflicts, "conflict"))
    if not report.copies:
        notes.append("nobody here has it")
    return ", ".join(notes)


async def show(here: Here, name: NameArgument) -> None:
    """Show all versions of a name: the current one, those that were written at the same time and lost, earlier ones.

    Only the current version and conflicts are kept; of earlier ones it is known who put them.
    """
    async with here.client() as client:
        versions = await client.object_versions(name)
    if here.out.json:
        for version in versions:
            here.out.answer(version)
        return
    here.out.table(
        ("VERSION", "", "BY", "ON", "SIZE", "COPIES", "PUT"),
        [
            (
                short_id(version.object) or "removed",
                version.standing,
                version.owner,
                version.computer,
                _size(version),
                str(version.copies) if version.object else "–",
                _time_text(version.written_s),
            )
            for version in versions
        ],
    )
    if any(version.standing == "conflict" for version in versions):
        here.out.note(
            f"Whoever puts {name} again settles it; `colla get {name} --version ID` gets another one first."
        )


def _size(version: VersionReport) -> str:
    sealed = " sealed" if version.sealed else ""
    return size_text(version.size_bytes) + sealed if version.object else "–"


async def rm(here: Here, name: NameArgument, replace: ReplaceOption = False, yes: YesOption = False) -> None:
    """Remove a file or folder from the group. Its copies go when nothing else refers to them."""
    async with here.client() as client:
        if not yes and not here.out.json and not here.out.ask(f"Remove {name} from the group?", default=True):
            raise typer.Abort
        answer = await client.remove_object(name, replace=replace)
    if here.out.json:
        here.out.answer(answer)
    else:
        here.out.say(f"{answer.name} is removed; that is written on {count_text(answer.records, 'computer')}")


async def share(
    here: Here,
    name: NameArgument,
    members: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEMBER", help="Who shall read it; nobody named: the whole group."),
    ] = None,
) -> None:
    """Let further members read a sealed object. What somebody could read once cannot be taken back."""
    async with here.client() as client:
        answer = await client.share_object(name, tuple(members or ()))
    if here.out.json:
        here.out.answer(answer)
    else:
        here.out.say(f"{answer.name} can be read by {list_text(members or ['the whole group'])}")


async def check(here: Here) -> None:
    """Read everything that is stored on this computer and verify it now; damage is mended from other computers.

    A node does this by itself all the time, within a week.
    """
    transfer = secrets.token_hex(8)
    async with here.client() as client:
        answer = await _followed(here, client, transfer, "checking", client.check_objects(transfer))
    if here.out.json:
        here.out.answer(answer)
        return
    here.out.say(
        f"{count_text(answer.chunks, 'piece')}, {size_text(answer.size_bytes)}: {_verdict(answer.damaged)}"
    )


def _verdict(damaged: int) -> str:
    return f"{damaged} damaged, fetched again from others" if damaged else "all as they should be"


async def _followed(here: Here, client: Client, transfer: str, text: str, work: Awaitable[T]) -> T:
    """Do the work with a bar that shows how far it is. Interrupted, the node stops it too."""
    with here.out.bar(text) as bar:
        doing = asyncio.ensure_future(work)
        try:
            while not doing.done():
                await asyncio.wait([doing], timeout=LOOK_S)
                if not doing.done() and here.out.watched:
                    await _look(client, transfer, bar)
        except asyncio.CancelledError:
            doing.cancel()
            try:
                await client.stop_transfer(transfer)
            except CollaError as error:
                if error.code != "not_found":  # It ended at the last moment.
                    raise
            raise
        return await doing


async def _look(client: Client, transfer: str, bar: Bar) -> None:
    for report in await client.transfers():
        if report.id == transfer:
            bar.update(_phase(report), report.done_bytes, report.total_bytes)


def _phase(report: TransferReport) -> str:
    if report.phase == "copying" and report.wanted:
        return f"{report.name}: {report.copies} of {report.wanted} copies"
    return f"{report.name}: {report.phase}" if report.name else report.phase


def _time_text(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def add(app: typer.Typer, object_app: typer.Typer) -> None:
    """Declare these commands: the three that are used most stand at the top as well."""
    shortcuts: tuple[tuple[Body, tuple[str, ...]], ...] = (
        (put, ("colla put holiday.mp4", "colla put photos/ albums/2026", "colla put contract.pdf --for ben")),
        (get, ("colla get holiday.mp4", "colla get albums/2026 ~/Pictures")),
        (ls, ("colla ls", "colla ls albums/")),
    )
    for body, lines in shortcuts:
        command(app, SHARE_PANEL, examples=lines)(body)
        command(object_app, SHARE_PANEL, examples=lines)(body)
    command(object_app, SHARE_PANEL, examples=("colla object show albums/2026",))(show)
    command(object_app, SHARE_PANEL, examples=("colla object rm albums/2026",))(rm)
    command(object_app, SHARE_PANEL, examples=("colla object share contract.pdf carla",))(share)
    command(object_app, SHARE_PANEL, examples=("colla object check",))(check)
