"""How much the program has written: its scratch folder is measured when the disk fills, and too much ends it.

Files that were deleted and are still open count. It is no quota: until the next measure more may be written, each file up to
the bound itself (RLIMIT_FSIZE). The disk's free room is asked every second, which costs nothing; only when an eighth of the
bound has gone since the last measure, by whomever, or a quarter of a minute has passed, the folder is measured, and that
rests twenty times as long as it took.
"""

# Importing pathlib would add a fifth to the time until the program starts.
# ruff: noqa: PTH116, PTH208
from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Any

from .ending import descendants

PAUSE_S = 1.0
UNMEASURED_S_MAX = 15.0
"""What others make free meanwhile hides what the program takes, until then."""
SHARE = 8
REST_FACTOR = 20.0
FILES_MAX = 100_000
DEPTH_MAX = 100
BLOCK_BYTES = 512


class Room:
    """What is left of it; asked by the loop."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.folders: list[str] = config.get("scratch", [])
        self.bytes_max: int = config.get("scratch_bytes_max", 0)
        self.due = time.monotonic() + PAUSE_S
        self.measured = time.monotonic()
        self.free: list[tuple[int, int]] = [free(folder) for folder in self.folders] if self.bytes_max else []
        """Bytes and files of each folder's disk at the last measure."""

    def step(self) -> tuple[float | None, str]:
        """When to ask again (seconds from now; None: never), and what is too much, if something is."""
        if not self.bytes_max:
            return None, ""
        now = time.monotonic()
        if now < self.due:
            return self.due - now, ""
        found = self.measure() if self.filling() or now - self.measured > UNMEASURED_S_MAX else ""
        took_s = time.monotonic() - now
        self.due = now + max(PAUSE_S, REST_FACTOR * took_s)
        return self.due - now, found

    def filling(self) -> bool:
        """Whether the disk has less room than at the last measure, by so much that it matters."""
        there = [free(folder) for folder in self.folders]
        for now, before in zip(there, self.free, strict=True):
            if before[0] - now[0] > self.bytes_max // SHARE or before[1] - now[1] > FILES_MAX // SHARE:
                self.free = there
                return True
        # Where others made room, that is the measure from now on.
        pairs = zip(there, self.free, strict=True)
        self.free = [(max(now[0], before[0]), max(now[1], before[1])) for now, before in pairs]
        return False

    def measure(self) -> str:
        """What is too much, in words; empty when nothing is."""
        self.measured = time.monotonic()
        files, written = 0, 0
        pending = [(folder, 0) for folder in self.folders]
        while pending:
            folder, depth = pending.pop()
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    files += 1
                    if files > FILES_MAX:
                        return f"more than {FILES_MAX} files"
                    with contextlib.suppress(OSError):
                        written += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
                        if entry.is_dir(follow_symlinks=False):
                            if depth == DEPTH_MAX:
                                return f"folders deeper than {DEPTH_MAX}"
                            pending.append((entry.path, depth + 1))
            if written > self.bytes_max:
                break
        else:
            written += deleted_bytes(self.folders)
        return f"more than {self.bytes_max} bytes" if written > self.bytes_max else ""


def free(folder: str) -> tuple[int, int]:
    """Bytes and files for which its disk has room; nothing where that cannot be told."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0, 0
    return disk.f_bfree * disk.f_frsize, disk.f_ffree


def deleted_bytes(folders: list[str]) -> int:
    """What the files take that this process's descendants hold open, on the folders' disk, and that have no name any more."""
    disks = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            disks.add(os.stat(folder).st_dev)
    found: dict[int, int] = {}
    for pid in descendants():
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    file = os.stat(f"/proc/{pid}/fd/{fd}")
                    if stat.S_ISREG(file.st_mode) and not file.st_nlink and file.st_dev in disks:
                        found[file.st_ino] = file.st_blocks * BLOCK_BYTES
    return sum(found.values())
