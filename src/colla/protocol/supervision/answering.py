"""What a dispatcher answers to user agents: where a service is, and why.

The master answers with authority and tells its subscribers every change; a secondary gives what its master told it, any
other dispatcher names the master that it knows. To executors that it chose, the master sends holders of the keys of secrets. Subscriptions expire after `location_ttl_s`; asking again renews them.

Invariant: at most `subscribers_max` subscriptions are kept over all services, those that expire first go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Location
from colla.protocol.election.book import MasterBook
from colla.protocol.election.setting import Setting
from colla.protocol.locations.messages import AskWhy, Explanation, Locate, Located, LocationFailed, WhyLine
from colla.protocol.placement.scoring import Verdict
from colla.protocol.secrets.messages import KeysAnswer, KeysErrand, KeysQuery
from colla.protocol.supervision.roster import SERVING, UNREADY, Mastered
from colla.protocol.supervision.supervisor import Supervisor

NO_LINES: tuple[WhyLine, ...] = ()


class Answering:
    """See the module's docstring."""

    def __init__(self, setting: Setting, book: MasterBook, supervisor: Supervisor) -> None:
        self._setting = setting
        self._config = setting.config
        self._book = book
        self._supervisor = supervisor
        self._subscribers: dict[tuple[ServiceId, NodeId], float] = {}
        self._told: dict[ServiceId, tuple[Location, ...]] = {}

    def message(
        self, peer: NodeId, message: Locate | LocationFailed | AskWhy | KeysQuery, now: Instant
    ) -> None:
        """A user agent, or an executor with a replica, asks."""
        match message:
            case Locate():
                self.locate(peer, message, now)
            case LocationFailed():
                self.location_failed(peer, message, now)
            case AskWhy():
                self.explain(peer, message, now)
            case KeysQuery():
                self.entrust(peer, message)
            case _:
                assert_never(message)

    def locate(self, peer: NodeId, message: Locate, now: Instant) -> None:
        """A user agent asks where a service is."""
        mastered = self._supervisor.mastered.get(message.service)
        if mastered is None or not mastered.acting:
            self._setting.outbox.send(peer, self._second_hand(message.service, now))
            return
        if message.subscribe:
            self._subscribe(message.service, peer, now)
        locations = self._supervisor.locations(mastered, now)
        located = Located(message.service, self._setting.me, locations, True)
        self._setting.outbox.send(peer, located)

    def location_failed(self, peer: NodeId, message: LocationFailed, now: Instant) -> None:
        """A user agent could not reach a replica: have its executor report."""
        mastered = self._supervisor.mastered.get(message.service)
        if mastered is None:
            return
        for node, watched in mastered.replicas.items():
            if watched.replica.id == message.replica:
                self._supervisor.ordering.probe(node, now)

    def entrust(self, peer: NodeId, query: KeysQuery) -> None:
        """An executor lacks the keys of secrets: if it was chosen, send holders to it, others at each attempt."""
        mastered = self._supervisor.mastered.get(query.service)
        service = self._setting.catalogue.service(query.service)
        if mastered is None or service is None or peer not in self._supervisor.placed(query.service):
            return
        could = [key.node for secret in service.secrets for key in secret.keys]
        could += [node for node, watched in mastered.replicas.items() if watched.replica.phase not in UNREADY]
        present = self._setting.presence.is_present
        holders = [node for node in dict.fromkeys(could) if node != peer and present(node)]
        if not holders:
            self._setting.outbox.send(peer, KeysAnswer(query.service, b""))
        count = min(self._config.secrets.holders_asked_max, len(holders))
        first = (query.attempt - 1) * count
        errand = KeysErrand(query.service, query.secrets, peer)
        for place in range(first, first + count):
            self._setting.outbox.send(holders[place % len(holders)], errand)

    def flush(self, now: Instant) -> None:
        """Tell subscribers of the services whose locations changed."""
        if not self._config.access.tell_changes:
            return
        for service, mastered in self._supervisor.mastered.items():
            if not mastered.acting:
                continue
            locations = self._supervisor.locations(mastered, now)
            if self._told.get(service) == locations:
                continue
            self._told[service] = locations
            located = Located(service, self._setting.me, locations, True)
            for (wanted, node), until_s in list(self._subscribers.items()):
                if wanted == service and until_s >= now.boot_s:
                    self._setting.outbox.send(node, located)

    def expire(self, now: Instant) -> None:
        """Forget subscriptions that were not renewed, and services that are not mastered any more."""
        for key, until_s in list(self._subscribers.items()):
            if until_s < now.boot_s or key[0] not in self._supervisor.mastered:
                del self._subscribers[key]
        for service in list(self._told):
            if service not in self._supervisor.mastered:
                del self._told[service]

    def explain(self, peer: NodeId, message: AskWhy, now: Instant) -> None:
        """A user agent asks why replicas run where they run."""
        mastered = self._supervisor.mastered.get(message.service)
        if mastered is None:
            master = self._book.master(message.service, now)
            answer = Explanation(message.service, message.nonce, master, 0, 0, 0, NO_LINES)
        else:
            answer = Explanation(
                service=message.service,
                nonce=message.nonce,
                master=self._setting.me,
                term=mastered.ballot.term,
                wanted=mastered.wanted,
                running=len(self._supervisor.locations(mastered, now)),
                lines=tuple(self._lines(mastered, now)[: self._config.supervision.why_lines_max]),
                history=tuple(mastered.history),
            )
        self._setting.outbox.send(peer, answer)

    def _second_hand(self, service: ServiceId, now: Instant) -> Located:
        master = self._book.master(service, now)
        mastered = self._supervisor.mastered.get(service)
        if mastered is not None:
            master = self._setting.me
        known = self._book.known(service)
        knowledge = known.knowledge if known is not None else None
        replicas = knowledge.replicas if knowledge is not None else ()
        locations = tuple(
            Location(service, replica.id, replica.node) for replica in replicas if replica.phase in SERVING
        )
        return Located(service, master, locations, False)

    def _subscribe(self, service: ServiceId, peer: NodeId, now: Instant) -> None:
        self._subscribers.pop((service, peer), None)
        self._subscribers[service, peer] = now.boot_s + self._config.access.location_ttl_s
        if len(self._subscribers) > self._config.access.subscribers_max:
            del self._subscribers[next(iter(self._subscribers))]

    def _lines(self, mastered: Mastered, now: Instant) -> list[WhyLine]:
        """One line per node: those that run a replica, those asked, then the others by placement's judgement."""
        lines: list[WhyLine] = []
        verdicts: Sequence[Verdict] = self._supervisor.verdicts(mastered.service, now)
        by_node = {verdict.node: verdict for verdict in verdicts}
        for node in sorted(mastered.replicas):
            lines.append(self._running_line(mastered, node, by_node.get(node), now))
        for node in mastered.offers:
            lines.append(WhyLine(node, "chosen", "a replica is offered, its answer is awaited"))
        for verdict in verdicts:
            if verdict.node in mastered.replicas or verdict.node in mastered.offers:
                continue
            refused = mastered.refusals.get(verdict.node)
            if refused is not None:
                lines.append(WhyLine(verdict.node, "refused", f"{refused.code}: {refused.reason}"))
            elif verdict.fit:
                lines.append(WhyLine(verdict.node, "candidate", verdict.reason, verdict.score))
            else:
                lines.append(WhyLine(verdict.node, "unfit", verdict.reason))
        return lines

    def _running_line(
        self, mastered: Mastered, node: NodeId, verdict: Verdict | None, now: Instant
    ) -> WhyLine:
        watched = mastered.replicas[node]
        score = verdict.score if verdict is not None else 0.0
        if self._supervisor.hearing.is_doubtful(node, now):
            return WhyLine(node, "late", "runs, but its node has not been heard lately", score)
        parts = [watched.replica.phase.value, f"version {watched.replica.version}", watched.replica.detail]
        if watched.ordered_s is not None:
            parts.append(f"told to stop: {watched.why}")
        verb = "spare" if watched.spare else "runs"
        return WhyLine(node, verb, ", ".join(part for part in parts if part), score)
