"""Whoever wants the same object at the same time waits for the same fetch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from colla.model.ids import NodeId
from colla.node.objects import FetchFailed, Progress
from colla.node.objects.fetching import Fetches

ME, HOLDER, NOBODY = NodeId(b"m" * 32), NodeId(b"h" * 32), NodeId(b"n" * 32)


@pytest.fixture
def large(tmp_path: Path, noise: Any, write: Any) -> Path:
    source: Path = write(tmp_path / "large", noise(20_000_000))
    return source


async def test_two_share_one_fetch_and_see_its_progress(stores: Any, net: Any, large: Path) -> None:
    net.stores[HOLDER] = await stores.open("holder")
    stored = await net.stores[HOLDER].put_file(large)
    here = await stores.open("here")
    fetches = Fetches(ME, here, net.open_stream)
    seen: tuple[list[Progress], list[Progress]] = ([], [])
    one, two = await asyncio.gather(
        fetches.fetch(stored.object, [ME, HOLDER], seen[0].append),
        fetches.fetch(stored.object, [HOLDER], seen[1].append),
    )
    assert one == two
    assert net.opened == [HOLDER]
    assert seen[0] == seen[1] != []
    assert here.has(stored.object)
    assert one.received_bytes < 21_000_000


async def test_a_fetch_lasts_while_anybody_waits_and_ends_with_the_last(
    stores: Any, net: Any, large: Path
) -> None:
    net.stores[HOLDER] = await stores.open("holder")
    stored = await net.stores[HOLDER].put_file(large)
    here = await stores.open("here")
    fetches = Fetches(ME, here, net.open_stream)
    first = asyncio.create_task(fetches.fetch(stored.object, [HOLDER]))
    second = asyncio.create_task(fetches.fetch(stored.object, [HOLDER]))
    while not here.chunks():  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0)
    assert not await here.forget(stored.object), "what is being fetched is not forgotten"
    first.cancel()
    await asyncio.wait([first])
    assert not second.done()
    await second
    assert here.has(stored.object)
    await here.delete(stored.object)
    third = asyncio.create_task(fetches.fetch(stored.object, [HOLDER]))
    while not here.chunks():  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0)
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    assert not here.has(stored.object)
    assert here.chunks(), "what came stays for the next time"
    assert await here.forget(stored.object)
    assert here.chunks() == []


async def test_a_fetch_that_fails_fails_for_all_and_may_be_tried_again(
    stores: Any, net: Any, large: Path
) -> None:
    holder = await stores.open("holder")
    stored = await holder.put_file(large)
    fetches = Fetches(ME, await stores.open("here"), net.open_stream)
    both = [fetches.fetch(stored.object, [NOBODY]), fetches.fetch(stored.object, [NOBODY])]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [FetchFailed, FetchFailed]
    net.stores[HOLDER] = holder
    await fetches.fetch(stored.object, [HOLDER])
