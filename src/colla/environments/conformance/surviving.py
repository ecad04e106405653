"""Checks: what becomes of replicas when the agent or the program ends, or is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from colla.environments.conformance.checks import Checks, expect, require
from colla.environments.conformance.subject import PATIENCE_S, Subject
from colla.environments.protocol import ReplicaReady, ReplicaSpec, ReplicaStarted

CHECKS = Checks()
POLL_S: Final = 0.02


@CHECKS.declare(alone=True)
async def the_agent_restarts(subject: Subject) -> None:
    """When the agent goes, its replicas go on, and the next agent finds the program, the replicas and all events."""
    spec = subject.spec()
    endpoint = await subject.ready(spec)
    before, told = await subject.status(spec), list(subject.events)
    instance = subject.client.info.instance
    await subject.let_go()
    expect((await subject.get(endpoint))[0], 200, "its answer while there is no agent")
    subject.events.clear()
    await subject.open()
    expect(subject.client.info.instance, instance, "the instance of the program")
    expect(await subject.status(spec), before, "the replica's status")
    await subject.event(spec.replica, ReplicaReady)
    expect(subject.events[: len(told)], told, "the events told again")


@CHECKS.declare(alone=True)
async def the_program_is_killed(subject: Subject) -> None:
    """When the program is killed, the next one knows every replica: with `recover` they go on, else they are reported as ended."""
    running, ended = subject.spec(), subject.spec()
    endpoint = await subject.ready(running)
    await subject.ready(ended)
    await subject.client.stop(ended.replica_id, 1.0)
    before, instance = await subject.status(running), subject.client.info.instance
    await _end_program(subject, signal.SIGKILL)
    now = await subject.listed()
    require(subject.client.info.instance != instance, "the new program has the old instance")
    expect(set(now), {running.replica, ended.replica}, "the replicas that it knows")
    expect(now[ended.replica].phase, "exited", "the phase of the one that had ended")
    if "recover" in subject.client.info.capabilities:
        await _expect_going_on(subject, running)
        after = await subject.status(running)
        expect((after.handle, after.endpoint), (before.handle, before.endpoint), "handle and endpoint")
        started = [event for event in subject.events if event.replica == running.replica]
        recovered = [event for event in started if isinstance(event, ReplicaStarted) and event.recovered]
        expect(len(recovered), 1, "how often it was told as recovered")
    else:
        status = await subject.client.wait(running.replica_id, PATIENCE_S)
        expect(status.phase, "exited", "the phase of the one that ran")
        require(await subject.is_silent(endpoint), "it is reported as ended and still answers")


@CHECKS.declare(alone=True)
async def the_program_is_terminated(subject: Subject) -> None:
    """SIGTERM ends the program alone, soon; with `recover` its replicas go on."""
    spec = subject.spec()
    await subject.ready(spec)
    await _end_program(subject, signal.SIGTERM)
    if "recover" in subject.client.info.capabilities:
        await _expect_going_on(subject, spec)
    else:
        expect((await subject.client.wait(spec.replica_id, PATIENCE_S)).phase, "exited", "its phase")


@CHECKS.declare(alone=True)
async def shut_down_leaves_nothing(subject: Subject) -> None:
    """Shutting down stops every replica and the program, and takes its handshake away."""
    specs = [subject.spec() for _ in range(3)]
    endpoints = [await subject.ready(spec) for spec in specs]
    pid = subject.handshake.pid
    await subject.client.shut_down(grace_s=5.0)
    await _until_gone(pid)
    for endpoint in endpoints:
        require(await subject.is_silent(endpoint), f"{endpoint} still answers")
    left = await asyncio.to_thread((subject.runtime / "program.json").exists)
    require(not left, "program.json is still there")


@CHECKS.declare(alone=True)
async def a_long_runtime_folder(subject: Subject) -> None:
    """A runtime folder may be deeper than the path of a Unix socket can be."""
    await subject.let_go()
    await (await subject.another_client()).shut_down()
    subject.runtime = subject.base / ("d" * 90) / ("e" * 90) / "runtime"
    await subject.open()
    require(len(os.fsencode(subject.handshake.socket)) <= 107, f"{subject.handshake.socket} is too long")
    spec = subject.spec()
    expect((await subject.get(await subject.ready(spec)))[0], 200, "its answer")


async def _expect_going_on(subject: Subject, spec: ReplicaSpec) -> None:
    seen = await subject.status(spec)
    expect(seen.phase, "ready", f"its phase ({seen.exit})")
    expect((await subject.get(seen.endpoint))[0], 200, "its answer")
    await subject.until(
        lambda: next(
            (event for event in subject.events if isinstance(event, ReplicaStarted) and event.recovered), None
        ),
        "it was not told as recovered",
    )


async def _end_program(subject: Subject, number: signal.Signals) -> None:
    """The next call brings another program to life."""
    pid = subject.handshake.pid
    os.kill(pid, number)
    await _until_gone(pid)


async def _until_gone(pid: int) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while _lives(pid):  # noqa: ASYNC110 - no child of ours: nothing tells its end
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"the program {pid} did not end within {PATIENCE_S:g} s") from None


def _lives(pid: int) -> bool:
    """Whether it runs; what only waits to be reaped does not."""
    with suppress(OSError):
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return not Path("/proc/self/stat").exists()
    return False
