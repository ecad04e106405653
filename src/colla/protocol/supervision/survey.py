"""Asking all present executors about one service: who heard its master (the witnesses), and what runs (the inventory).

One question serves both, so that a successor has its inventory by the time it has its ballot:

    asked     answers of all that are expected -> heard (by the witnesses)  -> claim or not
    asked     witness_s over                   -> heard; who knew from the master what runs waits for no silent ones
    heard     all others answered, or inventory_s over -> complete

Invariants: an answer counts once per node and only from a node that was asked; a survey is complete at most
`inventory_s` after it began.
"""

from __future__ import annotations

import msgspec

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import MasterAnswer, MasterQuery
from colla.protocol.election.setting import Setting
from colla.protocol.supervision.messages import InventoryAnswer, InventoryEntry, InventoryQuery


class Survey(msgspec.Struct):
    """The questions about one service and what came back."""

    service: ServiceId
    began_s: float
    executors: tuple[NodeId, ...]
    dispatchers: tuple[NodeId, ...]
    lost: NodeId
    entries: dict[NodeId, InventoryEntry]
    witnesses: dict[NodeId, MasterAnswer]
    given_up: dict[NodeId, None]

    def unanswered(self) -> list[NodeId]:
        """Executors and dispatchers from which an answer is still expected; the lost master's node is not one."""
        waiting = [node for node in self.executors if node not in self.entries]
        waiting += [node for node in self.dispatchers if node not in self.witnesses]
        return [node for node in dict.fromkeys(waiting) if node != self.lost and node not in self.given_up]

    def is_complete(self) -> bool:
        """Whether all executors that are still expected to answer have done so."""
        return all(
            node in self.entries or node in self.given_up or node == self.lost for node in self.executors
        )

    def give_up_silent(self, *, executors: bool) -> None:
        """Who did not answer until now is not waited for (an answer still counts when it comes).

        Without `executors` those are waited for: only they can tell what runs there.
        """
        for node in self.unanswered():
            if executors or node not in self.executors:
                self.given_up[node] = None

    def ballot(self) -> Ballot:
        """The highest ballot that anybody named."""
        ballots = [entry.ballot for entry in self.entries.values()]
        ballots += [answer.ballot for answer in self.witnesses.values()]
        return max(ballots, default=NO_BALLOT)

    def heard(self) -> list[tuple[float, Ballot]]:
        """How long ago whom the witnesses heard, for each that heard a master at all.

        Who obeyed a master hears its node also after it stepped down: what that says of itself counts more.
        """
        found = [(entry.heard_s, entry.ballot) for entry in self.entries.values()]
        found += [(answer.heard_s, answer.ballot) for answer in self.witnesses.values()]
        return [item for item in found if item[0] >= 0 and not self._is_denied(item[1].node)]

    def _is_denied(self, node: NodeId) -> bool:
        """Whether that node itself answered that it does not master the service."""
        answer = self.witnesses.get(node)
        return answer is not None and (answer.ballot.node != node or answer.heard_s < 0)

    def running(self) -> int:
        """How many executors have a replica of the service."""
        return sum(1 for entry in self.entries.values() if entry.replica is not None)


class Surveys:
    """The surveys of one dispatcher, the newest per service."""

    def __init__(self, setting: Setting, dispatchers: Echoes, executors: Echoes) -> None:
        self._setting = setting
        self._dispatchers = dispatchers
        self._executors = executors
        self._open: dict[ServiceId, Survey] = {}

    def begin(
        self, service: ServiceId, dispatchers: tuple[NodeId, ...], lost: NodeId, now: Instant
    ) -> Survey:
        """Ask all present executors and these dispatchers. Replaces an older survey of the service."""
        executors = self._setting.executors()
        survey = Survey(service, now.boot_s, executors, dispatchers, lost, {}, {}, {})
        self._open[service] = survey
        outbox = self._setting.outbox
        for node in executors:
            nonce, echo = self._executors.nonce(now), self._executors.echo(node)
            outbox.send(node, InventoryQuery((service,), nonce, echo))
        for node in dispatchers:
            self.ask_master(service, node, now)
        return survey

    def ask_master(self, service: ServiceId, node: NodeId, now: Instant) -> None:
        """Ask one dispatcher whether it heard the master; if it is that itself, it says so."""
        nonce, echo = self._dispatchers.nonce(now), self._dispatchers.echo(node)
        self._setting.outbox.send(node, MasterQuery(service, nonce, echo))

    def of(self, service: ServiceId) -> Survey | None:
        return self._open.get(service)

    def end(self, service: ServiceId) -> None:
        """Nobody waits for it any more."""
        self._open.pop(service, None)

    def inventory_answered(self, peer: NodeId, answer: InventoryAnswer) -> list[ServiceId]:
        """An executor answered. Returns the services whose survey got further."""
        touched = []
        for entry in answer.entries:
            survey = self._open.get(entry.service)
            if survey is not None and answer.ready and peer in survey.executors:
                survey.entries[peer] = entry
                touched.append(entry.service)
        return touched

    def witness_answered(self, peer: NodeId, answer: MasterAnswer) -> bool:
        """A dispatcher answered. Returns whether a survey got further."""
        survey = self._open.get(answer.service)
        if survey is None or peer not in survey.dispatchers:
            return False
        survey.witnesses[peer] = answer
        return True

    def gone(self, node: NodeId) -> None:
        """The node is absent: no answer will come."""
        for survey in self._open.values():
            survey.given_up[node] = None
