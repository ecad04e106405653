"""Waiting for what the group does: replicas that answer, a computer that is empty, a node that is up or gone.

Invariant: everything is waited for by asking whether it has come true, never by time alone, and nothing for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psutil

from colla.client.client import Client
from colla.client.types import ServiceReport

T = TypeVar("T")

ASK_S = 0.05
"""Between two questions to our own node, which answers from memory."""
SETTLED_S = 10.0
"""With fewer replicas than wanted, and no change for so long, the rest is not going to come."""


async def until(
    ask: Callable[[], Awaitable[T]], good: Callable[[T], bool], timeout_s: float, interval_s: float = ASK_S
) -> T:
    """Ask until the answer is good or the time is over; returns the last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await ask()
        if good(answer) or time.monotonic() >= deadline:
            return answer
        await asyncio.sleep(interval_s)


async def wait_for_replicas(
    client: Client,
    name: str,
    wanted: int,
    timeout_s: float,
    show: Callable[[int], None],
    old: set[str],
) -> ServiceReport:
    """Wait until `wanted` replicas answer, none of them in `old`, or until no more seem to come.

    Returns the last report, with fewer replicas when the time is over or nothing changed for `SETTLED_S`.
    """
    changed_s = time.monotonic()
    seen: tuple[str, ...] = ()

    def good(report: ServiceReport) -> bool:
        nonlocal changed_s, seen
        replicas = tuple(sorted(each.replica for each in report.locations))
        if replicas != seen:
            seen, changed_s = replicas, time.monotonic()
            show(sum(replica not in old for replica in replicas))
        if old.intersection(replicas):
            return False
        return len(replicas) >= wanted or (bool(replicas) and time.monotonic() - changed_s > SETTLED_S)

    return await until(lambda: client.service(name), good, timeout_s)


async def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether the process ends in time."""

    async def running() -> bool:
        return is_running(pid)

    return not await until(running, lambda alive: not alive, timeout_s)


def is_running(pid: int) -> bool:
    """Whether a process of this id lives; one that has ended and is not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
