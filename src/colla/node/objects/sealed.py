"""Sealed objects: files on their way into an object that only the holders of its content key can read, and back.

The content of a sealed object is one stream: the length of an index, the index (which files, how long), the files one
after the other. The stream is cut into segments that are sealed one by one (`model/sealing.py`), each as long as
fits a chunk, so that whoever keeps the object learns its length and nothing else. To everybody else it is a file
object like any other: it is stored, moved, verified and healed without its key. Equal files sealed twice share
nothing, since every put has a key of its own.

What comes out of a stream was written by whoever had the key, and is judged like any other foreign folder. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE, CollaError
from colla.model.manifest import (
    CHUNK_BYTES_MAX,
    FILES_MAX,
    BadManifest,
    BadPath,
    Built,
    Entry,
    FileBuilder,
    FileManifest,
    check_entries,
    check_size,
)
from colla.model.sealing import TAG_BYTES, ContentCipher, UnsealError
from colla.node.disk import write_all
from colla.node.objects.shelf import Shelf
from colla.node.objects.sources import SourceFile, Store, read_file

SEGMENT_BYTES = CHUNK_BYTES_MAX - TAG_BYTES
INDEX_VERSION = 1
INDEX_BYTES_MAX = 64 * 1024 * 1024
"""The names of 200,000 files; checked before memory is taken."""
_LENGTH_BYTES = 4


class Index(msgspec.Struct, frozen=True, array_like=True):
    """What the stream holds. A single file is one entry with the path `file` and no `folder`."""

    version: Annotated[int, Meta(ge=1)]
    folder: bool
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=FILES_MAX)]


_index_decoder = msgspec.msgpack.Decoder(Index)


class _Sealer:
    """Cuts a stream into sealed segments and gives them to a `FileBuilder`."""

    def __init__(self, cipher: ContentCipher, store: Store) -> None:
        self._cipher = cipher
        self._store = store
        self._builder = FileBuilder()
        self._buffer = bytearray()
        self._place = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data
        # One byte more than a segment: only the end knows which one is the last.
        while len(self._buffer) > SEGMENT_BYTES:
            self._seal(bytes(memoryview(self._buffer)[:SEGMENT_BYTES]), last=False)
            del self._buffer[:SEGMENT_BYTES]

    def finish(self) -> Built:
        self._seal(bytes(self._buffer), last=True)
        last, built = self._builder.finish()
        for piece in (*last, *built.manifests):
            self._store(piece)
        return built

    def _seal(self, data: bytes, *, last: bool) -> None:
        for piece in self._builder.feed(self._cipher.seal(self._place, last, data)):
            self._store(piece)
        self._place += 1


def cut_sealed(files: list[SourceFile], folder: bool, cipher: ContentCipher, store: Store) -> Built:
    """Seal the files and give every chunk to `store`, the manifest last. Raises `CollaError` as `cut_folder`."""
    entries = tuple(Entry(file.path if folder else "file", file.size, file.executable) for file in files)
    check_entries(entries)
    check_size("", sum(entry.size for entry in entries))
    index = msgspec.msgpack.encode(Index(INDEX_VERSION, folder, entries))
    sealer = _Sealer(cipher, store)
    sealer.feed(len(index).to_bytes(_LENGTH_BYTES, "big") + index)
    for file in files:
        for data in read_file(file):
            sealer.feed(data)
    return sealer.finish()


class SealedReader:
    """Reads a sealed object of a shelf: its index first, then what `read` asks for, in order."""

    def __init__(self, shelf: Shelf, manifest: FileManifest, cipher: ContentCipher) -> None:
        """Raises as `Shelf.read`, and `BadManifest` for what is no sealed object, or not under this key."""
        self._shelf = shelf
        self._chunks = manifest.chunks
        self._cipher = cipher
        self._place = 0
        self._buffer = memoryview(b"")
        length = int.from_bytes(b"".join(self.read(_LENGTH_BYTES)), "big")
        if length > INDEX_BYTES_MAX:
            raise BadManifest("The index of the sealed object is too long.")
        self.index = _read_index(b"".join(self.read(length)))
        content_bytes = sum(chunk.size - TAG_BYTES for chunk in self._chunks)
        if content_bytes != _LENGTH_BYTES + length + sum(entry.size for entry in self.index.entries):
            raise BadManifest("The sealed files are not as long as their index says.")

    def read(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes, in pieces."""
        while count:
            if not self._buffer:
                self._buffer = memoryview(self._next())
            taken = self._buffer[:count]
            self._buffer = self._buffer[len(taken) :]
            count -= len(taken)
            yield bytes(taken)

    def _next(self) -> bytes:
        if self._place >= len(self._chunks):
            raise BadManifest("The sealed object ends too early.")
        chunk = self._chunks[self._place]
        last = self._place == len(self._chunks) - 1
        try:
            data = self._cipher.open(self._place, last, self._shelf.read(chunk.id))
        except UnsealError as error:
            raise BadManifest(f"The object cannot be unsealed: {error}.", "not_unsealed") from None
        self._place += 1
        return data


def write_unsealed(reader: SealedReader, place: Path, on_bytes: Callable[[int], None]) -> None:
    """Write the files of a sealed object to the new folder (or file) `place`; `on_bytes` is told of every piece."""
    if not reader.index.folder:
        _write(reader, reader.index.entries[0], place, on_bytes)
        return
    place.mkdir(mode=0o755)
    for entry in reader.index.entries:
        path = place / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(reader, entry, path, on_bytes)


def _write(reader: SealedReader, entry: Entry, path: Path, on_bytes: Callable[[int], None]) -> None:
    # O_EXCL: on a disk that ignores case, a second name for the same file must fail, not overwrite.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for data in reader.read(entry.size):
            write_all(descriptor, data)
            on_bytes(len(data))
        os.fchmod(descriptor, 0o644 | (0o111 if entry.executable else 0))
    finally:
        os.close(descriptor)


def _read_index(data: bytes) -> Index:
    try:
        index = _index_decoder.decode(data)
    except UNDECODABLE as error:
        raise BadManifest(f"The index of the sealed object cannot be read: {error}.") from None
    if index.version > INDEX_VERSION:
        hint = "Update colla on this computer."
        raise BadManifest("The object was sealed by a newer colla.", "manifest_too_new", hint)
    try:
        check_entries(index.entries)
    except BadPath as error:
        raise BadManifest(error.message) from None
    if not index.folder and len(index.entries) != 1:
        raise BadManifest("A single file has more than one name.")
    return index


def not_for_you(name: str) -> CollaError:
    """The object is sealed, and none of this member's keys opens it (`not_recipient`)."""
    return CollaError(
        "not_recipient", f"{name!r} is sealed for others.", "Ask who put it to share it with you."
    )
