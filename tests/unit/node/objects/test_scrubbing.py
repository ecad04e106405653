"""Everything that is stored is read again, at a bounded rate, and damage is told wherever it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from colla.node.objects import scrubbing as scrubbing_module
from colla.node.objects.scrubbing import PASS_S, RATE_BYTES_S_MAX, RATE_BYTES_S_MIN, Checked, Scrubber


class Time:
    """A clock that moves when somebody sleeps; `end_s` ends the scrubbing."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.end_s = float("inf")

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.end_s:
            raise asyncio.CancelledError
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


async def scrub(scrubber: Scrubber, time: Time, seconds: float) -> None:
    time.end_s = time.now_s + seconds
    with pytest.raises(asyncio.CancelledError):
        await scrubber.run()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_pass_finds_a_flipped_bit_in_any_chunk(stores: Any, site: Path, time: Time) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    scrubber = Scrubber(store, stores.folder / "store", time, time.sleep)
    whole_s = store.total_bytes() / scrubber.rate_bytes_s() + scrubbing_module.EMPTY_PAUSE_S
    chunks = store.chunks()
    for chunk in chunks:
        flip(stores.chunk_path(chunk))
    await scrub(scrubber, time, whole_s + 1)
    assert sorted(damage.chunk for damage in stores.damage) == chunks
    assert store.chunks() == []
    assert not store.has(stored.object)


async def test_a_pass_takes_a_week_and_begins_anew(
    stores: Any, site: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    await store.put_folder(site)
    monkeypatch.setattr(scrubbing_module, "RATE_BYTES_S_MIN", 0)
    read: list[bytes] = []
    real = store.scrub_chunk

    async def scrub_chunk(chunk: Any) -> int:
        read.append(chunk)
        size: int = await real(chunk)
        return size

    monkeypatch.setattr(store, "scrub_chunk", scrub_chunk)
    scrubber = Scrubber(store, stores.folder / "store", time, time.sleep)
    await scrub(scrubber, time, 2.5 * PASS_S)
    chunks = store.chunks()
    assert read[: len(chunks)] == chunks
    assert read[len(chunks) : 2 * len(chunks)] == chunks
    assert 2 * len(chunks) < len(read) < 3 * len(chunks)


async def test_the_rate_has_bounds(stores: Any, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await stores.open()
    scrubber = Scrubber(store, stores.folder / "store", time, time.sleep)
    assert scrubber.rate_bytes_s() == RATE_BYTES_S_MIN
    monkeypatch.setattr(type(store), "total_bytes", lambda self: 10**12)
    assert scrubber.rate_bytes_s() == pytest.approx(10**12 / PASS_S)
    monkeypatch.setattr(type(store), "total_bytes", lambda self: 10**15)
    assert scrubber.rate_bytes_s() == RATE_BYTES_S_MAX


async def test_a_node_that_is_on_for_short_times_gets_through_as_well(
    stores: Any, site: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing_module, "NOTE_EVERY_S", 0.0)
    store = await stores.open()
    await store.put_folder(site)
    last = store.chunks()[-1]
    flip(stores.chunk_path(last))
    part_s = 1.1 * max(stores.files().values()) / RATE_BYTES_S_MIN
    for _ in range(2 * len(store.chunks())):
        await scrub(Scrubber(store, stores.folder / "store", time, time.sleep), time, part_s)
    assert [damage.chunk for damage in stores.damage] == [last]


async def test_an_empty_store_costs_nothing(stores: Any, time: Time) -> None:
    store = await stores.open()
    await scrub(Scrubber(store, stores.folder / "store", time, time.sleep), time, 1000.0)
    assert await Scrubber(store, stores.folder / "store").check_all() == Checked(0, 0, 0)


async def test_a_check_reads_everything_at_once(stores: Any, site: Path) -> None:
    store = await stores.open()
    await store.put_folder(site)
    chunks = store.chunks()
    flip(stores.chunk_path(chunks[0]))
    seen: list[tuple[int, int]] = []
    checked = await Scrubber(store, stores.folder / "store").check_all(lambda *words: seen.append(words))
    assert (checked.chunks, checked.damaged) == (len(chunks), 1)
    assert len(seen) == len(chunks)
    damaged = stores.folder / "store" / "quarantine" / chunks[0].hex()
    assert seen[-1] == (checked.size, checked.size + damaged.stat().st_size)
    await asyncio.sleep(0)
    assert [damage.chunk for damage in stores.damage] == [chunks[0]]
