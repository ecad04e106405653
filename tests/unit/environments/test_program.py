"""Pieces of the program that the built-in environments share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from colla.environments import program
from colla.environments.protocol import PrepareProgress


async def test_a_preparation_that_takes_long_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "QUIET_S", 0.01)
    may_go_on = asyncio.Event()

    async def lines() -> AsyncIterator[PrepareProgress]:
        yield PrepareProgress(files=1)
        await may_go_on.wait()
        yield PrepareProgress(done=True, files=2)

    seen = []
    async for line in program._lively(lines()):
        seen.append(line)
        if seen[-2:] == [None, None]:
            may_go_on.set()
    told = [line for line in seen if line is not None]
    assert [line.files for line in told] == [1, 2] and seen.count(None) >= 2
    assert seen[0] == told[0] and seen[-1] == told[-1]


async def test_a_reader_that_goes_away_ends_the_preparation() -> None:
    ended = asyncio.Event()

    async def lines() -> AsyncIterator[PrepareProgress]:
        try:
            yield PrepareProgress()
            await asyncio.Event().wait()
        finally:
            ended.set()

    telling = program._lively(lines())
    assert await anext(telling) == PrepareProgress()
    await telling.aclose()
    async with asyncio.timeout(5.0):
        await ended.wait()
