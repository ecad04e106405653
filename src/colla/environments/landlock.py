"""Landlock: what holds a program where there is no bubblewrap. The fence itself is `bridge.fence`; here is what it lets through.

A program sees this computer's own paths: /usr, the interpreter that runs colla, a few harmless files, its own files and
packages to read, its scratch folder to write. It has no Unix sockets but the one that it inherits, since whoever reaches those
of the owner's session owns the session; TCP on its own port to listen, and to connect only where its ways lead.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from colla.environments import sandbox, seccomp
from colla.environments.bridge import fence
from colla.environments.folders import private_folder

READ: Final = (
    "/usr", *sandbox.SYSTEM_FOLDERS, *sandbox.ETC_FILES, "/etc/hosts", "/etc/nsswitch.conf", "/proc/cpuinfo", "/proc/meminfo",
    "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version", "/proc/filesystems", "/sys/devices/system/cpu",
)  # fmt: skip
"""Nothing else of /proc: what others run and how they were started is no business of a service's program."""
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PROBE_TIMEOUT_S: Final = 10
PROBE: Final = """
import json, os, sys
sys.path.append(sys.argv[1])
from bridge.fence import fence_in
fence_in(json.loads(sys.argv[2]), 1)
try:
    os.listdir(sys.argv[3])
except PermissionError:
    os.listdir(sys.argv[4])
else:
    sys.exit("it lets through what it must not")
"""


class Landlock:
    """The fence of this computer. `find` makes sure that it really works before anybody relies on it."""

    def __init__(self, calls: bytes) -> None:
        self._calls = calls

    @classmethod
    def find(cls, folder: Path) -> Landlock | str:
        """The fence, or why there is none. Tries it with two folders under `folder`."""
        machine = os.uname().machine
        calls = seccomp.filter_program(machine, alone=True)
        if calls is None:
            return f"system calls of {machine} are not known"
        abi = fence.landlock_abi()
        if abi < fence.ABI_LEAST:
            had = f"version {abi}" if abi else "none"
            return f"the kernel has {had} of Landlock, and version {fence.ABI_LEAST} is needed (Linux 6.12)"
        found = cls(calls)
        closed, opened = private_folder(folder / "closed"), private_folder(folder / "probe")
        tried = json.dumps(found.fence(opened, opened, None, False) | {"ways": []})
        paths = [str(sandbox.bridge_folder().parent), tried, str(closed), str(opened)]
        try:
            test = subprocess.run(
                [str(sandbox.interpreter()), "-I", "-S", "-B", "-c", PROBE, *paths],
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Landlock does not work here: {error}"
        return found if test.returncode == 0 else f"Landlock does not work here: {test.stderr.strip()[-300:]}"

    def fence(self, artifact: Path, scratch: Path, packages: Path | None, connect: bool) -> dict[str, Any]:
        """What the bridge has to be told; `connect`: the program may connect to its own port."""
        read = [*READ, *map(str, sandbox.interpreter_folders()), str(artifact)]
        if packages is not None:
            read.append(str(packages))
        return {
            "read": read,
            "write": [str(scratch), *DEVICES],
            "connect": connect,
            "filter": self._calls.hex(),
        }
