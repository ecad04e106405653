"""Routes about the execution environments of this computer."""

from __future__ import annotations

from typing import Any, Final

from colla.client import types
from colla.node import attaching
from colla.node.api.routes import Call, Route


async def _environments(call: Call[None]) -> tuple[types.EnvironmentReport, ...]:
    return attaching.reports(call.node)


async def _attach(call: Call[types.AttachRequest]) -> types.EnvironmentReport:
    return await attaching.attach(call.node, call.body.command)


async def _detach(call: Call[None]) -> types.Done:
    await attaching.detach(call.node, call.path["kind"])
    return types.Done()


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "environments",
        "The execution environments that this computer gives or has attached.",
        _environments,
        tuple[types.EnvironmentReport, ...],
    ),
    Route(
        "POST",
        "environments",
        "Attach the environment that a command starts, and give its kind from now on.",
        _attach,
        types.EnvironmentReport,
        types.AttachRequest,
        ("bad_program", "kind_taken", "too_many_programs"),
    ),
    Route(
        "DELETE",
        "environments/{kind}",
        "Give the kind no longer and forget its program; its replicas here stop.",
        _detach,
        types.Done,
        errors=("not_found",),
    ),
)
