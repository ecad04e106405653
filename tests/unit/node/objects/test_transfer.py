"""Fetching: verified, from several holders, going on where it stopped, whatever the holders do."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colla.model.errors import CollaError
from colla.model.ids import NodeId, digest
from colla.model.manifest import BadManifest, Piece
from colla.node.links.interface import LinkError
from colla.node.objects import (
    FetchFailed,
    ObjectStore,
    Progress,
    QuotaExceeded,
    fetch_object,
)
from colla.node.objects import transfer as transfer_module

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
async def here(stores: Any) -> Any:
    return await stores.open("here")


@pytest.fixture
async def large(tmp_path: Path, noise: Any, write: Any) -> Path:
    """A folder of 12 MB."""
    for number in range(4):
        write(tmp_path / f"large/{number}", noise(3_000_000, number))
    return tmp_path / "large"


async def test_an_object_arrives_whole(stores: Any, net: Any, here: Any, site: Path, tmp_path: Path) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(site)
    seen: list[Progress] = []
    fetched = await fetch_object(stored.object, [A], net.open_stream, here, seen.append)
    assert (fetched.object, fetched.size, fetched.files) == (stored.object, stored.size, stored.files)
    assert here.has(stored.object)
    assert contents(await here.materialise(stored.object, tmp_path / "out")) == contents(site)
    assert seen[-1].done_bytes == seen[-1].total_bytes
    assert fetched.received_bytes == here.total_bytes() == net.stores[A].total_bytes()
    await asyncio.gather(*net.tasks)
    assert [(node, served.violation, served.not_held) for node, served in net.served] == [(A, "", 0)]
    assert net.served[0][1].size == fetched.received_bytes


async def test_what_is_here_is_not_fetched(stores: Any, net: Any, here: Any, site: Path) -> None:
    stored = await here.put_folder(site)
    fetched = await fetch_object(stored.object, [A], net.open_stream, here)
    assert fetched.received_bytes == 0
    assert net.opened == []


async def test_shared_chunks_are_not_fetched_again(
    stores: Any, net: Any, here: Any, large: Path, write: Any
) -> None:
    there = net.stores[A] = await stores.open("a")
    await here.put_folder(large)
    write(large / "9-new", b"new")
    stored = await there.put_folder(large)
    fetched = await fetch_object(stored.object, [A], net.open_stream, here)
    assert fetched.received_bytes < 2_000


async def test_a_folder_of_several_manifests_arrives(
    stores: Any, net: Any, here: Any, tmp_path: Path, write: Any
) -> None:
    net.stores[A] = await stores.open("a")
    for number in range(1500):
        write(
            tmp_path / f"many/{'long-name' * 25}/{'deeper' * 40}/{'still' * 40}/{number:05}", b"%d" % number
        )
    stored = await net.stores[A].put_folder(tmp_path / "many")
    assert len((await net.stores[A].manifest(stored.object)).parts) == 2
    fetched = await fetch_object(stored.object, [A], net.open_stream, here)
    assert fetched.files == 1500


async def test_several_holders_share_the_work(stores: Any, net: Any, here: Any, large: Path) -> None:
    for node in (A, B, C):
        net.stores[node] = await stores.open(node.hex())
        stored = await net.stores[node].put_folder(large)
    fetched = await fetch_object(stored.object, [A, B, C], net.open_stream, here, chunks_in_flight=2)
    assert all(holder.chunks > 0 for holder in fetched.holders)
    assert fetched.received_bytes == here.total_bytes()


async def test_holders_that_cannot_be_reached_or_hold_nothing_are_passed_over(
    stores: Any, net: Any, here: Any, site: Path
) -> None:
    net.stores[B] = await stores.open("b")
    net.stores[C] = await stores.open("c")
    stored = await net.stores[C].put_folder(site)
    fetched = await fetch_object(stored.object, [A, B, C], net.open_stream, here)
    assert [(holder.node, holder.failure) for holder in fetched.holders] == [
        (A, "nobody answers"),
        (B, ""),
        (C, ""),
    ]


async def test_a_holder_that_dies_midway_is_replaced(
    stores: Any, net: Any, here: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "HEDGE_AFTER_S", 1000.0)
    for node in (A, B):
        net.stores[node] = await stores.open(node.hex())
        stored = await net.stores[node].put_folder(large)
    written = 0

    async def die(data: bytes) -> bytes:
        nonlocal written
        written += len(data)
        if written > 2_500_000:
            raise LinkError("the computer was unplugged")
        return data

    net.faults[A] = die
    fetched = await fetch_object(stored.object, [A, B], net.open_stream, here)
    assert here.has(stored.object)
    first, second = fetched.holders
    assert (first.node, bool(first.failure), first.lied) == (A, True, False)
    assert second.size + first.size == here.total_bytes()


async def test_a_holder_that_lies_is_dropped_and_counted(
    stores: Any, net: Any, here: Any, large: Path, tmp_path: Path
) -> None:
    for node in (A, B):
        net.stores[node] = await stores.open(node.hex())
        stored = await net.stores[node].put_folder(large)
    count = 0

    async def lie(data: bytes) -> bytes:
        nonlocal count
        count += 1
        return bytes(len(data)) if count == 6 else data

    net.faults[A] = lie
    fetched = await fetch_object(stored.object, [A, B], net.open_stream, here)
    assert [holder.lied for holder in fetched.holders] == [True, False]
    assert contents(await here.materialise(stored.object, tmp_path / "out")) == contents(large)


async def test_only_liars_end_in_a_failure_and_nothing_wrong_is_kept(
    stores: Any, net: Any, here: Any, site: Path
) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(site)

    async def lie(data: bytes) -> bytes:
        return data if len(data) < 100 else data[:-1] + bytes([data[-1] ^ 1])

    net.faults[A] = lie
    with pytest.raises(FetchFailed) as caught:
        await fetch_object(stored.object, [A], net.open_stream, here)
    assert caught.value.holders_tried == (A,)
    assert caught.value.holders[0].lied
    assert here.list_objects() == []
    assert stores.files("here") == {}


async def test_nobody_to_ask(net: Any, here: Any) -> None:
    with pytest.raises(FetchFailed, match="no computer is known"):
        await fetch_object(bytes(32), [], net.open_stream, here)
    with pytest.raises(FetchFailed, match="nobody answers") as caught:
        await fetch_object(bytes(32), [A, B], net.open_stream, here)
    assert caught.value.holders_tried == (A, B)
    assert here.list_objects() == []


async def test_an_object_that_no_holder_has(stores: Any, net: Any, here: Any) -> None:
    net.stores[A] = await stores.open("a")
    with pytest.raises(FetchFailed, match="does not have all of it"):
        await fetch_object(bytes(32), [A], net.open_stream, here)


async def test_a_fetch_goes_on_after_a_failure_and_a_restart(
    stores: Any, net: Any, here: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(large)
    written = 0

    async def die(data: bytes) -> bytes:
        nonlocal written
        written += len(data)
        if written > 6_000_000:
            raise LinkError("unplugged")
        return data

    net.faults[A] = die
    begun, done = [], []
    really = ObjectStore.add_chunk

    async def slowly(store: ObjectStore, piece: Piece) -> bool:
        begun.append(piece.id)
        for _ in range(100):
            await asyncio.sleep(0)
        kept = await really(store, piece)
        done.append(piece.id)
        return kept

    monkeypatch.setattr(ObjectStore, "add_chunk", slowly)
    with pytest.raises(FetchFailed):
        await fetch_object(stored.object, [A], net.open_stream, here)
    assert sorted(begun) == sorted(done)  # Whatever arrived is on the disk when the fetch has failed.
    kept = here.total_bytes()
    assert kept > 4_000_000
    assert not here.has(stored.object)
    await here.close()
    again = await stores.open("here")
    net.faults.clear()
    fetched = await fetch_object(stored.object, [A], net.open_stream, again)
    assert fetched.received_bytes + kept == again.total_bytes() == net.stores[A].total_bytes()


async def test_partial_holders_together_have_it_all(stores: Any, net: Any, here: Any, large: Path) -> None:
    whole = await stores.open("whole")
    stored = await whole.put_folder(large)
    await whole.missing_chunks(stored.object)
    chunks = (await whole.manifest(stored.object)).chunks
    for node, part in ((A, chunks[::2]), (B, chunks[1::2])):
        net.stores[node] = await stores.open(node.hex())
        await fetch_object(stored.object, [C], _only(net, whole, C), net.stores[node])
        for chunk in chunks:
            if chunk not in part:
                stores.chunk_path(chunk.id, node.hex()).unlink()
    fetched = await fetch_object(stored.object, [A, B], net.open_stream, here)
    assert here.has(stored.object)
    assert all(holder.chunks >= 4 for holder in fetched.holders)


def _only(net: Any, store: Any, node: NodeId) -> Any:
    net.stores[node] = store
    return net.open_stream


async def test_a_corrupt_chunk_is_healed_by_fetching_again(
    stores: Any, net: Any, here: Any, large: Path
) -> None:
    there = net.stores[A] = await stores.open("a")
    stored = await there.put_folder(large)
    await fetch_object(stored.object, [A], net.open_stream, here)
    chunk = (await here.manifest(stored.object)).chunks[3]
    stores.chunk_path(chunk.id, "here").write_bytes(b"rotten")
    with pytest.raises(CollaError):
        await here.read_chunk(chunk.id)
    assert not here.has(stored.object)
    fetched = await fetch_object(stored.object, [A], net.open_stream, here)
    assert fetched.received_bytes == chunk.size
    assert digest(await here.read_chunk(chunk.id)) == chunk.id


async def test_a_holder_whose_disk_is_damaged_says_not_held_and_tells_its_owner(
    stores: Any, net: Any, here: Any, large: Path
) -> None:
    for node in (A, B):
        net.stores[node] = await stores.open(node.hex())
        stored = await net.stores[node].put_folder(large)
    chunk = (await net.stores[A].manifest(stored.object)).chunks[2]
    stores.chunk_path(chunk.id, A.hex()).write_bytes(b"rotten")
    fetched = await fetch_object(stored.object, [A, B], net.open_stream, here)
    assert not any(holder.lied or holder.failure for holder in fetched.holders)
    assert here.has(stored.object)


async def test_a_holder_that_hangs_does_not_hold_up_the_end(
    stores: Any, net: Any, here: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "HEDGE_AFTER_S", 0.05)
    monkeypatch.setattr(transfer_module, "STALL_TIMEOUT_S", 1000.0)
    monkeypatch.setattr(transfer_module, "CLOSE_TIMEOUT_S", 1000.0)
    for node in (A, B):
        net.stores[node] = await stores.open(node.hex())
        stored = await net.stores[node].put_folder(large)
    count = 0

    async def hang(data: bytes) -> bytes:
        nonlocal count
        count += 1
        if count > 4:
            await asyncio.Event().wait()
        return data

    net.faults[A] = hang
    fetched = await fetch_object(stored.object, [A, B], net.open_stream, here)
    assert here.has(stored.object)
    assert fetched.received_bytes == here.total_bytes()


async def test_a_holder_that_stalls_is_dropped(
    stores: Any, net: Any, here: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "STALL_TIMEOUT_S", 0.05)
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(site)

    async def hang(data: bytes) -> bytes:
        return await asyncio.Event().wait() or data  # type: ignore[return-value]

    net.faults[A] = hang
    with pytest.raises(FetchFailed, match="it stalled"):
        await fetch_object(stored.object, [A], net.open_stream, here)


async def test_too_large_for_the_quota_is_said_before_it_is_fetched(
    stores: Any, net: Any, large: Path
) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(large)
    small = await stores.open("small", quota_bytes=5_000_000)
    with pytest.raises(QuotaExceeded):
        await fetch_object(stored.object, [A], net.open_stream, small)
    assert small.total_bytes() < 10_000
    assert not small.has(stored.object)


async def test_a_full_disk_while_fetching(
    stores: Any, net: Any, here: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(large)
    really = os.write
    left = 4

    def full(descriptor: int, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CollaError) as caught:
        await fetch_object(stored.object, [A], net.open_stream, here)
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    assert not any(path.startswith("temporary") for path in stores.files("here"))
    await fetch_object(stored.object, [A], net.open_stream, here)
    assert here.has(stored.object)


async def test_an_object_that_breaks_the_rules_is_refused_and_forgotten(
    stores: Any, net: Any, here: Any
) -> None:
    store = net.stores[A] = await stores.open("a")
    chunks = []
    for data in (b"x", msgspec.msgpack.encode(["folder", 1, [["../evil", 1, False]], [[digest(b"x"), 1]]])):
        chunks.append(digest(data))
        await store.put_bytes(data)  # Its single chunk is the forged manifest.
    with pytest.raises(BadManifest):
        await fetch_object(chunks[1], [A], net.open_stream, here)
    assert here.list_objects() == []
    liar = msgspec.msgpack.encode(["file", 1, [[digest(b"x"), 2]]])
    await store.put_bytes(liar)
    with pytest.raises(BadManifest):
        await fetch_object(digest(liar), [A], net.open_stream, here)
    assert here.list_objects() == []
    assert stores.files("here") == {}


async def test_an_object_deleted_while_it_is_fetched(stores: Any, net: Any, here: Any, large: Path) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(large)
    deleting: list[asyncio.Task[bool]] = []

    def forget(progress: Progress) -> None:
        if not deleting:
            deleting.append(asyncio.create_task(here.delete(stored.object)))

    with pytest.raises(CollaError) as caught:
        await fetch_object(stored.object, [A], net.open_stream, here, forget)
    assert caught.value.code == "object_incomplete"
    await asyncio.gather(*deleting)
    await here.close()
    assert stores.files("here") == {}


async def test_a_cancelled_fetch_can_be_taken_up(stores: Any, net: Any, here: Any, large: Path) -> None:
    net.stores[A] = await stores.open("a")
    stored = await net.stores[A].put_folder(large)
    begun = asyncio.Event()
    fetching = asyncio.create_task(
        fetch_object(stored.object, [A], net.open_stream, here, lambda progress: begun.set())
    )
    await begun.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    fetched = await fetch_object(stored.object, [A], net.open_stream, here)
    assert fetched.received_bytes < net.stores[A].total_bytes()
