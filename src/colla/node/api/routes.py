"""What one route of the local API is, and what its handler is given.

A route's types are the structs of `colla.client.types`: what `request` names is read from the JSON body, or from the
query of a GET or DELETE, and is checked before the handler is called; what the handler returns is the answer. A handler
that is an asynchronous generator answers with a stream: one value of the answer's type per line (NDJSON).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from colla.agents.requests import Request
from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, ObjectId, parse_hex
from colla.model.service import Service

if TYPE_CHECKING:
    from colla.node.app import Node

B = TypeVar("B")
A = TypeVar("A")

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "not_found": 404,
    "not_allowed": 403,
    "not_owner": 403,
    "name_taken": 409,
    "busy": 503,
    "not_ready": 503,
    "timeout": 504,
    "disk_full": 507,
    "quota_reached": 507,
}
"""The HTTP status of an error's code; every other code is a 400."""
WRITE_ERRORS: Final = ("quota_reached", "not_ready", "busy", "timeout")
"""Errors of every route that writes a record: what the group remembers has a bound per computer, and waits for its first meeting."""
QUERY_METHODS: Final = ("GET", "DELETE")


@dataclass(frozen=True)
class Call(Generic[B]):
    """One request: the node that it asks, its body (or query) and the variable parts of its path."""

    node: Node
    body: B
    path: Mapping[str, str]

    def service(self) -> Service:
        """The service that `{name}` in the path names. Raises `CollaError("not_found")`."""
        name = self.path["name"]
        service = self.node.core.catalogue.by_name(name)
        if service is None:
            raise CollaError(
                "not_found", f"There is no service called {name!r}.", "`colla services` lists them."
            )
        return service

    async def ask(self, request: Request) -> Any:
        """Ask the agents of this node. Raises `CollaError` when they refuse, `busy`, or `timeout`."""
        return await self.node.asking.ask(request)


def object_id(text: str) -> ObjectId:
    """The object that a request names. Raises `CollaError("bad_request")`."""
    try:
        return ObjectId(parse_hex(text, KEY_BYTES, "object id"))
    except ValueError as error:
        raise CollaError("bad_request", f"The request is not right: {error}.") from None


@dataclass(frozen=True)
class Route(Generic[B, A]):
    """One thing that the API does. `path` is below the version; `errors` are the codes that callers should know."""

    method: str
    path: str
    summary: str
    handler: Callable[[Call[B]], Awaitable[A] | AsyncIterator[A]]
    answer: type[A]
    request: type[B] | None = None
    errors: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether it answers line by line."""
        return inspect.isasyncgenfunction(self.handler)

    @property
    def in_query(self) -> bool:
        """Whether the request is read from the query, not from the body."""
        return self.method in QUERY_METHODS
