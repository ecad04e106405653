"""The bodies of membership records, and the statements that members and tickets sign.

All membership records are immutable facts: the key of each names the digest of its body, so no author can
replace what others stand on (`check_record` holds this; the record book asks it before it merges). Kinds that
this version does not know obey the same rule, are kept, forwarded and ignored. Source: DESIGN section 10.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import GroupId, MemberId, NodeId, digest
from colla.model.keys import SIGNATURE_BYTES, SecretKey, verify
from colla.model.record import TOPIC_MEMBERSHIP, Key, Record
from colla.model.sharing import shared
from colla.protocol.views import Election, Role

SUBJECT_BYTES = 16
DIGEST_BYTES = 16
NAME_CHARS_MAX = 63
REASON_CHARS_MAX = 200
HEADS_MAX = 256
"""Acts that one body names as known; one is the rule, more only after partitions."""
LOGS_NAMED_MAX = 1024
KEPT_MAX = 1024
"""Joiners of a member's tickets that one body names: 16 bytes each, so that it fits in a record."""
USES_MAX = 1000
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_KEY = Meta(min_length=32, max_length=32)
_SIGNATURE = Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)
_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]

TicketKey: TypeAlias = Annotated[bytes, _KEY]
"""The public key of a ticket's seed (32 bytes): the ticket's name in records."""


class Founding(msgspec.Struct, frozen=True, array_like=True, tag="founding"):
    """The first record of a group; the group's id is the digest of this body.

    `certificate` is the founder's signature over the rest: it certifies the founder's node.
    """

    group_name: _Name
    election: Election
    member: Annotated[MemberId, _KEY]
    member_name: _Name
    node: Annotated[NodeId, _KEY]
    node_name: _Name
    random: Annotated[bytes, Meta(min_length=16, max_length=16)]
    certificate: Annotated[bytes, _SIGNATURE]


_Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Heads: TypeAlias = Annotated[tuple[_Digest, ...], Meta(max_length=HEADS_MAX)]
"""The newest acts (see `Act`) that the author knew, by the digests of their records: its causal past."""


class Ticket(msgspec.Struct, frozen=True, array_like=True, tag="ticket"):
    """The author's member invites persons, or (`own_computer`) one more computer of that member.

    `expires_s` is Unix time, judged once, by the node that admits. A ticket admits `uses` nodes, each person with
    `role`. With `member` the computers that it admits become that member's, who lost theirs.
    """

    ticket: TicketKey
    inviter: Annotated[MemberId, _KEY]
    expires_s: float
    own_computer: bool
    role: Role = Role.MEMBER
    uses: Annotated[int, Meta(ge=1, le=USES_MAX)] = 1
    member: Annotated[MemberId, Meta(max_length=32)] = MemberId(b"")
    past: Heads = ()


class JoinClaim(msgspec.Struct, frozen=True, array_like=True):
    """What a joiner says and signs; it stands verbatim in the record of its admission.

    `author` is the node whose record made the ticket. With a ticket for the inviter's own computer, `member`,
    `member_name` and `certificate` are empty: the node belongs to the inviter. `signature` is the ticket's over
    all of it; `certificate` is the member's over group and node; `consent` is the node's over all that (claims of
    earlier versions have none): without it a member could claim another one's computer with a ticket of its own.
    """

    ticket: TicketKey
    author: Annotated[NodeId, _KEY]
    node: Annotated[NodeId, _KEY]
    member: Annotated[MemberId, Meta(max_length=32)]
    member_name: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
    node_name: _Name
    signature: Annotated[bytes, _SIGNATURE]
    certificate: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]
    consent: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)] = b""

    @property
    def own_computer(self) -> bool:
        return not self.member


class Admitted(msgspec.Struct, frozen=True, array_like=True, tag="admitted"):
    """The author let a node in at `admitted_s` (Unix time of the author's clock)."""

    claim: JoinClaim
    admitted_s: float
    past: Heads = ()


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="settled"):
    """The author of the ticket names the one node that it admitted, since others may have admitted others."""

    ticket: TicketKey
    node: Annotated[NodeId, _KEY]


