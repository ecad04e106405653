"""Replicas die, hang and come back under a steady load; while one lives, no request may fail."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
from aiohttp import web

CADENCE_S = 0.02
SPAN_S = 2.5


class Flaky:
    """A replica that can be made to vanish like an unplugged computer, or to die like a killed process."""

    def __init__(self, name: str) -> None:
        self.name, self.replica = name, None
        self.silent = asyncio.Event()
        self.awake = asyncio.Event()
        self.awake.set()

    async def answer(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0.004)  # a program takes its time, so that some requests are always under way
        await self.awake.wait()
        return web.Response(text=self.name * 500)

    def unplug(self) -> None:
        """From now on nothing comes back, neither answers nor new tunnels."""
        self.awake.clear()
        self.replica.fault = "hang_open"

    async def die(self) -> None:
        self.replica.fault = "refuse"
        await self.replica.kill()

    async def come_back(self) -> None:
        self.awake.set()
        self.replica.fault = ""
        if not self.replica.runner.sites:
            await web.UnixSite(self.replica.runner, self.replica.endpoint.path).start()


@pytest.mark.parametrize("seed", range(3))
async def test_no_request_fails_while_a_replica_lives(access, group, seed):
    rng = Random(seed)
    flaky = [Flaky(name) for name in "abc"]
    for number, one in enumerate(flaky):
        one.replica = await group.add(one.answer, near=0.001 * number)
    failures, longest, count, over = [], 0.0, 0, False

    async def ask(number: int) -> None:
        nonlocal longest, count
        started = time.monotonic()
        method = ("GET", "GET", "PUT")[number % 3]
        async with access.ask(f"/{number}", method, data=b"x" * 3000 if method == "PUT" else None) as answer:
            text = await answer.text()
            if answer.status != 200 or len(text) != 500:
                failures.append((number, answer.status, text[:300]))
        longest, count = max(longest, time.monotonic() - started), count + 1

    async def break_things() -> None:
        while not over:
            victims = rng.sample(flaky, rng.choice((1, 2)))
            for victim in victims:
                if rng.random() < 0.5:
                    victim.unplug()
                else:
                    await victim.die()
            await asyncio.sleep(rng.uniform(0.3, 0.6))
            for victim in victims:
                await victim.come_back()
            await asyncio.sleep(rng.uniform(0.05, 0.3))

    breaking = asyncio.create_task(break_things())
    asking, started = [], time.monotonic()
    while time.monotonic() - started < SPAN_S:
        asking.append(asyncio.create_task(ask(len(asking))))
        await asyncio.sleep(CADENCE_S)
    await asyncio.gather(*asking)
    over = True
    await breaking
    assert failures == [] and count == len(asking) > SPAN_S / CADENCE_S / 3
    assert longest < 2.0
