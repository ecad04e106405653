"""The runtime folder of an environment program: where its socket, its lock and its replicas' files are.

    DIR/program.lock     held (flock) by the program for as long as it lives
    DIR/program.json     its handshake, so that an agent that comes later finds the socket
    DIR/program.log      what the program itself writes on stderr
    DIR/replicas/HEX/    one replica: record.json, status, log.0, log.1, scratch/

Unix socket paths may have about 100 bytes only, so that sockets of a deep runtime folder live in a short folder
of their own under the system's temporary folder. Everything is readable by its owner alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from colla.environments.protocol import EnvironmentFault, Exit, ReplicaSpec
from colla.model.ids import ReplicaId, digest

SOCKET_PATH_BYTES_MAX: Final = 100
"""macOS allows 104, Linux 108."""
LISTEN_BACKLOG: Final = 512
LOG_SEGMENT_BYTES_MAX: Final = 512 << 10
"""A replica's log has two segments."""
SOCKET_NAME_HEX: Final = 16


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the program remembers of a replica across its own restarts."""

    spec: ReplicaSpec
    started_at: float
    handle: str = ""
    """Empty until the launch is complete: whoever finds it empty cleans up."""
    ready_at: float | None = None
    exit: Exit | None = None


def private_folder(path: Path) -> Path:
    """Create `path` for its owner alone. Raises `EnvironmentFault` when it belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise EnvironmentFault(
            "folder_not_ours", f"{path} belongs to somebody else", "Choose another folder."
        )
    path.chmod(0o700)
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)


class RuntimeFolder:
    """The folder of one environment program."""

    def __init__(self, path: Path) -> None:
        self.path = private_folder(path.absolute())
        self.replicas = private_folder(self.path / "replicas")
        self.lock = self.path / "program.lock"
        self.handshake = self.path / "program.json"
        self.log = self.path / "program.log"

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets, the same for every program of this runtime folder."""
        return private_folder(folder_for_sockets(self.path / "sockets", SOCKET_NAME_HEX + len(".sock.app")))

    @property
    def control(self) -> Path:
        """The socket that serves the protocol."""
        return self.sockets / "control.sock"

    def tidy(self) -> None:
        """At the program's end: give back what is outside of the folder, unless a replica still needs it."""
        sockets = self.sockets
        (sockets / "control.sock").unlink(missing_ok=True)
        with suppress(OSError):
            sockets.rmdir()

    def place(self, replica: ReplicaId) -> Place:
        """The files of one replica, which need not exist yet."""
        return Place(self.replicas / replica.hex(), self.sockets / f"{replica.hex()[:SOCKET_NAME_HEX]}.sock")

    def places(self) -> list[Place]:
        """Those of every replica that left a folder, oldest first."""
        known = [path for path in self.replicas.iterdir() if len(path.name) == 32]
        return [
            self.place(ReplicaId(bytes.fromhex(path.name)))
            for path in sorted(known, key=lambda path: (path.stat().st_mtime, path.name))
        ]


class Place:
    """The folder and the socket of one replica."""

    def __init__(self, path: Path, endpoint: Path) -> None:
        self.path = path
        self.endpoint = endpoint
        self.scratch = path / "scratch"
        self.status = path / "status"
        self.logs = (path / "log.0", path / "log.1")
        self.app_socket = endpoint.with_name(endpoint.name + ".app")
        """Where a program without a sandbox may listen."""
        self.control = endpoint.with_name(endpoint.name + ".ctl")
        """Where the bridge takes commands to run beside its program."""
        self._record = path / "record.json"

    def create(self, record: Record) -> None:
        """Make the folder, with an empty scratch folder, and write the record into it."""
        private_folder(self.path)
        for part in (self.scratch, self.scratch / "home", self.scratch / "tmp"):
            private_folder(part)
        self.write(record)

    def write(self, record: Record) -> None:
        """Remember the record."""
        write_whole(self._record, msgspec.json.encode(record))

    def read(self) -> Record | None:
        """The record, or None when it is missing or broken."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None

    def listen(self) -> socket.socket:
        """A fresh listener on the replica's socket."""
        return listen_on(self.endpoint)

    def clear_scratch(self) -> None:
        """What a replica kept dies with it; so does its socket."""
        self.endpoint.unlink(missing_ok=True)
        self.app_socket.unlink(missing_ok=True)
        self.control.unlink(missing_ok=True)
        remove_tree(self.scratch)

    def delete(self) -> None:
        """Forget the replica, its logs included."""
        self.clear_scratch()
        remove_tree(self.path)


def folder_for_sockets(wanted: Path, name_bytes: int) -> Path:
    """`wanted`, or where that is too deep for sockets with names so long, a short folder: always the same one."""
    if len(os.fsencode(wanted)) + 1 + name_bytes <= SOCKET_PATH_BYTES_MAX:
        return wanted
    name = f"colla-{os.getuid()}-{digest(os.fsencode(wanted.parent)).hex()[:12]}"
    return Path(tempfile.gettempdir()) / name


def listen_on(path: Path) -> socket.socket:
    """A listener on a Unix socket that only its owner can reach; replaces what was there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(LISTEN_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def remove_tree(path: Path) -> None:
    """Delete a folder even if its program took away its own rights to it. Symbolic links are not followed."""

    def unlock(function: object, name: str, _error: object) -> None:
        parent = Path(name).parent
        parent.chmod(0o700)
        target = Path(name)
        if target.is_symlink() or not target.is_dir():
            target.unlink(missing_ok=True)
            return
        target.chmod(0o700)
        shutil.rmtree(target, ignore_errors=True)

    if path.exists():
        shutil.rmtree(path, onerror=unlock)
