"""The Python packages that a service needs, fetched as wheels when it is deployed, so that executors fetch nothing.

uv resolves what the folder asks for, once per target, to wheels alone (nothing is built, no code of a package runs here);
each wheel is fetched once and checked against its SHA-256. Where the folder's own file gives hashes, only those will do.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from colla.model.errors import CollaError
from colla.model.wheelhouse import FOLDER, WHEELS_MAX, LockedWheel, Target, write_lock
from colla.uv_program import UV_HINT, find_uv

SOURCES: Final = ("uv.lock", "requirements.lock", "requirements.txt", "pyproject.toml")
"""The files that say which packages are needed, the most exact first."""
WHEELHOUSE_BYTES_MAX: Final = 2 << 30
BLOCK_BYTES: Final = 1 << 20
RESOLVE_S_MAX: Final = 300.0
ANSWER_S_MAX: Final = 60.0
"""How long a package index may say nothing."""
TARGETS_MAX: Final = 24
NOT_TAKEN: Final = frozenset({".venv", "venv", "__pycache__", ".git"})
"""Folders at the top that no executor needs, left out where the service's files are copied anyway."""
UV_PLATFORMS: Final = {
    "linux-x86_64": "x86_64-manylinux_2_28",
    "linux-aarch64": "aarch64-manylinux_2_28",
    "darwin-aarch64": "aarch64-apple-darwin",
    "darwin-x86_64": "x86_64-apple-darwin",
}
"""What uv calls them. 2.28 is the oldest C library that colla itself runs with."""
_VERSION: Final = re.compile(r"3\.\d{1,2}")
_HASH: Final = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})")

Tell = Callable[[str], None]


class PythonSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[python]`: for which versions (`3.12`) and platforms (`linux-aarch64`) of the executors packages are bundled.

    Without a word: for those of this computer.
    """

    versions: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()


class PackagesWanted(msgspec.Struct, frozen=True):
    """What has to be bundled: the file that names the packages, and for which targets."""

    source: str
    targets: tuple[Target, ...]


class _File(msgspec.Struct, frozen=True):
    hashes: dict[str, str]
    url: str = ""
    path: str = ""


class _Package(msgspec.Struct, frozen=True):
    name: str
    version: str = ""
    wheels: tuple[_File, ...] = ()


class _Resolved(msgspec.Struct, frozen=True):
    """The part of a `pylock.toml` (PEP 751) that matters."""

    packages: tuple[_Package, ...] = ()


def packages_wanted(folder: Path, top: frozenset[str], settings: PythonSettings) -> PackagesWanted | None:
    """What the folder asks for; None when it names no package, or brings a wheelhouse of its own.

    Raises `CollaError`: `bad_colla_toml` for targets that nobody knows, `unreadable`.
    """
    if FOLDER in top:
        return None
    for source in SOURCES:
        if source in top and _names_packages(folder / source):
            return PackagesWanted(source, tuple(_targets(settings)))
    return None


def _names_packages(path: Path) -> bool:
    try:
        text = path.read_text("utf-8", "replace")
        if path.name == "uv.lock":
            return (path.parent / "pyproject.toml").is_file()
        if path.name == "pyproject.toml":
            return bool(tomllib.loads(text).get("project", {}).get("dependencies"))
    except OSError as error:
        raise CollaError("unreadable", f"{path} cannot be read: {error.strerror}.") from None
    except tomllib.TOMLDecodeError as error:
        raise CollaError("unreadable", f"{path} is not right: {error}.", "Correct that line.") from None
    return any(line.partition("#")[0].strip() for line in text.splitlines())


def _targets(settings: PythonSettings) -> Iterator[Target]:
    here = Target.of(sys.version_info[:2], sys.platform, platform.machine())
    for version in dict.fromkeys(settings.versions or (here.python,)):
        for name in dict.fromkeys(settings.platforms or (here.platform,)):
            if not _VERSION.fullmatch(version) or name not in UV_PLATFORMS:
                raise CollaError(
                    "bad_colla_toml",
                    f"No packages can be bundled for Python {version} on {name}.",
                    f"Versions are written 3.12; platforms are {', '.join(UV_PLATFORMS)}.",
                )
            yield Target(version, *name.split("-", 1))


def bundle(folder: Path, wanted: PackagesWanted, into: Path, tell: Tell) -> str:
    """Copy the folder to `into`, with its wheelhouse; a sentence about what was bundled, for people.

    Raises `CollaError`: `uv_missing`, `packages_missing` (what uv says), `fetch_failed`, `packages_too_large`.
    """
    uv = find_uv()
    if uv is None:
        raise CollaError("uv_missing", f"{wanted.source} names Python packages, and uv is missing.", UV_HINT)
    if len(wanted.targets) > TARGETS_MAX:
        raise CollaError(
            "bad_colla_toml", f"{TARGETS_MAX} combinations of version and platform are possible."
        )
    folder = folder.resolve()  # uv runs inside of it.
    _copy(folder, into)
    house = into / FOLDER
    house.mkdir()
    fetched: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="colla-resolve-") as temporary:
        source, hashes = _source(uv, folder, wanted.source, Path(temporary))
        for target in wanted.targets:
            tell(f"resolving {wanted.source} for {target}")
            found = _resolve(uv, folder, source, target, Path(temporary))
            wheels = [_fetch(package, hashes, house, fetched, tell) for package in found.packages]
            (house / target.lock).write_text(write_lock(wheels))
    where = ", ".join(str(target) for target in wanted.targets)
    megabytes = sum(fetched.values()) / 1e6
    return (
        f"{len(fetched)} Python packages ({megabytes:.1f} MB) from {wanted.source} travel along, for {where}."
    )


def _copy(folder: Path, into: Path) -> None:
    def leave_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name in NOT_TAKEN] if Path(directory) == folder else []

    def share(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # Another file system.
            shutil.copy2(source, target, follow_symlinks=False)

    shutil.copytree(folder, into, symlinks=True, ignore=leave_out, copy_function=share, dirs_exist_ok=True)


def _source(uv: str, folder: Path, name: str, temporary: Path) -> tuple[Path, frozenset[str]]:
    """The file that uv resolves, and the hashes that are in it (none: any will do)."""
    path = folder / name
    if name == "uv.lock":
        path = temporary / "requirements.txt"
        arguments = ["export", "--frozen", "--no-dev", "--no-emit-project", "--format", "requirements-txt"]
        _run(
            [uv, *arguments, "--python", sys.executable, "--quiet", "--output-file", str(path)], folder, name
        )
    if path.suffix == ".toml":
        return path, frozenset()
    return path, frozenset(_HASH.findall(path.read_text("utf-8", "replace").replace("\\\n", " ")))


def _resolve(uv: str, folder: Path, source: Path, target: Target, temporary: Path) -> _Resolved:
    lock = temporary / "pylock.toml"
    lock.unlink(missing_ok=True)
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--no-build",
        "--format",
        "pylock.toml",
        "--output-file",
        str(lock),
    ]
    # Any interpreter will do to ask with; without one named, uv starts all that the computer has.
    command += ["--python", sys.executable, "--python-version", target.python]
    command += ["--python-platform", UV_PLATFORMS[target.platform]]
    _run([*command, str(source)], folder, f"{source.name} for {target}")
    try:
        return msgspec.toml.decode(lock.read_bytes(), type=_Resolved)
    except (OSError, msgspec.DecodeError) as error:
        raise CollaError("packages_missing", f"What uv resolved cannot be read: {error}.", UV_HINT) from None


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=RESOLVE_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CollaError("packages_missing", f"uv cannot resolve {what}: {error}.") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-600:]
        hint = "Every package is needed as a wheel for that version and platform; `[python]` in colla.toml names others."
        raise CollaError("packages_missing", f"uv cannot resolve {what}: {said}.", hint)


def _fetch(
    package: _Package, hashes: frozenset[str], house: Path, fetched: dict[str, int], tell: Tell
) -> LockedWheel:
    """One wheel, in the wheelhouse; `fetched` holds the sizes of those that are there already."""
    what = f"{package.name} {package.version}".strip()
    if not package.wheels or not package.version:
        raise CollaError(
            "packages_missing",
            f"There is no wheel of {what}.",
            "Folders and repositories as packages cannot travel.",
        )
    one = package.wheels[0]
    expected = one.hashes.get("sha256", "")
    if not expected or (hashes and expected not in hashes):
        raise CollaError(
            "packages_missing",
            f"The hashes that the folder gives do not allow the wheel of {what} that fits.",
        )
    url = one.url or (house.parent / one.path).resolve().as_uri()
    name = urllib.parse.unquote(urllib.parse.urlparse(url).path).rpartition("/")[2]
    locked = LockedWheel(package.name, package.version, expected, name)
    if name not in fetched:
        if len(fetched) >= WHEELS_MAX:
            raise CollaError("packages_too_large", f"More than {WHEELS_MAX} packages cannot travel.")
        tell(f"fetching {what}")
        fetched[name] = _download(url, house / name, expected, WHEELHOUSE_BYTES_MAX - sum(fetched.values()))
    return locked


def _download(url: str, path: Path, expected: str, bytes_max: int) -> int:
    """Its size. Raises `CollaError`."""
    shown = url.rpartition("/")[2]
    hasher, size = hashlib.sha256(), 0
    try:
        # http(s) or a file of the deployer's own: whatever the deployer's index said.
        with urllib.request.urlopen(url, timeout=ANSWER_S_MAX) as answer, path.open("wb") as file:
            while block := answer.read(BLOCK_BYTES):
                size += len(block)
                if size > bytes_max:
                    raise CollaError(
                        "packages_too_large", f"The packages exceed {WHEELHOUSE_BYTES_MAX} bytes."
                    )
                hasher.update(block)
                file.write(block)
    except (OSError, urllib.error.URLError) as error:
        raise CollaError("fetch_failed", f"{shown} could not be fetched: {error}.", "Try again.") from None
    if hasher.hexdigest() != expected:
        raise CollaError("fetch_failed", f"{shown} is not what its hash says.", "Try again.")
    return size
