"""Where replicas are and how they fare: soft knowledge that expires (DESIGN sections 7 and 8)."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.ids import NodeId, ReplicaId, ServiceId

TERM_MAX = 2**53
"""No group holds so many elections; whoever claims more terms is not believed."""


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The totally ordered right to master one service: (term, proximity, node id), compared in that order."""

    term: Annotated[int, Meta(ge=0, le=TERM_MAX)]
    proximity: Annotated[int, Meta(ge=0)]
    node: NodeId

    def next(self, proximity: int, node: NodeId) -> Ballot:
        """The ballot of the next term for that node. Not higher than this one only where a liar used all terms up."""
        return Ballot(min(self.term + 1, TERM_MAX), proximity, node)


NO_BALLOT = Ballot(0, 0, NodeId(b""))


class ReplicaPhase(enum.StrEnum):
    """Where a replica is in its life, as its executor knows it."""

    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class Replica(msgspec.Struct, frozen=True, array_like=True):
    """One replica as its executor reports it. `version` is that of the specification it runs."""

    id: ReplicaId
    service: ServiceId
    node: NodeId
    version: int
    phase: ReplicaPhase
    detail: str = ""


class Location(msgspec.Struct, frozen=True, array_like=True):
    """Where one live replica of a service can be reached now."""

    service: ServiceId
    replica: ReplicaId
    node: NodeId
