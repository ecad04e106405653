"""The object store: what is put stays, byte for byte, whatever happens around it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from colla.model.errors import CollaError
from colla.model.manifest import FolderManifest, build_folder
from colla.node.objects import (
    ChunkNotHeld,
    CorruptChunk,
    ObjectIncomplete,
    ObjectStore,
    Progress,
    QuotaExceeded,
)
from colla.node.objects import shelf as shelf_module


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            os.access(path, os.X_OK) and bool(path.stat().st_mode & 0o100),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def error_of(awaitable: Any) -> CollaError:
    with pytest.raises(CollaError) as caught:
        await awaitable
    return caught.value


async def test_a_folder_comes_back_as_it_was(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    assert store.has(stored.object)
    assert stored.files == 5
    assert stored.size == sum(len(data) for data, _ in contents(site).values())
    target = await store.materialise(stored.object, tmp_path / "out")
    assert contents(target) == contents(site)
    for path in [target, *target.rglob("*")]:
        assert not path.stat().st_mode & 0o222, path
    await store.remove_materialised(target)
    assert not target.exists()


async def test_what_is_put_is_what_would_be_built_in_memory(stores: Any, site: Path) -> None:
    store = await stores.open()
    built, _ = build_folder(contents(site))
    assert (await store.put_folder(site)).object == built.object


async def test_putting_again_gives_the_same_object_and_takes_no_space(
    stores: Any, site: Path, tmp_path: Path
) -> None:
    store = await stores.open()
    first = await store.put_folder(site)
    before = stores.files()
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    os.utime(copy / "index.html", (1, 1))
    assert await store.put_folder(copy) == first
    assert stores.files() == before


async def test_files_and_bytes(stores: Any, tmp_path: Path, noise: Any, write: Any) -> None:
    store = await stores.open()
    data = noise(2_100_000)
    from_file = await store.put_file(write(tmp_path / "picture", data))
    assert await store.put_bytes(data) == from_file
    assert b"".join([piece async for piece in store.read(from_file.object)]) == data
    target = await store.materialise(from_file.object, tmp_path / "got", read_only=False)
    assert target.read_bytes() == data
    assert os.access(target, os.W_OK)
    empty = await store.put_bytes(b"")
    assert b"".join([piece async for piece in store.read(empty.object)]) == b""


async def test_one_file_of_a_folder_can_be_read(stores: Any, site: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    for path, (data, _) in contents(site).items():
        assert b"".join([piece async for piece in store.read(stored.object, path)]) == data
    error = await error_of(anext(store.read(stored.object, "nothing")))
    assert error.code == "no_such_file"


async def test_progress_ends_with_everything(stores: Any, site: Path) -> None:
    store = await stores.open()
    seen: list[Progress] = []
    stored = await store.put_folder(site, seen.append)
    assert seen[-1] == Progress(stored.size, stored.size)
    assert [step.done_bytes for step in seen] == sorted(step.done_bytes for step in seen)


async def test_what_is_left_out_is_left_out(stores: Any, site: Path, write: Any) -> None:
    store = await stores.open()
    before = await store.put_folder(site)
    write(site / ".git/HEAD", b"ref")
    assert await store.put_folder(site, exclude=lambda path: path == ".git") == before


# Bad input


async def test_a_missing_or_empty_folder(stores: Any, tmp_path: Path, write: Any) -> None:
    store = await stores.open()
    (tmp_path / "empty/deep").mkdir(parents=True)
    file = write(tmp_path / "file", b"x")
    assert (await error_of(store.put_folder(tmp_path / "nowhere"))).code == "folder_missing"
    assert (await error_of(store.put_folder(file))).code == "not_a_folder"
    assert (await error_of(store.put_folder(tmp_path / "empty"))).code == "folder_empty"
    assert (await error_of(store.put_file(tmp_path / "nowhere"))).code == "file_missing"
    assert (await error_of(store.put_file(tmp_path))).code == "not_a_file"
    assert stores.files() == {}


async def test_an_unreadable_file_or_folder(stores: Any, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom permissions do not stop.
    store = await stores.open()
    really_open, really_scan = os.open, os.scandir

    def refuse_open(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("video.bin"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *arguments, **named)

    def refuse_scan(path: Any = ".") -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_scan(path)

    monkeypatch.setattr(os, "open", refuse_open)
    error = await error_of(store.put_folder(site))
    assert error.code == "unreadable"
    assert "video.bin" in error.message
    assert stores.files() == {}
    monkeypatch.setattr(os, "open", really_open)
    monkeypatch.setattr(os, "scandir", refuse_scan)
    assert (await error_of(store.put_folder(site))).code == "unreadable"


async def test_links_inside_the_folder_are_followed_as_files(stores: Any, site: Path) -> None:
    store = await stores.open()
    (site / "deep/home.html").symlink_to("../index.html")
    stored = await store.put_folder(site)
    assert (
        b"".join([piece async for piece in store.read(stored.object, "deep/home.html")]) == b"<h1>hello</h1>"
    )


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "nowhere", "deep", "link"])
async def test_other_links_are_refused(stores: Any, site: Path, write: Any, target: str) -> None:
    store = await stores.open()
    write(site.parent / "outside", b"secret")
    (site / "link").symlink_to(target)
    error = await error_of(store.put_folder(site))
    assert error.code == "link_refused"
    assert "'link'" in error.message
    assert stores.files() == {}


async def test_pipes_and_sockets_are_refused(
    stores: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    os.mkfifo(site / "pipe")
    assert (await error_of(store.put_folder(site))).code == "not_a_file"
    (site / "pipe").unlink()
    monkeypatch.chdir(site)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert (await error_of(store.put_folder(site))).code == "not_a_file"


async def test_names_that_other_computers_cannot_hold_are_refused(
    stores: Any, site: Path, write: Any
) -> None:
    store = await stores.open()
    write(site / "INDEX.html", b"")
    assert (await error_of(store.put_folder(site))).code == "bad_path"
    (site / "INDEX.html").unlink()
    (site / os.fsdecode(b"\xff.html")).write_bytes(b"")
    assert (await error_of(store.put_folder(site))).code == "bad_path"
    assert stores.files() == {}


@pytest.mark.parametrize("new", [b"longer than it was before", b"x"])
async def test_a_file_that_changes_meanwhile_is_an_error(
    stores: Any, site: Path, monkeypatch: pytest.MonkeyPatch, new: bytes
) -> None:
    store = await stores.open()
    really_open = os.open

    def change_then_open(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("index.html"):
            Path(path).write_bytes(new)
        return really_open(path, *arguments, **named)

    monkeypatch.setattr(os, "open", change_then_open)
    assert (await error_of(store.put_folder(site))).code == "changed_meanwhile"
    (site / "index.html").write_bytes(b"<h1>hello</h1>")
    assert (await error_of(store.put_file(site / "index.html"))).code == "changed_meanwhile"
    assert stores.files() == {}


# Damage


async def test_a_corrupt_chunk_is_noticed_put_aside_and_healed_by_putting(stores: Any, site: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FolderManifest)
    chunk = manifest.chunks[0].id
    path = stores.chunk_path(chunk)
    path.write_bytes(b"!" + path.read_bytes()[1:])
    with pytest.raises(CorruptChunk):
        await store.read_chunk(chunk)
    await asyncio.sleep(0)
    assert [(damage.chunk, damage.objects) for damage in stores.damage] == [(chunk, (stored.object,))]
    assert not store.has(stored.object)
    assert f"quarantine/{chunk.hex()}" in stores.files()
    with pytest.raises(ChunkNotHeld):
        await store.read_chunk(chunk)
    assert [missing.id for missing in await store.missing_chunks(stored.object)] == [chunk]
    with pytest.raises(ObjectIncomplete):
        await store.finish_fetch(stored.object)
    await store.put_folder(site)
    assert store.has(stored.object)


async def test_putting_mends_a_chunk_whose_damage_nobody_noticed(
    stores: Any, site: Path, tmp_path: Path
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    for path in (tmp_path / "store/chunks").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert await store.put_folder(site) == stored
    assert contents(await store.materialise(stored.object, tmp_path / "out")) == contents(site)


async def test_a_chunk_file_that_vanished_is_noticed(stores: Any, site: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    stores.chunk_path(stored.object).unlink()
    with pytest.raises(ChunkNotHeld):
        await store.manifest(stored.object)
    await asyncio.sleep(0)
    assert [damage.why for damage in stores.damage] == ["its file is gone"]
    assert not store.has(stored.object)


async def test_a_chunk_that_the_disk_cannot_read_is_damage(
    stores: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)

    def fail(path: Path, *, from_disk: bool) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shelf_module, "read_whole", fail)
    with pytest.raises(CorruptChunk):
        await store.manifest(stored.object)
    assert not store.has(stored.object)


async def test_the_quarantine_is_bounded(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "QUARANTINED_MAX", 2)
    store = await stores.open()
    for number in range(4):
        stored = await store.put_bytes(b"%d" % number)
        stores.chunk_path(stored.object).write_bytes(b"bad")
        with pytest.raises(CorruptChunk):
            await store.manifest(stored.object)
    assert len([path for path in stores.files() if path.startswith("quarantine/")]) == 2


# Sharing, quota, full disk


async def test_deleting_one_object_keeps_what_the_other_needs(
    stores: Any, tmp_path: Path, noise: Any, write: Any
) -> None:
    store = await stores.open()
    shared, own = noise(3_000_000, 1), noise(1_500_000, 2)
    write(tmp_path / "one/video", shared)
    write(tmp_path / "two/movie", shared)
    write(tmp_path / "two/own", own)
    one = await store.put_folder(tmp_path / "one")
    only_one = store.total_bytes()
    two = await store.put_folder(tmp_path / "two")
    assert store.total_bytes() < only_one + len(own) + 1000
    assert await store.delete(two.object)
    assert store.total_bytes() == only_one
    assert store.total_bytes() == sum(stores.files().values())
    assert (await store.materialise(one.object, tmp_path / "out") / "video").read_bytes() == shared
    assert not await store.delete(two.object)
    await store.delete(one.object)
    assert stores.files() == {}
    assert store.list_objects() == []


async def test_more_than_the_quota_is_refused_and_nothing_stays(
    stores: Any, tmp_path: Path, noise: Any
) -> None:
    store = await stores.open(quota_bytes=3_000_000)
    first = await store.put_bytes(noise(2_000_000, 1))
    before = stores.files()
    with pytest.raises(QuotaExceeded):
        await store.put_bytes(noise(2_000_000, 2))
    assert stores.files() == before
    assert store.has(first.object)
    store.quota_bytes = 5_000_000
    second = await store.put_bytes(noise(2_000_000, 2))
    store.quota_bytes = 1_000
    assert store.has(second.object)
    assert await store.put_bytes(noise(2_000_000, 2)) == second
    with pytest.raises(QuotaExceeded):
        await store.put_bytes(b"one more")


@pytest.mark.parametrize("call", ["fsync", "write", "open"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_full_disk_loses_nothing_and_leaves_nothing(
    stores: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    store = await stores.open()
    kept = await store.put_bytes(b"kept")
    before = stores.files()
    left = after
    really = getattr(os, call)

    def full(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        writes = call != "open" or (len(arguments) > 1 and arguments[1] & os.O_CREAT)
        if writes:
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return really(*arguments, **named)

    monkeypatch.setattr(os, call, full)
    assert (await error_of(store.put_folder(site))).code == "disk_full"
    monkeypatch.undo()
    assert stores.files() == before
    assert store.has(kept.object)
    stored = await store.put_folder(site)
    monkeypatch.setattr(os, call, full)
    if call != "fsync":  # What was materialised is not synchronised: see there.
        assert (await error_of(store.materialise(stored.object, tmp_path / "out"))).code == "disk_full"
        monkeypatch.undo()
        assert names(tmp_path) == ["site", "store"]


async def test_a_cancelled_put_leaves_nothing(stores: Any, tmp_path: Path, noise: Any, write: Any) -> None:
    store = await stores.open()
    write(tmp_path / "large/file", noise(30_000_000))
    started = asyncio.Event()
    putting = asyncio.create_task(store.put_folder(tmp_path / "large", lambda progress: started.set()))
    await started.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert stores.files() == {}
    assert store.total_bytes() == 0


async def test_puts_and_deletes_at_once_do_not_disturb_each_other(
    stores: Any, tmp_path: Path, noise: Any
) -> None:
    store = await stores.open()
    data = noise(1_500_000)

    async def come_and_go(tail: bytes) -> None:
        for _ in range(10):
            stored = await store.put_bytes(data + tail)
            assert b"".join([piece async for piece in store.read(stored.object)]) == data + tail
            await store.delete(stored.object)

    await asyncio.gather(*(come_and_go(b"%d" % number) for number in range(4)))
    assert stores.files() == {}


async def test_the_folder_is_for_its_owner_only(stores: Any, tmp_path: Path) -> None:
    await stores.open()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


async def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "file", b"")
    error = await error_of(ObjectStore.open(tmp_path / "file" / "store", 1, lambda damage: None))
    assert error.code == "disk_failed"


async def test_an_object_counts_as_held_only_when_all_of_it_is_on_the_disk(
    stores: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.open()
    synchronised: dict[int, None] = {}
    looked_at: list[str] = []
    really_sync, really_touch = os.fsync, Path.touch

    def sync(descriptor: int) -> None:
        really_sync(descriptor)
        synchronised[os.fstat(descriptor).st_ino] = None

    def touch(path: Path, **named: Any) -> None:
        if path.parent.name == "held":
            for chunk in (tmp_path / "store/chunks").rglob("*"):
                looked_at.append(chunk.name)
                assert chunk.stat().st_ino in synchronised, chunk
            assert (tmp_path / "store/chunks").stat().st_ino in synchronised
        really_touch(path, **named)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "touch", touch)
    stored = await store.put_folder(site)
    assert stored.object.hex() in looked_at
    assert (tmp_path / "store/held").stat().st_ino in synchronised
