"""Checks: the streams of events and of log lines."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from colla.environments.conformance.checks import Checks, expect, require
from colla.environments.conformance.subject import ANSWER_S, Subject
from colla.environments.protocol import LogLine, ReplicaExited, ReplicaSpec

CHECKS = Checks()
QUIET_S_MAX: Final = 10.0
"""A stream on which nothing happens sends an empty line at least this often."""


@CHECKS.declare()
async def events_are_numbered(subject: Subject) -> None:
    """Events count up from 1 within one instance, and are told again from any number on to who comes back."""
    spec = subject.spec()
    await subject.ready(spec)
    await subject.client.stop(spec.replica_id, 1.0)
    await subject.event(spec.replica, ReplicaExited)
    numbers = [event.number for event in subject.events]
    expect(numbers, list(range(1, len(numbers) + 1)), "the numbers of the events")
    expect({event.instance for event in subject.events}, {subject.client.info.instance}, "their instance")
    other = await subject.another_client()
    try:
        async with asyncio.timeout(ANSWER_S):
            again = []
            async for event in other.events():
                again.append(event)
                if len(again) == len(numbers):
                    break
        expect(again, subject.events[: len(again)], "the events told again")
    finally:
        await other.detach()
    await subject.client.delete(spec.replica_id)


@CHECKS.declare("logs")
async def logs(subject: Subject) -> None:
    """Lines are numbered upwards, may be asked for from a number on, and a follower's stream ends with the replica."""
    spec = subject.spec()
    await subject.ready(spec)
    following = asyncio.create_task(_all_lines(subject, spec, follow=True))
    kept = await _all_lines(subject, spec)
    numbers = [line.number for line in kept]
    require(numbers == sorted(set(numbers)) and 0 not in numbers, f"the numbers are {numbers}")
    if kept:
        after = [line async for line in subject.client.logs(spec.replica_id, after=kept[0].number)]
        require(kept[0] not in after, "a line came again that is not after the number")
    await subject.client.stop(spec.replica_id, 1.0)
    async with asyncio.timeout(ANSWER_S):
        followed = await following
    expect(followed[: len(kept)], kept, "the lines that the follower got")
    await subject.client.delete(spec.replica_id)


@CHECKS.declare("logs")
async def slow_readers(subject: Subject) -> None:
    """A follower that does not read holds up nobody, and a quiet stream sends empty lines to show that it lives."""
    spec = subject.spec()
    await subject.ready(spec)
    url = f"http://environment/v1/replicas/{spec.replica}/logs?follow=1"
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(subject.handshake.socket)) as session,
        session.get(url) as response,
    ):
        expect((response.status, response.content_type), (200, "application/x-ndjson"), "the stream")
        require((await subject.client.health()).healthy, "it does not answer beside a stream")
        try:
            async with asyncio.timeout(QUIET_S_MAX):
                while (await response.content.readline()).strip():
                    continue
        except TimeoutError:
            raise AssertionError(f"a quiet stream said nothing for {QUIET_S_MAX:g} s") from None
        require(not response.content.at_eof(), "the stream ended while the replica runs")
    await subject.client.delete(spec.replica_id)


async def _all_lines(subject: Subject, spec: ReplicaSpec, *, follow: bool = False) -> list[LogLine]:
    return [line async for line in subject.client.logs(spec.replica_id, follow=follow)]
