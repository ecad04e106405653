"""What placement thinks of every present executor, with what a master knows of each: asked for only when it matters.

It costs a look at everybody who is here, so a group in which nothing is missing seldom asks.
"""

from __future__ import annotations

from collections.abc import Mapping

from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId
from colla.model.service import Service, lacking_text
from colla.protocol.election.setting import Setting
from colla.protocol.placement.scoring import Candidate, Verdict, judge
from colla.protocol.rendezvous import nearest_spread
from colla.protocol.supervision.messages import Capacity
from colla.protocol.supervision.roster import Mastered


class Judging:
    """See the module's docstring. `capacities` are the supervisor's."""

    def __init__(self, setting: Setting, capacities: Mapping[NodeId, Capacity]) -> None:
        self._setting = setting
        self._capacities = capacities

    def verdicts(self, mastered: Mastered, service: Service, now: Instant) -> list[Verdict]:
        """The judgement of every present executor, the best first."""
        if service.lacking:
            why = lacking_text(service)
            return [Verdict(node, False, 0.0, why) for node in self._setting.executors()]
        keepers = dict.fromkeys(self._repositories(service))
        keeping = [node for node, watched in mastered.replicas.items() if watched.ordered_s is None]
        placed = [
            self._candidate(mastered, node, service, keepers, now) for node in [*keeping, *mastered.offers]
        ]
        candidates = [
            self._candidate(mastered, node, service, keepers, now) for node in self._setting.executors()
        ]
        owner = self._setting.membership.member(service.owner)
        return judge(candidates, service.specification, owner.name if owner is not None else "", placed)

    def _candidate(
        self, mastered: Mastered, node: NodeId, service: Service, keepers: Mapping[NodeId, None], now: Instant
    ) -> Candidate:
        entry = self._setting.presence.entry(node)
        if entry is None:
            raise AssertionError(
                "presence lists only nodes with an entry, and replicas of absent nodes are forgotten"
            )
        owner = self._setting.membership.owner_of(node)
        return Candidate(
            node=node,
            member=owner if owner is not None else service.owner,
            contribution=entry.announcement.contribution,
            environments=entry.announcement.environments,
            capacity=self._capacities.get(node),
            holds=mastered.holders.get(node, False) or node in keepers,
            present_s=now.boot_s - entry.since_s,
        )

    def _repositories(self, service: Service) -> list[NodeId]:
        """The repository agents that should hold the service's object."""
        present = self._setting.presence.carrying(AgentKind.REPOSITORY)
        ranked = nearest_spread(service.specification.object, present, self._setting.membership.owner_of)
        return ranked[: self._setting.config.copies.copies]
