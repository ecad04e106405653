"""Routes about the group: who belongs, who is here, who may come."""

from __future__ import annotations

from typing import Any, Final

from colla.agents.requests import InvitePerson, TicketIssued
from colla.client import types
from colla.node import reports
from colla.node.api.routes import Call, Route
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
    issued: TicketIssued = await call.ask(InvitePerson(call.body.my_computer, call.body.expiry_s))
    ticket = read_ticket(issued.text)
    return types.InviteAnswer(issued.text, ticket.group_name, ticket.expires_s, issued.copies)


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "status", "The group at a glance.", _status, types.StatusReport),
    Route("GET", "members", "All members.", _members, tuple[types.MemberReport, ...]),
    Route("GET", "nodes", "All nodes of the group.", _nodes, tuple[types.ComputerReport, ...]),
    Route(
        "POST",
        "invite",
        "Issue a ticket for a person, or for a further computer of the member.",
        _invite,
        types.InviteAnswer,
        types.InviteRequest,
        ("not_allowed",),
    ),
)
