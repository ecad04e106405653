"""What nodes tell each other about who is here. Tags and fields are short: a heartbeat costs 14 bytes and its wrapping."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.kernel.messages import Message, Timer
from colla.model.ids import KEY_BYTES, NodeId
from colla.model.keys import SIGNATURE_BYTES
from colla.protocol.views import PresencePhase

NUMBER_MAX = 2**62
ANNOUNCEMENT_BYTES_MAX = 4096
ITEMS_MAX = 128
"""Verifying so many signatures takes about 15 ms."""
INDEX_MAX = 1024

Node = Annotated[NodeId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]

RANKED: tuple[PresencePhase, ...] = (
    PresencePhase.PRESENT,
    PresencePhase.SUSPECTED,
    PresencePhase.ABSENT,
    PresencePhase.LEFT,
)
"""A phase's place here is its rank: among claims about one version of a node the higher rank holds."""


class SignedAnnouncement(msgspec.Struct, frozen=True, array_like=True):
    """An `Announcement` in its author's exact bytes, and the signature over context, group and these."""

    payload: Annotated[bytes, Meta(max_length=ANNOUNCEMENT_BYTES_MAX)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Somebody says how a node stands, as of version (start, revision) of its announcement.

    Whoever announces a higher version refutes all claims about lower ones. Claims are not signed, so none is believed
    about a version that its node did not announce.
    """

    node: Node
    start: Number
    revision: Number
    rank: Annotated[int, Meta(ge=0, lt=len(RANKED))]

    @property
    def phase(self) -> PresencePhase:
        return RANKED[self.rank]

    @property
    def version(self) -> tuple[int, int]:
        return (self.start, self.revision)


class Heartbeat(Message, frozen=True, tag="h"):
    """I am here. `echo` is the last nonce heard from the receiver (0: none); `ask` wants heartbeats in return."""

    nonce: Number
    echo: Number
    ask: bool = False


class Probe(Message, frozen=True, tag="hp"):
    """You are late. Are you here? Answered at once by a heartbeat, and by further ones for a while."""

    nonce: Number
    echo: Number


class Silence(Message, frozen=True, tag="hs"):
    """To the other watchers: I do not hear `subject`, which started as number `start`. Do you?"""

    subject: Node
    start: Number


class Heard(Message, frozen=True, tag="hh"):
    """I did hear it, so long ago."""

    subject: Node
    ago_ms: Number


class News(Message, frozen=True, tag="pn"):
    """What is new about somebody; who did not know it passes it on."""

    claims: Annotated[tuple[Claim, ...], Meta(max_length=ITEMS_MAX)]
    announcements: Annotated[tuple[SignedAnnouncement, ...], Meta(max_length=ITEMS_MAX)]


class TableDigest(Message, frozen=True, tag="pd"):
    """A hash over all that I know of who is here. Is yours the same? No answer means yes."""

    digest: Annotated[bytes, Meta(max_length=KEY_BYTES)]


class TableIndex(Message, frozen=True, tag="pi"):
    """All that I know of nodes with ids above `after` and up to `through`, without the announcements."""

    after: Annotated[bytes, Meta(max_length=KEY_BYTES)]
    through: Annotated[bytes, Meta(max_length=KEY_BYTES)]
    claims: Annotated[tuple[Claim, ...], Meta(max_length=INDEX_MAX)]


class TableRow(msgspec.Struct, frozen=True, array_like=True):
    """How one node stands, with the newest announcement known."""

    claim: Claim
    announcement: SignedAnnouncement


class TableRows(Message, frozen=True, tag="pr"):
    """What is newer here, and the nodes of which the receiver knows more."""

    rows: Annotated[tuple[TableRow, ...], Meta(max_length=ITEMS_MAX)]
    wanted: Annotated[tuple[Node, ...], Meta(max_length=INDEX_MAX)]


class PresenceTick(Timer, frozen=True):
    """Heartbeats, probes and decisions are due: stale unless `serial` is the newest."""

    serial: int


class NewsDue(Timer, frozen=True):
    """Collected news is due: stale unless `serial` is the newest."""

    serial: int


class SuspicionDue(Timer, frozen=True):
    """The time to refute is over: stale when the node stands at another version or is not suspected."""

    node: NodeId
    start: int
    revision: int
    stage: int


PRESENCE_MESSAGES: tuple[type[Message], ...] = (
    Heartbeat,
    Probe,
    Silence,
    Heard,
    News,
    TableDigest,
    TableIndex,
    TableRows,
)
PRESENCE_TIMERS: tuple[type[Timer], ...] = (PresenceTick, NewsDue, SuspicionDue)
