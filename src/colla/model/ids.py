"""The identifiers that everybody shares, their text forms and where they come from.

Every identifier is raw bytes on the wire and lower-case hexadecimal where a person reads it. The type
aliases keep mypy from letting a service's id stand where a node's is meant; at run time they are plain
`bytes`, so that msgspec encodes them without help.
"""

from __future__ import annotations

from random import Random
from typing import NewType

from blake3 import blake3

NodeId = NewType("NodeId", bytes)
"""A node's Ed25519 public key (32 bytes)."""
MemberId = NewType("MemberId", bytes)
"""A member's Ed25519 public key (32 bytes)."""
GroupId = NewType("GroupId", bytes)
"""BLAKE3 of the group's founding record body (32 bytes)."""
LogId = NewType("LogId", bytes)
"""A log's random id (16 bytes)."""
ServiceId = NewType("ServiceId", bytes)
"""A service's random id (16 bytes), never reused."""
ReplicaId = NewType("ReplicaId", bytes)
"""A replica's random id (16 bytes), chosen by the executor that runs it."""
ObjectId = NewType("ObjectId", bytes)
"""BLAKE3 of an object's manifest (32 bytes)."""

KEY_BYTES = 32
RANDOM_ID_BYTES = 16
SHORT_HEX = 10


def short(identifier: bytes) -> str:
    """The first ten hexadecimal digits, for logs and tables."""
    return identifier.hex()[:SHORT_HEX]


def digest(data: bytes) -> bytes:
    """BLAKE3 of `data` (32 bytes): the one hash of the project."""
    return blake3(data).digest()


def random_id(rng: Random) -> bytes:
    """A fresh random id (16 bytes) from the randomness passed in."""
    return rng.randbytes(RANDOM_ID_BYTES)


def parse_hex(text: str, length: int, what: str) -> bytes:
    """Read an identifier of `length` bytes as a person typed it.

    Raises `ValueError` with a sentence that names `what` was expected.
    """
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no {what}: expected {2 * length} hexadecimal digits") from None
    if len(raw) != length:
        raise ValueError(f"{text!r} is no {what}: expected {2 * length} hexadecimal digits")
    return raw
