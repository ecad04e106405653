"""The election that the group was founded with: one of the two, looked up each time.

A node that is about to join does not know its group's election yet; it does once it has the founding record.
"""

from __future__ import annotations

from typing import assert_never

from colla.model.ids import NodeId, ServiceId
from colla.protocol.election.contention import ContentionElection
from colla.protocol.election.hashing import Hashing
from colla.protocol.election.rule import ElectionRule, Vacancy
from colla.protocol.election.setting import Setting
from colla.protocol.views import Election


class FoundedElection:
    """Delegates to the group's election. See `rule.ElectionRule`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._hashing = Hashing(setting)
        self._contention = ContentionElection(setting)

    def _rule(self) -> ElectionRule:
        election = self._setting.membership.election
        match election:
            case Election.HASHING:
                return self._hashing
            case Election.CONTENTION:
                return self._contention
            case _:
                assert_never(election)

    def claim_at_s(self, service: ServiceId, vacancy: Vacancy, now_s: float) -> float:
        return self._rule().claim_at_s(service, vacancy, now_s)

    def wait_s(self) -> float | None:
        return self._rule().wait_s()

    def secondaries(self, service: ServiceId, kept: tuple[NodeId, ...], now_s: float) -> tuple[NodeId, ...]:
        return self._rule().secondaries(service, kept, now_s)

    def heir(self, service: ServiceId, now_s: float) -> NodeId | None:
        return self._rule().heir(service, now_s)
