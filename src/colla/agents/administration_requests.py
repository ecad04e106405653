"""What the API asks about who belongs: roles, removals, computers, names, tickets, and whose a service is.

Each request is answered once, with the answer named in its docstring or with a `kernel.effects.Refusal`.
"""

from __future__ import annotations

import msgspec

from colla.agents.requests import Request
from colla.model.ids import MemberId, NodeId, ServiceId
from colla.protocol.views import Role


class GiveRole(Request, frozen=True):
    """Let the member be administrator, member or guest from now on. Answer: `GroupChanged`."""

    member: MemberId
    role: Role


class RemoveMember(Request, frozen=True):
    """Remove the member with all its computers, for good. Answer: `GroupChanged`."""

    member: MemberId
    reason: str = ""


class RetireComputer(Request, frozen=True):
    """Take a computer out for good; its owner stays a member. Answer: `GroupChanged`."""

    node: NodeId
    reason: str = ""


class RenameMember(Request, frozen=True):
    """Call a member otherwise. Answer: `GroupChanged`."""

    member: MemberId
    name: str


class RenameComputer(Request, frozen=True):
    """Call a computer otherwise. Answer: `GroupChanged`."""

    node: NodeId
    name: str


class RevokeTicket(Request, frozen=True):
    """Let the ticket admit nobody any more. Answer: `GroupChanged`."""

    author: NodeId
    ticket: bytes


class Depart(Request, frozen=True):
    """This computer leaves for good, and with a member's last one the member. Answer: `GroupChanged`.

    The only administrator leaves `anyway` or not at all.
    """

    anyway: bool = False


class AdoptService(Request, frozen=True):
    """From now on the service is that member's. Answer: `GroupChanged`."""

    service: ServiceId
    owner: MemberId


class NameDelegates(Request, frozen=True):
    """These members may change the service as its owner may. Answer: `GroupChanged`."""

    service: ServiceId
    delegates: tuple[MemberId, ...]


class GroupChanged(msgspec.Struct, frozen=True):
    """The change is durable on `copies` nodes, this one included."""

    copies: int


ON_MEMBERSHIP = (
    GiveRole,
    RemoveMember,
    RetireComputer,
    RenameMember,
    RenameComputer,
    RevokeTicket,
    Depart,
)
ON_SERVICES = (AdoptService, NameDelegates)
WRITING = (*ON_MEMBERSHIP, *ON_SERVICES)
