"""How a command is declared and run: shared options, help with examples, errors, exit codes.

A command is an `async` function whose first parameter is `Here`; what follows are its own arguments and options. The
decorator adds `--group`, `--home` and `--json`, runs it, and turns errors into a message, a hint and an exit code.

Exit codes: 0 done; 1 refused or failed; 2 used wrongly; 3 no node of the group runs on this computer; 4 what was named is
not there; 5 it did not happen in time; 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from colla.cli.output import Output
from colla.client import folders
from colla.client.client import Client
from colla.model.errors import CollaError

OK, FAILED, WRONG_USE, NOT_RUNNING, NOT_THERE, TOO_LATE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EXIT_CODES = {
    "not_running": NOT_RUNNING,
    "no_group": NOT_THERE,
    "unknown_group": NOT_THERE,
    "not_found": NOT_THERE,
    "service_unknown": NOT_THERE,
    "folder_missing": NOT_THERE,
    "timeout": TOO_LATE,
    "bad_usage": WRONG_USE,
    "which_group": WRONG_USE,
}
DEBUG_VARIABLE = "COLLA_DEBUG"

GROUP_PANEL, SERVICES_PANEL, USE_PANEL, SHARE_PANEL, COMPUTER_PANEL, LAB_PANEL = (
    "Group",
    "Services",
    "Use",
    "Share",
    "My computer",
    "Lab",
)
SHARED_PANEL = "Shared options"

GroupOption = Annotated[
    str | None,
    typer.Option("--group", "-g", help="Which group, where there are several.", rich_help_panel=SHARED_PANEL),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The folder of all groups.", envvar=folders.HOME_VARIABLE, rich_help_panel=SHARED_PANEL
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Answer in JSON, for programs.", rich_help_panel=SHARED_PANEL)
]


class Here:
    """What a command knows of where it is called."""

    def __init__(self, home: Path, group: str | None, output: Output) -> None:
        self.home = home
        self.group = group
        self.out = output

    def folder(self) -> Path:
        """The group's folder. Raises `CollaError` as `colla.client.folders.find_group`."""
        return folders.find_group(self.home, self.group)

    def client(self) -> Client:
        """A client of this computer's node, to be opened with `async with`."""
        return Client(self.folder())


Body = Callable[..., Awaitable[None]]


def command(
    app: typer.Typer, panel: str, *, examples: tuple[str, ...], name: str | None = None, hidden: bool = False
) -> Callable[[Body], Body]:
    """Declare a command. `examples` stand at the end of its help, without the `$`."""

    def declare(body: Body) -> Body:
        app.command(
            name=name or body.__name__.replace("_", "-"),
            help=_flowing(inspect.getdoc(body) or ""),
            short_help=_first_sentence(inspect.getdoc(body) or ""),
            epilog=_epilog(examples),
            rich_help_panel=panel,
            hidden=hidden,
        )(_entry(body))
        return body

    return declare


def _flowing(text: str) -> str:
    """Paragraphs that the terminal breaks, not the source."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", _flowing(text), maxsplit=1)[0].removesuffix(":")


def _epilog(examples: tuple[str, ...]) -> str:
    lines = ["[bold]Examples[/bold]", *(f"$ {example}".replace("[", r"\[") for example in examples)]
    return "\n\n".join(lines)


def _entry(body: Body) -> Callable[..., None]:
    """The function that typer calls: with the shared options, and every error understood."""
    hints = get_type_hints(body, include_extras=True)
    own: list[inspect.Parameter] = []
    bundles: dict[str, type[Any]] = {}
    for parameter in list(inspect.signature(body).parameters.values())[1:]:
        hint = hints[parameter.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            bundles[parameter.name] = hint
            own += _fields(hint)
        else:
            own.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("group", None, GroupOption),
            ("home", None, HomeOption),
            ("json", False, JsonOption),
        )
    ]

    def entry(group: str | None, home: Path | None, json: bool, **given: Any) -> None:
        here = Here(folders.home(home), group, Output(json=json))
        for name, bundle in bundles.items():
            given[name] = bundle(
                **{field.name: given.pop(field.name) for field in dataclasses.fields(bundle)}
            )
        code = run(here, lambda: body(here, **given))
        if code:
            raise typer.Exit(code)

    entry.__name__ = body.__name__
    entry.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    entry.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    return entry


def _fields(bundle: type[Any]) -> list[inspect.Parameter]:
    """Options that several commands share are the fields of a dataclass; each is an option of the command."""
    hints = get_type_hints(bundle, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(bundle)
    ]


def run(here: Here, body: Callable[[], Awaitable[None]]) -> int:
    """Run a command's body; the exit code tells how it went."""

    async def outer() -> None:
        # As Ctrl-C: what is half done is undone, and what was opened is closed.
        running = asyncio.current_task()
        if running is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await body()

    try:
        asyncio.run(outer())
    except CollaError as error:
        here.out.fail(error)
        return EXIT_CODES.get(error.code, FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output wants no more of it, as `head` does; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (typer.Exit, typer.BadParameter, typer.Abort):
        raise
    except OSError as error:
        _raise_if_debugging(error)
        name = f" ({error.filename})" if error.filename else ""
        here.out.fail(CollaError("failed", f"{error.strerror or error}{name}.", _debug_hint()))
        return FAILED
    except Exception as error:
        _raise_if_debugging(error)
        text = f"This is a fault in colla: {type(error).__name__}: {error}"
        here.out.fail(CollaError("fault", text, _debug_hint()))
        return FAILED
    return OK


def _raise_if_debugging(error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise error


def _debug_hint() -> str:
    return f"{DEBUG_VARIABLE}=1 shows where it happened."
