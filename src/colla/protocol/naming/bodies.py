"""The bodies of the records that name objects. Part of the storage and wire format.

One key per path: its subject is a hash over the path, which the body spells out; so a path may be long, and what is
removed needs no more than the hash. A removal is a version of the path like any other: what is written concurrently
to it is a conflict, not lost. Bodies of other kinds are kept and forwarded, whatever they hold.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import KEY_BYTES, MemberId, NodeId, ObjectId, digest
from colla.model.manifest import PATH_BYTES_MAX, BadPath, check_path
from colla.model.record import TOPIC_OBJECTS, Key, Record
from colla.model.sealing import CONTENT_KEY_BYTES, WRAP_OVERHEAD_BYTES

KIND_NAME = "name"
SUBJECT_BYTES = 16
RECIPIENTS_MAX = 300
"""Computers that one object is sealed for: their keys fit one record."""
SIZE_MAX = 2**60
_WRAP_BYTES = CONTENT_KEY_BYTES + WRAP_OVERHEAD_BYTES


_Member = Annotated[MemberId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class KeyFor(msgspec.Struct, frozen=True, array_like=True):
    """The content key, wrapped for one computer."""

    node: Annotated[NodeId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    wrapped: Annotated[bytes, Meta(min_length=_WRAP_BYTES, max_length=_WRAP_BYTES)]


class Sealing(msgspec.Struct, frozen=True, array_like=True):
    """The object's content is sealed for these members; `to_group`: for whoever is one, now and later.

    `keys` has those of their computers' that the author knew. Computers that come later get theirs from the
    owner's computers.
    """

    to_group: bool
    members: Annotated[tuple[_Member, ...], Meta(max_length=RECIPIENTS_MAX)]
    keys: Annotated[tuple[KeyFor, ...], Meta(min_length=1, max_length=RECIPIENTS_MAX)]


class Named(msgspec.Struct, frozen=True, array_like=True, tag="named"):
    """The path leads to this object. `size_bytes` of content and `files` as its author counted them, before sealing."""

    path: Annotated[str, Meta(min_length=1, max_length=PATH_BYTES_MAX)]
    object: Annotated[ObjectId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    stored_bytes: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    size_bytes: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    files: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    folder: bool
    sealing: Sealing | None = None


class Removed(msgspec.Struct, frozen=True, array_like=True, tag="removed"):
    """The path leads nowhere any more."""


Body: TypeAlias = Named | Removed

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)


def encode(body: Body) -> bytes:
    """The bytes that go into the record."""
    return _encoder.encode(body)


def decode(data: bytes) -> Body:
    """The body of a record that `check_record` let pass. Raises `ValueError`."""
    try:
        return _decoder.decode(data)
    except UNDECODABLE as error:
        raise ValueError(f"the body cannot be read: {error}") from None


def wrap_info(group: bytes, object_id: ObjectId) -> bytes:
    """What a wrapped content key is bound to: it opens this object and no other."""
    return b"colla object 1" + group + object_id


def key_of(path: str) -> Key:
    """The key of the records about `path`, which `clean_path` returned."""
    return Key(KIND_NAME, digest(path.encode())[:SUBJECT_BYTES])


def clean_path(path: str) -> str:
    """The path as it names an object: relative, `/` between its parts, in Unicode's normal form C.

    Raises `CollaError("bad_name")`.
    """
    cleaned = unicodedata.normalize("NFC", path)
    try:
        check_path(cleaned)
    except BadPath as error:
        raise CollaError(
            "bad_name",
            f"{path!r} cannot name an object: it {error.reason}.",
            "Name it like 'photos/2026/lake.jpg'.",
        ) from None
    return cleaned


def check_record(record: Record) -> None:
    """Raise `ValueError` unless the body keeps the rules and stands under the key of its path."""
    if record.log.topic != TOPIC_OBJECTS:
        raise ValueError("not a record of names")
    if record.key.kind != KIND_NAME:
        return
    if len(record.key.subject) != SUBJECT_BYTES:
        raise ValueError("the subject of a name is the beginning of a hash")
    body = decode(record.body)
    if isinstance(body, Named):
        try:
            check_path(body.path)
        except BadPath as error:
            raise ValueError(error.message) from None
        # Whether a path is in normal form depends on the version of Unicode: it is judged where a path is written only.
        if record.key != key_of(body.path):
            raise ValueError("the key of a name is not that of its path")
