"""What two nodes say to each other before they are sure that both belong to the group (see `admission`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.kernel.messages import Message, Timer
from colla.model.ids import GroupId, NodeId
from colla.model.record import SignedRecord
from colla.protocol.membership.bodies import JoinClaim
from colla.protocol.membership.tickets import CONTACTS_MAX, Contact

PROOF_PAGE_RECORDS_MAX = 1024
TEXT_CHARS_MAX = 1000

_Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
_Records = Annotated[tuple[SignedRecord, ...], Meta(max_length=PROOF_PAGE_RECORDS_MAX)]


class Versions(msgspec.Struct, frozen=True, array_like=True):
    """The versions of the protocol that a node speaks, first and last."""

    oldest: int
    newest: int

    def meets(self, other: Versions) -> bool:
        """Whether there is a version that both speak."""
        return self.oldest <= other.newest and other.oldest <= self.newest


class Greeting(Message, frozen=True, tag="greet"):
    """The first thing that each side says on a new link.

    `start` is the sender's start number, `membership` the fingerprint of its membership records, `joining` that
    it has a ticket instead of a membership, `answer` that it has not had the other's greeting yet.
    """

    group: GroupId
    versions: Versions
    start: int
    membership: bytes
    joining: bool = False
    answer: bool = True


class ProofWanted(Message, frozen=True, tag="proof?"):
    """I do not know you. Which records say that you belong?"""


class Proof(Message, frozen=True, tag="proof!"):
    """The chain of records from the founding to the sender's admission, in pages; `last` closes it."""

    records: _Records
    last: bool


class Refused(Message, frozen=True, tag="refused"):
    """You do not belong, and why: `code` is stable, `text` for people. The link is closed after it."""

    code: str
    text: _Text


class Farewell(Message, frozen=True, tag="out!"):
    """You belonged, and do not any more: the records that say so, with those they stand on, in pages; `last` closes it."""

    records: _Records
    last: bool


class JoinRequest(Message, frozen=True, tag="join?"):
    """Let me in with this ticket. Repeating it changes nothing."""

    claim: JoinClaim


class Welcome(Message, frozen=True, tag="join!"):
    """You are in: the chains of records of the sender and of the joiner, in pages; `last` closes it."""

    records: _Records
    last: bool


class JoinRefusal(Message, frozen=True, tag="join-"):
    """You are not let in, at least not by me: `code` is stable, `text` for people. `contacts` may let you in."""

    code: str
    text: _Text
    contacts: Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)] = ()


class GreetingDue(Timer, frozen=True):
    """Greet again, or give up: stale when the link has another serial number."""

    peer: NodeId
    serial: int


class JoinDue(Timer, frozen=True):
    """Ask again to be let in, or give up: stale when the attempt has another number."""

    attempt: int


ADMISSION_MESSAGES: tuple[type[Message], ...] = (
    Greeting,
    ProofWanted,
    Proof,
    Refused,
    Farewell,
    JoinRequest,
    Welcome,
    JoinRefusal,
)
ADMISSION_TIMERS: tuple[type[Timer], ...] = (GreetingDue, JoinDue)
