"""Runs the checks on a program and tells how each ended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import aiohttp

from colla.environments.conformance import beside, meeting, replicas, surviving, telling
from colla.environments.conformance.checks import Check, NotHere, Outcome
from colla.environments.conformance.subject import PATIENCE_S, Subject
from colla.environments.protocol import EnvironmentFault

CHECKS: Final[tuple[Check, ...]] = (
    *meeting.CHECKS,
    *replicas.CHECKS,
    *beside.CHECKS,
    *telling.CHECKS,
    *surviving.CHECKS,
)
CHECK_S_MAX: Final = 3 * PATIENCE_S


async def run_check(check: Check, subject: Subject) -> Outcome:
    """How one check ends on a subject that is open."""
    claimed = subject.client.info.capabilities
    if check.capability and check.capability not in claimed:
        return Outcome(check.name, check.rule, "not here", f"it does not claim {check.capability}")
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            await check.run(subject)
    except NotHere as why:
        return Outcome(check.name, check.rule, "not here", str(why))
    except TimeoutError:
        return Outcome(check.name, check.rule, "failed", f"it took longer than {CHECK_S_MAX:g} s")
    except (AssertionError, EnvironmentFault, OSError, aiohttp.ClientError) as error:
        return Outcome(check.name, check.rule, "failed", str(error) or repr(error))
    return Outcome(check.name, check.rule, "passed")


async def run_checks(make: Callable[[Path], Subject]) -> AsyncIterator[Outcome]:
    """The outcome of every check. `make` gives a subject in an empty folder; raises `EnvironmentFault` when it cannot begin."""
    with tempfile.TemporaryDirectory(prefix="colla-check-") as name:
        shared = make(Path(name) / "shared")
        shared.base.mkdir()
        await shared.open()
        try:
            for check in CHECKS:
                if not check.alone:
                    yield await run_check(check, shared)
        finally:
            await shared.close()
        alone = [check for check in CHECKS if check.alone]
        subjects = [make(Path(name) / check.name) for check in alone]
        # Beside each other, since most of their time is spent on waiting.
        for outcome in await asyncio.gather(*map(run_alone, alone, subjects)):
            yield outcome


async def run_alone(check: Check, subject: Subject) -> Outcome:
    """One check on a program of its own, which ends with it."""
    subject.base.mkdir()
    await subject.open()
    try:
        return await run_check(check, subject)
    finally:
        await subject.close()
