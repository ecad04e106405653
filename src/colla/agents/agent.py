"""What every agent is: the calls that the router makes, and what it is given.

An agent puts effects into the node's outbox and returns nothing. It learns of the world by these calls only;
it speaks to other agents, on this node too, by messages. What it may read is in its `Context`: views with one
writer each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Protocol

from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.events import Event
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.contribution import Contribution
from colla.model.ids import NodeId, ObjectId, ServiceId
from colla.protocol.secrets.keyring import NoSecrets, SecretsHere
from colla.protocol.views import (
    CatalogueView,
    Identity,
    MembershipView,
    PresenceChange,
    PresenceView,
    RecordsView,
)


class HoldingsView(Protocol):
    """Which objects are on this node's disk."""

    def holds(self, wanted: ObjectId) -> bool: ...
    def held(self) -> tuple[ObjectId, ...]: ...
    def bytes_given(self) -> int: ...
    def claim(self, object_id: ObjectId, given_bytes: int) -> bool: ...


class OwnContribution(Protocol):
    """What this node's owner gives now, and which environments are attached. Written by the router."""

    @property
    def contribution(self) -> Contribution: ...
    @property
    def environments(self) -> tuple[str, ...]: ...
    @property
    def isolation(self) -> tuple[tuple[str, str], ...]: ...


class PartnerBook(Protocol):
    """Who wants heartbeats with whom; presence keeps a heartbeat pair with every partner (one per pair)."""

    def set_partners(self, purpose: str, nodes: Sequence[NodeId], now: Instant) -> None:
        """Replace the partners wanted for `purpose` (such as "master" or "executor")."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that an agent is given."""

    identity: Identity
    config: Config
    rng: Random
    outbox: Outbox
    durable: Durable
    """As found at the start; read-only, for restoring."""
    membership: MembershipView
    presence: PresenceView
    records: RecordsView
    catalogue: CatalogueView
    holdings: HoldingsView
    own: OwnContribution
    partners: PartnerBook
    secrets: SecretsHere = field(default_factory=NoSecrets)


class Agent:
    """Base of the five agents: does nothing at every call. Subclasses name what they want to hear."""

    MESSAGES: ClassVar[tuple[type[Message], ...]] = ()
    TIMERS: ClassVar[tuple[type[Timer], ...]] = ()
    REQUESTS: ClassVar[tuple[type[Any], ...]] = ()

    def __init__(self, context: Context) -> None:
        self.context = context

    def start(self, now: Instant) -> None:
        """The node starts; soft knowledge is empty."""

    def resumed(self, gap_s: float, now: Instant) -> None:
        """The computer slept: treat all soft knowledge as stale."""

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        """A message of one of `MESSAGES` arrived from an accepted peer (or from this node)."""

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        """A timer of one of `TIMERS` is due."""

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        """The API asks; answer with the effect `Answer(request_id, …)` exactly once."""

    def event(self, event: Event, now: Instant) -> None:
        """Any other event: outcomes of effects, replicas, objects. Ignore ids that are not yours."""

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        """Presence concluded something."""

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        """These services were created, changed or eliminated."""

    def contribution_changed(self, now: Instant) -> None:
        """The owner decided anew (`context.own`), or environments came or went."""

    def stopping(self, now: Instant) -> None:
        """The node is about to stop."""
