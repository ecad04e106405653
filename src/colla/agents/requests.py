"""What the API asks of the agents, and what they answer. Each request is answered exactly once, with the answer
named in its docstring or with a `kernel.effects.Refusal`.

Reading (services, nodes, presence) is no request: `agents/router.py` shows its views.
"""

from __future__ import annotations

import msgspec

from colla.model.contribution import Contribution
from colla.model.ids import MemberId, NodeId, ObjectId, ServiceId
from colla.model.secret import Hidden
from colla.model.service import Specification
from colla.protocol.naming.bodies import Named


class Request(msgspec.Struct, frozen=True, tag=True):
    """Anything that a member or a program asks of this node."""


class CreateService(Request, frozen=True):
    """Add a service to the catalogue. Answer: `Written`. The owner and version are set by the agent."""

    specification: Specification
    replicas: int
    active: bool


class ModifyService(Request, frozen=True):
    """Give a service a new specification; its version grows. Answer: `Written`."""

    service: ServiceId
    specification: Specification


class SetActive(Request, frozen=True):
    """Activate or deactivate. Answer: `Written`."""

    service: ServiceId
    active: bool


class SetReplicas(Request, frozen=True):
    """Ask for another number of replicas. Answer: `Written`."""

    service: ServiceId
    replicas: int


class SetSecrets(Request, frozen=True):
    """Give these secrets of a service new values. Answer: `Written`."""

    service: ServiceId
    values: tuple[tuple[str, Hidden], ...]


class RemoveSecrets(Request, frozen=True):
    """Take these secrets of a service away. Answer: `Written`."""

    service: ServiceId
    names: tuple[str, ...]


class EliminateService(Request, frozen=True):
    """Remove a service for good; its id never returns. Answer: `Written`."""

    service: ServiceId


class Written(msgspec.Struct, frozen=True):
    """The write is durable on `copies` nodes, this one included."""

    service: ServiceId
    copies: int


class PlaceObject(Request, frozen=True):
    """Put copies of an object that is on this node's disk onto repository agents. Answer: `ObjectPlaced`."""

    object: ObjectId
    size_bytes: int


class ObjectPlaced(msgspec.Struct, frozen=True):
    """`copies` repository agents hold the object durably, of `wanted`; `reasons` of those that do not."""

    copies: int
    wanted: int
    reasons: tuple[str, ...]
    holders: tuple[NodeId, ...] = ()


class NameObject(Request, frozen=True):
    """Let a path lead to an object. With `expected`: only if it leads there now (b"": nowhere). With `replace`: also
    if it is another member's. Answer: `ObjectNamed`.
    """

    named: Named
    expected: ObjectId | None = None
    replace: bool = False


class RemoveName(Request, frozen=True):
    """Let a path lead nowhere; otherwise as `NameObject`. Answer: `ObjectNamed`."""

    path: str
    expected: ObjectId | None = None
    replace: bool = False


class ObjectNamed(msgspec.Struct, frozen=True):
    """What the path leads to is written on `copies` nodes, this one included."""

    path: str
    copies: int


class CountCopies(Request, frozen=True):
    """Who holds these objects? Answer: `CopiesFound`, after `query_timeout_s` at most."""

    objects: tuple[ObjectId, ...]


class CopiesFound(msgspec.Struct, frozen=True):
    """The present nodes that hold each object, this one included."""

    holders: dict[ObjectId, tuple[NodeId, ...]]


class LocateService(Request, frozen=True):
    """Ask the group where a service is. Answer: `ServiceLocated`, with what is known when the time is over."""

    service: ServiceId


class ServiceLocated(msgspec.Struct, frozen=True):
    """Live locations as (replica id, node) in order of nearness are read from the router; this tells how it went."""

    service: ServiceId
    fresh: bool


class ExplainService(Request, frozen=True):
    """Why do replicas run where they run? Answer: `locations.messages.Explanation`."""

    service: ServiceId


class InvitePerson(Request, frozen=True):
    """Issue a ticket for `uses` persons, who come with `role`. Answer: `TicketIssued`.

    `own_computer` admits further computers of the inviter instead, or of `member`.
    """

    own_computer: bool = False
    expiry_s: float = 7 * 24 * 3600.0
    role: str = "member"
    uses: int = 1
    member: MemberId = MemberId(b"")


class TicketIssued(msgspec.Struct, frozen=True):
    """The text that lets a person join, and on how many nodes its record is durable."""

    text: str
    copies: int


class JoinGroup(Request, frozen=True):
    """Join with a ticket. Answer: `GroupJoined`. Only on a node whose group has not admitted it yet."""

    ticket: str
    member_seed: bytes
    member_name: str
    node_name: str


class GroupJoined(msgspec.Struct, frozen=True):
    """This node belongs to the group now."""

    member: MemberId
    group_name: str


class Contribute(Request, frozen=True):
    """The owner decides anew what this node gives. Answer: `Contributed`, at once, with no other node needed."""

    contribution: Contribution


class Contributed(msgspec.Struct, frozen=True):
    """What this node gives from now on, and how many replicas still have to move or stop."""

    contribution: Contribution
    replicas_left: int


class Reconnect(Request, frozen=True):
    """Dial an address (`colla connect`). Answer: `Reconnected`."""

    address: str
    node: NodeId = NodeId(b"")


class Reconnected(msgspec.Struct, frozen=True):
    """A link at that address was tried; links and presence follow by themselves."""

    address: str
