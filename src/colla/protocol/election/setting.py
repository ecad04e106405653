"""What the mechanisms of active services are given: who this node is, its randomness, its outbox and the views."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.outbox import Outbox
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId
from colla.protocol.views import CatalogueView, MembershipView, PresenceView, RecordsView


@dataclass(frozen=True, slots=True)
class Setting:
    """Shared by the mechanisms of one agent; everything but the outbox and the randomness is read-only."""

    me: NodeId
    config: Config
    rng: Random
    outbox: Outbox
    durable: Durable
    membership: MembershipView
    presence: PresenceView
    catalogue: CatalogueView
    records: RecordsView

    def dispatchers(self) -> tuple[NodeId, ...]:
        """The present nodes that carry a task dispatcher, sorted by id."""
        return self.presence.carrying(AgentKind.DISPATCHER)

    def executors(self) -> tuple[NodeId, ...]:
        """The present nodes that carry an executor, sorted by id."""
        return self.presence.carrying(AgentKind.EXECUTOR)

    def name(self, node: NodeId) -> str:
        """How people call the node."""
        info = self.membership.node(node)
        return info.name if info is not None else node.hex()[:10]
