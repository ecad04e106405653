"""Execution environments that the owner attaches while the node runs, and those that are built in.

Owns the list of programs in the settings: a program is tried in a folder of its own first, which tells what kind it is;
from then on it is started with the node like those that are built in, and its kind is a part of the contribution.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from colla.client import types
from colla.client.text import clean
from colla.environments.client import EnvironmentClient
from colla.environments.protocol import THREATS, EnvironmentInfo
from colla.model.contribution import Contribution
from colla.model.errors import CollaError
from colla.model.service import check_kind
from colla.node.settings import AttachedProgram

if TYPE_CHECKING:
    from colla.node.app import Node

BUILT_IN: Final = ("static", "process", "wasm", "container")
"""Kinds that colla's own programs run, in this version or another one: no other program may take their names."""
PROGRAMS_MAX: Final = 16
WORDS_MAX: Final = 64
WORD_CHARS_MAX: Final = 4096
ATTACHED_WAIT_S: Final = 15.0
"""How long an answer waits for an environment that was added to be ready for replicas."""


async def attach(node: Node, command: Sequence[str]) -> types.EnvironmentReport:
    """Try the program, keep it, and give its kind from now on. Raises `CollaError`; then nothing has changed."""
    words = tuple(command)
    if (
        not words
        or len(words) > WORDS_MAX
        or any(len(word) > WORD_CHARS_MAX or "\0" in word for word in words)
    ):
        raise CollaError("bad_program", "That is no command that starts a program.", "Name the program.")
    info = await _try(node, words)
    _check_kind(node, info.kind)
    programs = (*node.settings.programs, AttachedProgram(info.kind, words))
    node.change_settings(programs=programs)
    gives = node.settings.contribution
    try:
        if info.kind not in gives.environments:
            environments = (*gives.environments, info.kind)
            await node.contribute(msgspec.structs.replace(gives, environments=environments))
        await node.replicas.until_attached(info.kind, ATTACHED_WAIT_S)
    except BaseException:
        node.change_settings(programs=programs[:-1])
        raise
    return next(report for report in reports(node) if report.kind == info.kind)


def check_given(node: Node, contribution: Contribution) -> None:
    """Raise `CollaError("bad_contribution")` when it gives a kind that no program here runs."""
    known = (*BUILT_IN, *(program.kind for program in node.settings.programs))
    for kind in contribution.environments:
        if kind not in known and kind not in node.settings.contribution.environments:
            hint = "Attach its program first: colla environment add PROGRAM"
            raise CollaError("bad_contribution", f"This computer has no environment {kind!r}.", hint)


async def detach(node: Node, kind: str) -> None:
    """Give the kind no longer and forget its program; its replicas stop here. Raises `CollaError("not_found")`."""
    programs = tuple(program for program in node.settings.programs if program.kind != kind)
    if len(programs) == len(node.settings.programs):
        hint = (
            "`colla environment list` shows them; `colla contribute --environments` says which of them run."
        )
        raise CollaError("not_found", f"No environment {kind!r} was attached to this computer.", hint)
    gives = node.settings.contribution
    environments = tuple(each for each in gives.environments if each != kind)
    await node.contribute(msgspec.structs.replace(gives, environments=environments))
    node.change_settings(programs=programs)
    await asyncio.to_thread(shutil.rmtree, node.replicas.runtime_of(kind), ignore_errors=True)


def reports(node: Node) -> tuple[types.EnvironmentReport, ...]:
    """Every environment that this computer gives or has attached, by kind."""
    programs = {program.kind: program.command for program in node.settings.programs}
    kinds = sorted({*programs, *node.core.contribution.environments})
    return tuple(_report(node, kind, programs.get(kind, ())) for kind in kinds)


def _report(node: Node, kind: str, command: tuple[str, ...]) -> types.EnvironmentReport:
    info = node.replicas.info(kind)
    return types.EnvironmentReport(
        kind=kind,
        command=command,
        given=kind in node.core.contribution.environments,
        attached=info is not None,
        problem="" if info is not None else node.replicas.problem(kind),
        replicas=node.replicas.count(kind),
        version=info.version if info is not None else "",
        isolation=info.isolation if info is not None else "",
        limits_enforced=info.limits_enforced if info is not None else (),
        capabilities=info.capabilities if info is not None else (),
        needs_consent=info.needs_consent if info is not None else "",
        not_contained=tuple(THREATS.get(threat, clean(threat)) for threat in info.not_contained or ())
        if info is not None
        else (),
        secrets_kept=clean(info.secrets_kept) if info is not None else "",
    )


def _check_kind(node: Node, kind: str) -> None:
    check_kind(kind)
    if kind in BUILT_IN:
        raise CollaError(
            "kind_taken", f"The kind {kind} is built in.", "Give the program's kind another name."
        )
    programs = node.settings.programs
    if any(program.kind == kind for program in programs):
        hint = f"Remove it first: colla environment remove {kind}"
        raise CollaError("kind_taken", f"An environment {kind} is attached already.", hint)
    if len(programs) >= PROGRAMS_MAX:
        raise CollaError("too_many_programs", f"{PROGRAMS_MAX} programs are attached, no more are possible.")


async def _try(node: Node, command: tuple[str, ...]) -> EnvironmentInfo:
    """What the program says of itself. Raises `CollaError("bad_program")` when it is no environment."""
    with tempfile.TemporaryDirectory(prefix="trial-", dir=node.replicas.folder) as name:
        try:
            client = await EnvironmentClient.launch(
                "on trial", node.replicas.folder / name, program=command, attempts=2
            )
        except CollaError as error:
            hint = "Check it first: colla environment check PROGRAM"
            raise CollaError(
                "bad_program", f"{command[0]} is no environment: {error.message}", hint
            ) from None
        try:
            return client.info
        finally:
            await client.shut_down(grace_s=0.0)
