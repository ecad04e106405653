"""How the Python packages of a service travel: the names in a wheelhouse, agreed between who deploys and who runs.

A folder of a service may hold `wheelhouse/`: wheels, and beside them one lock per target, `python3.12-linux-x86_64.txt`,
that names each package with its version and the SHA-256 of the one wheel that fits this target. Pure: names and lines only.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

FOLDER: Final = "wheelhouse"
LOCK_BYTES_MAX: Final = 1 << 20
"""Longest lock; one of 2,000 packages has a quarter of it."""
WHEELS_MAX: Final = 1000
"""Packages of one target."""
_LOCK: Final = re.compile(r"python(\d{1,2}\.\d{1,3})-([a-z0-9]{1,20})-([a-z0-9_]{1,30})\.txt")
_LINE: Final = re.compile(
    r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+) --hash=sha256:([0-9a-f]{64})(?: # ([^\s/\\]+\.whl))"
)
_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Operating systems disagree on what processors are called."""


class Target(msgspec.Struct, frozen=True, order=True):
    """What a wheel has to fit: Python's version as in 3.12, the operating system and the processor."""

    python: str
    system: str
    machine: str

    @classmethod
    def of(cls, version: tuple[int, int], system: str, machine: str) -> Target:
        """From `sys.version_info[:2]`, `sys.platform` and `platform.machine()`."""
        machine = machine.lower()
        return cls(f"{version[0]}.{version[1]}", system, _MACHINES.get(machine, machine))

    @classmethod
    def of_lock(cls, name: str) -> Target | None:
        """The target of a lock's file name; None for other files."""
        found = _LOCK.fullmatch(name)
        return cls(*found.groups()) if found is not None else None

    @property
    def platform(self) -> str:
        """As people write it: linux-x86_64."""
        return f"{self.system}-{self.machine}"

    @property
    def lock(self) -> str:
        """The name of its lock."""
        return f"python{self.python}-{self.platform}.txt"

    def __str__(self) -> str:
        return f"Python {self.python} on {self.platform}"


class LockedWheel(msgspec.Struct, frozen=True, order=True):
    """One line of a lock."""

    name: str
    version: str
    sha256: str
    file: str

    @property
    def fits_everywhere(self) -> bool:
        """Whether no processor, operating system or version of Python 3 is named in it."""
        return self.file.endswith(("-py3-none-any.whl", "-py2.py3-none-any.whl"))


def write_lock(wheels: list[LockedWheel]) -> str:
    """The text of a lock, in the form that pip and uv read."""
    lines = [f"{one.name}=={one.version} --hash=sha256:{one.sha256} # {one.file}\n" for one in sorted(wheels)]
    return "".join(lines)


def read_lock(text: str) -> list[LockedWheel]:
    """The wheels of a lock; nothing else may stand in it, no option and no address. Raises `ValueError`."""
    wheels = []
    for line in text.splitlines():
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"the line {line[:100]!r} is none of a lock")
        wheels.append(LockedWheel(*found.groups()))
    if len(wheels) > WHEELS_MAX:
        raise ValueError(f"it names {len(wheels)} packages; {WHEELS_MAX} are possible")
    return wheels
