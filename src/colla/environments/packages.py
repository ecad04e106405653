"""The Python packages that a service brings as wheels: an environment made of them once, kept, and thrown away unused.

What travels is described in `model.wheelhouse`. uv installs it offline, wheels alone, each checked against its hash; in
the sandbox where there is one, so that not even a malformed wheel touches more than its own folder. Nothing of a
package is run outside of the sandbox. One folder per lock and interpreter:

    DIR/python/KEY/env/       what the program sees, read-only
    DIR/python/KEY/complete   written last: without it the folder is made anew

Invariant: a folder that a replica holds is not removed; of the others the newest `UNUSED_KEPT_MAX` are kept.
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import msgspec

from colla.environments import sandbox
from colla.environments.driver import fault
from colla.environments.folders import RuntimeFolder, private_folder, remove_tree
from colla.environments.protocol import EnvironmentFault
from colla.environments.sandbox import Bubblewrap
from colla.model.ids import digest
from colla.model.wheelhouse import FOLDER, LOCK_BYTES_MAX, LockedWheel, Target, read_lock
from colla.uv_program import UV_HINT, find_uv

BUILD_S_MAX: Final = 300.0
UNPACKED_BYTES_MAX: Final = 4 << 30
"""All files of all wheels of one service."""
FILES_MAX: Final = 200_000
UNUSED_KEPT_MAX: Final = 4
"""A service that is activated again, or a replica that comes back, finds its packages installed."""
SAID_CHARS_MAX: Final = 600
LAYOUT: Final = b"1"
"""Changes when environments are made in another way, so that those of before are made anew."""


class Bundle(msgspec.Struct, frozen=True):
    """What a service brings for this computer."""

    house: Path
    lock: Path
    wheels: tuple[LockedWheel, ...]
    key: str


def read_bundle(artifact: Path, contained: bool) -> Bundle | None:
    """The packages that the service brings; None when it brings none. Raises `EnvironmentFault` when none fit here."""
    house = artifact / FOLDER
    if not house.is_dir():
        return None
    here = Target.of(sys.version_info[:2], sys.platform, platform.machine())
    locks = sorted(path for path in house.iterdir() if Target.of_lock(path.name) is not None)
    for lock in sorted(locks, key=lambda path: path.name != here.lock):
        wheels = _read_lock(lock)
        if lock.name == here.lock or all(wheel.fits_everywhere for wheel in wheels):
            key = digest(
                b"\0".join(
                    [
                        LAYOUT,
                        lock.read_bytes(),
                        os.fsencode(sandbox.interpreter()),
                        str(here).encode(),
                        b"%d" % contained,
                    ]
                )
            )
            return Bundle(house, lock, tuple(wheels), key.hex()[:32])
    known = ", ".join(str(Target.of_lock(lock.name)) for lock in locks) or "nothing"
    raise fault(
        "packages_do_not_fit",
        f"Its Python packages are for {known}; this computer has {here}.",
        f"Deploy it with `versions` and `platforms` of [python] in colla.toml, {here.python} and {here.platform} among them.",
    )


def _read_lock(lock: Path) -> list[LockedWheel]:
    try:
        with lock.open("rb") as file:
            data = file.read(LOCK_BYTES_MAX + 1)
        if len(data) > LOCK_BYTES_MAX:
            raise ValueError(f"it has more than {LOCK_BYTES_MAX} bytes")
        return read_lock(data.decode())
    except (OSError, ValueError) as error:
        raise fault(
            "packages_malformed", f"{lock.name} of its packages cannot be read: {error}.", "Deploy it anew."
        ) from None


class PythonPackages:
    """The environments of one process environment."""

    def __init__(self, folder: RuntimeFolder, bubblewrap: Bubblewrap | None) -> None:
        self._folder = private_folder(folder.path / "python")
        self._bubblewrap = bubblewrap
        self._locks: dict[str, asyncio.Lock] = {}
        self._holders: dict[str, str] = {}
        """The key of each replica that runs with packages."""

    def bundle(self, artifact: Path) -> Bundle | None:
        """See `read_bundle`."""
        return read_bundle(artifact, self._bubblewrap is not None)

    def path(self, bundle: Bundle) -> Path:
        """Where its environment is, once it is made."""
        return self._folder / bundle.key / "env"

    def made(self, bundle: Bundle) -> bool:
        """Whether it is there already."""
        return (self._folder / bundle.key / "complete").exists()

    async def make(self, bundle: Bundle) -> Path:
        """Its environment, made if it is not there. Raises `EnvironmentFault("packages_failed")`."""
        async with self._locks.setdefault(bundle.key, asyncio.Lock()):
            complete = self._folder / bundle.key / "complete"
            if not complete.exists():
                await asyncio.to_thread(self._build, bundle)
            complete.touch()
        return self.path(bundle)

    def hold(self, replica: str, bundle: Bundle) -> None:
        """The replica runs with it from now on."""
        self._holders[replica] = bundle.key

    def release(self, replica: str) -> None:
        """The replica has ended; what nobody needs goes, the oldest first."""
        if self._holders.pop(replica, None) is not None:
            self.tidy()

    def tidy(self) -> None:
        """Remove what is not held, but for the newest."""
        held = set(self._holders.values()) | {key for key, lock in self._locks.items() if lock.locked()}
        unused = [path for path in self._folder.iterdir() if path.name not in held]
        for path in sorted(unused, key=_used_at, reverse=True)[UNUSED_KEPT_MAX:]:
            self._locks.pop(path.name, None)
            remove_tree(path)

    # --- making one --------------------------------------------------------------------------------------

    def _build(self, bundle: Bundle) -> None:
        uv = find_uv()
        if uv is None:
            raise fault(
                "uv_missing",
                "It brings Python packages, and this computer has no uv to install them.",
                UV_HINT,
            )
        _check_size(bundle)
        place = self._folder / bundle.key
        remove_tree(place)
        for part in (place, place / "env", place / "home", place / "tmp"):
            private_folder(part)
        try:
            self._run_uv(uv, bundle, place)
        except BaseException:
            remove_tree(place)
            raise
        for part in (place / "home", place / "tmp"):
            remove_tree(part)
        (place / "complete").touch()

    def _run_uv(self, uv: str, bundle: Bundle, place: Path) -> None:
        """Two runs: an empty environment, then the wheels into it."""
        env, house, lock, tmp, before = place / "env", bundle.house, bundle.lock, place / "tmp", list[str]()
        variables = {
            "HOME": str(place / "home"),
            "TMPDIR": str(tmp),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }
        if self._bubblewrap is not None:
            artifact = house.parent
            before = self._bubblewrap.installer(artifact, place, env, Path(uv))
            env, uv = Path(sandbox.PACKAGES), sandbox.INSTALLER
            house, lock, tmp = (
                Path(sandbox.APP) / path.relative_to(artifact) for path in (house, lock, house)
            )
            tmp = Path("/tmp")
            variables |= {"HOME": f"{sandbox.SCRATCH}/home", "TMPDIR": "/tmp"}
            before += [word for name, value in variables.items() for word in ("--setenv", name, value)]
        common = [
            "--offline",
            "--no-config",
            "--cache-dir",
            str(tmp / "cache"),
            "--quiet",
            "--color",
            "never",
        ]
        made = ["venv", "--allow-existing", "--no-project", "--python", str(sandbox.interpreter()), str(env)]
        install = [
            "pip",
            "install",
            "--no-index",
            "--find-links",
            str(house),
            "--require-hashes",
            "--no-deps",
        ]
        install += ["--no-build", "--link-mode", "copy", "--python", str(env / "bin" / "python")]
        if self._bubblewrap is not None:
            # Compiling starts the environment's own interpreter, which may run code of a package.
            install.append("--compile-bytecode")
        for arguments in ([*made], [*install, "--requirements", str(lock)]):
            _run([*before, uv, *arguments, *common], variables)


def _check_size(bundle: Bundle) -> None:
    """Every wheel is there, and together they unpack to no more than they may. Raises `EnvironmentFault`."""
    size = files = 0
    for wheel in bundle.wheels:
        try:
            with zipfile.ZipFile(bundle.house / wheel.file) as archive:
                size += sum(one.file_size for one in archive.infolist())
                files += len(archive.infolist())
        except (OSError, zipfile.BadZipFile) as error:
            raise fault(
                "packages_malformed", f"The wheel {wheel.file} cannot be read: {error}.", "Deploy it anew."
            ) from None
        if size > UNPACKED_BYTES_MAX or files > FILES_MAX:
            message = f"Its packages have more than {UNPACKED_BYTES_MAX} bytes or {FILES_MAX} files."
            raise fault("packages_too_large", message, "Use fewer or smaller ones.")


def _run(command: list[str], variables: dict[str, str]) -> None:
    # A file's size is bound by blocks of 512 bytes; whatever else runs here goes first.
    bounded = f'ulimit -f {UNPACKED_BYTES_MAX // 512}; exec nice -n 10 "$@"'
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", bounded, "sh", *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"installing took longer than {BUILD_S_MAX:.0f} s") from None
    except OSError as error:
        raise _failed(str(error)) from None
    if done.returncode != 0:
        raise _failed(
            " ".join((done.stderr or done.stdout).split())[-SAID_CHARS_MAX:]
            or f"uv ended with {done.returncode}"
        )


def _failed(why: str) -> EnvironmentFault:
    return fault("packages_failed", f"Its Python packages could not be installed: {why}.", "Deploy it anew.")


def _used_at(path: Path) -> float:
    try:
        return (path / "complete").stat().st_mtime
    except OSError:
        return 0.0
