"""Transfers belong to the node: they are shared, followed, stopped, and bounded."""

from __future__ import annotations

import asyncio

import pytest

from colla.model.errors import CollaError
from colla.node.files import transfers as transfers_module
from colla.node.files.transfers import STORING, Transfer, Transfers


def new(transfer_id: str = "mine") -> Transfer:
    return Transfer(transfer_id, "put", "film", STORING)


class Work:
    """Something that takes until `finish` is set."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.begun = 0

    async def __call__(self, transfer: Transfer) -> str:
        self.begun += 1
        transfer.progressed(5, 10)
        await self.finish.wait()
        return "done"


async def begun(transfers: Transfers, work: Work, what: str, transfer_id: str = "mine") -> asyncio.Task[str]:
    task = asyncio.create_task(transfers.run(what, new(transfer_id), work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_whoever_asks_for_the_same_waits_for_the_one_that_runs() -> None:
    transfers, work = Transfers(), Work()
    first = await begun(transfers, work, "film", "first")
    second = await begun(transfers, work, "film", "second")
    other = await begun(transfers, work, "song", "other")
    assert work.begun == 2
    assert [transfer.id for transfer in transfers.running()] == ["first", "other"]
    assert transfers.find("second") is transfers.find("first")
    assert transfers.find("second").done_bytes == 5
    work.finish.set()
    assert await asyncio.gather(first, second, other) == ["done"] * 3
    assert transfers.running() == []


async def test_a_transfer_goes_on_when_whoever_asked_is_gone() -> None:
    transfers, work = Transfers(), Work()
    asking = await begun(transfers, work, "film")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    again = await begun(transfers, work, "film")
    work.finish.set()
    assert await again == "done"
    assert work.begun == 1


async def test_stopping_tells_those_who_wait() -> None:
    transfers, work = Transfers(), Work()
    asking = await begun(transfers, work, "film")
    await transfers.stop("mine")
    with pytest.raises(CollaError) as caught:
        await asking
    assert caught.value.code == "stopped"
    with pytest.raises(CollaError) as caught:
        await transfers.stop("mine")
    assert caught.value.code == "not_found"


async def test_a_failure_is_everybodys_and_the_next_try_is_new() -> None:
    transfers = Transfers()

    async def fail(transfer: Transfer) -> str:
        await asyncio.sleep(0)
        raise CollaError("no_room", "Nobody has room.")

    outcomes = await asyncio.gather(
        *(transfers.run("film", new(), fail) for _ in range(2)), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == ["Nobody has room."] * 2
    assert transfers.running() == []


async def test_too_many_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers_module, "TRANSFERS_MAX", 1)
    transfers, work = Transfers(), Work()
    first = await begun(transfers, work, "film")
    with pytest.raises(CollaError) as caught:
        await transfers.run("song", new(), work)
    assert caught.value.code == "busy"
    work.finish.set()
    await first


async def test_the_end_of_the_node_stops_everything() -> None:
    transfers, work = Transfers(), Work()
    tasks = [await begun(transfers, work, what) for what in ("film", "song")]
    await transfers.close()
    assert transfers.running() == []
    for task in tasks:
        with pytest.raises(CollaError):
            await task
