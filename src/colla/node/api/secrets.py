"""Routes about secrets of services: values go in, none ever comes out."""

from __future__ import annotations

from typing import Any, Final

from colla.agents.requests import RemoveSecrets, SetSecrets, Written
from colla.client import types
from colla.model.errors import CollaError
from colla.model.ids import NodeId
from colla.model.secret import Hidden, SealedSecret
from colla.model.service import Service
from colla.node.api.routes import WRITE_ERRORS, Call, Route

NOTHING_EXECUTED: Final = "static"
"""The kind of environment of which no program could read a secret."""


async def _secrets(call: Call[None]) -> tuple[types.SecretReport, ...]:
    service = call.service()
    needed = service.specification.secrets_needed
    reports = [_report(call, secret, needed) for secret in service.secrets]
    reports += [types.SecretReport(name, is_set=False, needed=True) for name in service.lacking]
    return tuple(sorted(reports, key=lambda report: report.name))


async def _set(call: Call[types.SecretsRequest]) -> types.WrittenAnswer:
    service = call.service()
    if service.specification.environment == NOTHING_EXECUTED:
        raise CollaError(
            "not_supported", f"{service.name} is a web site of files: no program of it could read a secret."
        )
    values = tuple((name, Hidden(value)) for name, value in sorted(call.body.secrets.items()))
    return _written(call, service, await call.ask(SetSecrets(service.id, values)))


async def _remove(call: Call[None]) -> types.WrittenAnswer:
    service = call.service()
    return _written(call, service, await call.ask(RemoveSecrets(service.id, (call.path["secret"],))))


def _written(call: Call[Any], service: Service, written: Written) -> types.WrittenAnswer:
    return types.WrittenAnswer(service.id.hex(), call.node.core.shown_name(service), written.copies)


def _report(call: Call[Any], secret: SealedSecret, needed: tuple[str, ...]) -> types.SecretReport:
    core = call.node.core
    owner = core.membership.owner_of(secret.author)
    member = core.membership.member(owner) if owner is not None else None
    return types.SecretReport(
        name=secret.name,
        is_set=True,
        needed=secret.name in needed,
        set_at_s=secret.set_ms / 1000,
        set_by=member.name if member is not None else "",
        computers=tuple(sorted(core.node_name(NodeId(key.node)) for key in secret.keys)),
    )


_CHANGING = ("not_found", "not_owner", "guest", *WRITE_ERRORS)

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "GET",
        "services/{name}/secrets",
        "The names of the secrets of a service that are set or needed.",
        _secrets,
        tuple[types.SecretReport, ...],
        errors=("not_found",),
    ),
    Route(
        "POST",
        "services/{name}/secrets",
        "Give secrets of a service new values; its replicas are replaced by ones that have them.",
        _set,
        types.WrittenAnswer,
        types.SecretsRequest,
        (
            *_CHANGING,
            "bad_secret_name",
            "bad_secret",
            "too_many_secrets",
            "secrets_too_large",
            "not_supported",
        ),
    ),
    Route(
        "DELETE",
        "services/{name}/secrets/{secret}",
        "Take a secret away; the replicas of the service are replaced by ones without it.",
        _remove,
        types.WrittenAnswer,
        errors=_CHANGING,
    ),
)
