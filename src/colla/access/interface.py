"""What access needs from the node, and the values that both exchange.

Owns no data: only Protocols (`Resolver`, `Tunnels`, `ByteStream`) and frozen structs. Access never asks who
may see a service or where it runs by any other way. See DESIGN.md section 8.

Invariant: everything here is answered from soft information. A location is a hope, never a promise: whoever
uses one must be ready for it to fail, and says so through `Resolver.report_failed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from colla.model.ids import NodeId, ReplicaId, ServiceId

TunnelErrorCode = Literal[
    "no_such_replica",  # the node answered: it runs no such replica (any more)
    "endpoint_refused",  # the node answered: the replica's program does not accept connections
    "refused",  # the node answered: it does not serve this caller
    "malformed",  # one side did not understand the other
    "unreachable",  # there is no link to that node now
    "timed_out",  # nothing came back in time
]


class TunnelError(ConnectionError):
    """A tunnel could not be opened: not one byte of the caller's data has reached the replica."""

    def __init__(self, code: TunnelErrorCode, message: str = "") -> None:
        super().__init__(message or code.replace("_", " "))
        self.code: TunnelErrorCode = code


class ByteStream(Protocol):
    """A reliable two-way stream of bytes whose two directions end independently.

    One reader and one writer at a time. Every operation may raise `ConnectionError` once the stream is broken.
    A cancelled `read` may lose bytes, so a stream is of no use after cancelling one.
    """

    async def read(self, at_most: int) -> bytes:
        """The next 1 to `at_most` bytes; `b""` once the other side has finished, and ever after."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`; returns when it is sent or buffered within the stream's bound."""
        ...

    async def finish(self) -> None:
        """End our direction, after everything written; the other direction goes on."""
        ...

    async def abort(self) -> None:
        """Give up both directions at once. Never raises, and may be repeated.

        Harmless after both have ended: what was written before `finish` still arrives.
        """
        ...


class ReplicaLocation(msgspec.Struct, frozen=True):
    """Where one replica could be reached when this was made."""

    replica: ReplicaId
    node: NodeId
    node_name: str
    near: float
    """How far away: estimated seconds for a round trip; 0 on this node. Lower is nearer."""


class Located(msgspec.Struct, frozen=True):
    """A service as a user agent knows it, with its live replicas, in any order."""

    service: ServiceId
    name: str
    """For people: the short name, or `name--member` where the short one is held by another service."""
    group: str
    """The group's name, for `X-Colla-Group`."""
    locations: tuple[ReplicaLocation, ...]
    active: bool = True
    wanted: int = 1
    """How many replicas its owner asked for."""
    public: bool = False
    notice: str = ""
    """One sentence on what is missing, where the node knows it: shown on the page of a service without replicas."""


class ListedService(msgspec.Struct, frozen=True):
    """One line of the gateway's front page."""

    name: str
    host_name: str
    """What `Resolver.locate` understands: the part of the address before `.localhost`."""
    running: int
    wanted: int
    active: bool
    public: bool
    owner: str = ""
    description: str = ""


class Resolver(Protocol):
    """The user agent's knowledge of services and locations."""

    def locate(self, host_name: str) -> Located | None:
        """The service called `SERVICE`, `SERVICE.GROUP` or `name--member`, from what is cached; None if unknown."""
        ...

    def locate_domain(self, domain: str) -> Located | None:
        """The public service that serves this domain name (lower case, no port), from what is cached."""
        ...

    async def locate_fresh(self, host_name: str, timeout_s: float) -> Located | None:
        """Ask the group, because nothing is cached or everything cached failed. Returns within `timeout_s`."""
        ...

    def report_failed(self, service: ServiceId, replica: ReplicaId) -> None:
        """A hint: this location did not answer. May be called often; must return at once."""
        ...

    def services(self) -> Sequence[ListedService]:
        """All existing services, for the front page of a member's own gateway."""
        ...

    def member_of_request(self, remote: str, headers: Mapping[str, str]) -> str | None:
        """The authenticated member behind a request from the address `remote`, for `X-Colla-Member`; None if unknown.

        Asked only at a member's own door, where it is the member itself, never at a contributed one. `headers` are the request's, case-insensitive.
        """
        ...


class Tunnels(Protocol):
    """Opens streams to replicas, through the encrypted link or, on this very node, directly."""

    async def open(self, node: NodeId, service: ServiceId, replica: ReplicaId) -> ByteStream:
        """A stream to the replica's endpoint, connected. Raises `TunnelError`.

        May be cancelled at any time, and then leaves nothing open.
        """
        ...
