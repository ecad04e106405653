"""The door through which environments and the programs of replicas ask the group: serves `environments.group`.

One Unix socket per node, in a folder that a sandbox can show to its program; who asks is known by the token of one
replica, which lives as long as the replica. A service sees its own names only: they lie in the group's file space under
`.services/ID/`. What a program asks is bounded: its requests at once, its notices per minute, every body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from aiohttp import web

from colla.agents.communication_requests import EventPublished, PublishEvent
from colla.client.text import clean
from colla.client.types import NoticeReport
from colla.environments import group
from colla.environments.folders import folder_for_sockets, listen_on, private_folder
from colla.environments.protocol import BODY_BYTES_MAX, GroupAccess, Nothing, Problem, Wire
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import KEY_BYTES, ObjectId, ReplicaId, ServiceId, parse_hex
from colla.node.files.files import PutOrder
from colla.node.ways_door import WaysDoor
from colla.protocol.naming.names import NOTHING

if TYPE_CHECKING:
    from colla.node.app import Node

log = logging.getLogger(__name__)

FOLDER: Final = "group"
SOCKET: Final = "group.sock"
WAYS_SOCKET: Final = "ways.sock"
"""Beside the other one, since the whole folder is shown to sandboxes; see `ways_door`."""
NAMES_FOLDER: Final = ".services"
REQUESTS_MAX: Final = 32
"""Requests at the same time, of all replicas of this node."""
REPORTS_PER_MINUTE_MAX: Final = 30
"""Notices and log lines of one replica."""
NAMES_MAX: Final = 1000
"""Names in one answer."""
LOCATE_S: Final = 5.0
STATUS_OF_CODE: Final = {
    "not_found": 404,
    "not_allowed": 403,
    "changed_meanwhile": 412,
    "busy": 429,
    "too_long": 413,
    "not_ready": 503,
    "quota_reached": 507,
}

B = TypeVar("B", bound=Wire)
Answer = Callable[[web.Request, ReplicaId, ServiceId], Awaitable[web.StreamResponse]]


class GroupDoor:
    """Serves one node's replicas."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.ways = WaysDoor(node)
        self._serving: web.AppRunner | None = None
        self._asking = 0
        self._reports: dict[ReplicaId, deque[float]] = {}

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return folder_for_sockets(self._node.replicas.folder / FOLDER, len(SOCKET)) / SOCKET

    def access(self, token: str) -> GroupAccess:
        """What a replica with this token is told."""
        return GroupAccess(socket=str(self.socket), token=token, ways=str(self.socket.with_name(WAYS_SOCKET)))

    async def open(self) -> None:
        """Begin to listen."""
        application = web.Application(client_max_size=group.CONTENT_BYTES_MAX, middlewares=[self._guard])
        for call in group.GROUP_CALLS.values():
            path = call.path.replace("names/{name}", "names/{name:.+}")
            application.router.add_route(call.method, path, self._handler(getattr(self, f"_{call.name}")))
        self._serving = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._serving.setup()
        private_folder(self.socket.parent)
        await web.SockSite(self._serving, listen_on(self.socket)).start()
        await self.ways.open(self.socket.with_name(WAYS_SOCKET))

    async def close(self) -> None:
        """Stop listening."""
        await self.ways.close()
        serving, self._serving = self._serving, None
        if serving is not None:
            await serving.cleanup()

    # -- the guard ------------------------------------------------------------------------------------------

    def _handler(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            found = self._node.replicas.of_token(request.headers.get(group.TOKEN_HEADER, ""))
            if found is None:
                raise CollaError("not_allowed", "The token is missing, or its replica runs here no more.")
            if self._asking >= REQUESTS_MAX:
                raise CollaError("busy", "Too many requests at once.", "Try again soon.")
            self._asking += 1
            try:
                return await answer(request, *found)
            finally:
                self._asking -= 1

        return handle

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        except CollaError as error:
            problem = Problem(code=error.code, message=error.message, hint=error.hint)
            return _json(problem, STATUS_OF_CODE.get(error.code, 400))
        except UNDECODABLE as error:
            return _json(Problem(code="bad_request", message=f"The request is not right: {error}."), 400)
        except web.HTTPRequestEntityTooLarge:
            return _json(Problem(code="too_long", message="The body is too long."), 413)
        except web.HTTPException as error:
            return _json(Problem(code="call_unknown", message=error.reason), error.status)

    # -- the calls ------------------------------------------------------------------------------------------

    async def _group_self(self, request: web.Request, replica: ReplicaId, service: ServiceId) -> web.Response:
        core = self._node.core
        known = core.catalogue.service(service)
        return _json(
            group.GroupSelf(
                service=core.shown_name(known) if known is not None else "",
                replica=replica.hex(),
                node=core.node_name(self._node.identity.node),
                group=core.membership.group_name,
            )
        )

    async def _group_report(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        text = await self._reported(request, replica)
        notice = NoticeReport(
            time.time(), "replica_reported", f"{self._name(service)}: {text}", service.hex()
        )
        self._node.notices.add(notice)
        return _json(Nothing())

    async def _group_log(self, request: web.Request, replica: ReplicaId, service: ServiceId) -> web.Response:
        log.info("%s says: %s", self._name(service), await self._reported(request, replica))
        return _json(Nothing())

    async def _group_locate(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        name = request.match_info["name"]
        located = await self._node.resolver.locate_fresh(name, LOCATE_S)
        if located is None:
            raise CollaError("not_found", f"There is no service called {name!r}.")
        replicas = tuple(
            group.ServiceReplica(replica=one.replica.hex(), node=one.node_name) for one in located.locations
        )
        address = await self._address(name) if replicas else ""
        return _json(
            group.ServiceLocation(
                service=located.name, active=located.active, replicas=replicas, address=address
            )
        )

    async def _address(self, name: str) -> str:
        for forward in self._node.forwards.all:
            if forward.host_name == name:
                return f"{forward.address}:{forward.port}"
        opened = await self._node.forwards.open(name)
        return f"{opened.address}:{opened.port}"

    async def _group_names(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        prefix = _own(service, "")
        after = request.query.get("start_after", "")
        found: list[group.OwnName] = []
        for entry in self._node.core.foundation.names.entries(prefix + request.query.get("prefix", "")):
            name, named = entry.path.removeprefix(prefix), entry.current.named
            if named is None or name <= after:
                continue
            if len(found) == NAMES_MAX:
                return _json(group.OwnNames(names=tuple(found), more=True))
            found.append(
                group.OwnName(
                    name=name,
                    object=named.object.hex(),
                    size_bytes=named.size_bytes,
                    written_at=entry.current.written_s,
                )
            )
        return _json(group.OwnNames(names=tuple(found)))

    async def _group_read(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.StreamResponse:
        name = _own(service, request.match_info["name"])
        version = self._node.files.version(name)
        tag = {"ETag": f'"{version.object.hex()}"', "Content-Type": "application/octet-stream"}
        if request.headers.get("If-None-Match") == tag["ETag"]:
            return web.Response(status=304, headers=tag)
        pieces = self._node.files.read(name, version.object)
        # The first piece before the head: what cannot be had is an error, not a broken answer.
        first = await anext(pieces, b"")
        response = web.StreamResponse(headers=tag)
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    async def _group_write(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        name = _own(service, request.match_info["name"])
        expected = _expected(request)
        content = await request.read()
        with tempfile.TemporaryDirectory(prefix="name-", dir=self._node.replicas.folder) as folder:
            path = Path(folder) / "content"
            await asyncio.to_thread(path.write_bytes, content)
            order = PutOrder(path, name=name, replace=True, expected=expected)
            done = await self._node.files.put(order)
        short = request.match_info["name"]
        return _json(group.Kept(name=short, object=done.stored.object.hex(), records=done.records))

    async def _group_remove(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        name = request.match_info["name"]
        done = await self._node.files.remove(_own(service, name), replace=True, expected=_expected(request))
        return _json(group.Kept(name=name, object="", records=done.copies))

    async def _group_publish(
        self, request: web.Request, replica: ReplicaId, service: ServiceId
    ) -> web.Response:
        body = await _body(request, group.Publication)
        data = msgspec.json.encode(body.data)
        published: EventPublished = await self._node.asking.ask(PublishEvent(body.topic, data, service))
        return _json(group.Published(event=published.event.hex(), copies=published.copies))

    # -- what they share ------------------------------------------------------------------------------------

    def _name(self, service: ServiceId) -> str:
        known = self._node.core.catalogue.service(service)
        return self._node.core.shown_name(known) if known is not None else service.hex()[:8]

    async def _reported(self, request: web.Request, replica: ReplicaId) -> str:
        """The text of a report, cleaned; a replica that says too much is refused."""
        body = await _body(request, group.Report)
        now = time.monotonic()
        for old in [one for one, told in self._reports.items() if now - told[-1] > 60.0]:
            del self._reports[old]
        told = self._reports.setdefault(replica, deque(maxlen=REPORTS_PER_MINUTE_MAX))
        if len(told) == REPORTS_PER_MINUTE_MAX and now - told[0] < 60.0:
            raise CollaError("busy", f"At most {REPORTS_PER_MINUTE_MAX} reports per minute.", "Say less.")
        told.append(now)
        return clean(body.text[: group.TEXT_CHARS_MAX].replace("\n", " "))


def _own(service: ServiceId, name: str) -> str:
    """The path of a service's own name in the group's file space."""
    return f"{NAMES_FOLDER}/{service.hex()}/{name}"


def _expected(request: web.Request) -> ObjectId | None:
    """What the client expects the name to lead to (`NOTHING`: nowhere); None when it does not care."""
    if request.headers.get("If-None-Match") == "*":
        return NOTHING
    tag = request.headers.get("If-Match")
    if tag is None:
        return None
    with contextlib.suppress(ValueError):
        return ObjectId(parse_hex(tag.strip('"'), KEY_BYTES, "object id"))
    raise CollaError("bad_request", "If-Match is the object that the name leads to, in quotes.")


async def _body(request: web.Request, kind: type[B]) -> B:
    raw = await request.read()
    if len(raw) > BODY_BYTES_MAX:
        raise CollaError("too_long", "The body is too long.")
    return msgspec.json.decode(raw or b"{}", type=kind)


def _json(value: Wire, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
