"""Objects turned back into files: whole or not at all, and never writing into the store's own chunks.

The files are written beside the target under a name of their own and renamed at the end, so that the target is
always complete. They are copies, since a service could write through a hard link into the store, and read-only
unless asked otherwise. They are not synchronised to the disk, which would cost seconds: instead a mark in the
store's folder says in which boot of the computer they were written. In the same boot a target is used again
when its files still have their lengths and none was touched since; after a reboot its bytes are compared with
the manifest. Marks of unfinished targets tell the next start what to clean up. Blocking.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, ObjectId, digest
from colla.model.manifest import (
    CHUNK_BYTES_MAX,
    BadManifest,
    Chunk,
    ChunkId,
    FileManifest,
    Slice,
    content_size,
    file_count,
    file_slices,
)
from colla.node.disk import disk_errors, remove_tree, write_all
from colla.node.objects.shelf import Shelf

MARK_BYTES_MAX = 64 * 1024
"""A mark holds two paths; anything longer is not ours."""
LOCKS = 64
"""Targets share this many locks: two that meet wait for each other without need, which is rare."""
_READ_ONLY = 0o444
_WRITABLE = 0o644


class _Mark(msgspec.Struct, frozen=True):
    """What was written where, in which boot; `finished` once the target is in place."""

    target: str
    unfinished: str
    object: bytes
    boot: str
    finished: bool


class Materialiser:
    """Writes objects of one `Shelf` into folders; remembers them in `folder/materialised`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._marks = shelf.folder / "materialised"
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._boot = _boot()

    def open(self) -> None:
        """Remove what a crash left unfinished, and the marks of targets that are gone. Call once, first."""
        with disk_errors(self._shelf.folder):
            self._marks.mkdir(exist_ok=True)
            for path in sorted(self._marks.iterdir()):
                mark = _read_mark(path)
                if mark is not None and not mark.finished:
                    remove_tree(Path(mark.unfinished))
                if mark is None or not mark.finished or not Path(mark.target).exists():
                    path.unlink()

    def materialise(
        self, object_id: ObjectId, target: Path, *, read_only: bool, replace: bool, bytes_max: int | None
    ) -> None:
        """Make `target` the folder (or the file) that the object is. See `ObjectStore.materialise`."""
        target = Path(os.path.abspath(target))  # noqa: PTH100 (keeps a link in the path a link)
        with self._lock_of(target), disk_errors(target):
            manifest = self._shelf.manifest(object_id)
            if bytes_max is not None and content_size(manifest) > bytes_max:
                size = content_size(manifest)
                raise CollaError(
                    "too_large", f"The object has {size:,} bytes, more than the {bytes_max:,} allowed."
                )
            if _exists(target):
                if self._is_intact(object_id, target):
                    return
                if not replace:
                    raise _taken(target)
            self._write(object_id, target, lambda place: self._write_files(object_id, place, read_only))

    def give(
        self, object_id: ObjectId, target: Path, *, replace: bool, write: Callable[[Path], None] | None = None
    ) -> None:
        """Write the object to where a person wants it, to keep and change: it is not looked after any more.

        `write` makes the files at the place that it is given, where the object is sealed. Raises as `materialise`.
        """
        target = Path(os.path.abspath(target))  # noqa: PTH100
        with self._lock_of(target), disk_errors(target):
            if _exists(target):
                if write is None and self._is_intact(object_id, target):
                    return
                if not replace:
                    raise _taken(target)
            self._write(
                object_id, target, write or (lambda place: self._write_files(object_id, place, False))
            )
            self._mark_path(target).unlink(missing_ok=True)

    def remove(self, target: Path) -> None:
        """Remove a target, read-only or not; nothing happens if it is not there."""
        target = Path(os.path.abspath(target))  # noqa: PTH100
        with self._lock_of(target), disk_errors(target):
            remove_tree(target)
            self._mark_path(target).unlink(missing_ok=True)

    def _lock_of(self, target: Path) -> threading.Lock:
        return self._locks[hash(target) % LOCKS]

    def _write(self, object_id: ObjectId, target: Path, write: Callable[[Path], None]) -> None:
        unfinished = target.with_name(f".{target.name[:100]}.colla-unfinished")
        mark = _Mark(str(target), str(unfinished), object_id, self._boot, False)
        mark_path = self._mark_path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(unfinished)
        mark_path.write_bytes(msgspec.msgpack.encode(mark))
        try:
            write(unfinished)
            if _exists(target):
                remove_tree(target)
            unfinished.rename(target)
        except BaseException:
            remove_tree(unfinished)
            mark_path.unlink()
            raise
        # Written last: no file of an untouched target has changed after its mark.
        mark_path.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(mark, finished=True)))

    def _write_files(self, object_id: ObjectId, place: Path, read_only: bool) -> None:
        mode = _READ_ONLY if read_only else _WRITABLE
        chunks = _LastChunk(self._shelf)
        manifest = self._shelf.manifest(object_id)
        if isinstance(manifest, FileManifest):
            slices = [Slice(chunk, 0, chunk.size) for chunk in manifest.chunks]
            _write_file(place, slices, mode, chunks)
            return
        place.mkdir(mode=0o755)
        folders: dict[Path, None] = {place: None}
        for folder in self._shelf.folders(object_id):
            for entry, slices in file_slices(folder):
                path = place / entry.path
                if path.parent not in folders:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    folders.update(dict.fromkeys(_between(place, path.parent)))
                _write_file(path, slices, mode | (0o111 if entry.executable else 0), chunks)
        if read_only:
            for made in folders:
                made.chmod(0o555)

    def _is_intact(self, object_id: ObjectId, target: Path) -> bool:
        """Whether the target is exactly the object: no file missing, changed or added."""
        unchanged_since_ns = self._written_this_boot(object_id, target)
        manifest = self._shelf.manifest(object_id)
        if isinstance(manifest, FileManifest):
            size = content_size(manifest)
            return _are_intact([(target, size, None)], manifest.chunks, unchanged_since_ns)
        if target.is_symlink() or not target.is_dir():
            return False
        for folder in self._shelf.folders(object_id):
            files = [(target / entry.path, entry.size, entry.executable) for entry in folder.entries]
            if not _are_intact(files, folder.chunks, unchanged_since_ns):
                return False
        return sum(len(names) for _, _, names in os.walk(target)) == file_count(manifest)

    def _written_this_boot(self, object_id: ObjectId, target: Path) -> int | None:
        path = self._mark_path(target)
        mark = _read_mark(path)
        if mark is not None and mark.finished and (mark.object, mark.boot) == (object_id, self._boot):
            return path.stat().st_mtime_ns
        return None

    def _mark_path(self, target: Path) -> Path:
        return self._marks / digest(os.fsencode(target)).hex()


