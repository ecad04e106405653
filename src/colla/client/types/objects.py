"""Types of the local API about objects: files and folders that the group keeps, under names."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

LISTED_MAX = 1000
"""Objects in one answer; `after` asks for the next ones."""


class PutRequest(msgspec.Struct, frozen=True):
    """Store the folder or file at this path of this computer as an object.

    With `name` it becomes one of the group's files; without one it is only stored, for a service. `sealed`: only the
    members of `sealed_for` (none: all of the group) can read it. `replace`: also if the name is another member's.
    `expected`: only if the name leads to this object now (empty text: to nothing). `transfer` is a text of the
    caller's choice under which `transfers` shows how far it is.
    """

    path: str
    name: str = ""
    sealed: bool = False
    sealed_for: tuple[str, ...] = ()
    replace: bool = False
    expected: str | None = None
    transfer: str = ""


class PutAnswer(msgspec.Struct, frozen=True):
    """An object was stored; `copies` repository agents hold it durably, of `wanted`. `records`: computers that know its
    name durably.
    """

    object: str
    size_bytes: int
    copies: int
    wanted: int
    reasons: tuple[str, ...] = ()
    name: str = ""
    files: int = 0
    records: int = 0


class GetRequest(msgspec.Struct, frozen=True):
    """Write what the name leads to (or, with `object`, led to) to the new file or folder `target` of this computer."""

    name: str
    target: str
    object: str = ""
    replace: bool = False
    transfer: str = ""


class GetAnswer(msgspec.Struct, frozen=True):
    """What was written to `target`."""

    name: str
    object: str
    target: str
    size_bytes: int
    files: int
    folder: bool
    owner: str
    written_s: float


class ListRequest(msgspec.Struct, frozen=True):
    """The named objects that begin with `prefix` and stand behind `after`, in the order of their names."""

    prefix: str = ""
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=LISTED_MAX)] = LISTED_MAX


class ObjectReport(msgspec.Struct, frozen=True):
    """One named object. `copies` present repository agents hold it, of `wanted` that could. `conflicts`: concurrent
    versions that lost and are kept. `sealed_for`: members who can read it, `readable`: this computer can.
    """

    name: str
    object: str
    size_bytes: int
    files: int
    folder: bool
    owner: str
    written_s: float
    copies: int
    wanted: int
    sealed: bool = False
    sealed_for: tuple[str, ...] = ()
    readable: bool = True
    conflicts: int = 0


class VersionsRequest(msgspec.Struct, frozen=True):
    """All that is known of one name."""

    name: str


class VersionReport(msgspec.Struct, frozen=True):
    """One version of a name. `standing`: current, conflict or earlier. An empty `object` means that it was removed."""

    standing: str
    object: str
    owner: str
    computer: str
    written_s: float
    size_bytes: int = 0
    files: int = 0
    folder: bool = False
    sealed: bool = False
    readable: bool = True
    copies: int = 0


class RemoveRequest(msgspec.Struct, frozen=True):
    """Let the name lead to nothing. As for `PutRequest`: `replace` another member's, only what is `expected`."""

    name: str
    replace: bool = False
    expected: str | None = None


class NamedAnswer(msgspec.Struct, frozen=True):
    """What the name leads to is durable on `records` computers."""

    name: str
    records: int


class ShareRequest(msgspec.Struct, frozen=True):
    """Let these members as well (none named: the whole group) read a sealed object."""

    name: str
    members: tuple[str, ...] = ()


class CheckRequest(msgspec.Struct, frozen=True):
    """Read everything that is stored on this computer now."""

    transfer: str = ""


class CheckAnswer(msgspec.Struct, frozen=True):
    """What was read, and how many pieces were damaged: those are fetched again from other computers."""

    chunks: int
    size_bytes: int
    damaged: int


class TransferReport(msgspec.Struct, frozen=True):
    """A put, get or check under way. `phase`: storing, copying, fetching, writing or checking; the bytes are those of the
    phase. While copying, `copies` of `wanted` are durable. One that several ask for is told once for each of their ids.
    """

    id: str
    kind: str
    name: str
    phase: str
    done_bytes: int
    total_bytes: int
    copies: int = 0
    wanted: int = 0
