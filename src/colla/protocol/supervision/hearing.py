"""When a master last heard an executor: by heartbeats where it has them, by messages otherwise.

A node is *doubtful* when it is late by `spare_after_s`; without heartbeats it must have missed two supervision
intervals, unless it never said a word to this master, then the first unanswered question counts.
"""

from __future__ import annotations

from math import inf

from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.election.setting import Setting
from colla.protocol.views import PresencePhase


class Hearing:
    """What this node heard of executors since it masters anything."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._heard_s: dict[NodeId, float] = {}
        self._asked_s: dict[NodeId, float] = {}

    def heard(self, node: NodeId, now: Instant) -> None:
        """A message came from the node's executor."""
        self._heard_s[node] = now.boot_s
        self._asked_s.pop(node, None)

    def asked(self, node: NodeId, at_s: float) -> None:
        """The node's executor was asked something (boot clock)."""
        if node not in self._heard_s:
            self._asked_s.setdefault(node, at_s)

    def forget(self, node: NodeId) -> None:
        """The node is absent."""
        self._heard_s.pop(node, None)
        self._asked_s.pop(node, None)

    def clear(self) -> None:
        self._heard_s.clear()
        self._asked_s.clear()

    def was_heard(self, node: NodeId) -> bool:
        """Whether the node ever said a word."""
        return node in self._heard_s

    def doubtful_at_s(self, node: NodeId, now: Instant) -> float:
        """From when on (boot clock) the node is doubtful if nothing more is heard; in the past when it is now."""
        if node == self._setting.me:
            return inf
        config = self._setting.config
        beat_s = self._setting.presence.heard_s(node, now.boot_s)
        last_s = self._heard_s.get(node, -inf)
        if beat_s is not None:
            return max(last_s, now.boot_s - beat_s) + config.supervision.spare_after_s
        entry = self._setting.presence.entry(node)
        if entry is not None and entry.phase is PresencePhase.SUSPECTED:
            return now.boot_s
        if last_s > -inf:
            return last_s + 2 * config.election.mastership_interval_s + config.supervision.offer_timeout_s
        return self._asked_s.get(node, now.boot_s) + config.supervision.spare_after_s

    def is_doubtful(self, node: NodeId, now: Instant) -> bool:
        """Whether the node is neither healthy nor gone."""
        return self.doubtful_at_s(node, now) <= now.boot_s
