"""The object store of a node: what `Shelf` and `Materialiser` do, asynchronous, and putting files into it.

All work on the disk happens on threads of the store's own, so that neither the loop nor other users of the
default threads wait for a disk. A put that is cancelled takes back what it did before it ends. See `Shelf` for
what is on the disk and what a crash can do to it: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import ObjectId
from colla.model.manifest import (
    BadManifest,
    Built,
    Chunk,
    ChunkId,
    FileManifest,
    Manifest,
    Piece,
    Slice,
    file_slices,
)
from colla.model.sealing import CONTENT_KEY_BYTES, ContentCipher
from colla.node.objects.materialise import Materialiser
from colla.node.objects.putting import OnProgress, Put, Stored
from colla.node.objects.sealed import SealedReader, cut_sealed, write_unsealed
from colla.node.objects.shelf import Damage, Shelf
from colla.node.objects.sources import (
    Exclude,
    SourceFile,
    Store,
    cut_bytes,
    cut_file,
    cut_folder,
    scan_file,
    scan_folder,
)

JOBS_AT_ONCE = 4
"""Threads for puts, materialising and reads: more would only make the disk seek."""
WRITES_AT_ONCE = 4
"""Threads that write chunks: a file system commits those that wait at the same time together."""

T = TypeVar("T")


class HeldObject(msgspec.Struct, frozen=True):
    """One object as `list_objects` shows it; not `complete` while its fetch goes on or a chunk is damaged."""

    object: ObjectId
    size: int
    files: int
    complete: bool
    stored_at_s: float


class ObjectStore:
    """Made by `ObjectStore.open`. Methods raise `CollaError`; see `problems` and `sources` for the codes."""

    def __init__(self, shelf: Shelf, materialiser: Materialiser, jobs: ThreadPoolExecutor) -> None:
        """Private: use `open`."""
        self._shelf = shelf
        self._materialiser = materialiser
        self._jobs = jobs
        self._writers = ThreadPoolExecutor(WRITES_AT_ONCE, "colla-chunks")
        self._puts: dict[Put, None] = {}
        self._pinned: dict[ObjectId, int] = {}

    @classmethod
    async def open(cls, folder: Path, quota_bytes: int, on_damage: Callable[[Damage], None]) -> ObjectStore:
        """Open the store in `folder`, created if need be, and clean up after a crash.

        `on_damage` is called on the loop for every chunk found damaged or gone, then and later; the objects it
        names are no longer complete until they are fetched again.
        """
        loop = asyncio.get_running_loop()

        def tell(damage: Damage) -> None:
            loop.call_soon_threadsafe(on_damage, damage)

        shelf = Shelf(folder, quota_bytes, tell)
        materialiser = Materialiser(shelf)
        jobs = ThreadPoolExecutor(JOBS_AT_ONCE, "colla-objects")

        def open_both() -> None:
            shelf.open()
            materialiser.open()

        try:
            await loop.run_in_executor(jobs, open_both)
        except BaseException:
            jobs.shutdown(wait=False)
            raise
        return cls(shelf, materialiser, jobs)

    async def close(self) -> None:
        """Wait for what is under way (resumable puts stop), then end the threads. The store cannot be used afterwards."""
        for put in self._puts:
            put.stop()
        await asyncio.to_thread(self._jobs.shutdown)
        await asyncio.to_thread(self._writers.shutdown)

    @property
    def quota_bytes(self) -> int:
        """What the owner gives to objects. Lowering it below what is held removes nothing, but nothing comes."""
        return self._shelf.quota_bytes

    @quota_bytes.setter
    def quota_bytes(self, quota_bytes: int) -> None:
        self._shelf.quota_bytes = quota_bytes

    # Putting

    async def put_folder(
        self, path: Path, on_progress: OnProgress | None = None, exclude: Exclude | None = None
    ) -> Stored:
        """Store the files of a folder as one object. Raises as `sources.scan_folder`, and `QuotaExceeded`."""
        put = Put(self._shelf, self._writers, on_progress)

        def work() -> Stored:
            files = scan_folder(path, exclude)
            return _stored(put.run(_total(files), lambda store: cut_folder(files, store)))

        return await self._run_put(put, work)

    async def put_file(self, path: Path, on_progress: OnProgress | None = None) -> Stored:
        """Store one file, without its name, as an object. Raises as `sources.scan_file`."""
        put = Put(self._shelf, self._writers, on_progress)

        def work() -> Stored:
            file = scan_file(path)
            return _stored(put.run(file.size, lambda store: cut_file(file, store)))

        return await self._run_put(put, work)

    async def put_bytes(self, data: bytes) -> Stored:
        """Store bytes as a file object."""
        put = Put(self._shelf, self._writers, None)
        return await self._run_put(
            put, lambda: _stored(put.run(len(data), lambda store: cut_bytes(data, store)))
        )

    async def put_resumably(
        self, path: Path, on_progress: OnProgress, *, sealed: bool = False, exclude: Exclude | None = None
    ) -> Stored:
        """Store a file or folder as `put_file` and `put_folder` do; what is stored stays when the process ends.

        Putting the same path again goes on there, also after it was cancelled. `sealed`: under a fresh content key,
        which is returned.
        """
        journal = self._shelf.unfinished.begin(f"{'sealed' if sealed else 'plain'} {os.fspath(path)}")
        put = Put(self._shelf, self._writers, on_progress, journal)

        def work() -> Stored:
            try:
                is_folder = path.is_dir()
                files = scan_folder(path, exclude) if is_folder else [scan_file(path)]
                key = journal.content_key(os.urandom(CONTENT_KEY_BYTES)) if sealed else b""
            except BaseException:
                self._shelf.unfinished.end(journal)
                raise
            total_bytes = _total(files)

            def cut(store: Store) -> Built:
                if sealed:
                    return cut_sealed(files, is_folder, ContentCipher(key), store)
                return cut_folder(files, store) if is_folder else cut_file(files[0], store)

            built = put.run(total_bytes, cut)
            return Stored(built.object, built.size, len(files), total_bytes, key)

        return await self._run_put(put, work)

    async def _run_put(self, put: Put, work: Callable[[], Stored]) -> Stored:
        running = asyncio.get_running_loop().run_in_executor(self._jobs, work)
        self._puts[put] = None
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            put.stop()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # A put that was taken back ends in an error that nobody waits for.
            raise
        finally:
            del self._puts[put]

    # What is here

    def has(self, object_id: ObjectId) -> bool:
        """Whether the object is here whole, as far as is known without reading it."""
        return self._shelf.is_complete(object_id)

    def has_chunk(self, chunk: ChunkId) -> bool:
        """Whether the chunk is here."""
        return self._shelf.has_chunk(chunk)

    def list_objects(self) -> list[HeldObject]:
        """All objects, whole or partial, by id."""
        return [
            HeldObject(held.object, held.size, held.files, held.complete, held.stored_at_s)
            for held in self._shelf.objects()
        ]

    def total_bytes(self) -> int:
        """What the chunks take on the disk: shared ones count once."""
        return self._shelf.present_bytes()

    async def manifest(self, object_id: ObjectId) -> Manifest:
        """The object's manifest. Raises `ChunkNotHeld`, `CorruptChunk`, `BadManifest`."""
        return await self._run(lambda: self._shelf.manifest(object_id))

    async def delete(self, object_id: ObjectId) -> bool:
        """Forget an object; chunks that others share stay. False if it was not here."""
        return await self._run(lambda: self._shelf.delete(object_id))

    @contextlib.contextmanager
    def pinned(self, object_id: ObjectId) -> Iterator[None]:
        """While this lasts, `forget` leaves the object alone."""
        self._pinned[object_id] = self._pinned.get(object_id, 0) + 1
        try:
            yield
        finally:
            self._pinned[object_id] -= 1
            if not self._pinned[object_id]:
                del self._pinned[object_id]

    async def forget(self, object_id: ObjectId) -> bool:
        """Delete the object unless something here uses it; whether it is gone."""
        if object_id in self._pinned:
            return False
        await self.delete(object_id)
        return True

    async def sweep(self) -> int:
        """Remove puts that were given up, and chunks that nobody needs; how many of the latter."""

        def work() -> int:
            self._shelf.unfinished.expire()
            return self._shelf.sweep()

        return await self._run(work)

    def chunks(self) -> list[ChunkId]:
        """All chunks that are here, sorted."""
        return self._shelf.chunks()

    # Reading

    async def scrub_chunk(self, chunk: ChunkId) -> int:
        """Read a chunk from the disk and verify it; its length. Raises `ChunkNotHeld`, `CorruptChunk`."""
        return await self._run(lambda: len(self._shelf.read(chunk, from_disk=True)))

    async def read_chunk(self, chunk: ChunkId) -> bytes:
        """One chunk, verified. Raises `ChunkNotHeld`, `CorruptChunk`."""
        return await self._run(lambda: self._shelf.read(chunk))

    async def read(self, object_id: ObjectId, path: str = "") -> AsyncIterator[bytes]:
        """The content of a file object, or of the file `path` in a folder object, in pieces of ≤ 1 MiB.

        Raises `CollaError` (`no_such_file`, `object_incomplete` and the codes of `read_chunk`).
        """
        for piece in await self._run(lambda: self._find(object_id, path)):
            data = await self.read_chunk(piece.chunk.id)
            if len(data) != piece.chunk.size:
                raise BadManifest("A chunk is not as long as the manifest says.")
            yield data[piece.start : piece.end]

    async def read_sealed(self, object_id: ObjectId, key: bytes) -> AsyncIterator[bytes]:
        """The content of a sealed single file, in pieces of ≤ 1 MiB. Raises as `read`, and `BadManifest`."""

        def begin() -> tuple[SealedReader, Iterator[bytes]]:
            manifest = self._shelf.manifest(object_id)
            if not isinstance(manifest, FileManifest):
                raise BadManifest("What is sealed must be a file object.", "not_unsealed")
            reader = SealedReader(self._shelf, manifest, ContentCipher(key))
            if reader.index.folder:
                raise CollaError("not_a_file", "The object is a folder.")
            return reader, reader.read(reader.index.entries[0].size)

        _, pieces = await self._run(begin)
        while (piece := await self._run(lambda: next(pieces, b""))) != b"":
            yield piece

    async def materialise(
        self,
        object_id: ObjectId,
        target: Path,
        *,
        read_only: bool = True,
        replace: bool = False,
        bytes_max: int | None = None,
    ) -> Path:
        """Make `target` the folder (or the file) that the object is; nothing happens if it is already.

        All or nothing. Something else at `target` is an error (`target_exists`) unless `replace`. An object
        with more than `bytes_max` bytes of content is refused (`too_large`): repeated chunks make a small
        object a large folder. Raises as `read_chunk`, and `disk_full`.
        """
        await self._run(
            lambda: self._materialiser.materialise(
                object_id, target, read_only=read_only, replace=replace, bytes_max=bytes_max
            )
        )
        return target

    async def give(
        self,
        object_id: ObjectId,
        target: Path,
        *,
        replace: bool = False,
        key: bytes = b"",
        on_bytes: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Write the object, opened with its content `key` if it is sealed, to where a person wants it.

        All or nothing, writable, and not looked after any more. Raises as `materialise`, and `BadManifest`
        (`not_unsealed`) when the key is wrong.
        """

        def write(place: Path) -> None:
            manifest = self._shelf.manifest(object_id)
            if not isinstance(manifest, FileManifest):
                raise BadManifest("What is sealed must be a file object.", "not_unsealed")
            write_unsealed(SealedReader(self._shelf, manifest, ContentCipher(key)), place, on_bytes)

        await self._run(
            lambda: self._materialiser.give(object_id, target, replace=replace, write=write if key else None)
        )

    async def remove_materialised(self, target: Path) -> None:
        """Remove what `materialise` made, although it is read-only."""
        await self._run(lambda: self._materialiser.remove(target))

    # Fetching: the steps of `transfer.fetch_object`

    async def begin_fetch(self, object_id: ObjectId) -> bool:
        """Keep from now on what arrives of the object, across restarts. True if nothing was known of it."""
        return await self._run(lambda: self._shelf.begin(object_id))

    async def missing_chunks(self, object_id: ObjectId) -> list[Chunk]:
        """What to fetch next (see `Shelf.missing`); empty when all is here."""
        return await self._run(lambda: self._shelf.missing(object_id))

    async def add_chunk(self, piece: Piece) -> bool:
        """Make a verified piece durable. False if nobody needs it any more. Raises `QuotaExceeded`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writers, self._shelf.add, piece.id, piece.data)

    async def finish_fetch(self, object_id: ObjectId) -> Stored:
        """Declare the object whole. Raises `ObjectIncomplete`, `BadManifest`."""

        def finish() -> Stored:
            holding = self._shelf.finish(object_id)
            return Stored(object_id, holding.size, holding.files)

        return await self._run(finish)

    # Inside

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._jobs, work)

    def _find(self, object_id: ObjectId, path: str) -> list[Slice]:
        manifest = self._shelf.manifest(object_id)
        if isinstance(manifest, FileManifest):
            if path:
                raise CollaError("no_such_file", "The object is a single file, not a folder.")
            return [Slice(chunk, 0, chunk.size) for chunk in manifest.chunks]
        for folder in self._shelf.folders(object_id):
            for entry, slices in file_slices(folder):
                if entry.path == path:
                    return slices
        raise CollaError("no_such_file", f"The object has no file {path!r}.")


def _stored(built: Built) -> Stored:
    return Stored(built.object, built.size, built.files, built.size)


def _total(files: Sequence[SourceFile]) -> int:
    return sum(file.size for file in files)
