"""Checks: what is run beside a replica's program, and the secrets that it is given."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from colla.environments.conformance.checks import Checks, NotHere, expect, refused, require
from colla.environments.conformance.subject import Subject
from colla.environments.protocol import (
    EnvironmentFault,
    ExecOutput,
    ExecRequest,
    HealthCheck,
    ReplicaExited,
)
from colla.model.ids import ReplicaId

CHECKS = Checks()
NOTHING = "/for/the/check/nothing"
"""A program that is nowhere, so that the checks need none of the sample."""
START_PERIOD_S = 1.5


@CHECKS.declare("exec")
async def commands(subject: Subject) -> None:
    """A command that cannot be run is refused or ends with a code other than 0, and the replica goes on."""
    spec = subject.spec()
    await subject.ready(spec)
    try:
        outputs = await _outputs(subject, spec.replica_id)
    except EnvironmentFault as error:
        require(error.message, "the refusal has no message for people")
    else:
        codes = [output.code for output in outputs]
        require(codes and codes[-1], f"it did not end with a code other than 0, but so: {outputs[-1:]}")
        require(not any(code is not None for code in codes[:-1]), f"it ended more than once: {codes}")
    expect((await subject.status(spec)).phase, "ready", "the phase of the replica after that")
    await subject.client.delete(spec.replica_id)
    await refused(_outputs(subject, spec.replica_id), "replica_unknown")


async def _outputs(subject: Subject, replica: ReplicaId) -> list[ExecOutput]:
    request = ExecRequest(command=(NOTHING,), timeout_s=10.0)
    return [output async for output in subject.client.exec(replica, request)]


@CHECKS.declare("check_command")
async def command_that_checks(subject: Subject) -> None:
    """A replica whose command that checks its health never succeeds ends with `never_listened`."""
    spec = subject.spec(health=HealthCheck(command=(NOTHING,), start_period_s=START_PERIOD_S, timeout_s=0.5))
    await subject.client.start(spec)
    ended = (await subject.event(spec.replica, ReplicaExited)).exit
    expect(ended.reason, "never_listened", f"the reason of its end ({ended.message})")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare("secrets")
async def secrets_stay_secret(subject: Subject) -> None:
    """A secret is in no file of the environment and in no command line, unless it says beforehand who keeps it."""
    if kept := subject.client.info.secrets_kept:
        raise NotHere(f"it says so: {kept}")
    secret = secrets.token_hex(16)
    spec = subject.spec(secrets={"COLLA_CHECK_SECRET": secret})
    await subject.ready(spec)
    expect(list(_files_with(subject.base, secret)), [], "files with the secret")
    shown = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    require(not any(secret in word for words in shown for word in words), "it is in a command line")
    await subject.client.delete(spec.replica_id)


def _files_with(folder: Path, secret: str) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # What was there a moment ago may be gone.
            if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
                yield str(path.relative_to(folder))
