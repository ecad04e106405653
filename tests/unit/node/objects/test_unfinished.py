"""Puts that were interrupted: what they stored is there when they go on, and goes when nobody comes back for it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from colla.model.errors import CollaError
from colla.node.objects import ObjectStore
from colla.node.objects import unfinished as unfinished_module
from colla.node.objects.shelf import Shelf


class Killed(BaseException):
    """The process ends in the middle: nothing is cleaned up."""


def chunks_of(store: Any) -> list[bytes]:
    return list(store.chunks())


@pytest.fixture
def large(tmp_path: Path, noise: Any, write: Any) -> Path:
    source: Path = write(tmp_path / "large", noise(6_500_000))
    return source


async def interrupted(
    stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch, *, sealed: bool = False
) -> ObjectStore:
    """A store whose put of `large` was killed in the middle, as the next process opens it."""
    store: ObjectStore = await stores.open()
    added = 0
    real = Shelf.add

    def add(self: Shelf, chunk: Any, data: bytes) -> bool:
        nonlocal added
        added += 1
        if added > 3:
            raise Killed
        return real(self, chunk, data)

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "add", add)
        # A process that is killed neither releases chunks nor drops journals.
        patch.setattr(Shelf, "release", lambda self, chunk: None)
        patch.setattr(unfinished_module.Unfinished, "end", lambda self, journal: None)
        with pytest.raises(Killed):
            await store.put_resumably(large, lambda progress: None, sealed=sealed)
    await store.close()
    stores.open_ones.remove(store)
    again: ObjectStore = await stores.open()
    return again


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_killed_put_goes_on_where_it_stopped(
    stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    store = await interrupted(stores, large, monkeypatch, sealed=sealed)
    kept = {chunk: stores.chunk_path(chunk).stat().st_mtime_ns for chunk in chunks_of(store)}
    assert len(kept) == 3
    stored = await store.put_resumably(large, lambda progress: None, sealed=sealed)
    assert store.has(stored.object)
    assert stored.content_bytes == 6_500_000
    now = {chunk: stores.chunk_path(chunk).stat().st_mtime_ns for chunk in chunks_of(store)}
    assert len(now) == 8, "seven chunks and the manifest"
    assert all(now[chunk] == at for chunk, at in kept.items())
    assert list((stores.folder / "store" / "puts").iterdir()) == [], "neither journal nor key is left"


async def test_a_put_that_goes_on_after_its_file_changed_keeps_nothing_of_the_old(
    stores: Any, large: Path, noise: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await interrupted(stores, large, monkeypatch)
    write(large, noise(2_000_000, 9))
    stored = await store.put_resumably(large, lambda progress: None)
    assert len(chunks_of(store)) == 3
    assert await store.delete(stored.object)
    assert chunks_of(store) == []


async def test_what_nobody_comes_back_for_goes_after_a_day(
    stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await interrupted(stores, large, monkeypatch)
    assert await store.sweep() == 0
    assert len(chunks_of(store)) == 3
    (journal,) = (stores.folder / "store" / "puts").iterdir()
    long_ago = time.time() - unfinished_module.KEPT_S - 10
    os.utime(journal, (long_ago, long_ago))
    await store.sweep()
    assert chunks_of(store) == []
    assert not journal.exists()


async def test_of_too_many_the_oldest_go(stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await interrupted(stores, large, monkeypatch)
    monkeypatch.setattr(unfinished_module, "JOURNALS_MAX", 0)
    await store.sweep()
    assert chunks_of(store) == []


async def test_a_torn_journal_loses_its_end_only(
    stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await interrupted(stores, large, monkeypatch)
    await store.close()
    stores.open_ones.remove(store)
    (journal,) = (stores.folder / "store" / "puts").iterdir()
    journal.write_bytes(journal.read_bytes()[:70])
    store = await stores.open()
    assert len(chunks_of(store)) == 2
    assert (await store.put_resumably(large, lambda progress: None)).size == 6_500_000


async def test_a_put_that_cannot_be_leaves_nothing(stores: Any, large: Path) -> None:
    store = await stores.open()
    journal_folder = stores.folder / "store" / "puts"
    large_missing = large.with_name("missing")
    with pytest.raises(CollaError):
        await store.put_resumably(large_missing, lambda progress: None)
    assert list(journal_folder.iterdir()) == []
    store.quota_bytes = 3_000_000
    with pytest.raises(CollaError) as caught:
        await store.put_resumably(large, lambda progress: None)
    assert caught.value.code == "quota_exceeded"
    assert list(journal_folder.iterdir()) == []
    assert chunks_of(store) == []


async def test_what_does_not_fit_the_disk_is_refused_before_it_is_stored(
    stores: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    usage = type("Usage", (), {"free": 3_000_000 + 512 * 1024 * 1024})()
    monkeypatch.setattr("colla.node.objects.shelf.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(CollaError) as caught:
        await store.put_resumably(large, lambda progress: None)
    assert caught.value.code == "disk_full"
    assert "6,500,000" in caught.value.message
    assert chunks_of(store) == []


async def test_the_same_put_twice_at_once_gives_the_same_object(stores: Any, large: Path) -> None:

    store = await stores.open()
    one, two = await asyncio.gather(
        store.put_resumably(large, lambda progress: None), store.put_resumably(large, lambda progress: None)
    )
    assert one == two
    assert len(chunks_of(store)) == 8
    await store.delete(one.object)
    assert chunks_of(store) == []


async def test_a_put_that_was_cancelled_goes_on(stores: Any, large: Path, noise: Any, write: Any) -> None:
    write(large, noise(30_000_000))
    store = await stores.open()
    putting = asyncio.create_task(store.put_resumably(large, lambda progress: None))
    while len(chunks_of(store)) < 3:  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    kept = chunks_of(store)
    assert 3 <= len(kept) < 30
    stored = await store.put_resumably(large, lambda progress: None)
    assert store.has(stored.object)
    assert set(kept) < set(chunks_of(store))
