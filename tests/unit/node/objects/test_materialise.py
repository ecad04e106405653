"""Materialised objects are whole or not there, used again when intact, and made anew when not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colla.model.errors import CollaError
from colla.model.ids import digest
from colla.model.manifest import CHUNK_BYTES_MAX, ChunkId, FolderManifest, Piece
from colla.node.objects import CorruptChunk, ObjectIncomplete, ObjectStore
from colla.node.objects import materialise as materialise_module


def inode(path: Path) -> int:
    return path.stat().st_ino


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return path.stat().st_mode


def unlock(path: Path) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o644)


async def test_an_intact_target_is_used_again(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    target = await store.materialise(stored.object, tmp_path / "out")
    before = inode(target / "index.html")
    await store.materialise(stored.object, target)
    assert inode(target / "index.html") == before
    await store.close()
    again = await stores.open()
    await again.materialise(stored.object, target)
    assert inode(target / "index.html") == before


async def test_in_the_same_boot_its_bytes_are_not_read_again(
    stores: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    target = await store.materialise(stored.object, tmp_path / "out")
    compared: list[Any] = []
    really = materialise_module._same_bytes
    monkeypatch.setattr(
        materialise_module, "_same_bytes", lambda *given: compared.append(given) or really(*given)
    )
    await store.materialise(stored.object, target)
    assert compared == []
    await store.close()
    monkeypatch.setattr(materialise_module, "_boot", lambda: "after a reboot")
    again = await stores.open()
    await again.materialise(stored.object, target)
    assert len(compared) == 1


def change(target: Path) -> None:
    unlock(target / "index.html")
    (target / "index.html").write_bytes(b"<h1>HELLO</h1>")


def add(target: Path) -> None:
    target.chmod(0o755)
    (target / "more").write_bytes(b"")


def remove(target: Path) -> None:
    target.chmod(0o755)
    (target / "empty.txt").unlink()


def cut(target: Path) -> None:
    unlock(target / "video.bin")
    os.truncate(target / "video.bin", 100)


def mode(target: Path) -> None:
    (target / "bin/run").chmod(0o444)


def link(target: Path) -> None:
    remove(target)
    (target / "empty.txt").symlink_to("/dev/null")


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("harm", [change, add, remove, cut, mode, link])
async def test_a_target_that_is_something_else_is_refused_or_replaced(
    stores: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, rebooted: bool
) -> None:
    store: ObjectStore = await stores.open()
    stored = await store.put_folder(site)
    target = await store.materialise(stored.object, tmp_path / "out")
    harm(target)
    if rebooted:
        await store.close()
        monkeypatch.setattr(materialise_module, "_boot", lambda: "after a reboot")
        store = await stores.open()
    with pytest.raises(CollaError) as caught:
        await store.materialise(stored.object, target)
    assert caught.value.code == "target_exists"
    await store.materialise(stored.object, target, replace=True)
    assert (target / "index.html").read_bytes() == b"<h1>hello</h1>"
    assert names(target) == names(site)
    assert mode_of(target / "bin/run") & 0o777 == 0o555


async def test_what_somebody_else_put_there_stays(
    stores: Any, site: Path, tmp_path: Path, write: Any
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    write(tmp_path / "out/mine", b"precious")
    with pytest.raises(CollaError):
        await store.materialise(stored.object, tmp_path / "out")
    assert (tmp_path / "out/mine").read_bytes() == b"precious"


async def test_a_corrupt_chunk_leaves_no_target(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FolderManifest)
    stores.chunk_path(manifest.chunks[-1].id).write_bytes(b"bad")
    with pytest.raises(CorruptChunk):
        await store.materialise(stored.object, tmp_path / "out")
    assert names(tmp_path) == ["site", "store"]
    assert list((tmp_path / "store/materialised").iterdir()) == []


async def test_what_a_crash_left_unfinished_is_removed_at_the_next_start(
    stores: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)

    class Crash(BaseException):
        pass

    def crash(self: Path, target: Path) -> Path:
        raise Crash

    # A crash runs no cleaning up.
    monkeypatch.setattr(Path, "rename", crash)
    monkeypatch.setattr(materialise_module, "remove_tree", lambda path: None)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    with pytest.raises(Crash):
        await store.materialise(stored.object, tmp_path / "out")
    monkeypatch.undo()
    await store.close()
    assert (tmp_path / ".out.colla-unfinished/index.html").exists()
    again = await stores.open()
    assert names(tmp_path) == ["site", "store"]
    await again.materialise(stored.object, tmp_path / "out")


async def test_marks_of_targets_that_are_gone_are_forgotten(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    target = await store.materialise(stored.object, tmp_path / "out", read_only=False)
    target.rename(tmp_path / "elsewhere")
    await store.close()
    await stores.open()
    assert list((tmp_path / "store/materialised").iterdir()) == []


async def test_two_at_once_make_one(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    await asyncio.gather(*(store.materialise(stored.object, tmp_path / "out") for _ in range(4)))
    assert (tmp_path / "out/index.html").read_bytes() == b"<h1>hello</h1>"


async def test_repeated_chunks_do_not_fill_the_disk(stores: Any, tmp_path: Path) -> None:
    chunk = bytes(CHUNK_BYTES_MAX)
    forged = msgspec.msgpack.encode(["file", 1, [[digest(chunk), len(chunk)]] * 10_000])
    store = await stores.open()
    object_id = digest(forged)
    await store.begin_fetch(object_id)
    await store.add_chunk(Piece(ChunkId(object_id), forged))
    await store.missing_chunks(object_id)
    await store.add_chunk(Piece(ChunkId(digest(chunk)), chunk))
    stored = await store.finish_fetch(object_id)
    assert stored.size == 10_000 * CHUNK_BYTES_MAX
    with pytest.raises(CollaError) as caught:
        await store.materialise(object_id, tmp_path / "out", bytes_max=1 << 30)
    assert caught.value.code == "too_large"
    assert not (tmp_path / "out").exists()


async def test_services_cannot_write_through_into_the_store(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    target = await store.materialise(stored.object, tmp_path / "out")
    for path in target.rglob("*"):
        if path.is_file():
            unlock(path)
            path.write_bytes(b"written by a service")
    other = await store.materialise(stored.object, tmp_path / "other")
    assert (other / "index.html").read_bytes() == b"<h1>hello</h1>"
    assert stores.damage == []


async def test_an_unknown_or_partial_object(stores: Any, tmp_path: Path) -> None:
    store = await stores.open()
    with pytest.raises(CollaError) as caught:
        await store.materialise(bytes(32), tmp_path / "out")
    assert caught.value.code == "not_held"
    with pytest.raises(ObjectIncomplete):
        await store.missing_chunks(bytes(32))