def _exists(target: Path) -> bool:
    return target.exists() or target.is_symlink()


def _taken(target: Path) -> CollaError:
    hint = "Choose another place, or remove it."
    return CollaError("target_exists", f"{target} exists and is something else.", hint)


class _LastChunk:
    """Reads chunks through the store, keeping the last: consecutive small files share one."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._id = ChunkId(bytes(KEY_BYTES))
        self._data = b""

    def read(self, piece: Slice) -> memoryview:
        """The bytes of the slice. Raises `CollaError` as `Shelf.read`, `BadManifest`."""
        if piece.chunk.id != self._id:
            self._data, self._id = self._shelf.read(piece.chunk.id), piece.chunk.id
        if len(self._data) != piece.chunk.size:
            raise BadManifest("A chunk is not as long as the manifest says.")
        return memoryview(self._data)[piece.start : piece.end]


def _write_file(path: Path, slices: list[Slice], mode: int, chunks: _LastChunk) -> None:
    # O_EXCL: on a disk that ignores case, a second name for the same file must fail, not overwrite.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in slices:
            write_all(descriptor, chunks.read(piece))
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _are_intact(
    files: Sequence[tuple[Path, int, bool | None]], chunks: tuple[Chunk, ...], unchanged_since_ns: int | None
) -> bool:
    """Compare files (path, length, executable or either) with what the manifest says of them."""
    for path, size, executable in files:
        try:
            status = path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        if executable is not None and bool(status.st_mode & stat.S_IXUSR) != executable:
            return False
        if unchanged_since_ns is not None and status.st_ctime_ns > unchanged_since_ns:
            unchanged_since_ns = None
    return unchanged_since_ns is not None or _same_bytes([path for path, _, _ in files], chunks)


def _same_bytes(paths: list[Path], chunks: tuple[Chunk, ...]) -> bool:
    buffer = bytearray()
    expected = iter(chunks)
    chunk = next(expected, None)
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES_MAX):
                buffer += data
                while chunk is not None and len(buffer) >= chunk.size:
                    if digest(bytes(buffer[: chunk.size])) != chunk.id:
                        return False
                    del buffer[: chunk.size]
                    chunk = next(expected, None)
    return chunk is None and not buffer


def _between(root: Path, folder: Path) -> list[Path]:
    """`folder` and its parents up to `root`, which is not among them."""
    return [folder, *(parent for parent in folder.parents if root in parent.parents)]


def _read_mark(path: Path) -> _Mark | None:
    try:
        if path.stat().st_size > MARK_BYTES_MAX:
            return None
        return msgspec.msgpack.decode(path.read_bytes(), type=_Mark)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _boot() -> str:
    """What names this run of the computer's kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))
