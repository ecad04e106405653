"""Commands on secrets of services: set, list, take away. Values come from a terminal, a pipe or a file, never as arguments."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from colla.cli.command import SERVICES_PANEL, Here, command
from colla.cli.formats import count_text, list_text
from colla.cli.waiting import wait_for_replicas
from colla.client.client import Client
from colla.client.types import ServiceReport, WrittenAnswer
from colla.model.errors import CollaError
from colla.model.secret import check_secret_name

WAIT_S = 60.0
FILE_BYTES_MAX = 1 << 20

ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="The service.")]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until replicas with it answer (the default) or not.")
]

secret_app = typer.Typer(
    help="What a service must know and nobody else: set, list, take away.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


async def set_(
    here: Here,
    service: ServiceArgument,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="As its program finds it in its environment."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Take the value of the one NAME from a file.")
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option("--env-file", help="Take names and values from a file with lines NAME=VALUE."),
    ] = None,
    wait: WaitOption = True,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.0, help="How many seconds to wait at most.")
    ] = WAIT_S,
) -> None:
    """Set secrets of a service: asked for on a terminal, else read from stdin, or from a file.

    Values are encrypted for your computers and for those that the group chooses to run the service; other members and
    computers cannot read them. Replicas are replaced one after the other by ones with the new values.
    """
    values = read_values(names or [], file, env_file)
    async with here.client() as client:
        before = await _existing(client, service)
        written = await client.set_secrets(service, values)
        text = f"{list_text(sorted(values))} of {written.name} {'is' if len(values) == 1 else 'are'} set"
        await _report(here, client, before, written, text, timeout if wait else None)


async def list_(here: Here, service: ServiceArgument) -> None:
    """List the secrets of a service: their names, when and by whom they were set. Values are never shown."""
    async with here.client() as client:
        reports = await client.secrets(service)
    if here.out.json:
        here.out.answer(reports)
        return
    here.out.table(
        ("SECRET", "IS", "SET", "BY", "READABLE ON"),
        [
            (
                each.name,
                ("needed" if each.needed else "set") if each.is_set else "missing",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(each.set_at_s)) if each.is_set else "–",
                each.set_by or "–",
                list_text(each.computers) or "–",
            )
            for each in reports
        ],
    )
    if reports and here.out.terminal:
        here.out.note("The computers that the group chose to run it can read them as well.")


async def rm(
    here: Here,
    service: ServiceArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret.")],
    wait: WaitOption = True,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.0, help="How many seconds to wait at most.")
    ] = WAIT_S,
) -> None:
    """Take a secret away: replicas are replaced one after the other by ones without it."""
    async with here.client() as client:
        before = await _existing(client, service)
        written = await client.remove_secret(service, name)
        await _report(
            here,
            client,
            before,
            written,
            f"{written.name} has no secret {name} any more",
            timeout if wait else None,
        )


def read_values(names: list[str], file: Path | None, env_file: Path | None) -> dict[str, str]:
    """The values of the names, from wherever they come. Raises `CollaError`: `bad_usage`, `unreadable`, `bad_secret_name`."""
    for name in names:
        check_secret_name(name)
    if env_file is not None:
        if names or file is not None:
            raise _usage("With --env-file, names and values are those of the file.")
        return _parse_env(_read(env_file), env_file)
    if not names:
        raise _usage("Name the secret.")
    if file is not None:
        if len(names) > 1:
            raise _usage("A file has the value of one secret.")
        return {names[0]: _trimmed(_read(file))}
    if sys.stdin.isatty():
        return {name: getpass.getpass(f"{name}: ", stream=sys.stderr) for name in names}
    if len(names) > 1:
        raise _usage("From a pipe comes the value of one secret.")
    return {names[0]: _trimmed(_decoded(sys.stdin.buffer.read(FILE_BYTES_MAX), "stdin"))}


def _usage(message: str) -> CollaError:
    return CollaError("bad_usage", message, "As in: colla secret set shop DATABASE_URL")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return _decoded(opened.read(FILE_BYTES_MAX), str(path))
    except OSError as error:
        raise CollaError("unreadable", f"{path} cannot be read: {error.strerror}.") from None


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CollaError("unreadable", f"{where} is no text.", "Encode it, as with base64.") from None


def _trimmed(text: str) -> str:
    """Without the one newline with which editors and `echo` end a text."""
    return text.removesuffix("\n").removesuffix("\r")


def _parse_env(text: str, path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise CollaError("unreadable", f"Line {number} of {path} is not NAME=VALUE.")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[check_secret_name(name.strip())] = value
    if not found:
        raise CollaError("unreadable", f"{path} has no line NAME=VALUE.")
    return found


async def _existing(client: Client, name: str) -> ServiceReport:
    try:
        return await client.service(name)
    except CollaError as error:
        if error.code != "not_found":
            raise
        hint = (
            'Deploy it first: with `secrets = ["NAME"]` in its colla.toml it starts only when they are set,'
            " or give --inactive, then activate it. `colla deploy --secrets FILE` does both."
        )
        raise CollaError(error.code, error.message, hint) from None


async def _report(
    here: Here, client: Client, before: ServiceReport, written: WrittenAnswer, text: str, wait_s: float | None
) -> None:
    """Say what was done, what is missing still, and wait for the replicas that have it."""
    report = await client.service(written.name)
    waits = report.active and not report.secrets_missing and wait_s is not None
    if waits and wait_s is not None:
        old = {each.replica for each in before.locations} if report.version != before.version else set()
        with here.out.progress(f"{text}; waiting for replicas that have it") as progress:
            report = await wait_for_replicas(
                client,
                written.name,
                report.replicas_wanted,
                wait_s,
                lambda running: progress.update(
                    f"{text}; {running} of {report.replicas_wanted} replicas have it"
                ),
                old,
            )
        if old.intersection(each.replica for each in report.locations) or not report.locations:
            here.out.warn(
                f"Not all replicas are replaced yet: `colla why {written.name}`. The group goes on trying."
            )
    if here.out.json:
        here.out.answer(report)
        return
    here.out.say(f"{text}, known to {count_text(written.copies, 'computer')}.")
    if report.secrets_missing:
        missing = " ".join(report.secrets_missing)
        here.out.warn(f"It does not start without: colla secret set {written.name} {missing}")


def add(app: typer.Typer) -> None:
    """Declare these commands."""
    app.add_typer(secret_app, name="secret", rich_help_panel=SERVICES_PANEL)
    examples = (
        "colla secret set shop DATABASE_URL",
        "pass show shop/mail | colla secret set shop MAIL_PASSWORD",
        "colla secret set shop TLS_KEY --file key.pem",
        "colla secret set shop --env-file secrets.env",
    )
    command(secret_app, SERVICES_PANEL, name="set", examples=examples)(set_)
    command(secret_app, SERVICES_PANEL, name="list", examples=("colla secret list shop",))(list_)
    command(secret_app, SERVICES_PANEL, name="rm", examples=("colla secret rm shop MAIL_PASSWORD",))(rm)
