"""Types of the local API about objects."""

from __future__ import annotations

import msgspec


class PutAnswer(msgspec.Struct, frozen=True):
    """An object was stored; `copies` repository agents hold it durably, of `wanted`."""

    object: str
    size_bytes: int
    copies: int
    wanted: int
    reasons: tuple[str, ...] = ()


class PutRequest(msgspec.Struct, frozen=True):
    """Store the folder or file at this path of this computer as an object."""

    path: str
