"""Which process is meant, does it still live, and when does it end: also for processes that are not our children.

A process id is used again sooner or later; together with the boot and the time at which it started it is not.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import psutil

POLL_S: Final = 0.1
"""Where the kernel has no pidfd (macOS), the end of a process is seen this much later."""
KILL_PASSES_MAX: Final = 50


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """One process for ever: id, boot, and start time as its kernel counts."""

    pid: int
    boot: str
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Who has this id now; None when nobody does, or only a zombie."""
        started = _start_time(pid)
        return None if started is None else cls(pid, _boot(), started)

    def lives(self) -> bool:
        """Whether that very process still runs."""
        return Identity.of(self.pid) == self


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _start_time(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


async def until_ended(process: Identity) -> None:
    """Return once that process has ended. Cheap where the kernel has pidfds; otherwise it is polled."""
    try:
        fd = os.pidfd_open(process.pid)
    except AttributeError:
        while process.lives():  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(POLL_S)
        return
    except ProcessLookupError:
        return
    try:
        if not process.lives():
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)


def kill(process: Identity) -> None:
    """Kill that very process, if it still lives."""
    if process.lives():
        try:
            os.kill(process.pid, 9)
        except ProcessLookupError:
            return


def tree(process: Identity) -> list[psutil.Process]:
    """The process and everything below it."""
    if not process.lives():
        return []
    try:
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def kill_tree(process: Identity) -> None:
    """Kill everything below the process, then itself: while it lives, orphans come to it and can be found."""
    for _ in range(KILL_PASSES_MAX):
        below = tree(process)[1:]
        if not below:
            break
        for one in below:
            try:
                one.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(below, timeout=0.02)
    kill(process)


def find_by_argument(argument: str) -> list[int]:
    """The processes that carry `argument` in their command line."""
    found: list[int] = []
    for process in psutil.process_iter(["cmdline"]):
        if argument in (process.info["cmdline"] or []):
            found.append(process.pid)
    return found
