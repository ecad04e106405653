"""`python -m colla.environments.conformance [--artifact DIR] [--config JSON] PROGRAM [ARGUMENT ...]`.

Checks an environment program and prints one line per rule. Exits with 0 when none failed, 1 when one did, 2 when the
program is no environment at all, 64 when the service to try it with is not right.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from colla.environments.conformance.checks import Outcome
from colla.environments.conformance.running import run_checks
from colla.environments.conformance.subject import Sample, Subject
from colla.environments.protocol import EnvironmentFault, ReplicaSpec

EX_USAGE = 64
CHOSEN = ("replica", "service", "artifact")
"""What the suite itself says of each replica."""
SHOWN = {"passed": "ok", "failed": "FAILED", "not here": "–"}


class BadSample(Exception):
    """The service to try the environment with is not right, and why."""


def show(outcome: Outcome, as_json: bool) -> None:
    """One line, or two when there is something to say."""
    if as_json:
        print(msgspec.json.encode(outcome).decode(), flush=True)
        return
    print(f"{SHOWN[outcome.verdict]:7} {outcome.rule}", flush=True)
    if outcome.why:
        print(f"        {outcome.why}", flush=True)


async def check(program: Sequence[str], sample: Sample | None, as_json: bool) -> int:
    """Run all checks; the exit code."""
    counts = dict.fromkeys(SHOWN, 0)
    began_s = time.monotonic()
    async for outcome in run_checks(lambda base: Subject(tuple(program), base, sample)):
        counts[outcome.verdict] += 1
        show(outcome, as_json)
    if not as_json:
        took = time.monotonic() - began_s
        told = f"{counts['passed']} rules hold, {counts['failed']} do not, {counts['not here']} do not apply"
        print(f"{told} ({took:.0f} s).")
    return 1 if counts["failed"] else 0


def sample_of(folder: Path | None, config: str) -> Sample | None:
    """The service to try the environment with. Raises `BadSample`."""
    if folder is None:
        if config:
            raise BadSample("--config belongs to a service: give its folder, too, with --artifact")
        return None
    if not folder.is_dir():
        raise BadSample(f"--artifact: there is no folder {folder}")
    try:
        wanted: dict[str, Any] = msgspec.json.decode(config or "{}", type=dict[str, Any])
        for name in wanted:
            if name not in ReplicaSpec.__struct_fields__ or name in CHOSEN:
                raise BadSample(f"--config: {name!r} is nothing that a service may say there")
        known = dict.fromkeys(CHOSEN, "")
        msgspec.convert(wanted | known, ReplicaSpec)
    except msgspec.DecodeError as error:
        raise BadSample(f"--config is not right: {error}") from None
    return Sample(folder.resolve(), wanted)


def whole_command(words: Sequence[str]) -> tuple[str, ...]:
    """The command with whole paths: a node starts programs in a working folder of its own."""
    program = shutil.which(words[0]) or words[0]
    rest = (str(Path(word).resolve()) if Path(word).exists() else word for word in words[1:])
    return (str(Path(program).absolute()) if Path(program).exists() else program, *rest)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m colla.environments.conformance",
        description="Check that a program is an execution environment: it is started, asked, killed and started again.",
    )
    parser.add_argument(
        "--artifact",
        type=Path,
        help="the folder of a service that the environment can run: it answers / with 200 and what is not there with 404",
    )
    parser.add_argument(
        "--config", default="", help='the rest of its specification, as {"command": ["./app"], "env": {}}'
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON per rule")
    parser.add_argument("program", help="the environment's program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments, without --runtime")
    options = parser.parse_args(arguments)
    try:
        sample = sample_of(options.artifact, options.config)
    except BadSample as error:
        print(f"{error}.", file=sys.stderr)
        return EX_USAGE
    try:
        program = whole_command((options.program, *options.arguments))
        return asyncio.run(check(program, sample, options.json))
    except EnvironmentFault as error:
        print(f"{error.message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
