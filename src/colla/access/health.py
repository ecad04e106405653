"""What the gateway remembers about replicas: which failed lately, which are busy, how fast a service answers.

Owns a few bounded maps, all soft: losing them costs at most one hedging delay. Invariants: a replica that failed is
asked last, never not at all; when its penalty is over, one request tries it while the others still avoid it.
Source: DESIGN.md section 8.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from random import Random

from colla.access.interface import ReplicaLocation
from colla.model.ids import ReplicaId, ServiceId

FAILED_MAX = 1024
PROVED_MAX = 1024
SERVICES_MAX = 512
PENALTY_FIRST_S = 1.0
PENALTY_MAX_S = 20.0
TRIAL_S = 0.5
"""While one request tries a replica again, the others go on avoiding it for this long."""
NEAR_RATIO = 1.25
NEAR_SLACK_S = 0.002
"""Replicas within this ratio or slack of the nearest count as equally near."""

HEDGE_MIN_S = 0.3
HEDGE_MAX_S = 1.0
"""So that a second replica can still answer within the two seconds that a request may take."""
HEDGE_OF_P95 = 3.0
HEDGES_PER_ANSWER = 0.2
HEDGES_KEPT_MAX = 128
"""Hedges are paid from a purse that answers fill. Where everything is slow it is soon empty, so that hedging, meant for
the few that hang, cannot multiply the load that made everything slow."""
DURATIONS_KEPT = 128
DURATIONS_PER_UPDATE = 16


class _Failure:
    __slots__ = ("count", "until")

    def __init__(self) -> None:
        self.count = 0
        self.until = 0.0


class _Pace:
    """How long a service takes to answer: its latest durations, and the delay that follows from them."""

    __slots__ = ("durations", "hedge_s", "since_update")

    def __init__(self) -> None:
        self.durations: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self.since_update = 0
        self.hedge_s = HEDGE_MIN_S


class HealthMemory:
    """Chooses the order in which replicas are asked. `now` is any monotonic time in seconds."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._failed: OrderedDict[ReplicaId, _Failure] = OrderedDict()
        self._busy: dict[ReplicaId, int] = {}
        self._proved: OrderedDict[ReplicaId, float] = OrderedDict()
        self._paces: OrderedDict[ServiceId, _Pace] = OrderedDict()
        self._hedges_left = float(HEDGES_KEPT_MAX)

    def ordered(self, locations: Sequence[ReplicaLocation], now: float) -> list[ReplicaLocation]:
        """Whom to ask first: the nearest that did not fail lately, the least busy among equally near ones."""
        if len(locations) < 2:
            return list(locations)
        failed = self._failed
        good = [one for one in locations if one.replica not in failed or failed[one.replica].until <= now]
        if not good:
            return sorted(locations, key=lambda one: failed[one.replica].until)
        limit = max(min(one.near for one in good) * NEAR_RATIO, min(one.near for one in good) + NEAR_SLACK_S)
        busy, random = self._busy, self._rng.random
        good.sort(
            key=lambda one: (
                0.0 if one.near <= limit else one.near,
                busy.get(one.replica, 0),
                random(),
            )
        )
        if len(good) < len(locations):
            bad = [one for one in locations if one not in good]
            good += sorted(bad, key=lambda one: failed[one.replica].until)
        return good

    def asked(self, replica: ReplicaId, now: float) -> None:
        """A request was given to this replica; every call is paired with one of `released`."""
        self._busy[replica] = self._busy.get(replica, 0) + 1
        failure = self._failed.get(replica)
        if failure is not None and failure.until <= now:
            failure.until = now + TRIAL_S

    def released(self, replica: ReplicaId) -> None:
        """That request no longer occupies the replica."""
        left = self._busy.get(replica, 0) - 1
        if left > 0:
            self._busy[replica] = left
        else:
            self._busy.pop(replica, None)

    def failed(self, replica: ReplicaId, now: float) -> None:
        """The replica did not answer. Failures that overlap count once."""
        failure = self._failed.get(replica)
        if failure is None:
            failure = self._failed[replica] = _Failure()
            if len(self._failed) > FAILED_MAX:
                self._failed.popitem(last=False)
        elif failure.count and failure.until - now > TRIAL_S:
            return
        failure.count += 1
        failure.until = now + min(PENALTY_FIRST_S * 2 ** min(failure.count - 1, 16), PENALTY_MAX_S)
        self._failed.move_to_end(replica)

    def answered(self, service: ServiceId, replica: ReplicaId, duration_s: float, now: float) -> None:
        """The replica gave a whole answer, `duration_s` after it was asked."""
        self.proved_alive(replica, now)
        self._hedges_left = min(self._hedges_left + HEDGES_PER_ANSWER, HEDGES_KEPT_MAX)
        pace = self._paces.get(service)
        if pace is None:
            pace = self._paces[service] = _Pace()
            if len(self._paces) > SERVICES_MAX:
                self._paces.popitem(last=False)
        pace.durations.append(duration_s)
        pace.since_update += 1
        if pace.since_update >= DURATIONS_PER_UPDATE:
            pace.since_update = 0
            p95 = sorted(pace.durations)[int(len(pace.durations) * 0.95)]
            pace.hedge_s = min(max(HEDGE_MIN_S, HEDGE_OF_P95 * p95), HEDGE_MAX_S)

    def proved_alive(self, replica: ReplicaId, now: float) -> None:
        """The replica answered something."""
        self._failed.pop(replica, None)
        self._proved[replica] = now
        self._proved.move_to_end(replica)
        if len(self._proved) > PROVED_MAX:
            self._proved.popitem(last=False)

    def alive_since(self, replica: ReplicaId, moment: float) -> bool:
        """Whether it answered anybody after that moment: then its silence to one request is no sign of its death."""
        return self._proved.get(replica, float("-inf")) > moment

    def may_hedge(self) -> bool:
        """Whether one more replica may be asked only because others are silent."""
        return self._hedges_left >= 1.0

    def hedged(self) -> None:
        """That was done."""
        self._hedges_left -= 1.0

    def hedge_s(self, service: ServiceId) -> float:
        """How long to wait for one replica of this service before asking a second one, in seconds."""
        pace = self._paces.get(service)
        return pace.hedge_s if pace is not None else HEDGE_MIN_S
