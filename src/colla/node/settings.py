"""A node's settings in its group's folder: a TOML file that the owner may edit, and the keys beside it.

Invariants: keys are written once, readable by their owner only, and never leave the computer; the settings
file is replaced atomically, so that a crash leaves the old or the new one.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.client.folders import SETTINGS_NAME
from colla.model.contribution import GIVES_NOTHING, Contribution
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.keys import SecretKey
from colla.node.disk import disk_errors

NODE_KEY = "node.key"
MEMBER_KEY = "member.key"
DEFAULT_GATEWAY_PORT = 8642


_Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Port = Annotated[int, Meta(ge=0, le=65535)]


class Peer(msgspec.Struct, frozen=True):
    """A node of the group and where it was last seen; from the ticket, for the first contact."""

    node: _Hash
    addresses: tuple[str, ...]


class AttachedProgram(msgspec.Struct, frozen=True):
    """An execution environment that the owner attached: its kind and the command that starts it."""

    kind: str
    command: tuple[str, ...]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `settings.toml` says. `port` 0 means: choose one at the first start and keep it."""

    group: _Hash
    group_name: str
    node_name: str
    member_name: str = ""
    port: _Port = 0
    gateway_port: _Port = DEFAULT_GATEWAY_PORT
    gateway_port_fixed: bool = False
    lan_discovery: bool = True
    ticket: str = ""
    peers: tuple[Peer, ...] = ()
    contribution: Contribution = GIVES_NOTHING
    programs: tuple[AttachedProgram, ...] = ()


def read_settings(folder: Path) -> Settings:
    """Read `settings.toml`. Raises `CollaError("bad_settings")` that names the line or field."""
    path = folder / SETTINGS_NAME
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        raise CollaError("no_group", f"There is no group in {folder}.", "Found or join one first.") from None
    except OSError as error:
        raise CollaError("bad_settings", f"{path} cannot be read: {error.strerror}.") from None
    except UNDECODABLE as error:
        raise CollaError(
            "bad_settings", f"{path} is not right: {error}.", "Correct that line, or restore the file."
        ) from None


def write_settings(folder: Path, settings: Settings) -> None:
    """Replace `settings.toml` atomically. Raises `CollaError` (`disk_full`, `unreadable`, …) when the disk refuses."""
    _write(folder / SETTINGS_NAME, msgspec.toml.encode(settings), 0o600)


def read_key(folder: Path, name: str) -> SecretKey:
    """Read one of the keys. Raises `CollaError("bad_key")` when it is missing or damaged."""
    path = folder / name
    try:
        return SecretKey(bytes.fromhex(path.read_text().strip()))
    except (OSError, ValueError):
        raise CollaError(
            "bad_key",
            f"The key in {path} is missing or damaged.",
            "Restore it from a backup, or join again as a new computer.",
        ) from None


def make_key(folder: Path, name: str) -> SecretKey:
    """Make a new key and keep it in the folder."""
    seed = secrets.token_bytes(32)
    _write(folder / name, seed.hex().encode() + b"\n", 0o600)
    return SecretKey(seed)


def write_private(path: Path, text: str) -> None:
    """Write a small file that only its owner may read, atomically."""
    _write(path, text.encode(), 0o600)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, atomically and durably."""
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    with disk_errors(path):
        _replace(path, data, mode)


def _replace(path: Path, data: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
