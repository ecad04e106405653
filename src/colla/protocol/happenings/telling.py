"""Which notices of this node are events of the group, and how often one may be told.

A notice of a mechanism that is responsible for its matter (the master of a service, the executor of a replica, the
node that admitted somebody) concerns everybody: it becomes a record, told by that one node. What flaps is told a few
times at once and then once in a while, so that it does not push everything else out of what is kept.
"""

from __future__ import annotations

from colla.kernel.config import HappeningsConfig
from colla.kernel.effects import Notice
from colla.kernel.time import Instant

TOLD = {
    "admitted": "joined",
    "inherited": "role_changed",
    "repaired": "repaired",
    "missing_replicas": "missing",
    "missing_secrets": "missing",
    "took_over": "took_over",
    "replica_ready": "runs",
    "replica_stopped": "stopped",
    "refused": "refused",
}
"""Kinds of notices, and of the events that they become. Other mechanisms may add theirs: who is responsible tells."""


class Telling:
    """Holds back what is told too often: a bucket for each kind and service, or member's node."""

    def __init__(self, config: HappeningsConfig) -> None:
        self._config = config
        self._buckets: dict[tuple[str, bytes], tuple[float, float]] = {}

    def kind_of(self, notice: Notice, now: Instant) -> str:
        """The kind of the event that the notice becomes; empty when it is none, or was told too often."""
        kind = TOLD.get(notice.kind, "") if self._config.group_told else ""
        if not kind:
            return ""
        about = (kind, bytes(notice.service or notice.node))
        left, at_s = self._buckets.pop(about, (float(self._config.told_at_once_max), now.boot_s))
        left = min(
            float(self._config.told_at_once_max), left + (now.boot_s - at_s) / self._config.told_again_s
        )
        enough = left >= 1.0
        self._buckets[about] = (left - 1.0 if enough else left, now.boot_s)
        while len(self._buckets) > self._config.told_about_max:
            del self._buckets[next(iter(self._buckets))]
        return kind if enough else ""
