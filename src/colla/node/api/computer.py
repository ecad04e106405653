"""Routes about this computer: its node, what it gives, what happens on it, and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from colla.agents.requests import Reconnect
from colla.client import types
from colla.node import reports
from colla.node.api.routes import Call, Route


async def _node(call: Call[None]) -> types.NodeReport:
    return reports.node_report(call.node)


async def _doctor(call: Call[None]) -> tuple[types.DoctorLine, ...]:
    return reports.doctor_lines(call.node)


async def _notices(call: Call[None]) -> AsyncIterator[types.NoticeReport]:
    async for report in call.node.notices.follow():
        yield report


async def _contribute(call: Call[types.ContributeRequest]) -> types.ContributeAnswer:
    done = await call.node.contribute(call.body.contribution)
    return types.ContributeAnswer(done.contribution, done.replicas_left)


async def _connect(call: Call[types.ConnectRequest]) -> types.Done:
    await call.ask(Reconnect(call.body.address))
    return types.Done()


async def _leave(call: Call[types.LeaveRequest]) -> types.Done:
    await call.node.leave(now=call.body.now, anyway=call.body.anyway)
    return types.Done()


async def _shut_down(call: Call[types.ShutDownRequest]) -> types.Done:
    call.node.keep_replicas = call.body.keep_replicas
    call.node.stop_wanted.set()
    return types.Done()


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "node", "This computer's node.", _node, types.NodeReport),
    Route(
        "GET",
        "doctor",
        "What the node sees of its own health and connections.",
        _doctor,
        tuple[types.DoctorLine, ...],
    ),
    Route(
        "GET",
        "notices",
        "What happens on this node, as it happens; the newest of the past come first.",
        _notices,
        types.NoticeReport,
    ),
    Route(
        "POST",
        "contribute",
        "Decide anew what this computer gives; takes effect at once.",
        _contribute,
        types.ContributeAnswer,
        types.ContributeRequest,
        ("bad_contribution",),
    ),
    Route(
        "POST",
        "connect",
        "Try to reach a node of the group at this address.",
        _connect,
        types.Done,
        types.ConnectRequest,
    ),
    Route(
        "POST",
        "leave",
        "Leave the group with this computer, for good, and stop its node.",
        _leave,
        types.Done,
        types.LeaveRequest,
        ("last_administrator",),
    ),
    Route(
        "POST",
        "shut-down",
        "Stop the node; it comes back with `colla up`.",
        _shut_down,
        types.Done,
        types.ShutDownRequest,
    ),
)
