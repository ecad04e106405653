"""How two nodes agree on exactly one link, whoever dialled, and notice each other's restarts.

Two connections arise when both dial at once, when one side lost a link that the other still believes in, and
when a node restarted. The node with the lower id is the pair's *arbiter*: it numbers the links that it grants,
and both keep the one with the highest number. A dialler says in its hello what it knows, so that the
arbiter can tell "you could not know yet" (keep the link granted) from "you lost it" (grant the new one).
Each process start draws a random *incarnation*; another incarnation always wins over a link to an earlier one.

A link granted is never closed in favour of one dialled at the same time, so no queued frame is lost.
This module is pure: it holds what one node knows about one peer and decides.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable

import msgspec

INCARNATION_BYTES = 8
_HELLO = struct.Struct(f"!5s{INCARNATION_BYTES}s{INCARNATION_BYTES}sQ?")
SEEN_BYTES_MAX = 64
_REPLY = struct.Struct(f"!B{INCARNATION_BYTES}sQ{SEEN_BYTES_MAX}s")
_MAGIC = b"colla"
HELLO_BYTES = _HELLO.size
REPLY_BYTES = _REPLY.size
NOBODY = bytes(INCARNATION_BYTES)
"""The incarnation of a peer never met."""


class Verdict(enum.Enum):
    """What the one who was dialled makes of the connection."""

    GRANTED = 1
    DUPLICATE = 2
    BUSY = 3


class Hello(msgspec.Struct, frozen=True):
    """The dialler's first bytes. `serial` is granted by it when it is the arbiter, else the last it knew."""

    incarnation: bytes
    known_incarnation: bytes
    serial: int
    forced: bool

    def encode(self) -> bytes:
        return _HELLO.pack(_MAGIC, self.incarnation, self.known_incarnation, self.serial, self.forced)


class Reply(msgspec.Struct, frozen=True):
    """The answer to a hello. `seen` is the `ip:port` at which the dialler is seen, empty through a relay."""

    verdict: Verdict
    incarnation: bytes
    serial: int
    seen: str = ""

    def encode(self) -> bytes:
        seen = self.seen.encode()
        # An address that does not fit is not told, rather than cut.
        fitting = seen if len(seen) <= SEEN_BYTES_MAX else b""
        return _REPLY.pack(self.verdict.value, self.incarnation, self.serial, fitting)


def decode_hello(data: bytes) -> Hello:
    """Raises `ValueError` when these are not the first bytes of a link."""
    if len(data) != HELLO_BYTES:
        raise ValueError("a hello of the wrong length")
    magic, incarnation, known_incarnation, serial, forced = _HELLO.unpack(data)
    if magic != _MAGIC:
        raise ValueError("not a hello")
    return Hello(incarnation, known_incarnation, serial, forced)


def decode_reply(data: bytes) -> Reply:
    """Raises `ValueError` when these bytes are no reply to a hello."""
    if len(data) != REPLY_BYTES:
        raise ValueError("a reply of the wrong length")
    verdict, incarnation, serial, seen = _REPLY.unpack(data)
    return Reply(Verdict(verdict), incarnation, serial, seen.rstrip(b"\0").decode("ascii"))


class Agreement:
    """What this node knows about its links with one peer. `serial` numbers the newest link known."""

    __slots__ = ("_incarnation", "_next_serial", "_offered", "arbiter", "peer_incarnation", "serial", "up")

    def __init__(
        self, my_id: bytes, peer_id: bytes, incarnation: bytes, next_serial: Callable[[], int]
    ) -> None:
        """`next_serial` never repeats or decreases within `incarnation`, whatever peer it is asked for."""
        self.arbiter = my_id < peer_id
        self._incarnation = incarnation
        self._next_serial = next_serial
        self.peer_incarnation = NOBODY
        self.serial = 0
        self._offered = 0
        self.up = False

    def hello(self, *, forced: bool) -> Hello:
        """What to say first on a connection that this node dialled."""
        if self.arbiter:
            self.serial = self._offered = self._next_serial()
        return Hello(self._incarnation, self.peer_incarnation, self.serial, forced)

    def withdraw(self) -> None:
        """The dial that `hello` was for has failed."""
        self._offered = 0

    def answer(self, hello: Hello) -> Reply:
        """Decide about a connection that the peer dialled. A granted one is the link from now on."""
        return self._grant(hello) if self.arbiter else self._obey(hello)

    def concluded(self, reply: Reply) -> bool:
        """The peer answered this node's hello: whether that connection is the link from now on."""
        if reply.verdict is not Verdict.GRANTED:
            self.withdraw()
            return False
        if self.arbiter:
            # Nothing offered any more: a newer link was granted on a connection that the peer dialled.
            if not self._offered:
                return False
            self._adopt(reply.incarnation, self._offered)
            return True
        if reply.incarnation == self.peer_incarnation and reply.serial <= self.serial:
            return False
        self._adopt(reply.incarnation, reply.serial)
        return True

    def lost(self) -> None:
        """The link is gone."""
        self.up = False

    def _grant(self, hello: Hello) -> Reply:
        restarted = hello.incarnation != self.peer_incarnation
        knew_the_newest = hello.known_incarnation == self._incarnation and hello.serial == self.serial
        taken = bool(self._offered) or (self.up and not restarted and not knew_the_newest)
        if taken and not hello.forced:
            return Reply(Verdict.DUPLICATE, self._incarnation, self.serial)
        self._adopt(hello.incarnation, self._next_serial())
        return Reply(Verdict.GRANTED, self._incarnation, self.serial)

    def _obey(self, hello: Hello) -> Reply:
        stale = hello.incarnation == self.peer_incarnation and hello.serial <= self.serial
        if stale:
            return Reply(Verdict.DUPLICATE, self._incarnation, self.serial)
        self._adopt(hello.incarnation, hello.serial)
        return Reply(Verdict.GRANTED, self._incarnation, self.serial)

    def _adopt(self, incarnation: bytes, serial: int) -> None:
        self.peer_incarnation = incarnation
        self.serial = serial
        self._offered = 0
        self.up = True
