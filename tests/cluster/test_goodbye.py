"""A computer that is stopped politely on real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from computers import Computer, make_group

from colla.client import types

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def follow(computer: Computer, first: asyncio.Event) -> list[types.NoticeReport]:
    """All notices until the node ends the stream; raises when it breaks off instead."""
    found = []
    async with computer.client() as client:
        async for notice in client.notices():
            found.append(notice)
            first.set()
    return found


async def test_who_follows_the_notices_holds_up_no_goodbye(tmp_path: Path) -> None:
    left, right = computers = await make_group(tmp_path, "hashing", 2)
    try:
        first, gone = asyncio.Event(), asyncio.Event()
        following = asyncio.create_task(follow(right, first))
        await first.wait()

        async def wait_for_goodbye() -> None:
            async with left.client() as client:
                async for notice in client.notices():
                    if notice.kind == "node_left":
                        gone.set()

        listening = asyncio.create_task(wait_for_goodbye())
        assert await right.stop() == 0
        # The stream was ended, not cut by a node that had waited for its end in vain.
        assert any(notice.kind == "node_present" for notice in await following)
        await asyncio.wait_for(gone.wait(), 10.0)
        listening.cancel()
    finally:
        for computer in computers:
            computer.unplug()
