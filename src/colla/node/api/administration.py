"""Routes that change who belongs, and whose a service is. Members and computers are named as people see them."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from colla.agents.administration_requests import (
    AdoptService,
    GiveRole,
    GroupChanged,
    NameDelegates,
    RemoveMember,
    RenameComputer,
    RenameMember,
    RetireComputer,
    RevokeTicket,
)
from colla.agents.requests import ModifyService, Request, Written
from colla.client import types
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId
from colla.node.api.routes import WRITE_ERRORS, Call, Route
from colla.protocol.membership.bodies import Ticket
from colla.protocol.membership.grounds import role_to_invite
from colla.protocol.membership.resolver import TicketStanding
from colla.protocol.views import Role

TICKET_ID_HEX = 16
TICKET_ID_HEX_MIN = 4


async def _change(call: Call[Any], request: Request) -> types.ChangedAnswer:
    changed: GroupChanged = await call.ask(request)
    return types.ChangedAnswer(changed.copies)


def member_called(call: Call[Any], name: str) -> MemberId:
    """The member of that name. Raises `CollaError("not_found")`."""
    for info in call.node.core.membership.members():
        if name in (info.name, info.id.hex()):
            return info.id
    raise CollaError("not_found", f"There is no member called {name!r}.", "`colla members` lists them.")


def _computer_called(call: Call[Any], name: str) -> NodeId:
    for info in call.node.core.membership.nodes():
        if name in (info.name, info.id.hex()):
            return info.id
    raise CollaError("not_found", f"There is no computer called {name!r}.", "`colla nodes` lists them.")


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(role.value for role in Role)
        raise CollaError("bad_role", f"{text!r} is no role.", f"Roles are: {roles}.") from None


async def _give_role(call: Call[types.RoleRequest]) -> types.ChangedAnswer:
    return await _change(call, GiveRole(member_called(call, call.path["name"]), _role(call.body.role)))


async def _rename_member(call: Call[types.NameRequest]) -> types.ChangedAnswer:
    return await _change(call, RenameMember(member_called(call, call.path["name"]), call.body.name))


async def _remove_member(call: Call[types.ReasonRequest]) -> types.ChangedAnswer:
    return await _change(call, RemoveMember(member_called(call, call.path["name"]), call.body.reason))


async def _former(call: Call[None]) -> tuple[types.FormerMemberReport, ...]:
    return tuple(
        types.FormerMemberReport(member.hex(), former.name, former.code, former.text, former.at_s)
        for member, former in call.node.core.membership.former_members()
    )


async def _rename_computer(call: Call[types.NameRequest]) -> types.ChangedAnswer:
    return await _change(call, RenameComputer(_computer_called(call, call.path["name"]), call.body.name))


async def _retire_computer(call: Call[types.ReasonRequest]) -> types.ChangedAnswer:
    return await _change(call, RetireComputer(_computer_called(call, call.path["name"]), call.body.reason))


async def _tickets(call: Call[None]) -> tuple[types.TicketReport, ...]:
    found = [_report(call, *entry) for entry in call.node.core.membership.tickets()]
    return tuple(sorted(found, key=lambda report: (report.expires_s, report.id)))


def _report(call: Call[Any], author: NodeId, ticket: bytes, standing: TicketStanding) -> types.TicketReport:
    core = call.node.core
    (offer, *_) = [fact.body for fact in standing.offers if isinstance(fact.body, Ticket)]
    inviter = core.membership.member(offer.inviter)
    whose = core.membership.member(offer.member or offer.inviter) if offer.own_computer else None
    made_on = core.membership.node(author)
    names = [core.node_name(node) for node in standing.admitted]
    return types.TicketReport(
        id=ticket.hex()[:TICKET_ID_HEX],
        inviter=inviter.name if inviter is not None else "",
        computer=made_on.name if made_on is not None else "",
        role="" if offer.own_computer else offer.role.value,
        member=whose.name if whose is not None else "",
        uses=standing.uses,
        used_by=tuple(names),
        expires_s=offer.expires_s,
        fate=_fate(call, author, offer, standing),
        mine=core.membership.owner_of(call.node.identity.node) == offer.inviter,
    )


def _fate(call: Call[Any], author: NodeId, offer: Ticket, standing: TicketStanding) -> str:
    membership = call.node.core.membership
    role = membership.role(offer.inviter)
    if standing.revoked:
        return "revoked"
    if len(standing.admitted) >= standing.uses:
        return "used"
    if membership.node(author) is None or role is None or role.rank < role_to_invite(offer).rank:
        return "void"
    return "expired" if offer.expires_s < time.time() else "open"


async def _revoke(call: Call[None]) -> types.ChangedAnswer:
    start = call.path["id"].lower()
    found = [
        (author, ticket)
        for author, ticket, _ in call.node.core.membership.tickets()
        if ticket.hex().startswith(start)
    ]
    if len(start) < TICKET_ID_HEX_MIN or len(found) != 1:
        text = "There is no ticket with" if not found else "Several tickets have"
        raise CollaError(
            "not_found", f"{text} an id that begins with {start!r}.", "`colla tickets` lists them."
        )
    return await _change(call, RevokeTicket(*found[0]))


async def _rename_service(call: Call[types.NameRequest]) -> types.ChangedAnswer:
    service, name = call.service(), call.body.name
    if service.name == name:
        raise CollaError("no_change", f"The service is called {name} already.")
    specification = msgspec.structs.replace(service.specification, name=name)
    written: Written = await call.ask(ModifyService(service.id, specification))
    return types.ChangedAnswer(written.copies)


async def _adopt(call: Call[types.OwnerRequest]) -> types.ChangedAnswer:
    name = call.body.member
    mine = call.node.core.membership.owner_of(call.node.identity.node) or MemberId(b"")
    owner = member_called(call, name) if name else mine
    return await _change(call, AdoptService(call.service().id, owner))


async def _delegate(call: Call[types.DelegatesRequest]) -> types.ChangedAnswer:
    members = tuple(member_called(call, name) for name in call.body.members)
    return await _change(call, NameDelegates(call.service().id, members))


_CHANGING = ("not_found", "not_allowed", *WRITE_ERRORS)
_ENDING = (*_CHANGING, "last_administrator")
_NAMING = (*_CHANGING, "bad_name", "name_taken", "no_change")


def _post(
    path: str, summary: str, handler: Any, request: type[Any], errors: tuple[str, ...]
) -> Route[Any, Any]:
    return Route("POST", path, summary, handler, types.ChangedAnswer, request, errors)


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "members/former", "Who was removed or left.", _former, tuple[types.FormerMemberReport, ...]),
    _post(
        "members/{name}/role",
        "Let the member be administrator, member or guest.",
        _give_role,
        types.RoleRequest,
        (*_ENDING, "bad_role", "no_change"),
    ),
    _post("members/{name}/name", "Call a member otherwise.", _rename_member, types.NameRequest, _NAMING),
    Route(
        "DELETE",
        "members/{name}",
        "Remove the member with all its computers, for good.",
        _remove_member,
        types.ChangedAnswer,
        types.ReasonRequest,
        (*_ENDING, "too_long"),
    ),
    _post("nodes/{name}/name", "Call a computer otherwise.", _rename_computer, types.NameRequest, _NAMING),
    Route(
        "DELETE",
        "nodes/{name}",
        "Take a computer out for good; its owner stays a member.",
        _retire_computer,
        types.ChangedAnswer,
        types.ReasonRequest,
        (*_ENDING, "too_long"),
    ),
    Route("GET", "tickets", "All tickets.", _tickets, tuple[types.TicketReport, ...]),
    Route(
        "DELETE",
        "tickets/{id}",
        "Let the ticket whose id begins so admit nobody any more.",
        _revoke,
        types.ChangedAnswer,
        errors=(*_CHANGING, "no_change"),
    ),
    _post(
        "services/{name}/name",
        "Call a service otherwise; it stays the same service.",
        _rename_service,
        types.NameRequest,
        ("not_found", "not_owner", "guest", "bad_name", "name_taken", "no_change", *WRITE_ERRORS),
    ),
    _post(
        "services/{name}/owner",
        "Take a service over, or give it to another member.",
        _adopt,
        types.OwnerRequest,
        ("not_found", "not_owner", "guest", *WRITE_ERRORS),
    ),
    _post(
        "services/{name}/delegates",
        "Name the members who may change a service beside its owner.",
        _delegate,
        types.DelegatesRequest,
        ("not_found", "not_owner", "guest", "too_many_delegates", *WRITE_ERRORS),
    ),
)
