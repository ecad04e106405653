"""Routes about services: created, changed, run, found, reached, eliminated."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from colla.agents.requests import (
    CreateService,
    EliminateService,
    ExplainService,
    LocateService,
    ModifyService,
    SetActive,
    SetReplicas,
    Written,
)
from colla.client import types
from colla.model.errors import CollaError
from colla.model.ids import MemberId
from colla.model.secret import SECRET_USE, check_secret_names
from colla.model.service import REPLICAS_MAX, HealthCheck, Limits, Service, Specification
from colla.node import reports
from colla.node.api.routes import WRITE_ERRORS, Call, Route, object_id


async def locate_all(call: Call[Any]) -> None:
    """Before a list: ask for the locations of services that nobody here watched so far."""
    core = call.node.core
    for service in core.catalogue.services():
        if service.active and not core.user.is_watching(service.id):
            await _locate(call, service)


async def _locate(call: Call[Any], service: Service) -> None:
    """Ask where it is; when nobody can be asked now, what is known already has to do."""
    with contextlib.suppress(CollaError):
        await call.ask(LocateService(service.id))


async def _services(call: Call[None]) -> tuple[types.ServiceReport, ...]:
    await locate_all(call)
    return reports.service_reports(call.node)


async def _service(call: Call[None]) -> types.ServiceReport:
    service = call.service()
    if service.active:
        await _locate(call, service)
    return reports.service_report(call.node, call.service())


async def _why(call: Call[None]) -> types.WhyReport:
    service = call.service()
    if not service.active:
        raise CollaError(
            "inactive", "The service is not active, so nothing runs.", "Activate it: `colla activate`."
        )
    return reports.why_report(call.node, service, await call.ask(ExplainService(service.id)))


async def _logs(call: Call[types.LogsRequest]) -> AsyncIterator[types.LogLineReport]:
    service = call.service()
    if service.active:
        await _locate(call, service)
    async for line in call.node.observing.logs(service.id, call.body.lines, follow=call.body.follow):
        yield line


async def _exec(call: Call[types.ExecCommand]) -> AsyncIterator[types.ExecOutputReport]:
    service, body = call.service(), call.body
    if service.active:
        await _locate(call, service)
    async for output in call.node.executing.run(service.id, body.command, body.timeout_s, body.node):
        yield output


async def _stats(call: Call[None]) -> tuple[types.ReplicaStatsReport, ...]:
    service = call.service()
    if service.active:
        await _locate(call, service)
    return await call.node.observing.stats(service.id)


async def _deploy(call: Call[types.DeployRequest]) -> types.WrittenAnswer:
    body = call.body
    if not 1 <= body.replicas <= REPLICAS_MAX:
        raise CollaError("bad_replicas", f"A service has 1 to {REPLICAS_MAX} replicas.")
    core = call.node.core
    specification = _specification(body)
    existing = core.catalogue.by_name(body.name)
    if existing is None or existing.owner != core.membership.owner_of(call.node.identity.node):
        written = await call.ask(CreateService(specification, body.replicas, body.activate))
        return _written(call, written, created=True)
    written = await call.ask(ModifyService(existing.id, specification))
    if existing.replicas != body.replicas:
        written = await call.ask(SetReplicas(existing.id, body.replicas))
    if body.activate and not existing.active:
        written = await call.ask(SetActive(existing.id, True))
    return _written(call, written)


async def _activate(call: Call[None]) -> types.WrittenAnswer:
    return _written(call, await call.ask(SetActive(call.service().id, True)))


async def _deactivate(call: Call[None]) -> types.WrittenAnswer:
    return _written(call, await call.ask(SetActive(call.service().id, False)))


async def _scale(call: Call[types.ScaleRequest]) -> types.WrittenAnswer:
    return _written(call, await call.ask(SetReplicas(call.service().id, call.body.replicas)))


async def _eliminate(call: Call[None]) -> types.WrittenAnswer:
    service = call.service()
    name = call.node.core.shown_name(service)
    written: Written = await call.ask(EliminateService(service.id))
    return types.WrittenAnswer(service.id.hex(), name, written.copies)


async def _forward(call: Call[types.ForwardRequest]) -> types.ForwardAnswer:
    forward = await call.node.forwards.open(call.body.service, call.body.port or None)
    return types.ForwardAnswer(call.body.service, forward.port)


async def _close_forward(call: Call[None]) -> types.Done:
    text = call.path["port"]
    for forward in call.node.forwards.all:
        if str(forward.port) == text:
            await forward.close()
            return types.Done()
    raise CollaError("not_found", f"No forward is open at port {text}.")


def _written(call: Call[Any], written: Written, *, created: bool = False) -> types.WrittenAnswer:
    core = call.node.core
    service = core.catalogue.service(written.service)
    name = core.shown_name(service) if service is not None else ""
    return types.WrittenAnswer(written.service.hex(), name, written.copies, created)


def _specification(body: types.DeployRequest) -> Specification:
    """The owner and the version are set by the user agent."""
    return Specification(
        name=body.name,
        owner=MemberId(b""),
        version=1,
        object=object_id(body.object),
        object_bytes=body.object_bytes,
        environment=body.environment,
        command=body.command,
        env=tuple(sorted(body.env.items())),
        uses=(*body.uses, *(SECRET_USE + name for name in check_secret_names(body.secrets))),
        limits=Limits(body.cpus, body.memory_bytes, body.processes),
        health=HealthCheck(
            body.health_path,
            body.health_interval_s,
            body.health_timeout_s,
            body.start_period_s,
            body.health_tcp,
            body.health_command,
            body.health_failures_max,
        ),
        stop_grace_s=body.stop_grace_s,
        public=body.public,
        domains=tuple(domain.lower() for domain in body.domains),
        labels=tuple(sorted(body.labels.items())),
    )


_WRITING = ("not_found", "not_owner", *WRITE_ERRORS)

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route("GET", "services", "All existing services.", _services, tuple[types.ServiceReport, ...]),
    Route(
        "POST",
        "services",
        "Create a service, or modify the one of this name that the member owns.",
        _deploy,
        types.WrittenAnswer,
        types.DeployRequest,
        ("bad_replicas", "bad_secret_name", "too_many_secrets", "not_owner", *WRITE_ERRORS),
    ),
    Route(
        "GET",
        "services/{name}",
        "One service with fresh locations.",
        _service,
        types.ServiceReport,
        errors=("not_found",),
    ),
    Route(
        "DELETE",
        "services/{name}",
        "Remove the service for good.",
        _eliminate,
        types.WrittenAnswer,
        errors=_WRITING,
    ),
    Route(
        "POST",
        "services/{name}/activate",
        "Let the group keep replicas of the service running.",
        _activate,
        types.WrittenAnswer,
        errors=_WRITING,
    ),
    Route(
        "POST",
        "services/{name}/deactivate",
        "Stop all replicas; the service goes on existing.",
        _deactivate,
        types.WrittenAnswer,
        errors=_WRITING,
    ),
    Route(
        "POST",
        "services/{name}/scale",
        "Ask for another number of replicas.",
        _scale,
        types.WrittenAnswer,
        types.ScaleRequest,
        _WRITING,
    ),
    Route(
        "GET",
        "services/{name}/why",
        "Why the replicas of the service run where they run.",
        _why,
        types.WhyReport,
        errors=("not_found", "inactive", "timeout"),
    ),
    Route(
        "GET",
        "services/{name}/logs",
        "What all replicas of the service wrote, in the order of time.",
        _logs,
        types.LogLineReport,
        types.LogsRequest,
        ("not_found",),
    ),
    Route(
        "POST",
        "services/{name}/exec",
        "Run a command beside a replica of the service; its output as it comes.",
        _exec,
        types.ExecOutputReport,
        types.ExecCommand,
        ("not_found", "not_running", "bad_command"),
    ),
    Route(
        "GET",
        "services/{name}/stats",
        "What each replica of the service uses now.",
        _stats,
        tuple[types.ReplicaStatsReport, ...],
        errors=("not_found",),
    ),
    Route(
        "POST",
        "forwards",
        "Open a local TCP port to live replicas of the service.",
        _forward,
        types.ForwardAnswer,
        types.ForwardRequest,
        ("service_unknown", "port_in_use", "too_many_forwards"),
    ),
    Route(
        "DELETE",
        "forwards/{port}",
        "Close a local port that was opened before.",
        _close_forward,
        types.Done,
        errors=("not_found",),
    ),
)
