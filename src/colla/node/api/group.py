"""Routes about the group: who belongs, who is here, who may come."""

from __future__ import annotations

from typing import Any, Final

from colla.agents.requests import InvitePerson, TicketIssued
from colla.client import types
from colla.model.ids import MemberId
from colla.node import reports
from colla.node.api.administration import member_called
from colla.node.api.routes import WRITE_ERRORS, Call, Route
from colla.node.api.services import locate_all
from colla.protocol.membership.tickets import read_ticket


async def _status(call: Call[None]) -> types.StatusReport:
    await locate_all(call)
    return reports.status_report(call.node)


async def _members(call: Call[None]) -> tuple[types.MemberReport, ...]:
    return reports.member_reports(call.node)


async def _nodes(call: Call[None]) -> tuple[types.ComputerReport, ...]:
    return reports.computer_reports(call.node)


async def _invite(call: Call[types.InviteRequest]) -> types.InviteAnswer:
    body = call.body
    member = member_called(call, body.member) if body.member else MemberId(b"")
    issued: TicketIssued = await call.ask(
        InvitePerson(body.my_computer, body.expiry_s, body.role, body.uses, member)
    )
    ticket = read_ticket(issued.text)
    return types.InviteAnswer(issued.text, ticket.group_name, ticket.expires_s, issued.copies)


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "status", "The group at a glance.", _status, types.StatusReport),
    Route("GET", "members", "All members.", _members, tuple[types.MemberReport, ...]),
    Route("GET", "nodes", "All nodes of the group.", _nodes, tuple[types.ComputerReport, ...]),
    Route(
        "POST",
        "invite",
        "Issue a ticket for persons, or for further computers of a member.",
        _invite,
        types.InviteAnswer,
        types.InviteRequest,
        ("not_allowed", "not_found", "bad_role", "bad_uses", "bad_expiry", "no_address", *WRITE_ERRORS),
    ),
)
