"""The chunks and objects on one disk: the blocking heart of the object store.

Owns a folder with `chunks/ab/abcd…` (one file a chunk, named by its BLAKE3), `held/` and `partial/` (an empty
file per object, named by its id: the name is all the information, a rename all the transaction), `puts/`
(see `unfinished`), `temporary/` and `quarantine/`.

Invariants: a file under `chunks/` is whole, since it was written elsewhere, synchronised and renamed; a name in
`held/` is durable only after all chunks of the object are; every read verifies; a chunk that anybody needs is
never removed. After a crash, `open` finds chunks that no object names (a put that did not finish) and removes
them, while those of objects under `partial/` wait for the fetch to go on. Thread-safe; nothing here is async.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, ObjectId, digest
from colla.model.manifest import (
    BadManifest,
    Built,
    Chunk,
    ChunkId,
    FolderManifest,
    Manifest,
    PartsManifest,
    content_size,
    decode_manifest,
    decode_part,
    direct_chunks,
    file_count,
    join_parts,
)
from colla.node.disk import disk_errors, read_whole, remove_tree, sync_folder, write_durably
from colla.node.objects.holdings import Holding, Holdings
from colla.node.objects.problems import (
    ChunkNotHeld,
    CorruptChunk,
    ObjectIncomplete,
    QuotaExceeded,
    disk_too_full,
)
from colla.node.objects.unfinished import Unfinished

QUARANTINED_MAX = 64
"""Damaged chunks kept for whoever wants to look at them; the oldest go first."""
DISK_LEFT_BYTES = 512 * 1024 * 1024
"""A put that would leave less of the disk free is refused: everything else on this computer needs room as well."""
_HEX = 2 * KEY_BYTES


@dataclass(frozen=True, slots=True)
class Damage:
    """A chunk was found damaged or gone, and what that makes incomplete."""

    chunk: ChunkId
    why: str
    objects: tuple[ObjectId, ...]


class Shelf:
    """See the module. Every method may raise `CollaError` (`disk_full`, `unreadable`, `disk_failed`)."""

    def __init__(self, folder: Path, quota_bytes: int, on_damage: Callable[[Damage], None]) -> None:
        """`on_damage` is called on the thread that found the damage, under no lock."""
        self.folder = folder
        self.quota_bytes = quota_bytes
        self._on_damage = on_damage
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._holdings = Holdings()
        self._reserved_bytes = 0
        self._folders: dict[Path, None] = {}
        self._unsynced: dict[Path, None] = {}
        self._temporary_names = itertools.count()
        self.unfinished = Unfinished(folder / "puts", self)

    # Opening

    def open(self) -> None:
        """Create or read the folder, clean up after a crash, notice what is gone. Call once, first."""
        with disk_errors(self.folder):
            self._make_folders()
            for left in (self.folder / "temporary").iterdir():
                remove_tree(left)
            self._find_chunks()
            self.unfinished.open()
            damaged = self._find_objects()
            self.sweep()
        for damage in damaged:
            self._on_damage(damage)

    def _make_folders(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("chunks", "held", "partial", "temporary", "quarantine"):
            (self.folder / name).mkdir(exist_ok=True)
        sync_folder(self.folder)

    def _find_chunks(self) -> None:
        for folder in sorted((self.folder / "chunks").iterdir()):
            # A process that was killed may have left names that are not on the disk yet.
            self._folders[folder] = self._unsynced[folder] = None
            with os.scandir(folder) as entries:
                for entry in entries:
                    chunk = _parse_name(entry.name)
                    if chunk is not None:
                        self._holdings.add_present(ChunkId(chunk), entry.stat(follow_symlinks=False).st_size)

    def _find_objects(self) -> list[Damage]:
        damaged: list[Damage] = []
        for name in ("partial", "held"):
            for marker in sorted((self.folder / name).iterdir()):
                found = _parse_name(marker.name)
                if found is None:
                    continue
                holding = Holding(ObjectId(found), name == "held", marker.stat().st_mtime)
                damaged += self._find_object(holding)
        return damaged

    def _find_object(self, holding: Holding) -> list[Damage]:
        with self._lock:
            self._holdings.objects[holding.object] = holding
            self._holdings.extend(holding, [Chunk(ChunkId(holding.object), 0)])
        with contextlib.suppress(CorruptChunk, ChunkNotHeld, BadManifest):
            # What is unreadable counts as missing below; the read has put it aside and told.
            self._learn(holding)
        wrong = [
            chunk
            for chunk, size in holding.chunks.items()
            if size and self._holdings.present.get(chunk, size) != size
        ]
        for chunk in wrong:
            self._put_aside(chunk)
        missing = self._holdings.missing(holding)
        if not missing or not holding.complete:
            return []
        self._move_marker(holding, complete=False)
        return [Damage(chunk.id, "gone or cut short", (holding.object,)) for chunk in missing]

    def sweep(self) -> int:
        """Remove chunks that nobody needs, as a crash leaves them; how many."""
        with self._lock, disk_errors(self.folder):
            if not all(holding.learned for holding in self._holdings.objects.values()):
                # An object whose manifest is gone may need any of these, and its manifest can be fetched again.
                return 0
            orphans = [chunk for chunk in self._holdings.present if chunk not in self._holdings.needed]
            for chunk in orphans:
                self._remove_chunk(chunk)
        return len(orphans)

    # Chunks

    def add(self, chunk: ChunkId, data: bytes) -> bool:
        """Make `data`, whose hash is `chunk`, durable. False if nobody needs it any more: then it is not kept.

        A chunk that is there already is compared, and mended if it was damaged. Raises `QuotaExceeded`.
        """
        with self._lock:
            present = chunk in self._holdings.present
            reserved = 0 if present else len(data)
            if not present:
                self._check_room(reserved)
                self._reserved_bytes += reserved
        try:
            with disk_errors(self.folder):
                if present and self._same_on_disk(chunk, data):
                    return True
                temporary = self.folder / "temporary" / str(next(self._temporary_names))
                write_durably(temporary, data)
                return self._place(chunk, temporary, len(data))
        finally:
            with self._lock:
                self._reserved_bytes -= reserved

    def read(self, chunk: ChunkId, *, from_disk: bool = False) -> bytes:
        """The bytes of a chunk, verified. Raises `ChunkNotHeld` or `CorruptChunk`.

        `from_disk`: not as the system remembers them from the last time, but as they lie on the disk now.
        """
        path = self._path(chunk)
        why = "its bytes changed"
        try:
            data = read_whole(path, from_disk=from_disk)
        except FileNotFoundError:
            self._noticed_missing(chunk)
            raise ChunkNotHeld(chunk) from None
        except OSError as error:
            data, why = b"", f"it cannot be read: {error.strerror}"
        if digest(data) == chunk:
            return data
        self._damaged(chunk, why)
        raise CorruptChunk(chunk)

    def need(self, chunk: ChunkId) -> None:
        """Keep the chunk, present or not, until `release`."""
        with self._lock:
            self._holdings.need(chunk)

    def release(self, chunk: ChunkId) -> None:
        """The end of `need`: a chunk that nobody needs is removed."""
        with self._lock, disk_errors(self.folder):
            if self._holdings.release(chunk):
                self._remove_chunk(chunk)

    def has_chunk(self, chunk: ChunkId) -> bool:
        """Whether the chunk is on the disk."""
        return chunk in self._holdings.present

    def chunks(self) -> list[ChunkId]:
        """All chunks on the disk, sorted."""
        with self._lock:
            return sorted(self._holdings.present)

    # Objects

    def check_put(self, total_bytes: int) -> None:
        """Refuse a put that cannot fit, before it begins. Raises `QuotaExceeded`, `CollaError` (`disk_full`)."""
        if total_bytes > max(self.quota_bytes, self._holdings.present_bytes):
            raise QuotaExceeded(total_bytes, self.quota_bytes)
        free_bytes = shutil.disk_usage(self.folder).free
        # What is here of it already (a put that goes on, a file put again) takes no more room.
        if total_bytes > self._holdings.present_bytes + free_bytes - DISK_LEFT_BYTES:
            raise disk_too_full(total_bytes, free_bytes)

    def begin(self, object_id: ObjectId) -> bool:
        """Remember durably that the object is wanted here, so that what arrives of it is kept. True if it is new."""
        with self._lock, disk_errors(self.folder):
            if object_id in self._holdings.objects:
                return False
            marker = self._marker(object_id, complete=False)
            marker.touch(mode=0o600)
            sync_folder(marker.parent)
            self._enter(object_id)
            return True

    def missing(self, object_id: ObjectId) -> list[Chunk]:
        """What has to be fetched next: the manifest (its size unknown: 0), those of its parts, or the chunks.

        Empty when nothing is missing. Raises `BadManifest` if the object breaks the rules, `ObjectIncomplete`
        if it was not begun, `QuotaExceeded` if what is missing does not fit.
        """
        with self._lock:
            holding = self._holding(object_id)
        with contextlib.suppress(ChunkNotHeld, CorruptChunk):
            self._learn(holding)
        with self._lock:
            missing = self._holdings.missing(holding)
            self._check_room(sum(chunk.size for chunk in missing))
        return missing

    def finish(self, object_id: ObjectId) -> Holding:
        """Declare the object whole, durably; what is known of it. Raises `ObjectIncomplete` or `BadManifest`."""
        with self._lock:
            holding = self._holding(object_id)
        if self.missing(object_id):
            raise ObjectIncomplete(object_id)
        for chunk, size in holding.chunks.items():
            if size != self._holdings.present.get(chunk):
                raise BadManifest("A chunk is not as long as the manifest says.")
        if isinstance(self.manifest(object_id), PartsManifest):
            join_parts(list(self.folders(object_id)))
        self._sync()
        with self._lock, disk_errors(self.folder):
            if self._holdings.missing(holding) or object_id not in self._holdings.objects:
                raise ObjectIncomplete(object_id)
            if not holding.complete:
                self._move_marker(holding, complete=True)
        return holding

    def hold(self, built: Built) -> None:
        """A put is done: all chunks were added and are still needed by the caller. Raises as `finish`."""
        with self._lock:
            entered = built.object not in self._holdings.objects
            if entered:
                self._enter(built.object)
        try:
            self.finish(built.object)
        except BaseException:
            if entered:
                self.delete(built.object)
            raise

    def delete(self, object_id: ObjectId) -> bool:
        """Forget the object and remove the chunks that nothing else needs. False if it was not here."""
        with self._lock, disk_errors(self.folder):
            holding = self._holdings.objects.pop(object_id, None)
            if holding is None:
                return False
            # The name goes first: a crash in between leaves chunks that the next start removes.
            marker = self._marker(object_id, holding.complete)
            marker.unlink(missing_ok=True)
            sync_folder(marker.parent)
        for chunk in holding.chunks:
            self.release(chunk)
        return True

    def objects(self) -> list[Holding]:
        """All objects, whole or partial, by id."""
        with self._lock:
            return sorted(self._holdings.objects.values(), key=lambda holding: holding.object)

    def is_complete(self, object_id: ObjectId) -> bool:
        """Whether all of the object is here."""
        holding = self._holdings.objects.get(object_id)
        return holding is not None and holding.complete

    def present_bytes(self) -> int:
        """What all chunks take, in bytes."""
        return self._holdings.present_bytes

    def manifest(self, object_id: ObjectId) -> Manifest:
        """The object's manifest, verified. Raises as `read`, and `BadManifest`."""
        return decode_manifest(self.read(ChunkId(object_id)))

    def folders(self, object_id: ObjectId) -> Iterator[FolderManifest]:
        """The folder manifests of which a folder object consists, in path order, one at a time."""
        manifest = self.manifest(object_id)
        if isinstance(manifest, FolderManifest):
            yield manifest
        elif isinstance(manifest, PartsManifest):
            for part in manifest.parts:
                yield decode_part(self.read(part.manifest.id), part)
        else:
            raise CollaError("not_a_folder", "The object is a single file, not a folder.")

    # Inside

    def _enter(self, object_id: ObjectId) -> None:
        holding = Holding(object_id, False, time.time())
        self._holdings.objects[object_id] = holding
        self._holdings.extend(holding, [Chunk(ChunkId(object_id), 0)])

    def _learn(self, holding: Holding) -> None:
        """Find out what the object consists of, as far as its manifests are here."""
        if holding.learned:
            return
        manifest = self.manifest(holding.object)
        chunks = [Chunk(ChunkId(holding.object), self._holdings.present.get(ChunkId(holding.object), 0))]
        chunks += direct_chunks(manifest)
        learned = True
        if isinstance(manifest, PartsManifest):
            for part in manifest.parts:
                if self.has_chunk(part.manifest.id):
                    chunks += decode_part(self.read(part.manifest.id), part).chunks
                else:
                    learned = False
        with self._lock:
            if self._holdings.objects.get(holding.object) is holding:
                holding.size, holding.files = content_size(manifest), file_count(manifest)
                self._holdings.extend(holding, chunks)
                holding.learned = learned

    def _holding(self, object_id: ObjectId) -> Holding:
        holding = self._holdings.objects.get(object_id)
        if holding is None:
            raise ObjectIncomplete(object_id)
        return holding

    def _check_room(self, more_bytes: int) -> None:
        # A quota lowered below what is here already forbids only more.
        if more_bytes and self._holdings.present_bytes + self._reserved_bytes + more_bytes > self.quota_bytes:
            raise QuotaExceeded(more_bytes, self.quota_bytes)

    def _same_on_disk(self, chunk: ChunkId, data: bytes) -> bool:
        try:
            return self._path(chunk).read_bytes() == data
        except OSError:
            return False

    def _place(self, chunk: ChunkId, temporary: Path, size: int) -> bool:
        with self._lock:
            if chunk not in self._holdings.needed:
                temporary.unlink()
                return False
            path = self._path(chunk)
            try:
                if path.parent not in self._folders:
                    path.parent.mkdir(exist_ok=True)
                    self._folders[path.parent] = self._unsynced[path.parent.parent] = None
                temporary.replace(path)
            except BaseException:
                temporary.unlink()
                raise
            self._holdings.add_present(chunk, size)
            self._unsynced[path.parent] = None
            return True

    def _sync(self) -> None:
        """Wait until the names of all chunks are on the disk, whoever put them there."""
        with self._sync_lock, disk_errors(self.folder):
            for folder in list(self._unsynced):
                with self._lock:
                    # Before it is synchronised, so that a name that comes meanwhile enters it again.
                    del self._unsynced[folder]
                try:
                    sync_folder(folder)
                except BaseException:
                    with self._lock:
                        self._unsynced[folder] = None
                    raise

    def _noticed_missing(self, chunk: ChunkId) -> None:
        with self._lock:
            vanished = chunk in self._holdings.present and not self._path(chunk).exists()
        if vanished:
            self._damaged(chunk, "its file is gone")

    def _damaged(self, chunk: ChunkId, why: str) -> None:
        with self._lock, disk_errors(self.folder):
            self._put_aside(chunk)
            affected = self._holdings.naming(chunk)
            for holding in affected:
                if holding.complete:
                    self._move_marker(holding, complete=False)
        self._on_damage(Damage(chunk, why, tuple(holding.object for holding in affected)))

    def _put_aside(self, chunk: ChunkId) -> None:
        quarantine = self.folder / "quarantine"
        with contextlib.suppress(FileNotFoundError):
            self._path(chunk).replace(quarantine / chunk.hex())
        self._holdings.remove_present(chunk)
        kept = sorted(quarantine.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-QUARANTINED_MAX]:
            path.unlink(missing_ok=True)

    def _remove_chunk(self, chunk: ChunkId) -> None:
        self._path(chunk).unlink(missing_ok=True)
        self._holdings.remove_present(chunk)

    def _move_marker(self, holding: Holding, *, complete: bool) -> None:
        source = self._marker(holding.object, not complete)
        target = self._marker(holding.object, complete)
        if source.exists():
            source.replace(target)
        else:
            target.touch(mode=0o600)
        sync_folder(target.parent)
        sync_folder(source.parent)
        holding.complete = complete

    def _marker(self, object_id: ObjectId, complete: bool) -> Path:
        return self.folder / ("held" if complete else "partial") / object_id.hex()

    def _path(self, chunk: ChunkId) -> Path:
        name = chunk.hex()
        return self.folder / "chunks" / name[:2] / name


def _parse_name(name: str) -> bytes | None:
    if len(name) != _HEX:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None
