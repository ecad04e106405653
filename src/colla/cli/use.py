"""Commands to use services."""

from __future__ import annotations

import asyncio
import socket
import webbrowser
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer

from colla.cli.command import USE_PANEL, Here, command
from colla.cli.formats import short_id
from colla.client.client import Client
from colla.client.types import ComputerReport, ServiceReport
from colla.model.errors import CollaError

ServiceArgument = Annotated[str, typer.Argument(metavar="NAME", help="The service.")]


class Located(msgspec.Struct, frozen=True):
    """What `locate --json` answers."""

    service: str
    url: str
    replicas: tuple[LocatedReplica, ...]


class LocatedReplica(msgspec.Struct, frozen=True):
    """One live replica, the computer that runs it, and how that is reached from here."""

    replica: str
    node: str
    node_name: str
    path: str
    rtt_ms: float


class Opened(msgspec.Struct, frozen=True):
    """What `open --json` answers; `loopback_url` is empty where the first URL does for every program."""

    service: str
    url: str
    loopback_url: str


async def open_service(
    here: Here,
    name: ServiceArgument,
    show_only: Annotated[bool, typer.Option("--print", help="Print the address, open nothing.")] = False,
) -> None:
    """Open a service in the browser, and print its address."""
    async with here.client() as client:
        report = await client.service(name)
        if not report.active:
            raise CollaError(
                "inactive", f"{report.name} is not active.", f"Its owner can: colla activate {name}"
            )
        loopback = "" if _resolves(report.url) else await _loopback_url(client, report.name)
    if here.out.json:
        here.out.answer(Opened(report.name, report.url, loopback))
    else:
        here.out.say(report.url)
        if loopback:
            here.out.note(f"Programs that cannot find this name reach it at {loopback}")
    if here.out.terminal and not show_only:
        webbrowser.open(report.url)


def _resolves(url: str) -> bool:
    # Browsers know that *.localhost is this computer; glibc and Python may not.
    try:
        return bool(socket.getaddrinfo(urlsplit(url).hostname, None))
    except OSError:
        return False


async def _loopback_url(client: Client, name: str) -> str:
    answer = await client.forward(name)
    return f"http://127.0.0.1:{answer.port}/"


async def locate(here: Here, name: ServiceArgument) -> None:
    """Show where a service's replicas run and how they are reached from here."""
    async with here.client() as client:
        report = await client.service(name)
        computers = {each.node: each for each in await client.computers()}
    located = _located(report, computers)
    if here.out.json:
        here.out.answer(located)
        return
    if not report.active:
        raise CollaError("inactive", f"{report.name} is not active.", f"Its owner can: colla activate {name}")
    if not located.replicas:
        raise CollaError(
            "service_down", f"No replica of {report.name} answers.", f"`colla why {name}` says why."
        )
    here.out.table(
        ("COMPUTER", "REPLICA", "REACHED"),
        [(each.node_name, short_id(each.replica), _way(each)) for each in located.replicas],
    )
    here.out.note(f"All of them: {report.url}")


def _located(report: ServiceReport, computers: dict[str, ComputerReport]) -> Located:
    replicas = []
    for each in report.locations:
        computer = computers.get(each.node)
        me = computer is not None and computer.me
        path = "here" if me else computer.path if computer is not None else ""
        rtt_ms = computer.rtt_ms if computer is not None else 0.0
        replicas.append(LocatedReplica(each.replica, each.node, each.node_name, path, rtt_ms))
    return Located(report.name, report.url, tuple(replicas))


def _way(replica: LocatedReplica) -> str:
    return (
        f"{replica.path or 'not linked'} {replica.rtt_ms:.0f} ms" if replica.rtt_ms else replica.path or "–"
    )


async def forward(
    here: Here,
    name: ServiceArgument,
    port: Annotated[int, typer.Argument(min=0, max=65535, help="The local port; 0 takes a free one.")] = 0,
) -> None:
    """Open a local port that leads to a live replica, until you stop it with Ctrl-C. For any protocol over TCP."""
    async with here.client() as client:
        answer = await client.forward(name, port)
        try:
            if here.out.json:
                here.out.answer(answer)
            else:
                here.out.say(f"127.0.0.1:{answer.port}")
                here.out.note(f"leads to {answer.service}, until Ctrl-C")
            # The stream of notices ends when the node does; nothing else ends a forward.
            async for _ in client.notices():
                pass
        except asyncio.CancelledError:
            await client.close_forward(answer.port)
            raise
    raise CollaError("not_running", "The node stopped, and the forward with it.", "Start it with `colla up`.")


async def execute(
    here: Here,
    name: ServiceArgument,
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="After `--`: the command, as in -- ls -l.")
    ],
    on: Annotated[str, typer.Option("--on", help="On this computer; else on any that runs a replica.")] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds it may take.")
    ] = 60.0,
) -> None:
    """Run a command beside a replica of the service, as isolated as that, where the computer's owner allows it.

    It has the program's variables and files, and no input. Ctrl-C ends it. The exit code is the command's.
    """
    code: int | None = None
    async with here.client() as client:
        async for output in client.exec(name, tuple(words), node=on, timeout_s=timeout):
            if here.out.json:
                here.out.answer(output)
            else:
                here.out.write(output.text)
            if output.problem:
                raise CollaError("not_run", f"{output.node}: {output.problem}")
            code = output.code
    if code is None:
        raise CollaError("unreachable", "The command was cut off.", "Try again.")
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    command(app, USE_PANEL, name="open", examples=("colla open blog", 'curl "$(colla open blog --print)"'))(
        open_service
    )
    command(app, USE_PANEL, examples=("colla locate blog",))(locate)
    command(
        app, USE_PANEL, name="exec", examples=("colla exec shop -- ls -l", "colla exec shop --on attic -- ps")
    )(execute)
    command(app, USE_PANEL, examples=("colla forward shop 8000", "curl http://127.0.0.1:8000/"))(forward)
