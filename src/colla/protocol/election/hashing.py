"""The hashing election: the dispatcher nearest to the service's id masters it, the next ones are secondaries.

Who tries, by vacancy (rank r among the present dispatchers without the lost master, settled ones first):

    activated  -> rank 0 at once, rank r after (r + 1) rank waits
    unknown    -> rank r after r rank waits
    silent     -> rank r once the master was not heard for max(heard_master_s + r rank waits, (r + 1) rank waits)
    gone       -> rank r after r rank waits
    released   -> rank r after r rank waits
    (mastered) -> a nearer dispatcher gets the service handed over by its master, once it is settled

Source: the paper's pseudo-DHT. A hanging nearest one blocks nobody, because the next rank tries a rank wait later;
nearness alone never fights a living master, so that a flapping laptop causes no endless handovers.
"""

from __future__ import annotations

from typing import assert_never

from colla.model.ids import NodeId, ServiceId
from colla.protocol.election.book import NOBODY
from colla.protocol.election.rule import Vacancy, VacancyKind, is_settled
from colla.protocol.election.setting import Setting
from colla.protocol.rendezvous import nearest
from colla.protocol.views import PresencePhase


class Hashing:
    """See the module's docstring."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._config = setting.config.election

    def ranked(self, service: ServiceId, now_s: float, *, without: NodeId = NOBODY) -> list[NodeId]:
        """The present dispatchers: settled before unsettled before suspected ones, the nearest first in each."""
        presence = self._setting.presence
        classes: tuple[list[NodeId], list[NodeId], list[NodeId]] = ([], [], [])
        for node in nearest(service, self._setting.dispatchers()):
            if node == without:
                continue
            entry = presence.entry(node)
            if entry is not None and entry.phase is PresencePhase.SUSPECTED:
                classes[2].append(node)
            else:
                classes[0 if is_settled(entry, self._config, now_s) else 1].append(node)
        return classes[0] + classes[1] + classes[2]

    def claim_at_s(self, service: ServiceId, vacancy: Vacancy, now_s: float) -> float:
        me = self._setting.me
        lost = vacancy.master if vacancy.master != me else NodeId(b"")
        ranked = self.ranked(service, now_s, without=lost)
        rank = ranked.index(me) if me in ranked else len(ranked)
        wait_s = self._config.rank_wait_s
        kind = vacancy.kind
        match kind:
            case VacancyKind.ACTIVATED:
                return vacancy.since_s + ((rank + 1) * wait_s if rank else 0.0)
            case VacancyKind.SILENT:
                patience_s = max(self._config.heard_master_s + rank * wait_s, (rank + 1) * wait_s)
                return vacancy.since_s + patience_s
            case VacancyKind.UNKNOWN | VacancyKind.GONE | VacancyKind.RELEASED:
                return vacancy.since_s + rank * wait_s
            case _:
                assert_never(kind)

    def wait_s(self) -> float | None:
        return None

    def secondaries(self, service: ServiceId, kept: tuple[NodeId, ...], now_s: float) -> tuple[NodeId, ...]:
        ranked = self.ranked(service, now_s, without=self._setting.me)
        return tuple(ranked[: self._config.secondaries])

    def heir(self, service: ServiceId, now_s: float) -> NodeId | None:
        me = self._setting.me
        first = nearest(service, self._setting.dispatchers())
        for node in first:
            if node == me:
                return None
            if is_settled(self._setting.presence.entry(node), self._config, now_s):
                return node
        return None
