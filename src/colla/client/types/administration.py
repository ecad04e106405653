"""Types of the local API about who belongs: roles, removals, names, tickets, and whose a service is."""

from __future__ import annotations

import msgspec


class RoleRequest(msgspec.Struct, frozen=True):
    """Give a member a role: administrator, member or guest."""

    role: str


class NameRequest(msgspec.Struct, frozen=True):
    """Call a member, a computer or a service so."""

    name: str


class ReasonRequest(msgspec.Struct, frozen=True):
    """Why; everybody can read it, who is removed too."""

    reason: str = ""


class OwnerRequest(msgspec.Struct, frozen=True):
    """Give a service to a member, by name; empty: to oneself."""

    member: str = ""


class DelegatesRequest(msgspec.Struct, frozen=True):
    """The members, by name, who may change a service as its owner may; all those before are replaced."""

    members: tuple[str, ...]


class ChangedAnswer(msgspec.Struct, frozen=True):
    """The change is durable on `copies` computers."""

    copies: int


class TicketReport(msgspec.Struct, frozen=True):
    """One ticket. `fate` is open, used, expired, revoked, or void when its inviter may not invite (any more)."""

    id: str
    inviter: str
    computer: str
    """Where it was made."""
    role: str
    """What who joins with it becomes; empty for further computers."""
    member: str
    """Whose further computers it admits; empty when it is for persons."""
    uses: int
    used_by: tuple[str, ...]
    expires_s: float
    fate: str
    mine: bool


class FormerMemberReport(msgspec.Struct, frozen=True):
    """Somebody who does not belong any more. `what` is removed or left."""

    id: str
    name: str
    what: str
    text: str
    at_s: float
