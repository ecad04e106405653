"""Checks: the life of a replica, from its preparation to its deletion."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec

from colla.environments.conformance.checks import Checks, NotHere, expect, refused, require
from colla.environments.conformance.subject import Subject
from colla.environments.protocol import (
    HealthCheck,
    Limits,
    ReplicaExited,
    ReplicaReady,
    ReplicaStarted,
    UnixEndpoint,
)
from colla.model.ids import ReplicaId

CHECKS = Checks()
NOWHERE = "/for/the/check/nothing"
START_TIMES = 3.0
"""A start period of so many usual starts is enough to answer at least once."""


@CHECKS.declare("prepare")
async def prepare(subject: Subject) -> None:
    """Preparing tells its progress, ends with `done`, and may be repeated."""
    for _ in range(2):
        last = await subject.client.prepare(subject.sample.folder)
        require(last.done, f"the last line of progress is {last}")


@CHECKS.declare()
async def start_answer_stop(subject: Subject) -> None:
    """A started replica becomes ready, answers on its endpoint, and leaves nothing behind when it is stopped."""
    spec = subject.spec()
    endpoint = await subject.ready(spec)
    status, _ = await subject.get(endpoint)
    expect(status, 200, "the status of GET /")
    seen = await subject.status(spec)
    expect((seen.phase, seen.service, seen.endpoint), ("ready", spec.service, endpoint), "its status")
    require(seen.ready_at is not None and seen.ready_at >= seen.started_at, "it was ready before its start")
    stopped = await subject.client.stop(spec.replica_id, 5.0)
    require(stopped.exit is not None and stopped.phase == "exited", f"its phase is {stopped.phase}")
    expect(stopped.exit and stopped.exit.reason, "stopped", "the reason of its end")
    expect((await subject.event(spec.replica, ReplicaExited)).exit, stopped.exit, "the event's exit")
    require(await subject.is_silent(endpoint), "it still answers")
    if isinstance(endpoint, UnixEndpoint):
        require(not await asyncio.to_thread(Path(endpoint.path).exists), f"{endpoint.path} is still there")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def start_is_idempotent(subject: Subject) -> None:
    """Starting the same replica again, also at the same time or after its end, gives the same answer and one replica."""
    spec = subject.spec()
    first, second = await asyncio.gather(subject.client.start(spec), subject.client.start(spec))
    expect(second, first, "the second answer")
    await subject.ready(spec)
    await subject.client.stop(spec.replica_id, 1.0)
    expect(await subject.client.start(spec), first, "the answer after its end")
    started = [event for event in subject.events if event.replica == spec.replica]
    expect(sum(isinstance(event, ReplicaStarted) for event in started), 1, "how often it started")
    expect((await subject.status(spec)).phase, "exited", "its phase")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def another_specification(subject: Subject) -> None:
    """The same id with another specification is refused with `replica_differs`."""
    spec = subject.spec()
    await subject.ready(spec)
    other = msgspec.structs.replace(spec, service="another")
    error = await refused(subject.client.start(other), "replica_differs")
    require(not error.retryable, "it says that the same may succeed later")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def bad_specifications(subject: Subject) -> None:
    """Specifications that make no sense are refused by a code, and nothing is started."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"replica": "xyz"}, "replica_malformed"),
        ({"replica": "A" * 32}, "replica_malformed"),
        ({"replica": "../" * 10 + "ab"}, "replica_malformed"),
        ({"artifact": "relative/folder"}, "artifact_relative"),
        ({"artifact": "/there/is/no/such/folder"}, "artifact_missing"),
        ({"health": HealthCheck(path="/ HTTP/1.1\r\nX: y")}, "health_path_malformed"),
        ({"health": HealthCheck(timeout_s=0)}, "health_check_malformed"),
        ({"limits": Limits(memory_bytes=-1)}, "limits_malformed"),
    ]
    before = set(await subject.listed())
    for change, code in wrong:
        await refused(subject.client.start(msgspec.structs.replace(subject.spec(), **change)), code)
    expect(set(await subject.listed()), before, "the replicas afterwards")


@CHECKS.declare()
async def unknown_replica(subject: Subject) -> None:
    """Whatever is asked about a replica that it does not know is refused with `replica_unknown`."""
    nobody = ReplicaId(secrets.token_bytes(16))
    client = subject.client
    await refused(client.inspect(nobody), "replica_unknown")
    await refused(client.stop(nobody, 1.0), "replica_unknown")
    await refused(client.wait(nobody, 0.1), "replica_unknown")
    await refused(client.recover(nobody, "x"), "replica_unknown")
    await client.delete(nobody)


