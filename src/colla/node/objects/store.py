"""The object store of a node: what `Shelf` and `Materialiser` do, asynchronous, and putting files into it.

All work on the disk happens on threads of the store's own, so that neither the loop nor other users of the
default threads wait for a disk. A put that is cancelled takes back what it did before it ends. See `Shelf` for
what is on the disk and what a crash can do to it: nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
from colla.node.objects.materialise import Materialiser
from colla.node.objects.shelf import Damage, Shelf
from colla.node.objects.sources import Exclude, Store, cut_bytes, cut_file, cut_folder, scan_file, scan_folder

JOBS_AT_ONCE = 4
"""Threads for puts, materialising and reads: more would only make the disk seek."""
WRITES_AT_ONCE = 4
"""Threads that write chunks: a file system commits those that wait at the same time together."""
WRITES_WAITING_MAX = 8
"""Chunks in memory per put (8 MiB): reading the source waits for the disk."""

T = TypeVar("T")


class Progress(msgspec.Struct, frozen=True):
    """How far a put or a fetch is, in bytes of content."""

    done_bytes: int
    total_bytes: int


class Stored(msgspec.Struct, frozen=True):
    """The outcome of a put: the object, durable on this disk; its content in bytes and its number of files."""

    object: ObjectId
    size: int
    files: int


class HeldObject(msgspec.Struct, frozen=True):
    """One object as `list_objects` shows it; not `complete` while its fetch goes on or a chunk is damaged."""

    object: ObjectId
    size: int
    files: int
    complete: bool
    stored_at_s: float


OnProgress = Callable[[Progress], None]


class ObjectStore:
    """Made by `ObjectStore.open`. Methods raise `CollaError`; see `problems` and `sources` for the codes."""

    def __init__(self, shelf: Shelf, materialiser: Materialiser, jobs: ThreadPoolExecutor) -> None:
        """Private: use `open`."""
        self._shelf = shelf
        self._materialiser = materialiser
        self._jobs = jobs
        self._writers = ThreadPoolExecutor(WRITES_AT_ONCE, "colla-chunks")

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
        """Wait for what is under way, then end the threads. The store cannot be used afterwards."""
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
        put = _Put(self._shelf, self._writers, on_progress)

        def work() -> Stored:
            files = scan_folder(path, exclude)
            return put.run(sum(file.size for file in files), lambda store: cut_folder(files, store))

        return await self._run_put(put, work)

    async def put_file(self, path: Path, on_progress: OnProgress | None = None) -> Stored:
        """Store one file, without its name, as an object. Raises as `sources.scan_file`."""
        put = _Put(self._shelf, self._writers, on_progress)

        def work() -> Stored:
            file = scan_file(path)
            return put.run(file.size, lambda store: cut_file(file, store))

        return await self._run_put(put, work)

    async def put_bytes(self, data: bytes) -> Stored:
        """Store bytes as a file object."""
        put = _Put(self._shelf, self._writers, None)
        return await self._run_put(put, lambda: put.run(len(data), lambda store: cut_bytes(data, store)))

    async def _run_put(self, put: _Put, work: Callable[[], Stored]) -> Stored:
        running = asyncio.get_running_loop().run_in_executor(self._jobs, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            put.cancelled.set()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # A put that was taken back ends in an error that nobody waits for.
            raise

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

    # Reading

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


class _Put:
    """One put: chunks go to the writers' threads, few at a time, and are needed until the object is held."""

    def __init__(self, shelf: Shelf, writers: ThreadPoolExecutor, on_progress: OnProgress | None) -> None:
        self._shelf = shelf
        self._writers = writers
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self.cancelled = threading.Event()

    def run(self, total_bytes: int, cut: Callable[[Store], Built]) -> Stored:
        """Store what `cut` yields. On any failure nothing of it stays."""
        needed: list[ChunkId] = []
        writing: deque[Future[bool]] = deque()
        done_bytes = 0

        def store(piece: Piece) -> None:
            nonlocal done_bytes
            if self.cancelled.is_set():
                raise CollaError("cancelled", "The put was cancelled.")
            self._shelf.need(piece.id)
            needed.append(piece.id)
            writing.append(self._writers.submit(self._shelf.add, piece.id, piece.data))
            if len(writing) > WRITES_WAITING_MAX:
                writing.popleft().result()
            done_bytes = min(done_bytes + len(piece.data), total_bytes)
            self._report(Progress(done_bytes, total_bytes))

        try:
            built = cut(store)
            while writing:
                writing.popleft().result()
            self._shelf.hold(built)
        finally:
            for future in writing:
                # A failure came before; those still on their way must end before their chunks are released.
                future.exception()
            for chunk in needed:
                self._shelf.release(chunk)
        return Stored(built.object, built.size, built.files)

    def _report(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._loop.call_soon_threadsafe(self._on_progress, progress)
