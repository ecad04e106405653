"""The bubblewrap sandbox: what a program may see and do. Deny by default.

It sees /usr, the interpreter that runs colla (wherever that is installed), a few harmless files of /etc, its own
files (read-only) under /app and its scratch folder under /scratch. It has its own users, mounts, processes, network
(the loopback only), IPC and host name, no capability, no controlling terminal and no new user namespaces.

Things that were learnt and must stay:
- started by root, the program's user id is root's outside, whatever --uid says. Files of /proc/sys are then
  writable to it (bubblewrap covers only the folder), so that /proc is mounted read-only again.
- --die-with-parent would follow the thread that spawned it; replicas shall outlive their environment anyway.
- --as-pid-1 with --info-fd, so that the bridge can be signalled itself and bubblewrap is not killed instead.
- without --new-session a program could type into the terminal of whoever started the agent (TIOCSTI).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from colla.environments import bridge, seccomp
from colla.environments.folders import private_folder

APP: Final = "/app"
SCRATCH: Final = "/scratch"
BRIDGE: Final = "/run/colla/bridge"
START: Final = "import sys; sys.path.append(sys.argv.pop(1)); from bridge.main import main; main()"
"""The bridge's own folder comes last, so that none of its modules is taken for one of the standard library."""
GROUP: Final = "/run/colla-group"
"""The folder with the socket of the group's door."""
APP_SOCKET: Final = "/scratch/tmp/app.sock"
PACKAGES: Final = "/env"
"""The Python packages that a service brought, installed."""
INSTALLER: Final = "/run/colla/uv"
PORT: Final = 8080
"""Each replica has a network of its own, so that all of them have the same port."""
PROBE_TIMEOUT_S: Final = 10

SYSTEM_FOLDERS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
ETC_FILES: Final = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/mime.types", "/etc/protocols", "/etc/services", "/etc/fonts",
)  # fmt: skip
"""Never all of /etc, nor /etc/ssl: what only root may read there, a program started by root could read."""
ETC_WRITTEN: Final = {
    "passwd": "app:x:65534:65534:app:/scratch/home:/bin/sh\n",
    "group": "app:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "",
}


def interpreter() -> Path:
    """The Python that colla runs on, outside any virtual environment."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(base).resolve()


def interpreter_folders() -> list[Path]:
    """What this interpreter needs beyond /usr: its installation folder. A virtual environment is left out on
    purpose, since the packages of colla are no business of a service's program."""
    needed: dict[Path, None] = {}
    for folder in (Path(sys.base_prefix), Path(sys.base_exec_prefix), interpreter().parent.parent):
        for path in (folder, folder.resolve()):
            if not _in_usr(path) and not _too_wide(path):
                needed[path] = None
    return list(needed)


def _in_usr(path: Path) -> bool:
    return path.is_relative_to("/usr")


def _too_wide(path: Path) -> bool:
    """Whether binding it would show what a program has no business to see."""
    home = Path.home().resolve()
    return path == Path("/") or home == path or home.is_relative_to(path)


def bridge_folder() -> Path:
    """Where the bridge's modules are on this computer."""
    return Path(bridge.__file__).resolve().parent


def start_bridge(folder: Path) -> list[str]:
    """The command up to the bridge's arguments, given where its modules are."""
    return [str(interpreter()), "-I", "-S", "-B", "-c", START, str(folder.parent)]


def search_path() -> str:
    """PATH inside: the interpreter of colla first, since its version is the same everywhere within bounds."""
    folders = [
        str(interpreter().parent),
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
    ]
    return ":".join(dict.fromkeys(folders))


class Bubblewrap:
    """The sandbox of this computer. `find` makes sure that it really works before anybody relies on it."""

    def __init__(self, program: str, options: str, etc: Path) -> None:
        self._program = program
        self._options = options
        self._etc = etc

    @classmethod
    def find(cls, folder: Path) -> Bubblewrap | str:
        """The sandbox, or why there is none. Writes the few files of its /etc under `folder`."""
        program = shutil.which("bwrap")
        if program is None:
            return "bubblewrap is not installed"
        etc = private_folder(folder / "etc")
        for name, text in ETC_WRITTEN.items():
            (etc / name).write_text(text)
        try:
            options = subprocess.run(
                [program, "--help"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
            )
            found = cls(program, options.stdout, etc)
            artifact = private_folder(folder / "probe")
            arguments = found.arguments(artifact, artifact)
            test = [*arguments, str(interpreter()), "-I", "-S", "-c", "import socket"]
            tried = subprocess.run(test, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not work here: {error}"
        if tried.returncode != 0:
            return f"bubblewrap does not work here: {tried.stderr.strip()[-300:]}"
        return found

    def arguments(
        self,
        artifact: Path,
        scratch: Path,
        door: Path | None = None,
        more: Sequence[tuple[str, Path, str]] = (),
    ) -> list[str]:
        """The command up to the program to run inside. Paths are this computer's; `door` holds the group's socket.

        `more` are further mounts: bubblewrap's option, what is shown, and where.

        The folder is shown, not the socket: the agent makes a new one at each of its starts.
        """
        command = [self._program, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
        command += ["--hostname", "colla", "--cap-drop", "ALL", "--new-session", "--as-pid-1", "--clearenv"]
        if "--disable-userns" in self._options:
            command += ["--disable-userns"]
        command += ["--ro-bind", "/usr", "/usr"]
        for name in SYSTEM_FOLDERS:
            path = Path(name)
            if path.is_symlink():
                command += ["--symlink", str(path.readlink()), name]
            elif path.is_dir():
                command += ["--ro-bind", name, name]
        for folder in interpreter_folders():
            command += ["--ro-bind", str(folder), str(folder)]
        for name in ETC_FILES:
            command += ["--ro-bind-try", name, name]
        for name in ETC_WRITTEN:
            command += ["--ro-bind", str(self._etc / name), f"/etc/{name}"]
        command += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        command += ["--tmpfs", "/dev/shm", "--tmpfs", "/run"]
        command += ["--ro-bind", str(bridge_folder()), BRIDGE]
        if door is not None and door.is_dir():
            command += ["--ro-bind", str(door), GROUP]
        for option, path, shown_as in more:
            command += [option, str(path), shown_as]
        command += ["--remount-ro", "/run"]
        command += ["--ro-bind", str(artifact), APP, "--bind", str(scratch), SCRATCH]
        if (scratch / "tmp").is_dir():
            command += ["--bind", str(scratch / "tmp"), "/tmp"]
        return [*command, "--remount-ro", "/"]

    def bridge_command(
        self,
        artifact: Path,
        scratch: Path,
        info_fd: int,
        filter_fd: int | None,
        door: Path | None = None,
        packages: Path | None = None,
    ) -> list[str]:
        """The command up to the arguments of the bridge."""
        more = [("--ro-bind", packages, PACKAGES)] if packages is not None else []
        command = self.arguments(artifact, scratch, door, more)
        command += ["--info-fd", str(info_fd)]
        if filter_fd is not None:
            command += ["--seccomp", str(filter_fd)]
        return [*command, *start_bridge(Path(BRIDGE))]

    def installer(self, artifact: Path, place: Path, packages: Path, program: Path) -> list[str]:
        """The command up to the arguments of `program`, which may write into `packages` and below `place`."""
        more = [("--bind", packages, PACKAGES), ("--ro-bind", program, INSTALLER)]
        return self.arguments(artifact, place, None, more)


def open_filter() -> int | None:
    """A descriptor of the system-call filter to hand to bubblewrap; None where the processor is not known."""
    program = seccomp.filter_program(os.uname().machine)
    if program is None:
        return None
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(program)
    return read