@CHECKS.declare()
async def recover_by_handle(subject: Subject) -> None:
    """The handle finds the replica again; another handle does not."""
    spec = subject.spec()
    started = await subject.client.start(spec)
    expect(await subject.client.recover(spec.replica_id, started.handle), started, "what was recovered")
    await refused(subject.client.recover(spec.replica_id, started.handle + "x"), "replica_unknown")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def delete_forgets(subject: Subject) -> None:
    """Deleting ends a running replica and forgets it; it may be repeated."""
    spec = subject.spec()
    endpoint = await subject.ready(spec)
    require(spec.replica in await subject.listed(), "it is not listed while it runs")
    await subject.client.delete(spec.replica_id)
    require(spec.replica not in await subject.listed(), "it is listed after its deletion")
    require(await subject.is_silent(endpoint), "it still answers")
    await refused(subject.client.inspect(spec.replica_id), "replica_unknown")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def replicas_are_apart(subject: Subject) -> None:
    """Two replicas answer on endpoints of their own, and the end of one leaves the other alone."""
    specs = [subject.spec() for _ in range(2)]
    endpoints = [await subject.ready(spec) for spec in specs]
    require(endpoints[0] != endpoints[1], "both have the same endpoint")
    await subject.client.stop(specs[0].replica_id, 5.0)
    expect((await subject.get(endpoints[1]))[0], 200, "the answer of the other one")
    for spec in specs:
        await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def wait(subject: Subject) -> None:
    """Waiting answers when the replica ends, or when the time is over."""
    spec = subject.spec()
    await subject.ready(spec)
    expect((await subject.client.wait(spec.replica_id, 0.01)).phase, "ready", "its phase")
    waiting = asyncio.create_task(subject.client.wait(spec.replica_id, 30.0))
    await subject.client.stop(spec.replica_id, 5.0)
    expect((await waiting).phase, "exited", "its phase")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def start_period(subject: Subject) -> None:
    """A replica whose health check does not succeed within its start period ends with `never_listened`."""
    usual = subject.spec()
    await subject.client.start(usual)
    usual_s = (await subject.event(usual.replica, ReplicaReady)).start_to_ready_s
    await subject.client.delete(usual.replica_id)
    period_s = max(1.5, START_TIMES * usual_s)
    spec = subject.spec(health=HealthCheck(path=NOWHERE, start_period_s=period_s, timeout_s=0.5))
    await subject.client.start(spec)
    ended = (await subject.event(spec.replica, ReplicaExited)).exit
    expect(ended.reason, "never_listened", f"the reason of its end ({ended.message})")
    require("404" in ended.message, f"the message does not tell what was answered: {ended.message}")
    expect((await subject.status(spec)).ready_at, None, "when it was ready")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare()
async def limits_that_hold(subject: Subject) -> None:
    """It claims for a replica only limits that were asked for and that it enforces on this computer."""
    spec = subject.spec(limits=Limits(memory_bytes=512 << 20, pids=200))
    await subject.client.start(spec)
    claimed = (await subject.status(spec)).limits_enforced
    possible = [name for name in subject.client.info.limits_enforced if name in ("memory_bytes", "pids")]
    require(set(claimed) <= set(possible), f"it claims {claimed}, of which {possible} are possible")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare("stats")
async def stats(subject: Subject) -> None:
    """What a running replica uses is above zero."""
    spec = subject.spec()
    await subject.ready(spec)
    told = await subject.client.stats(spec.replica_id)
    expect(told.replica, spec.replica, "whose figures these are")
    require((told.memory_bytes or 1) > 0 and (told.processes or 1) > 0, f"it uses nothing: {told}")
    await subject.client.delete(spec.replica_id)
    await refused(subject.client.stats(spec.replica_id), "replica_unknown")


@CHECKS.declare("signal")
async def signal(subject: Subject) -> None:
    """SIGTERM ends a replica, and SIGHUP to one that is unknown is refused."""
    spec = subject.spec()
    await subject.ready(spec)
    await subject.client.signal(spec.replica_id, "SIGTERM")
    ended = await subject.client.wait(spec.replica_id, 10.0)
    if ended.phase != "exited":
        raise NotHere("the sample does not end by SIGTERM")
    await subject.client.delete(spec.replica_id)
    await refused(subject.client.signal(spec.replica_id, "SIGHUP"), "replica_unknown")
