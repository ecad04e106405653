"""The read-only views that mechanisms share, each with exactly one writer.

Agents of one node speak by messages only; what they may read of each other are these views: membership
(written by `protocol/membership`), presence (`protocol/presence`), records (`protocol/records`) and the
catalogue (`protocol/catalogue`).
"""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import GroupId, MemberId, NodeId, ServiceId
from colla.model.keys import SecretKey
from colla.model.record import Key, Record
from colla.model.service import Service


class Identity(msgspec.Struct, frozen=True):
    """Who this node is: its group and the key that names it."""

    group: GroupId
    secret: SecretKey

    @property
    def node(self) -> NodeId:
        return NodeId(self.secret.public)


class Election(enum.StrEnum):
    """The two elections; the founding record chooses one for the whole group."""

    HASHING = "hashing"
    CONTENTION = "contention"


class Role(enum.StrEnum):
    """What a member may do: everything about the group; offer services and invite; use services only."""

    ADMINISTRATOR = "administrator"
    MEMBER = "member"
    GUEST = "guest"

    @property
    def rank(self) -> int:
        """Greater for roles that may do more; at least 1."""
        return _RANKS[self]


_RANKS = {Role.GUEST: 1, Role.MEMBER: 2, Role.ADMINISTRATOR: 3}


class MemberInfo(msgspec.Struct, frozen=True):
    """One member as the membership records give it: neither removed nor gone. Perhaps without a computer now."""

    id: MemberId
    name: str
    role: str
    seniority: int


class NodeInfo(msgspec.Struct, frozen=True):
    """One member's node as the membership records give it. `name` is unique in the group."""

    id: NodeId
    member: MemberId
    name: str


class Writer(msgspec.Struct, frozen=True):
    """Who wrote a record, and with which role: the one that the member had at that place of its log."""

    member: MemberId
    role: Role


class MembershipView(Protocol):
    """Who belongs. Lists are sorted by id."""

    @property
    def group_name(self) -> str: ...
    @property
    def election(self) -> Election: ...
    def members(self) -> tuple[MemberInfo, ...]: ...
    def nodes(self) -> tuple[NodeInfo, ...]: ...
    def member(self, member: MemberId) -> MemberInfo | None: ...
    def node(self, node: NodeId) -> NodeInfo | None: ...
    def owner_of(self, node: NodeId) -> MemberId | None: ...
    def writer(self, record: Record) -> Writer | None:
        """Whose word a record is, in any topic; None when it does not count: its author never belonged, or did not
        any more when it wrote it, as far as whoever removed it had seen.
        """


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself, signed by its key over group id + these bytes (see presence).

    `start` is the node's start number (persisted, grows by one at each start), `revision` counts changes within
    it: (start, revision) orders announcements of one node. `addresses` are where it can be reached;
    `reachable` tells that anybody gets through there unasked, so that no router stands in the way.
    """

    node: NodeId
    start: int
    revision: int
    contribution: Contribution
    environments: tuple[str, ...]
    addresses: tuple[str, ...]
    version: str = ""
    reachable: bool = False


class PresencePhase(enum.StrEnum):
    """How a node stands. `SUSPECTED` nodes still count as present."""

    PRESENT = "present"
    SUSPECTED = "suspected"
    ABSENT = "absent"
    LEFT = "left"


class PresenceEntry(msgspec.Struct, frozen=True):
    """One node as presence knows it; `since_s` is the boot clock when `phase` began (as present: when it appeared)."""

    node: NodeId
    phase: PresencePhase
    since_s: float
    announcement: Announcement
    absences: tuple[float, ...] = ()


class PresenceChange(msgspec.Struct, frozen=True):
    """Presence concluded something: `phase` is the new one; `appeared` when the node was not present before."""

    node: NodeId
    phase: PresencePhase
    appeared: bool = False


class PresenceView(Protocol):
    """Who is here. Lists are sorted by id; this node is always among the present."""

    def present(self) -> tuple[NodeId, ...]: ...
    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]: ...
    def entry(self, node: NodeId) -> PresenceEntry | None: ...
    def is_present(self, node: NodeId) -> bool: ...
    def heard_s(self, node: NodeId, now_s: float) -> float | None:
        """Seconds since anything was heard from a *partner* or watched node; None when not watched."""

    def echoed_s(self, node: NodeId, now_s: float) -> float | None:
        """Seconds since the partner last echoed a nonce of ours; None when it never did."""

    def suspects_share(self, now_s: float) -> float:
        """Which share of the watched nodes and partners is late or suspected now (0 to 1)."""

    def loop_was_late(self, now_s: float) -> bool:
        """Whether this node's own loop was late within the last silence period (Lifeguard's local health)."""


class RecordChange(msgspec.Struct, frozen=True):
    """A key of a topic has new live records; read them through the view."""

    topic: str
    key: Key


class RecordsView(Protocol):
    """The live records. `winner` is chosen among concurrent ones as DESIGN section 4 says."""

    def winner(self, topic: str, key: Key) -> Record | None: ...
    def concurrent(self, topic: str, key: Key) -> tuple[Record, ...]:
        """All undominated records of the key, the winner first."""

    def versions(self, topic: str, key: Key) -> tuple[Record, ...]:
        """Every record held of the key, dominated ones too, sorted by (log, number): for views that judge
        authority before they choose (see `protocol/records/order.py`).
        """

    def keys(self, topic: str, kind: str) -> tuple[Key, ...]:
        """All keys of that kind with a live record, sorted."""

    def all_records(self, topic: str) -> tuple[Record, ...]:
        """Every record held of the topic, sorted by (log, number)."""

    def contents(self, topic: str) -> bytes:
        """A hash over every record held of the topic, frontiers aside. Cheap when nothing changed."""


class CatalogueView(Protocol):
    """The existing services, as this node knows them."""

    def services(self) -> tuple[Service, ...]: ...
    def service(self, service: ServiceId) -> Service | None: ...
    def by_name(self, name: str) -> Service | None:
        """Resolve `name` or `name--member`."""

    def eliminated(self, service: ServiceId) -> bool: ...
    def fingerprint(self) -> bytes:
        """A hash over the catalogue topic's live records: equal on nodes with equal catalogues."""
