"""Commands on execution environments: attach, show, let go, check."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from colla.cli.command import COMPUTER_PANEL, Here, command
from colla.cli.formats import list_text
from colla.client.types import EnvironmentReport
from colla.model.errors import CollaError

Program = Annotated[
    list[str],
    typer.Argument(
        metavar="PROGRAM...", help="The program and its arguments; after -- where these begin with a dash."
    ),
]
NO_ENVIRONMENT = 2
BAD_SAMPLE = 64


async def add(here: Here, program: Program) -> None:
    """Attach an execution environment to this computer, at any time.

    The program is tried, kept, and started with the node from now on; services of its kind may then run here.
    """
    async with here.client() as client:
        report = await client.attach(whole_command(program))
    if here.out.json:
        here.out.answer(report)
        return
    here.out.say(f"Attached {report.kind} {report.version}. Services of this kind may run here from now on.")
    if report.needs_consent:
        here.out.warn(
            f"It runs nobody's code until you agree, since {report.needs_consent}: colla contribute --unsandboxed"
        )
    if not report.attached:
        here.out.warn(f"It does not work at present: {report.problem or 'it still starts'}")


async def show(here: Here) -> None:
    """Show this computer's execution environments: what they isolate and enforce, and whether they work."""
    async with here.client() as client:
        reports = await client.environments()
    if here.out.json:
        here.out.answer(reports)
        return
    here.out.table(
        ("KIND", "VERSION", "RUNS", "ISOLATION", "LIMITS THAT HOLD", "REPLICAS", "PROGRAM"),
        [_row(report) for report in reports],
    )
    for report in reports:
        for remaining in report.not_contained:
            here.out.note(f"{report.kind}: it can happen that a program {remaining}.")
        if report.secrets_kept:
            here.out.note(f"{report.kind}: {report.secrets_kept}.")


async def remove(here: Here, kind: Annotated[str, typer.Argument(metavar="KIND", help="Its kind.")]) -> None:
    """Let go of an attached execution environment. Its replicas here stop, and run on elsewhere if they can."""
    async with here.client() as client:
        await client.detach(kind)
    if not here.out.json:
        here.out.say(f"{kind} is attached no longer.")


async def check(
    here: Here,
    program: Program,
    artifact: Annotated[
        Path | None,
        typer.Option(
            "--artifact",
            help="The folder of a service that it can run: / answers 200, what is not there 404.",
        ),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", help="The rest of that service's specification, as JSON.")
    ] = "",
) -> None:
    """Check that a program is an execution environment: it is started, asked everything, killed and started again.

    Needs no group. Each line is a rule of the environment protocol and says whether it holds.
    """
    options = ["--json"] if here.out.json else []
    options += ["--artifact", str(artifact)] if artifact else []
    options += ["--config", config] if config else []
    words = [sys.executable, "-P", "-m", "colla.environments.conformance", *options, *program]
    process = await asyncio.create_subprocess_exec(*words)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code == BAD_SAMPLE:
        raise CollaError(
            "bad_option", "The service to try it with is not right.", "Correct --artifact and --config."
        )
    if code == NO_ENVIRONMENT:
        raise CollaError("bad_program", f"{program[0]} is no environment.")
    if code:
        raise CollaError("rules_broken", "Not all rules hold.")


def whole_command(words: Sequence[str]) -> tuple[str, ...]:
    """The command with whole paths: the node starts programs in a working folder of its own."""
    program = shutil.which(words[0])
    if program is None:
        raise CollaError("not_found", f"There is no program {words[0]}.", "Is it installed, and executable?")
    rest = (str(Path(word).resolve()) if Path(word).exists() else word for word in words[1:])
    return (str(Path(program).absolute()), *rest)


def _row(report: EnvironmentReport) -> tuple[str, ...]:
    runs = (
        "yes" if report.attached else f"no: {report.problem or 'it starts'}" if report.given else "not given"
    )
    return (
        report.kind,
        report.version or "–",
        runs,
        report.isolation or "–",
        list_text(report.limits_enforced) if report.limits_enforced else "–",
        str(report.replicas),
        " ".join(report.command) or "built in",
    )


def declare(app: typer.Typer) -> None:
    """Declare these commands."""
    group = typer.Typer(
        help="Execution environments: attach, show, let go, check.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.add_typer(group, name="environment", rich_help_panel=COMPUTER_PANEL)
    example = "colla environment add node environment.mjs"
    command(group, COMPUTER_PANEL, examples=(example, "colla environment add -- ./mine --verbose"))(add)
    command(group, COMPUTER_PANEL, examples=("colla environment list",), name="list")(show)
    command(group, COMPUTER_PANEL, examples=("colla environment remove node-functions",))(remove)
    command(
        group,
        COMPUTER_PANEL,
        examples=(
            "colla environment check --artifact ./sample node environment.mjs",
            """colla environment check --artifact ./app --config '{"command": ["./app"]}' ./mine""",
        ),
    )(check)
