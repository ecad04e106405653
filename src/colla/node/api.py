"""The local HTTP API: JSON over a Unix socket in the group's folder, for CLI, dashboard and programs.

Every request needs the token that lies beside the socket (readable by the owner only), a Host that names this
API and no foreign Origin, so that a web page in the owner's browser cannot use it. Answers are the structs of
`colla.client.types`; errors are `ApiError` with a stable code.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web

from colla.access.forwards import Forward
from colla.agents.requests import (
    CreateService,
    EliminateService,
    ExplainService,
    InvitePerson,
    LocateService,
    ModifyService,
    ObjectPlaced,
    PlaceObject,
    Reconnect,
    Request,
    SetActive,
    SetReplicas,
    TicketIssued,
    Written,
)
from colla.client import types
from colla.kernel.events import ObjectStored
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import KEY_BYTES, MemberId, ObjectId, parse_hex
from colla.model.service import REPLICAS_MAX, HealthCheck, Limits, Service, Specification
from colla.node import reports
from colla.node.settings import write_private
from colla.protocol.membership.tickets import read_ticket

if TYPE_CHECKING:
    from colla.node.app import Node

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1024 * 1024
STATUS_OF_CODE = {
    "not_found": 404,
    "not_allowed": 403,
    "not_owner": 403,
    "name_taken": 409,
    "busy": 503,
    "timeout": 504,
    "disk_full": 507,
}
HOSTS = ("colla", "localhost", "127.0.0.1")

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Serves one node's API."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = secrets.token_urlsafe(24)
        self._forwards: dict[int, Forward] = {}
        self._serving: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on the socket; a socket left by a crash is replaced (the database's lock says that we are alone)."""
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        base = f"/{types.API_VERSION}"
        for method, route, handler in self._routes():
            application.router.add_route(method, f"{base}/{route}", handler)
        self._serving = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._serving.setup()
        write_private(self._node.folder / types.TOKEN_NAME, self._token)
        path = self._node.folder / types.SOCKET_NAME
        path.unlink(missing_ok=True)
        with _short_path(path) as short_path:
            await web.UnixSite(self._serving, short_path).start()
        path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening."""
        serving, self._serving = self._serving, None
        if serving is not None:
            await serving.cleanup()
            (self._node.folder / types.SOCKET_NAME).unlink(missing_ok=True)

    def _routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "node", self._get_node),
            ("GET", "status", self._get_status),
            ("GET", "members", self._get_members),
            ("GET", "nodes", self._get_nodes),
            ("GET", "services", self._get_services),
            ("POST", "services", self._deploy),
            ("GET", "services/{name}", self._get_service),
            ("DELETE", "services/{name}", self._eliminate),
            ("POST", "services/{name}/activate", self._activate),
            ("POST", "services/{name}/deactivate", self._deactivate),
            ("POST", "services/{name}/scale", self._scale),
            ("GET", "services/{name}/why", self._why),
            ("GET", "services/{name}/logs", self._logs),
            ("POST", "objects", self._put),
            ("POST", "forwards", self._forward),
            ("DELETE", "forwards/{port}", self._close_forward),
            ("POST", "invite", self._invite),
            ("POST", "contribute", self._contribute),
            ("POST", "leave", self._leave),
            ("POST", "shut-down", self._shut_down),
            ("POST", "connect", self._connect),
            ("GET", "notices", self._notices),
            ("GET", "doctor", self._doctor),
        ]

    # -- the guard ------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except CollaError as error:
            status = STATUS_OF_CODE.get(error.code, 400)
            return _json(types.ApiError(error.code, error.message, error.hint), status)
        except UNDECODABLE as error:
            return _json(types.ApiError("bad_request", f"The request is not right: {error}."), 400)
        except web.HTTPException as error:
            return _json(types.ApiError("bad_request", error.reason), error.status)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return _json(types.ApiError("internal", f"This is a fault of colla: {error!r}."), 500)

    def _admit(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.headers.get(types.TOKEN_HEADER, ""), self._token):
            raise CollaError("not_allowed", "The token of the API is missing or wrong.")
        if request.host.partition(":")[0] not in HOSTS or "Origin" in request.headers:
            raise CollaError("not_allowed", "The API answers local programs only, not web pages.")

    # -- reading --------------------------------------------------------------------------------------------

    async def _get_node(self, request: web.Request) -> web.Response:
        return _json(reports.node_report(self._node))

    async def _get_status(self, request: web.Request) -> web.Response:
        await self._locate_all()
        return _json(reports.status_report(self._node))

    async def _get_members(self, request: web.Request) -> web.Response:
        return _json(reports.member_reports(self._node))

    async def _get_nodes(self, request: web.Request) -> web.Response:
        return _json(reports.computer_reports(self._node))

    async def _get_services(self, request: web.Request) -> web.Response:
        await self._locate_all()
        return _json(reports.service_reports(self._node))

    async def _get_service(self, request: web.Request) -> web.Response:
        service = self._find(request)
        if service.active:
            await self._locate(service)
        return _json(reports.service_report(self._node, self._find(request)))

    async def _why(self, request: web.Request) -> web.Response:
        service = self._find(request)
        if not service.active:
            raise CollaError(
                "inactive", "The service is not active, so nothing runs.", "Activate it: `colla activate`."
            )
        return _json(reports.why_report(self._node, service, await self._ask(ExplainService(service.id))))

    async def _logs(self, request: web.Request) -> web.Response:
        return _json(await self._node.replicas.logs(self._find(request).id))

    async def _doctor(self, request: web.Request) -> web.Response:
        return _json(reports.doctor_lines(self._node))

    async def _locate_all(self) -> None:
        """Before a list: ask for the locations of services that nobody here watched so far."""
        core = self._node.core
        for service in core.catalogue.services():
            if service.active and not core.user.is_watching(service.id):
                await self._locate(service)

    async def _locate(self, service: Service) -> None:
        """Ask where it is; when nobody can be asked now, what is known already has to do."""
        with contextlib.suppress(CollaError):
            await self._ask(LocateService(service.id))

    async def _notices(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async for report in self._node.notices.follow():
            await response.write(msgspec.json.encode(report) + b"\n")
        return response

    # -- services -------------------------------------------------------------------------------------------

    async def _put(self, request: web.Request) -> web.Response:
        body = await _body(request, types.PutRequest)
        stored = await self._node.put_path(Path(body.path))
        self._node.post(ObjectStored(stored.object, stored.size))
        placed: ObjectPlaced = await self._ask(PlaceObject(stored.object, stored.size))
        return _json(
            types.PutAnswer(stored.object.hex(), stored.size, placed.copies, placed.wanted, placed.reasons)
        )

    async def _deploy(self, request: web.Request) -> web.Response:
        body = await _body(request, types.DeployRequest)
        if not 1 <= body.replicas <= REPLICAS_MAX:
            raise CollaError("bad_replicas", f"A service has 1 to {REPLICAS_MAX} replicas.")
        core = self._node.core
        specification = _specification(body)
        existing = core.catalogue.by_name(body.name)
        if existing is None or existing.owner != core.membership.owner_of(self._node.identity.node):
            written = await self._ask(CreateService(specification, body.replicas, body.activate))
            return self._written(written, created=True)
        written = await self._ask(ModifyService(existing.id, specification))
        if existing.replicas != body.replicas:
            written = await self._ask(SetReplicas(existing.id, body.replicas))
        if body.activate and not existing.active:
            written = await self._ask(SetActive(existing.id, True))
        return self._written(written)

    async def _activate(self, request: web.Request) -> web.Response:
        return self._written(await self._ask(SetActive(self._find(request).id, True)))

    async def _deactivate(self, request: web.Request) -> web.Response:
        return self._written(await self._ask(SetActive(self._find(request).id, False)))

    async def _scale(self, request: web.Request) -> web.Response:
        body = await _body(request, types.ScaleRequest)
        return self._written(await self._ask(SetReplicas(self._find(request).id, body.replicas)))

    async def _eliminate(self, request: web.Request) -> web.Response:
        service = self._find(request)
        name = self._node.core.shown_name(service)
        written: Written = await self._ask(EliminateService(service.id))
        return _json(types.WrittenAnswer(service.id.hex(), name, written.copies))

    def _written(self, written: Written, *, created: bool = False) -> web.Response:
        core = self._node.core
        service = core.catalogue.service(written.service)
        name = core.shown_name(service) if service is not None else ""
        return _json(types.WrittenAnswer(written.service.hex(), name, written.copies, created))

    async def _forward(self, request: web.Request) -> web.Response:
        body = await _body(request, types.ForwardRequest)
        forward = await self._node.forwards.open(body.service, body.port or None)
        self._forwards[forward.port] = forward
        return _json(types.ForwardAnswer(body.service, forward.port))

    async def _close_forward(self, request: web.Request) -> web.Response:
        text = request.match_info["port"]
        forward = self._forwards.pop(int(text), None) if text.isdigit() else None
        if forward is None:
            raise CollaError("not_found", f"No forward is open at port {text}.")
        await forward.close()
        return _json({})

    # -- group and this computer ----------------------------------------------------------------------------

    async def _invite(self, request: web.Request) -> web.Response:
        body = await _body(request, types.InviteRequest)
        issued: TicketIssued = await self._ask(InvitePerson(body.my_computer, body.expiry_s))
        ticket = read_ticket(issued.text)
        return _json(types.InviteAnswer(issued.text, ticket.group_name, ticket.expires_s, issued.copies))

    async def _contribute(self, request: web.Request) -> web.Response:
        body = await _body(request, types.ContributeRequest)
        done = await self._node.contribute(body.contribution)
        return _json(types.ContributeAnswer(done.contribution, done.replicas_left))

    async def _leave(self, request: web.Request) -> web.Response:
        await self._node.leave()
        return _json({})

    async def _shut_down(self, request: web.Request) -> web.Response:
        body = await _body(request, dict[str, bool])
        self._node.keep_replicas = bool(body.get("keep_replicas"))
        self._node.stop_wanted.set()
        return _json({})

    async def _connect(self, request: web.Request) -> web.Response:
        body = await _body(request, types.ConnectRequest)
        await self._ask(Reconnect(body.address))
        return _json({})

    # -- plumbing -------------------------------------------------------------------------------------------

    def _find(self, request: web.Request) -> Service:
        name = request.match_info["name"]
        service = self._node.core.catalogue.by_name(name)
        if service is None:
            raise CollaError(
                "not_found", f"There is no service called {name!r}.", "`colla services` lists them."
            )
        return service

    async def _ask(self, request: Request) -> Any:
        return await self._node.asking.ask(request)


def _specification(body: types.DeployRequest) -> Specification:
    """The owner and the version are set by the user agent."""
    return Specification(
        name=body.name,
        owner=MemberId(b""),
        version=1,
        object=ObjectId(parse_hex(body.object, KEY_BYTES, "object id")),
        object_bytes=body.object_bytes,
        environment=body.environment,
        command=body.command,
        env=tuple(sorted(body.env.items())),
        uses=body.uses,
        limits=Limits(body.cpus, body.memory_bytes, body.processes),
        health=HealthCheck(path=body.health_path, start_period_s=body.start_period_s),
        stop_grace_s=body.stop_grace_s,
        public=body.public,
        domains=tuple(domain.lower() for domain in body.domains),
        labels=tuple(sorted(body.labels.items())),
    )


async def _body(request: web.Request, kind: type[T]) -> T:
    return msgspec.json.decode(await request.read() or b"{}", type=kind)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A socket's path may have 107 bytes: longer ones are bound through a link to the folder."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="colla-") as short:
        link = Path(short) / "f"
        link.symlink_to(path.parent, target_is_directory=True)
        yield str(link / path.name)
