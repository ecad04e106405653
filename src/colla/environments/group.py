"""The other direction: what an environment, and a service's own program, may ask of the group.

The agent serves these calls, HTTP/1.1 with JSON, on the Unix socket that `ReplicaSpec.group` names; the token there, sent
as `X-Colla-Token`, says which replica asks and is known to nobody else. An environment hands both on to the program
as COLLA_GROUP_SOCKET and COLLA_GROUP_TOKEN. Names are the service's own: all its replicas see the same ones, and no
other service's. A name's content is an object; `If-Match: "OBJECT"` changes it only if it is still that one, and
`If-None-Match: *` only if there is none (RFC 9110), so that replicas can agree.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from colla.environments.protocol import Call, Nothing, Wire

TOKEN_HEADER: Final = "X-Colla-Token"
SOCKET_VARIABLE: Final = "COLLA_GROUP_SOCKET"
URL_VARIABLE: Final = "COLLA_GROUP_URL"
"""Instead of the socket, where a program has no Unix sockets: the same calls over TCP, on the loopback."""
TOKEN_VARIABLE: Final = "COLLA_GROUP_TOKEN"
OUTGOING_WAY: Final = "network:internet"
"""What a bridge calls the way to the Internet, where it calls a way to a service by that service's name."""
USES_VARIABLE: Final = "COLLA_USES_"
"""Beginning of the variables that tell where the services are that a service uses; its name in capitals follows."""
CONTENT_BYTES_MAX: Final = 16 << 20
"""Longest content of a name."""
TEXT_CHARS_MAX: Final = 1000


class Report(Wire, frozen=True, kw_only=True):
    """Something that people should know: a notice on this computer (`report`), or a line of its node's log (`log`)."""

    text: str


class GroupSelf(Wire, frozen=True, kw_only=True):
    """Who asks, as the group knows it."""

    service: str
    replica: str
    node: str
    group: str


class ServiceReplica(Wire, frozen=True, kw_only=True):
    """One live replica of a service."""

    replica: str
    node: str


class ServiceLocation(Wire, frozen=True, kw_only=True):
    """Where a service is now; `address` leads to a live replica, from this computer's loopback."""

    service: str
    active: bool
    replicas: tuple[ServiceReplica, ...]
    address: str = ""


class OwnName(Wire, frozen=True, kw_only=True):
    """One of the service's own names, and the object that it leads to."""

    name: str
    object: str
    size_bytes: int
    written_at: float


class OwnNames(Wire, frozen=True, kw_only=True):
    """Names in their order. `more`: there are others; ask again with `start_after`, the last one's name."""

    names: tuple[OwnName, ...]
    more: bool = False


class Kept(Wire, frozen=True, kw_only=True):
    """The name leads to this object, known durably to so many computers (`records`); empty: it leads nowhere."""

    name: str
    object: str
    records: int


class Publication(Wire, frozen=True, kw_only=True):
    """An application event under a topic; whoever subscribes gets it, in the order of its publishers."""

    topic: str
    data: Any


class Published(Wire, frozen=True, kw_only=True):
    """The event is durable on `copies` computers."""

    event: str
    copies: int


def _calls() -> dict[str, Call]:
    name = "/v1/group/names/{name}"
    calls = (
        Call(name="group_self", method="GET", path="/v1/group/self", answer=GroupSelf, summary="Who asks"),
        Call(name="group_report", method="POST", path="/v1/group/report", body=Report, answer=Nothing, summary="Tell people on this computer something (a notice)"),
        Call(name="group_log", method="POST", path="/v1/group/log", body=Report, answer=Nothing, summary="A line for the log of this computer's node"),
        Call(name="group_locate", method="GET", path="/v1/group/services/{name}", answer=ServiceLocation, summary="Where a service is now"),
        Call(name="group_names", method="GET", path="/v1/group/names", query=("prefix", "start_after"), answer=OwnNames, summary="The service's own names that begin so, from the one that follows `start_after`"),
        Call(name="group_read", method="GET", path=name, answer=msgspec.Raw, summary="The content of a name, with its object as ETag"),
        Call(name="group_write", method="PUT", path=name, body=msgspec.Raw, answer=Kept, summary="Let a name lead to this content; with If-Match or If-None-Match only if it is still as expected"),
        Call(name="group_remove", method="DELETE", path=name, answer=Kept, summary="Let a name lead nowhere; If-Match as above"),
        Call(name="group_publish", method="POST", path="/v1/group/events", body=Publication, answer=Published, summary="Publish an application event"),
    )  # fmt: skip
    return {call.name: call for call in calls}


GROUP_CALLS: Final[dict[str, Call]] = _calls()
