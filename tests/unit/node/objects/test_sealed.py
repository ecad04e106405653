"""Sealed objects come back as they were, for whoever has the key; for everybody else they say nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colla.model.errors import CollaError
from colla.model.manifest import CHUNK_BYTES_MAX, Entry, FileManifest
from colla.model.sealing import CONTENT_KEY_BYTES, TAG_BYTES, ContentCipher
from colla.node.objects import sealed as sealed_module
from colla.node.objects.sealed import SEGMENT_BYTES, Index


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_folder_comes_back_as_it_was(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_resumably(site, lambda progress: None, sealed=True)
    assert len(stored.key) == CONTENT_KEY_BYTES
    assert (stored.files, stored.content_bytes) == (5, sum(len(d) for d, _ in contents(site).values()))
    written: list[int] = []
    await store.give(stored.object, tmp_path / "out", key=stored.key, on_bytes=written.append)
    assert contents(tmp_path / "out") == contents(site)
    assert sum(written) == stored.content_bytes
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FileManifest)
    data = b"".join([await store.read_chunk(chunk.id) for chunk in manifest.chunks])
    assert b"page" not in data
    assert b"index.html" not in data, "not even names are told"


# The index of one file takes 4 bytes for its length and about 20: these lengths end before, at and after a segment.
@pytest.mark.parametrize(
    "size", [0, 1, SEGMENT_BYTES - 60, *range(SEGMENT_BYTES - 26, SEGMENT_BYTES - 12), 2_500_000]
)
async def test_a_file_of_any_length_comes_back(
    stores: Any, tmp_path: Path, noise: Any, write: Any, size: int
) -> None:
    store = await stores.open()
    source = write(tmp_path / "file", noise(size))
    stored = await store.put_resumably(source, lambda progress: None, sealed=True)
    await store.give(stored.object, tmp_path / "out", key=stored.key)
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    pieces = [piece async for piece in store.read_sealed(stored.object, stored.key)]
    assert b"".join(pieces) == source.read_bytes()
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FileManifest)
    assert all(chunk.size == CHUNK_BYTES_MAX for chunk in manifest.chunks[:-1])


async def test_with_another_key_nothing_is_written(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    stored = await store.put_resumably(site, lambda progress: None, sealed=True)
    with pytest.raises(CollaError) as caught:
        await store.give(stored.object, tmp_path / "out", key=bytes(CONTENT_KEY_BYTES))
    assert caught.value.code == "not_unsealed"
    assert names(tmp_path) == ["site", "store"]


async def test_what_is_not_sealed_is_no_sealed_object(stores: Any, site: Path, tmp_path: Path) -> None:
    store = await stores.open()
    for stored in (await store.put_folder(site), await store.put_bytes(b"plain"), await store.put_bytes(b"")):
        with pytest.raises(CollaError):
            await store.give(stored.object, tmp_path / "out", key=bytes(CONTENT_KEY_BYTES))
        assert not (tmp_path / "out").exists()


def sealed_stream(entries: list[Entry], content: bytes, folder: bool = True, version: int = 1) -> bytes:
    """What a liar with the key may have written, as one segment."""
    index = msgspec.msgpack.encode(Index(version, folder, tuple(entries)))
    return ContentCipher(bytes(32)).seal(0, True, len(index).to_bytes(4, "big") + index + content)


@pytest.mark.parametrize(
    "stream",
    [
        sealed_stream([Entry("../escape", 1, False)], b"x"),
        sealed_stream([Entry("/etc/x", 1, False)], b"x"),
        sealed_stream([Entry("b", 1, False), Entry("a", 0, False)], b"x"),
        sealed_stream([Entry("a", 5, False)], b"x"),
        sealed_stream([Entry("a", 0, False)], b"x"),
        sealed_stream([Entry("a", 1, False)], b"x", version=2),
        sealed_stream([Entry("a", 1, False), Entry("b", 0, False)], b"x", folder=False),
        ContentCipher(bytes(32)).seal(0, True, b"\xff\xff\xff\xff"),
        ContentCipher(bytes(32)).seal(0, True, b"\x00\x00"),
        ContentCipher(bytes(32)).seal(0, True, b"\x00\x00\x00\x02\xc1\xc1"),
        ContentCipher(bytes(32)).seal(0, False, b"\x00\x00\x00\x00"),
        ContentCipher(bytes(32)).seal(1, True, b"\x00\x00\x00\x00"),
        b"x" * TAG_BYTES,
        b"x",
    ],
)
async def test_a_liar_who_has_the_key_writes_nothing_outside(
    stores: Any, tmp_path: Path, stream: bytes
) -> None:
    store = await stores.open()
    stored = await store.put_bytes(stream)
    with pytest.raises(CollaError):
        await store.give(stored.object, tmp_path / "out", key=bytes(32))
    assert names(tmp_path) == ["store"]


async def test_a_segment_that_is_missing_at_the_end_is_noticed(
    stores: Any, tmp_path: Path, noise: Any, write: Any
) -> None:
    store = await stores.open()
    source = write(tmp_path / "file", noise(2_500_000))
    stored = await store.put_resumably(source, lambda progress: None, sealed=True)
    manifest = await store.manifest(stored.object)
    assert isinstance(manifest, FileManifest)
    cut = b"".join([await store.read_chunk(chunk.id) for chunk in manifest.chunks[:-1]])
    shorter = await store.put_bytes(cut)
    with pytest.raises(CollaError):
        await store.give(shorter.object, tmp_path / "out", key=stored.key)
    assert not (tmp_path / "out").exists()


async def test_the_index_is_bounded(stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_module, "INDEX_BYTES_MAX", 3)
    store = await stores.open()
    stored = await store.put_bytes(sealed_stream([Entry("a", 1, False)], b"x"))
    with pytest.raises(CollaError):
        await store.give(stored.object, tmp_path / "out", key=bytes(32))
