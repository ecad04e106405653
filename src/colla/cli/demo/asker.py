"""The demo's client: a process of its own that asks services through a gateway, whatever happens.

Run as `python -m colla.cli.demo.asker PLAN`, where PLAN is a JSON file (`Plan`). Each service is asked every `interval_s`,
whether or not earlier requests were answered, so that a stall is seen in its full length. Each finished request is one
line of JSON in the plan's log file. A request counts as answered when the status is 200 and the body is the right one.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from hashlib import blake2b
from pathlib import Path
from typing import IO

import aiohttp
import msgspec

REQUEST_TIMEOUT_S = 10.0
OPEN_MAX = 2000
"""Requests without an answer; more would only measure this process."""
ERROR_CHARACTERS_MAX = 200


class Target(msgspec.Struct, frozen=True):
    """A service: its name, and paths with the digest of the right body, or "" where only the status counts."""

    service: str
    paths: tuple[tuple[str, str], ...]


class Plan(msgspec.Struct, frozen=True):
    """What to ask where, and where to write what came of it."""

    gateway: str
    targets: tuple[Target, ...]
    log: str
    interval_s: float = 0.02


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """One request: when it was sent (Unix seconds), how long it took, what came. `error` is empty when all was right."""

    at_s: float
    took_s: float
    service: str
    status: int
    replica: str
    error: str


def body_digest(data: bytes) -> str:
    """What tells a right body from a wrong one."""
    return blake2b(data, digest_size=8).hexdigest()


async def ask(session: aiohttp.ClientSession, plan: Plan, target: Target, number: int) -> Asked:
    """Send one request and see what comes."""
    path, digest = target.paths[number % len(target.paths)]
    headers = {"Host": f"{target.service}.localhost"}
    at_s, began_s = time.time(), time.monotonic()
    status, replica, error = 0, "", ""
    try:
        async with session.get(f"http://{plan.gateway}{path}", headers=headers) as answer:
            body = await answer.read()
            status, replica = answer.status, answer.headers.get("X-Colla-Replica", "")
        if status != 200:
            error = answer.headers.get("X-Colla-Error", "") or f"status {status}"
        elif digest and body_digest(body) != digest:
            error = f"wrong body of {path}"
    except (aiohttp.ClientError, TimeoutError, OSError) as failure:
        error = (str(failure) or type(failure).__name__)[:ERROR_CHARACTERS_MAX]
    return Asked(at_s, time.monotonic() - began_s, target.service, status, replica, error)


async def ask_always(plan: Plan, log: IO[bytes], ending: asyncio.Event) -> None:
    """Ask all targets at the plan's pace until `ending` is set; then wait for what is still open."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    open_requests: dict[asyncio.Task[None], None] = {}
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(target: Target, number: int) -> None:
            log.write(msgspec.json.encode(await ask(session, plan, target, number)) + b"\n")

        began_s, number = time.monotonic(), 0
        while not ending.is_set():
            for target in plan.targets:
                if len(open_requests) < OPEN_MAX:
                    running = asyncio.create_task(one(target, number))
                    open_requests[running] = None
                    running.add_done_callback(lambda done: open_requests.pop(done, None))
            number += 1
            log.flush()
            behind_s = time.monotonic() - (began_s + number * plan.interval_s)
            if behind_s > 1.0:
                # This process itself was not run for a while: those requests were never sent, and none is made up.
                began_s += behind_s
            await asyncio.sleep(max(0.0, -behind_s))
        await asyncio.gather(*open_requests)


async def ask_until_told(plan: Plan, log: IO[bytes]) -> None:
    """Ask until the input of this process ends: when it is told to stop, or whoever started it is gone."""
    ending, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ending.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ask_always(plan, log, ending)


def main(path: str) -> None:
    """Read the plan and ask."""
    plan = msgspec.json.decode(Path(path).read_bytes(), type=Plan)
    with Path(plan.log).open("ab") as log:
        asyncio.run(ask_until_told(plan, log))


if __name__ == "__main__":
    main(sys.argv[1])
