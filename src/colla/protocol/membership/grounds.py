"""Why a node belongs to a member, and what became of each ticket: the parts of which the resolver builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from colla.model.ids import MemberId, NodeId
from colla.model.record import Stamp
from colla.protocol.membership.bodies import Admitted, JoinClaim, Ticket
from colla.protocol.membership.facts import Fact
from colla.protocol.views import Role

Belonging: TypeAlias = tuple[NodeId, MemberId]
TicketId: TypeAlias = tuple[NodeId, bytes]
"""The author of the ticket and the ticket's public key."""
Seniority: TypeAlias = tuple[int, Stamp, bytes]
"""Smaller is elder: depth in the chain of trust, which nobody can forge to be smaller, then stamp."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Why a node belongs to a member: the facts that say so and whose authority they stand on."""

    depth: int
    facts: tuple[Fact, ...]
    """The last one is the founding or the admission."""
    parents: tuple[Belonging, ...]
    role: Role | None
    """What the member is by it; None for a further computer of somebody who is a member."""
    claim: JoinClaim | None = None
    """What the node said of itself; None for the founder's."""

    @property
    def is_chosen(self) -> bool:
        """Whether the node itself says that it belongs there."""
        return self.claim is None or bool(self.claim.consent)

    @property
    def preference(self) -> tuple[bool, Seniority]:
        """Of several who claim a node the least counts: whom the node itself chose, then the eldest."""
        return (not self.is_chosen, self.seniority)

    @property
    def seniority(self) -> Seniority:
        record = self.facts[-1].record
        return (self.depth, record.stamp, record.digest)


@dataclass(slots=True)
class TicketFacts:
    """All that was said of one ticket by whom it may be said, as places among the facts."""

    offers: list[int] = field(default_factory=list)
    admissions: list[int] = field(default_factory=list)
    settlements: list[int] = field(default_factory=list)
    """What may name a holder, in the order in which it counts: all in the log of the ticket's author."""


def covers(ticket: Ticket, admitted: Admitted) -> bool:
    """Whether the ticket is of the sort that was used, and had not expired then."""
    same_sort = ticket.own_computer == admitted.claim.own_computer
    return same_sort and admitted.admitted_s <= ticket.expires_s


def role_to_invite(ticket: Ticket) -> Role:
    """What a member has to be, to make this ticket."""
    if ticket.own_computer:
        own = ticket.member in (b"", ticket.inviter)
        return Role.GUEST if own else Role.ADMINISTRATOR
    return max(Role.MEMBER, ticket.role, key=lambda role: role.rank)
