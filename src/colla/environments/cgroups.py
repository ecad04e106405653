"""Limits of memory, processors and processes through control groups, version 1 or 2 (Linux kernel docs).

`ControlGroups.find` tries on this computer, with a real process, what works, and claims no more. A group is a
child of the one that this process is in (or, on version 2, of that one's parent, since a group with processes
cannot hand out its controllers), so that limits above it go on holding.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from colla.environments.protocol import LimitName, Limits

CPU_PERIOD_US: Final = 100_000
MEMORY_BYTES_MIN: Final = 32 << 20
"""Less does not even start an interpreter and its bridge."""
KILL_PASSES_MAX: Final = 50
REMOVE_PASSES_MAX: Final = 50
PROBE_TIMEOUT_S: Final = 5

CONTROLLERS: Final[dict[LimitName, str]] = {"memory_bytes": "memory", "cpus": "cpu", "pids": "pids"}


class ControlGroups:
    """Where groups can be made here: a parent folder for each limit that really holds."""

    def __init__(self, parents: dict[LimitName, Path], version: int) -> None:
        self.parents = parents
        self.version = version

    @property
    def limits(self) -> tuple[LimitName, ...]:
        return tuple(sorted(self.parents))

    @classmethod
    def find(
        cls, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")
    ) -> ControlGroups:
        """What works on this computer; nothing where control groups are missing or belong to others."""
        try:
            own = dict(line.split(":", 2)[1:] for line in proc.read_text().splitlines())
        except (OSError, ValueError):
            return cls({}, 0)
        if (root / "cgroup.controllers").exists():
            return cls._find_version_2(root, own.get("", "/"))
        parents: dict[LimitName, Path] = {}
        for limit, controller in CONTROLLERS.items():
            for names, path in own.items():
                if controller in names.split(","):
                    folder = root / controller / path.strip("/")
                    if _works(folder, limit, 1):
                        parents[limit] = folder
        return cls(parents, 1)

    @classmethod
    def _find_version_2(cls, root: Path, own: str) -> ControlGroups:
        here = root / own.strip("/")
        for folder in (here, here.parent):
            if not folder.is_relative_to(root):
                break
            for controller in CONTROLLERS.values():
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            working: dict[LimitName, Path] = {
                limit: folder for limit in CONTROLLERS if _works(folder, limit, 2)
            }
            if working:
                return cls(working, 2)
        return cls({}, 2)

    def folders(self, name: str) -> list[Path]:
        """The folders of the group called `name`, without repetition."""
        return sorted({parent / name for parent in self.parents.values()})

    def create(self, name: str, limits: Limits) -> Group:
        """A group with those of the limits that hold here. Raises `OSError`."""
        group = Group(self.folders(name), self.version)
        try:
            for folder in group.folders:
                folder.mkdir(exist_ok=True)
            for limit, parent in self.parents.items():
                value = getattr(limits, limit)
                if value is not None:
                    _write_limit(parent / name, limit, value, self.version)
        except OSError:
            group.remove()
            raise
        return group

    def existing(self, name: str) -> Group:
        """The group of a replica that was started by an earlier program."""
        return Group([folder for folder in self.folders(name) if folder.exists()], self.version)


class Group:
    """One replica's control group: the same name under every controller."""

    def __init__(self, folders: list[Path], version: int) -> None:
        self.folders = folders
        self.version = version

    @property
    def process_files(self) -> list[Path]:
        """Writing 0 into each moves the writer into the group."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def pids(self) -> list[int]:
        """The processes in it now, as this process counts them."""
        found: list[int] = []
        for file in self.process_files:
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in file.read_text().split()]
        return sorted(set(found))

    def kill(self) -> None:
        """Kill every process in it; repeated, since a process may fork meanwhile."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        for _ in range(KILL_PASSES_MAX):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, 9)
            time.sleep(0.002)

    def remove(self) -> None:
        """Delete the group; a process that was just killed may hold it for a moment."""
        for folder in self.folders:
            for _ in range(REMOVE_PASSES_MAX):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.002)
                else:
                    break

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed one of its processes for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for key, value in _pairs(folder / name):
                    if key == "oom_kill" and value != "0":
                        return True
        return False

    def usage(self) -> tuple[float | None, int | None]:
        """(CPU seconds, bytes of memory); None where the kernel does not tell."""
        cpu: float | None = None
        memory: int | None = None
        for folder in self.folders:
            for key, value in _pairs(folder / "cpu.stat"):
                if key == "usage_usec":
                    cpu = int(value) / 1e6
            for name in ("memory.current", "memory.usage_in_bytes"):
                with contextlib.suppress(OSError, ValueError):
                    memory = int((folder / name).read_text())
        return cpu, memory


def _pairs(file: Path) -> Iterable[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            yield key, value


def _write_limit(folder: Path, limit: LimitName, value: float, version: int) -> None:
    def write(name: str, text: object) -> None:
        (folder / name).write_text(str(text))

    match limit:
        case "memory_bytes":
            amount = max(int(value), MEMORY_BYTES_MIN)
            if version == 2:
                write("memory.max", amount)
                # Without this the program swaps instead of meeting its limit.
                with contextlib.suppress(OSError):
                    write("memory.swap.max", 0)
            else:
                write("memory.limit_in_bytes", amount)
                with contextlib.suppress(OSError):
                    write("memory.memsw.limit_in_bytes", amount)
        case "cpus":
            quota = max(int(value * CPU_PERIOD_US), 1000)
            if version == 2:
                write("cpu.max", f"{quota} {CPU_PERIOD_US}")
            else:
                write("cpu.cfs_period_us", CPU_PERIOD_US)
                write("cpu.cfs_quota_us", quota)
        case "pids":
            write("pids.max", max(int(value), 1))
        case "open_files":
            raise ValueError("open files are no matter of control groups")


def _works(parent: Path, limit: LimitName, version: int) -> bool:
    """Whether a group below `parent` takes this limit and a process."""
    values: dict[LimitName, float] = {"memory_bytes": 1 << 30, "cpus": 1.0, "pids": 64}
    folder = parent / f"colla-probe-{os.getpid()}-{limit}"
    try:
        folder.mkdir()
    except OSError:
        return False
    try:
        _write_limit(folder, limit, values[limit], version)
        entered = subprocess.run(
            ["/bin/sh", "-c", 'echo 0 > "$0"', str(folder / "cgroup.procs")],
            stderr=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
        return entered.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        Group([folder], version).remove()
