"""Both ends of a join: judging a ticket (`judge_join`), and the joiner's attempt (`Attempt`).

A refusal is final when every node would give it, otherwise the joiner asks the next node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from colla.kernel.config import MembershipConfig
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.membership.bodies import JoinClaim, Ticket, claim_holds
from colla.protocol.membership.grounds import role_to_invite
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.proofs import Collector

COMPUTERS_MAX = MembershipConfig().computers_per_member_max
TICKET_EXPIRED = "ticket_expired"
TICKET_USED = "ticket_used"
TICKET_UNKNOWN = "ticket_unknown"
TICKET_REVOKED = "ticket_revoked"
NODE_OUT = "computer_out"
BAD_SIGNATURE = "bad_signature"
GROUP_FULL = "group_full"
COMPUTERS_FULL = "too_many_computers"
NOT_ADMITTING = "not_admitting"
NOT_READY = "not_ready"
FALSE_GROUP = "false_group"
NOBODY_ANSWERED = "nobody_answered"
CLOCKS_DIFFER = "clocks_differ"

NOBODY_ANSWERED_TEXT = (
    "None of the computers named in the ticket answered; ask the inviter whether theirs is on."
)

FINAL_CODES: tuple[str, ...] = (
    TICKET_USED,
    TICKET_REVOKED,
    NODE_OUT,
    BAD_SIGNATURE,
    GROUP_FULL,
    COMPUTERS_FULL,
)
"""Refusals that no other node of the group would take back."""

CLOCKS_DIFFER_TEXT = (
    "A computer of the group says that the ticket has expired; by the clock of this one it has not. "
    "Compare the clocks of both, or ask for a new ticket."
)
"""A joiner looks at its own clock first: who answers `ticket_expired` has another one, and others may let it in."""

PASSING_CODES: tuple[str, ...] = (
    NOBODY_ANSWERED,
    TICKET_UNKNOWN,
    CLOCKS_DIFFER,
    NOT_ADMITTING,
    NOT_READY,
    "busy",
    "silent",
)
"""Why nobody let the joiner in although somebody may later on."""


class Verdict(msgspec.Struct, frozen=True):
    """Why a join is refused; an empty `code` means that it is granted, `again` that it had been granted before."""

    code: str = ""
    text: str = ""
    again: bool = False


def judge_join(
    membership: Membership,
    claim: JoinClaim,
    peer: NodeId,
    members_max: int,
    now: Instant,
    computers_max: int = COMPUTERS_MAX,
) -> Verdict:
    """Judge expiry, use and signatures, once and for the whole group. `peer` is who proved to hold the node's key."""
    standing = membership.ticket(claim.author, claim.ticket)
    if standing is None:
        return Verdict(TICKET_UNKNOWN, "This node has not heard of the ticket; ask the inviter's computer.")
    if claim.node != peer or not claim_holds(membership.group, claim):
        return Verdict(BAD_SIGNATURE, "The signatures of the request do not hold; ask for a new ticket.")
    offers = [fact.body for fact in standing.offers if isinstance(fact.body, Ticket)]
    offers = [offer for offer in offers if offer.own_computer == claim.own_computer]
    if not offers:
        return Verdict(BAD_SIGNATURE, "The ticket is for another purpose than the request.")
    if claim.node in standing.admitted and membership.node(claim.node) is not None:
        return Verdict(again=True)
    if standing.revoked or membership.node(claim.author) is None or not _may_invite(membership, offers[0]):
        return Verdict(TICKET_REVOKED, "The ticket does not count any more; ask for a new one.")
    named = claim.node in standing.holders
    if not named and max(len(standing.admitted), len(standing.holders)) >= standing.uses:
        who = "Somebody has" if standing.uses == 1 else "All that it was for have"
        return Verdict(TICKET_USED, f"{who} joined with this ticket already; ask for a new one.")
    former = membership.former(claim.node)
    if former is not None and not named:
        return Verdict(NODE_OUT, f"This computer cannot come back as it was. {former.text}")
    if all(offer.expires_s < now.wall_s for offer in offers):
        return Verdict(TICKET_EXPIRED, "The ticket has expired; ask for a new one.")
    if len(membership.nodes()) >= members_max:
        return Verdict(GROUP_FULL, f"The group has {members_max} computers and takes no more.")
    owner = offers[0].member or offers[0].inviter
    if claim.own_computer and len(membership.nodes_of(owner)) >= computers_max:
        return Verdict(COMPUTERS_FULL, f"The member has had {computers_max} computers and can have no more.")
    return Verdict()


def _may_invite(membership: Membership, offer: Ticket) -> bool:
    """Whether the inviter has the role that the ticket takes, now."""
    role = membership.role(offer.inviter)
    gone = bool(offer.member) and membership.role(offer.member) is None
    return role is not None and role.rank >= role_to_invite(offer).rank and not gone


@dataclass(slots=True)
class Attempt:
    """The joiner's side: whom it can ask, whom it asked, and what it was told."""

    number: int
    claim: JoinClaim
    until_s: float
    received: Collector
    asked: NodeId | None = None
    asked_s: float = 0.0
    greeted: dict[NodeId, None] = field(default_factory=dict)
    """Nodes of the right group with an open link, in order of their greetings."""
    refused: dict[NodeId, None] = field(default_factory=dict)
    outcome: tuple[str, str] = (NOBODY_ANSWERED, NOBODY_ANSWERED_TEXT)
    """What to tell the person when the time is over."""

    def next_node(self) -> NodeId | None:
        """The first node that has not refused, beginning with those not asked last."""
        willing = [node for node in self.greeted if node not in self.refused]
        others = [node for node in willing if node != self.asked]
        return next(iter(others or willing), None)

    def refuse(self, node: NodeId, code: str, text: str) -> None:
        """That node does not let this one in, at least not now; the last one that said why is quoted at the end."""
        self.refused[node] = None
        self.outcome = (code, text)
