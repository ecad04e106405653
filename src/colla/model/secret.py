"""Secrets of services: values that only the service's owner and the computers chosen to run it may read.

What everybody holds of a secret is its name and a sealed value (`SealedSecret`); the value in clear is `Hidden`, which
no `repr`, story or log shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import NodeId

SECRET_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
SECRETS_MAX = 64
"""Secrets that one service may have, or need."""
SECRET_USE = "secret:"
"""What a specification uses by this prefix is a secret that it needs: `secret:DATABASE_URL`."""
RESERVED_PREFIXES = ("COLLA_", "LISTEN_")
RESERVED_NAMES = ("PORT", "HOST", "PATH", "HOME", "TMPDIR", "USER")
"""What a program is told by the environment that runs it."""


class Hidden(msgspec.Struct, frozen=True):
    """A text that must not be shown. Its `repr` tells nothing of it, not even how long it is."""

    text: str

    def __repr__(self) -> str:
        return "Hidden(…)"


class WrappedKey(msgspec.Struct, frozen=True, array_like=True):
    """A content key, readable by the one node."""

    node: NodeId
    wrapped: bytes


class SealedSecret(msgspec.Struct, frozen=True):
    """One secret as the catalogue gives it. `id` (the digest of its record) changes with every new value.

    `keys` are for the nodes that could read it from the start; `set_ms` is when it was set (Unix time), `author` on
    which node.
    """

    name: str
    id: bytes
    keys: tuple[WrappedKey, ...]
    sealed: bytes
    set_ms: int
    author: NodeId


def is_secret_name(name: str) -> bool:
    """Whether a secret can have that name."""
    reserved = name.startswith(RESERVED_PREFIXES) or name in RESERVED_NAMES
    return SECRET_NAME_PATTERN.fullmatch(name) is not None and not reserved


def check_secret_name(name: str) -> str:
    """Return `name` when a secret can have it; raise `CollaError("bad_secret_name")` saying what is one."""
    if SECRET_NAME_PATTERN.fullmatch(name) is None:
        raise CollaError(
            "bad_secret_name",
            f"{name!r} cannot be the name of a secret.",
            "Use up to 48 letters, digits and underscores, as in DATABASE_URL.",
        )
    if not is_secret_name(name):
        raise CollaError(
            "bad_secret_name",
            f"{name} is what a program is told by the computer that runs it.",
            "Choose another name.",
        )
    return name


def check_secret_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, sorted, each once. Raises `CollaError`: `bad_secret_name`, `too_many_secrets`."""
    found = tuple(sorted({check_secret_name(name) for name in names}))
    if len(found) > SECRETS_MAX:
        raise CollaError("too_many_secrets", f"A service has {SECRETS_MAX} secrets at most.")
    return found
