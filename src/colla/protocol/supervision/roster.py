"""What a master knows of one service: its replicas, its offers, who refused and why, and what happened lately.

Invariants: at most one replica per node, as everywhere; a node with an offer under way gets no second one; histories
and reasons are bounded. Nothing here is persistent: a new master finds it out by its inventory.
"""

from __future__ import annotations

from collections import deque
from math import inf

import msgspec

from colla.kernel.config import SupervisionConfig
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot, Location, Replica, ReplicaPhase
from colla.protocol.supervision.decision import Judged
from colla.protocol.supervision.survey import Survey

SERVING = (ReplicaPhase.READY, ReplicaPhase.DRAINING)
UNREADY = (ReplicaPhase.PREPARING, ReplicaPhase.STARTING)


class Watched(msgspec.Struct):
    """One replica as last reported. `ballot` is what its executor obeyed then; `phase_since_s` on the boot clock.

    `ordered_s`: when it was last told to stop; `resend_s`: when to tell it again; `spare`: started for a doubtful one.
    """

    replica: Replica
    ballot: Ballot
    phase_since_s: float
    ordered_s: float | None = None
    resend_s: float = inf
    why: str = ""
    spare: bool = False


class PendingOffer(msgspec.Struct):
    """An offer that is not answered yet."""

    offer: int
    due_s: float
    holders: tuple[NodeId, ...]
    repeats: int = 0
    spare: bool = False


class Refused(msgspec.Struct, frozen=True):
    """Why a node did not take a replica, and from when on to ask it again (boot clock)."""

    code: str
    reason: str
    retry_s: float


class Mastered(msgspec.Struct):
    """One service that this node masters. `acting` once its inventory is done.

    `preseed_s`: when (boot clock) to look again who should get the object ahead.
    """

    service: ServiceId
    ballot: Ballot
    took_s: float
    wanted: int
    version: int
    survey: Survey | None
    inventory_until_s: float
    acting: bool = False
    replicas: dict[NodeId, Watched] = {}
    offers: dict[NodeId, PendingOffer] = {}
    refusals: dict[NodeId, Refused] = {}
    holders: dict[NodeId, bool] = {}
    preseeded: dict[NodeId, int] = {}
    preseed_s: float = -inf
    surplus_since_s: float | None = None
    short_since_s: float | None = None
    told_missing: int = 0
    trim_now: bool = False
    history: deque[str] = msgspec.field(default_factory=deque)

    def note(self, text: str, history_max: int) -> None:
        """Remember what happened, for `colla why`."""
        self.history.append(text)
        while len(self.history) > history_max:
            self.history.popleft()

    def put(self, replica: Replica, ballot: Ballot, now: Instant, *, spare: bool = False) -> Watched:
        """A replica is reported (or accepted)."""
        watched = self.replicas.get(replica.node)
        if watched is None or watched.replica.id != replica.id:
            watched = self.replicas[replica.node] = Watched(replica, ballot, now.boot_s, spare=spare)
            return watched
        if watched.replica.phase is not replica.phase:
            watched.phase_since_s = now.boot_s
        watched.replica, watched.ballot = replica, ballot
        return watched

    def judged(
        self,
        node: NodeId,
        config: SupervisionConfig,
        now: Instant,
        *,
        doubtful: bool,
        leaving: bool,
    ) -> Judged:
        """The replica at `node`, as `decision` wants it."""
        watched = self.replicas[node]
        phase, age_s = watched.replica.phase, now.boot_s - watched.phase_since_s
        patience_s = self._patience(config).get(phase, inf)
        return Judged(
            node=node,
            ready=phase in SERVING,
            serving=phase in SERVING,
            acknowledged=watched.ballot == self.ballot,
            doubtful=doubtful,
            ordered=watched.ordered_s is not None or phase is ReplicaPhase.STOPPING,
            old=watched.replica.version != self.version,
            leaving=leaving or phase is ReplicaPhase.DRAINING,
            ill=age_s >= patience_s,
        )

    def _patience(self, config: SupervisionConfig) -> dict[ReplicaPhase, float]:
        """For how long a replica may be in a phase in which it does not serve."""
        return {
            ReplicaPhase.UNHEALTHY: config.unhealthy_patience_s,
            ReplicaPhase.STARTING: config.launch_timeout_s,
            ReplicaPhase.PREPARING: config.preparing_timeout_s,
        }

    def ill_moments(self, config: SupervisionConfig) -> list[float]:
        """When (boot clock) each replica that is not ready would have tried the master's patience."""
        patience_s = self._patience(config)
        return [
            watched.phase_since_s + patience_s[watched.replica.phase]
            for watched in self.replicas.values()
            if watched.replica.phase in patience_s
        ]

    def known_replicas(self) -> tuple[Replica, ...]:
        """What secondaries are told, sorted by node."""
        return tuple(self.replicas[node].replica for node in sorted(self.replicas))

    def running(self) -> int:
        """How many replicas are ready."""
        return sum(1 for w in self.replicas.values() if w.replica.phase in SERVING)

    def serving_nodes(self) -> list[NodeId]:
        """Where replicas serve that were not told to stop, sorted."""
        return [
            node
            for node in sorted(self.replicas)
            if self.replicas[node].replica.phase in SERVING and self.replicas[node].ordered_s is None
        ]

    def location(self, node: NodeId) -> Location:
        """Where the replica at `node` can be reached."""
        return Location(self.service, self.replicas[node].replica.id, node)