class Through(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Up to which number the author had seen the log of that name (see `records/summary.log_name`)."""

    log: Annotated[bytes, Meta(min_length=16, max_length=16)]
    number: Annotated[int, Meta(ge=1, le=2**53)]


Places: TypeAlias = Annotated[tuple[Through, ...], Meta(max_length=LOGS_NAMED_MAX)]
Kept: TypeAlias = Annotated[tuple[_Digest, ...], Meta(max_length=KEPT_MAX)]
"""Admissions that the author knew, with tickets that the act makes void for others, by their records' digests."""


class Appointed(msgspec.Struct, frozen=True, array_like=True, tag="appointed"):
    """The member has this role from now on: for all that its logs say beyond `through`."""

    member: Annotated[MemberId, _KEY]
    role: Role
    through: Places
    kept: Kept
    past: Heads


class Removed(msgspec.Struct, frozen=True, array_like=True, tag="removed"):
    """The member is out for good. What its nodes wrote up to `through` stays, all later is void."""

    member: Annotated[MemberId, _KEY]
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
    removed_s: float
    through: Places
    kept: Kept
    past: Heads


class Retired(msgspec.Struct, frozen=True, array_like=True, tag="retired"):
    """The computer is out for good: given away, lost, or its owner left with it. As `Removed`, of one node."""

    node: Annotated[NodeId, _KEY]
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
    retired_s: float
    through: Places
    kept: Kept
    past: Heads


class Revoked(msgspec.Struct, frozen=True, array_like=True, tag="revoked"):
    """The ticket that `author` made admits nobody any more; who is in `kept` stays."""

    author: Annotated[NodeId, _KEY]
    ticket: TicketKey
    kept: Kept
    past: Heads


class Renamed(msgspec.Struct, frozen=True, array_like=True, tag="renamed"):
    """The member, or else the node, is called so. Of several the greatest `revision` counts."""

    subject: Annotated[bytes, _KEY]
    is_member: bool
    name: _Name
    revision: Annotated[int, Meta(ge=1, le=2**53)]
    past: Heads


Act: TypeAlias = Appointed | Removed | Retired | Revoked
"""What changes authority. Acts name each other's digests as their past, so their order is no matter of clocks."""
Body: TypeAlias = Founding | Ticket | Admitted | Settled | Act | Renamed
KINDS: tuple[str, ...] = (
    "founding",
    "ticket",
    "admitted",
    "settled",
    "appointed",
    "removed",
    "retired",
    "revoked",
    "renamed",
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)


def encode_body(body: Body) -> bytes:
    """The bytes that go into the record."""
    return _encoder.encode(body)


@shared
def decode_body(kind: str, data: bytes) -> Body | None:
    """The body, or None when this version does not understand it."""
    if kind not in KINDS:
        return None
    try:
        body = _decoder.decode(data)
    except UNDECODABLE:
        return None
    return body if kind_of(body) == kind else None


def kind_of(body: Body) -> str:
    """The kind in the record's key."""
    return type(body).__name__.lower()


def key_of(body: Body) -> Key:
    """The key that a record with this body has."""
    return Key(kind_of(body), digest(encode_body(body))[:SUBJECT_BYTES])


def check_record(record: Record) -> None:
    """Raise `ValueError` unless the record's key names its body: no record may replace a different one."""
    if record.log.topic != TOPIC_MEMBERSHIP:
        raise ValueError("not a membership record")
    if record.key.subject != digest(record.body)[:SUBJECT_BYTES]:
        raise ValueError("the key of a membership record must name the digest of its body")


def group_id_of(founding: bytes) -> GroupId:
    """The id of the group that this founding body begins."""
    return GroupId(digest(founding))


def sign_founding(founding: Founding, member: SecretKey) -> Founding:
    """The same with the founder's signature."""
    return msgspec.structs.replace(founding, certificate=member.sign(_founding_statement(founding)))


def founding_holds(founding: Founding) -> bool:
    """Whether the founder signed it and its names are such as may stand in a group."""
    names = (founding.group_name, founding.member_name, founding.node_name)
    signed = verify(founding.member, _founding_statement(founding), founding.certificate)
    return signed and all(is_name(name) for name in names)


def certify(group: GroupId, member: SecretKey, node: NodeId) -> bytes:
    """The member's signature that says: this node is mine, in this group."""
    return member.sign(_certificate_statement(group, node))


def certificate_holds(group: GroupId, member: MemberId, node: NodeId, certificate: bytes) -> bool:
    """Whether `certify` made this."""
    return verify(member, _certificate_statement(group, node), certificate)


def sign_claim(
    group: GroupId,
    ticket: SecretKey,
    author: NodeId,
    node: NodeId,
    node_name: str,
    member: SecretKey | None,
    member_name: str,
) -> JoinClaim:
    """Make the claim of a joining node; `member` is None with a ticket for the inviter's own computer."""
    member_id = MemberId(member.public) if member else MemberId(b"")
    claim = JoinClaim(
        ticket=ticket.public,
        author=author,
        node=node,
        member=member_id,
        member_name=member_name if member else "",
        node_name=node_name,
        signature=bytes(SIGNATURE_BYTES),
        certificate=certify(group, member, node) if member else b"",
    )
    return msgspec.structs.replace(claim, signature=ticket.sign(_claim_statement(group, claim)))


def consent(group: GroupId, claim: JoinClaim, node: SecretKey) -> JoinClaim:
    """The same with the signature of the node that it is about."""
    return msgspec.structs.replace(claim, consent=node.sign(_consent_statement(group, claim)))


def claim_holds(group: GroupId, claim: JoinClaim) -> bool:
    """Whether all its signatures hold and the names are such as may stand in a group."""
    names_hold = is_name(claim.node_name) and (claim.own_computer or is_name(claim.member_name))
    if not names_hold or not verify(claim.ticket, _claim_statement(group, claim), claim.signature):
        return False
    if claim.consent and not verify(claim.node, _consent_statement(group, claim), claim.consent):
        return False
    if claim.own_computer:
        return not claim.certificate and not claim.member_name
    return certificate_holds(group, claim.member, claim.node, claim.certificate)


def is_name(name: str) -> bool:
    """Whether `name` may name a group, a member or a node: a DNS label without `--`."""
    return NAME_PATTERN.fullmatch(name) is not None and "--" not in name


def check_label(what: str, name: str) -> str:
    """Return `name`, or raise `CollaError("bad_name")`; `what` says whose name it is ("group", "member"…)."""
    if not is_name(name):
        raise CollaError(
            "bad_name",
            f"{name!r} cannot be the name of a {what}.",
            "Use 1 to 63 lower-case letters, digits and single hyphens, as in 'book-club'.",
        )
    return name


def _founding_statement(founding: Founding) -> bytes:
    unsigned = msgspec.structs.replace(founding, certificate=bytes(SIGNATURE_BYTES))
    return b"colla founding 1" + _encoder.encode(unsigned)


def _certificate_statement(group: GroupId, node: NodeId) -> bytes:
    return b"colla certificate 1" + group + node


def _consent_statement(group: GroupId, claim: JoinClaim) -> bytes:
    return b"colla consent 1" + group + claim.ticket + claim.signature


def _claim_statement(group: GroupId, claim: JoinClaim) -> bytes:
    fields = (claim.author, claim.node, claim.member, claim.member_name, claim.node_name, claim.certificate)
    return b"colla join 1" + group + _encoder.encode(fields)
