"""The few calls that a node's stores make of a disk: durable writes, and what the disk refuses as `CollaError`.

A file is written under another name, synchronised and renamed, so that a crash leaves the old or the new, never
a half. Blocking.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from colla.model.errors import CollaError

PROBE_BYTES = 256 * 1024
"""What a database needs at least to go on for a while."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNREADABLE = (errno.EACCES, errno.EPERM)


def write_durably(temporary: Path, data: bytes) -> None:
    """Write `data` to the new file `temporary` and wait until it is on the disk. Leaves no file on failure."""
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte; the system may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_whole(path: Path, *, from_disk: bool = False) -> bytes:
    """The bytes of a file. `from_disk`: the system forgets first what it remembers of it, where it can be told so."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk. Windows has no such call and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a file or a folder with all in it, read-only or not. Links are removed, never followed."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            # Nothing can be removed from a read-only folder.
            os.chmod(folder, stat.S_IRWXU)  # noqa: PTH101
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_room(folder: Path) -> None:
    """Whether a disk takes anything: raises `CollaError` (`disk_full`, `unreadable`, `disk_failed`) when it does not."""
    probe = folder / ".room"
    with disk_errors(folder):
        probe.unlink(missing_ok=True)
        write_durably(probe, bytes(PROBE_BYTES))
        probe.unlink()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the system says about the disk into `CollaError`: `disk_full`, `unreadable`, `disk_failed`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Free some space, or contribute less of this disk."
            raise CollaError("disk_full", f"The disk of {path} is full.", hint) from error
        if error.errno in _UNREADABLE:
            raise CollaError(
                "unreadable", f"{error.filename or path} cannot be used: {error.strerror}."
            ) from error
        raise CollaError("disk_failed", f"{error.filename or path}: {error.strerror or error}.") from error
