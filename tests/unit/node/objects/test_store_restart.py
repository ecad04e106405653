"""The object store after a restart, a crash, a kill, or damage done while it did not run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colla.model.ids import ObjectId, digest
from colla.model.manifest import BadManifest, ChunkId, FolderManifest, PartsManifest, Piece, build_folder


async def test_everything_is_there_after_a_restart(stores: Any, site: Path) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    held, size = store.list_objects(), store.total_bytes()
    await store.close()
    again = await stores.open()
    assert [entry.object for entry in again.list_objects()] == [stored.object]
    assert (again.list_objects()[0].size, again.list_objects()[0].files) == (held[0].size, held[0].files)
    assert again.has(stored.object)
    assert again.total_bytes() == size


async def test_what_a_crash_left_is_removed(stores: Any, site: Path, tmp_path: Path, write: Any) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    clean = stores.files()
    await store.close()
    _, chunks = build_folder({"orphan": (b"of a put that did not finish", False)})
    for chunk, data in chunks.items():
        write(stores.chunk_path(chunk), data)
    (tmp_path / "store/temporary/7").write_bytes(b"half")
    again = await stores.open()
    assert stores.files() == clean
    assert again.has(stored.object)
    assert stores.damage == []


async def test_a_partial_object_goes_on_after_a_restart(stores: Any, noise: Any) -> None:
    files = {"a": (noise(3_000_000), False)}
    built, chunks = build_folder(files)
    store = await stores.open()
    assert await store.begin_fetch(built.object)
    assert [chunk.id for chunk in await store.missing_chunks(built.object)] == [built.object]
    manifest = ChunkId(built.object)
    assert await store.add_chunk(Piece(manifest, chunks[manifest]))
    missing = await store.missing_chunks(built.object)
    assert [chunk.size for chunk in missing] == [1 << 20, 1 << 20, 3_000_000 - (2 << 20)]
    assert await store.add_chunk(Piece(missing[1].id, chunks[missing[1].id]))
    await store.close()
    again = await stores.open()
    assert not again.has(built.object)
    assert not await again.begin_fetch(built.object)
    left = await again.missing_chunks(built.object)
    assert left == [missing[0], missing[2]]
    for chunk in left:
        assert await again.add_chunk(Piece(chunk.id, chunks[chunk.id]))
    stored = await again.finish_fetch(built.object)
    assert (stored.size, stored.files) == (3_000_000, 1)
    assert again.has(built.object)
    assert stores.damage == []


async def test_a_chunk_that_nobody_needs_is_not_kept(stores: Any) -> None:
    store = await stores.open()
    built, chunks = build_folder({"a": (b"a", False)})
    assert not await store.add_chunk(Piece(ChunkId(built.object), chunks[ChunkId(built.object)]))
    assert stores.files() == {}


@pytest.mark.parametrize("harm", ["cut", "gone"])
@pytest.mark.parametrize("which", ["manifest", "chunk"])
async def test_damage_while_not_running_is_told_at_the_start(
    stores: Any, site: Path, harm: str, which: str
) -> None:
    store = await stores.open()
    stored = await store.put_folder(site)
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FolderManifest)
    harmed = stored.object if which == "manifest" else manifest.chunks[0].id
    size = store.total_bytes()
    await store.close()
    path = stores.chunk_path(harmed)
    lost = path.stat().st_size
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    again = await stores.open()
    await asyncio.sleep(0)
    assert [damage.chunk for damage in stores.damage] == [harmed]
    assert stores.damage[0].objects == (stored.object,)
    assert not again.has(stored.object)
    # With its manifest gone nobody knows what belongs to the object; all the same its chunks stay.
    assert again.total_bytes() == size - lost
    await again.put_folder(site)
    assert again.has(stored.object)


async def test_a_folder_of_several_manifests_survives(stores: Any, tmp_path: Path) -> None:
    files = {f"{'long-name' * 20}/{number:05}-{'x' * 200}": (b"%d" % number, False) for number in range(4000)}
    built, chunks = build_folder(files)
    store = await stores.open()
    await store.begin_fetch(built.object)
    stages = 0
    while missing := await store.missing_chunks(built.object):
        stages += 1
        for chunk in missing:
            await store.add_chunk(Piece(chunk.id, chunks[chunk.id]))
    assert stages == 3
    await store.finish_fetch(built.object)
    await store.close()
    again = await stores.open()
    assert isinstance(await again.manifest(built.object), PartsManifest)
    assert again.has(built.object)
    out = await again.materialise(built.object, tmp_path / "out")
    assert {path: (out / path).read_bytes() for path in files} == {
        path: data for path, (data, _) in files.items()
    }
    await again.delete(built.object)
    assert stores.files() == {}


async def test_an_object_whose_manifest_lies_about_a_chunk_is_never_whole(stores: Any) -> None:
    data = b"three"
    forged = msgspec.msgpack.encode(["file", 1, [[digest(data), 4]]])
    store = await stores.open()
    object_id = ObjectId(digest(forged))
    await store.begin_fetch(object_id)
    await store.add_chunk(Piece(ChunkId(object_id), forged))
    await store.missing_chunks(object_id)
    await store.add_chunk(Piece(ChunkId(digest(data)), data))
    with pytest.raises(BadManifest):
        await store.finish_fetch(object_id)
    assert not store.has(object_id)


KILLED = """
import asyncio, sys
from pathlib import Path
from random import Random
from colla.node.objects import ObjectStore
async def main():
    store = await ObjectStore.open(Path(sys.argv[1]), 1 << 30, lambda damage: None)
    random = Random(int(sys.argv[2]))
    shared = random.randbytes(300_000)
    while True:
        stored = await store.put_bytes(shared * 4 + random.randbytes(random.randrange(400_000)))
        print(stored.object.hex(), flush=True)
        if random.random() < 0.3:
            gone = store.list_objects()[0].object
            print("-" + gone.hex(), flush=True)
            await store.delete(gone)
asyncio.run(main())
"""


def put_until_killed(folder: Path, acknowledged: int) -> list[str]:
    """What a process said before it was killed in the middle of its work."""
    command = [sys.executable, "-c", KILLED, str(folder), str(acknowledged)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().strip() for _ in range(acknowledged)]
        finally:
            process.kill()
        return lines + process.stdout.read().split()


@pytest.mark.parametrize("acknowledged", [1, 5, 12])
async def test_a_killed_process_loses_nothing_acknowledged(
    stores: Any, tmp_path: Path, acknowledged: int
) -> None:
    lines = await asyncio.to_thread(put_until_killed, tmp_path / "store", acknowledged)
    expected = {line for line in lines if not line.startswith("-") and "-" + line not in lines}
    store = await stores.open()
    assert stores.damage == []
    held = {entry.object.hex() for entry in store.list_objects() if entry.complete}
    assert expected <= held
    for entry in store.list_objects():
        assert entry.complete
        assert len(b"".join([piece async for piece in store.read(entry.object)])) == entry.size
    assert not any(path.startswith(("temporary/", "partial/")) for path in stores.files())
    assert store.total_bytes() == sum(stores.files().values())
    for entry in store.list_objects():
        await store.delete(entry.object)
    assert stores.files() == {}
