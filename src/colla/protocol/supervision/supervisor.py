"""The master's work: inventory, the right number of replicas, orders to executors, and what it knows for others.

Transitions of one mastered service:

    -          take                                    -> inventory  the survey of the candidacy goes on
    inventory  survey complete, or inventory_s over    -> acting     what runs is adopted; only now anything starts
    acting     a change (report, presence, catalogue)  -> acting     `decision.decide`, then offers and stop orders
    inventory  drop                                    -> -
    acting     drop, or an executor obeys a higher     -> -          concluded `Outranked`
    acting     take, by a new ballot of this node      -> inventory

Invariants: nothing is launched before the inventory; at most one replica or offer per node and service; replicas on
absent nodes are forgotten at once, those on doubtful ones are never counted as healthy; every order carries the ballot.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot, Location, Replica, ReplicaPhase
from colla.model.service import Service
from colla.protocol.election.alarm import Alarm
from colla.protocol.election.book import Known
from colla.protocol.election.candidacy import Won
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.rule import VacancyKind
from colla.protocol.election.setting import Setting
from colla.protocol.placement.scoring import Verdict, choose
from colla.protocol.supervision.decision import Decision, Judged, Situation, decide
from colla.protocol.supervision.hearing import Hearing
from colla.protocol.supervision.judging import Judging
from colla.protocol.supervision.messages import (
    Capacity,
    CheckDue,
    InventoryAnswer,
    InventoryEntry,
    InventoryQuery,
)
from colla.protocol.supervision.ordering import Ordering
from colla.protocol.supervision.roster import UNREADY, Mastered
from colla.protocol.supervision.survey import Surveys

PASSING = (
    "failed",
    "backing_off",
    "no_answer",
    "not_ready",
    "unknown_service",
    "old_version",
    "already_here",
)
"""Refusals that say nothing of what the owner gives."""


class Supervisor:
    """All services that this node masters."""

    def __init__(self, setting: Setting, surveys: Surveys, echoes: Echoes) -> None:
        self._setting = setting
        self._config = setting.config.supervision
        self._surveys = surveys
        self._echoes = echoes
        self.mastered: dict[ServiceId, Mastered] = {}
        self.hearing = Hearing(setting)
        self.capacities: dict[NodeId, Capacity] = {}
        self.ordering = Ordering(setting, echoes, self.mastered, self.hearing)
        self._alarm = Alarm(setting.outbox, CheckDue)
        self._asked_s: dict[NodeId, float] = {}
        self._judging = Judging(setting, self.capacities)

    # -- masteries ---------------------------------------------------------------------------------------------

    def take(self, won: Won, known: Known | None, service: Service, now: Instant) -> None:
        """This node masters the service: its inventory goes on, or, when just activated, is short."""
        before = self.mastered.get(won.service)
        patience_s = self._config.inventory_s
        if won.kind is VacancyKind.ACTIVATED:
            patience_s = self._setting.config.election.witness_s
        mastered = Mastered(
            service=won.service,
            ballot=won.ballot,
            took_s=now.boot_s,
            wanted=service.replicas,
            version=service.specification.version,
            survey=won.survey,
            inventory_until_s=won.survey.began_s + patience_s,
            short_since_s=won.survey.began_s,
        )
        if before is not None:
            mastered.history = before.history
        knowledge = known.knowledge if known is not None else None
        for replica in knowledge.replicas if knowledge is not None else ():
            if self._setting.presence.is_present(replica.node):
                self.hearing.asked(replica.node, won.survey.began_s)
                mastered.put(replica, known.ballot if known is not None else won.ballot, now)
        self.mastered[won.service] = mastered
        for node, entry in won.survey.entries.items():
            self._adopt(mastered, node, entry, now)

    def reballot(self, service: ServiceId, ballot: Ballot) -> None:
        """This node goes on as master by a higher ballot; executors are told by the next `flush`."""
        mastered = self.mastered.get(service)
        if mastered is not None:
            mastered.ballot = ballot

    def drop(self, service: ServiceId) -> None:
        """This node masters the service no more; what runs goes on."""
        if self.mastered.pop(service, None) is not None:
            self._surveys.end(service)

    def clear(self) -> None:
        """All soft knowledge is stale."""
        for service in list(self.mastered):
            self.drop(service)
        self.hearing.clear()
        self.capacities.clear()
        self._asked_s.clear()
        self.ordering.clear()
        self._alarm.clear()

    def partners(self) -> list[NodeId]:
        """The executors' nodes with replicas of services that this node masters."""
        return list(dict.fromkeys(node for m in self.mastered.values() for node in m.replicas))

    # -- what comes in -----------------------------------------------------------------------------------------

    def inventory_answered(
        self, peer: NodeId, answer: InventoryAnswer, now: Instant
    ) -> tuple[list[ServiceId], list[tuple[ServiceId, Ballot]]]:
        """What runs at an executor. Returns the services touched, and ballots above this node's that it obeys."""
        self.hearing.heard(peer, now)
        self.capacities[peer] = answer.capacity
        touched: list[ServiceId] = []
        higher: list[tuple[ServiceId, Ballot]] = []
        for entry in answer.entries if answer.ready else ():
            mastered = self.mastered.get(entry.service)
            if mastered is not None:
                touched.append(entry.service)
                self._adopt(mastered, peer, entry, now)
                if entry.ballot > mastered.ballot:
                    higher.append((entry.service, entry.ballot))
        return touched, higher

    def presence_changed(self, appeared: Sequence[NodeId], gone: Sequence[NodeId], now: Instant) -> None:
        """Nodes came (their executors are asked what they run) or went (their replicas are gone)."""
        for node in gone:
            self.hearing.forget(node)
            self.capacities.pop(node, None)
            self.ordering.forget(node)
            self._surveys.gone(node)
        for mastered in self.mastered.values():
            mastered.preseed_s = now.boot_s
            self.ordering.readers_came(mastered, appeared)
        for node in appeared:
            entry = self._setting.presence.entry(node)
            if entry is not None and entry.announcement.contribution.carries(AgentKind.EXECUTOR):
                self.ask(node, list(self.mastered), now)

    def ask(self, node: NodeId, services: list[ServiceId], now: Instant) -> None:
        """Ask an executor again what it runs; no more often than it can answer."""
        if now.boot_s - self._asked_s.get(node, -inf) < self._config.offer_timeout_s or not services:
            return
        self._asked_s[node] = now.boot_s
        self.hearing.asked(node, now.boot_s)
        step = self._config.services_per_inventory_max
        for first in range(0, len(services), step):
            nonce, echo = self._echoes.nonce(now), self._echoes.echo(node)
            chosen = tuple(services[first : first + step])
            self._setting.outbox.send(node, InventoryQuery(chosen, nonce, echo))

    def inquire(self, service: ServiceId, nodes: Sequence[NodeId], now: Instant) -> None:
        """Somebody who mastered the service until now names executors with replicas: ask those that are unknown here."""
        mastered = self.mastered.get(service)
        executors = self._setting.executors()
        if mastered is None:
            return
        for node in dict.fromkeys(nodes[: len(executors)]):
            if node in executors and node not in mastered.replicas:
                nonce, echo = self._echoes.nonce(now), self._echoes.echo(node)
                self._setting.outbox.send(node, InventoryQuery((service,), nonce, echo))

    def placed(self, service: ServiceId) -> tuple[NodeId, ...]:
        """Where replicas of a service mastered here are, or are offered, sorted."""
        mastered = self.mastered.get(service)
        return () if mastered is None else tuple(sorted({**mastered.replicas, **mastered.offers}))

    def rang(self, epoch: int) -> bool:
        """Whether a `CheckDue is the one that counts."""
        return self._alarm.rang(epoch)

    # -- evaluation --------------------------------------------------------------------------------------------

    def evaluate_all(self, now: Instant, *, looks: bool = False) -> None:
        """Look at every mastered service, that with the fewest living replicas first.

        `looks`: also at who is present, where absences are not acted upon at once.
        """
        if looks or self._setting.config.election.on_events:
            for mastered in self.mastered.values():
                self._forget_gone(mastered)
        order = sorted(self.mastered, key=lambda service: (self.mastered[service].running(), service))
        for service in order:
            self._evaluate(self.mastered[service], now)
        if self.mastered:
            self._alarm.set(self._next_check_s(now), now)

    def _evaluate(self, mastered: Mastered, now: Instant) -> None:
        service = self._setting.catalogue.service(mastered.service)
        if service is None or not service.active:
            return
        if service.replicas < mastered.wanted:
            mastered.trim_now = True
        mastered.wanted, mastered.version = service.replicas, service.specification.version
        if not mastered.acting and not self._inventory_done(mastered, now):
            return
        self.ordering.expire(mastered, now)
        if service.lacking:
            # Nothing starts, and what runs from before goes on.
            self.ordering.tell_lacking(mastered, service)
            return
        decision = self._decide(mastered, service, now)
        self._stop(mastered, decision, now)
        spares = decision.spares if decision.spares and self._spares_left(now) > 0 else 0
        started = 0
        for number in range(decision.starts + spares):
            spare = number >= decision.starts
            if not self._start(mastered, service, spare, now):
                break
            started += 1
        self._follow_number(mastered, decision, started, now)
        self._preseed(mastered, service, decision, now)

    def _decide(self, mastered: Mastered, service: Service, now: Instant) -> Decision:
        replicas = tuple(self._judged(mastered, node, now) for node in mastered.replicas)
        free = hopeful = True
        if mastered.trim_now or any(item.outgoing for item in replicas):
            # Only now it matters where placement would have them, and who else could take one.
            verdicts = self._judging.verdicts(mastered, service, now)
            ranks = {verdict.node: place for place, verdict in enumerate(verdicts)}
            replicas = tuple(msgspec.structs.replace(item, rank=ranks.get(item.node, 0)) for item in replicas)
            free = any(v.fit and not self._blocked(mastered, v.node, now) for v in verdicts)
            hopeful = any(v.fit and self._is_hopeful(mastered, v.node, now) for v in verdicts)
        situation = Situation(
            wanted=mastered.wanted,
            replicas=replicas,
            offers=len(mastered.offers),
            free=free,
            hopeful=hopeful,
            may_spare=any(item.doubtful for item in replicas) and self._may_spare(now),
            trim_now=mastered.trim_now,
            short_for_long=now.boot_s - (mastered.short_since_s or now.boot_s) >= self._config.trim_after_s,
        )
        decision = decide(situation)
        if not decision.surplus:
            mastered.surplus_since_s = None
            staying = sum(1 for watched in mastered.replicas.values() if watched.ordered_s is None)
            mastered.trim_now = mastered.trim_now and staying + len(mastered.offers) > mastered.wanted
            return decision
        if mastered.surplus_since_s is None:
            mastered.surplus_since_s = now.boot_s
        stable_s = now.boot_s - mastered.surplus_since_s
        if stable_s >= self._config.trim_after_s and not situation.trim_now:
            mastered.trim_now = True
            return self._decide(mastered, service, now)
        return decision

    def _judged(self, mastered: Mastered, node: NodeId, now: Instant) -> Judged:
        entry = self._setting.presence.entry(node)
        leaving = entry is not None and entry.announcement.contribution.draining
        doubtful = self.hearing.is_doubtful(node, now)
        return mastered.judged(node, self._config, now, doubtful=doubtful, leaving=leaving)

    def _blocked(self, mastered: Mastered, node: NodeId, now: Instant) -> str:
        """Why this node gets no offer now although it is fit; empty when it may get one."""
        refused = mastered.refusals.get(node)
        if node in mastered.replicas:
            return "runs"
        if node in mastered.offers:
            return "offered"
        if refused is not None and now.boot_s < refused.retry_s:
            return "refused"
        if node not in self.capacities:
            self.ask(node, [mastered.service], now)
            return "unheard"
        if self._starting_at(node) >= self._config.starts_at_once:
            return "busy"
        if self._setting.presence.heard_s(node, now.boot_s) is not None and self.hearing.is_doubtful(
            node, now
        ):
            return "doubtful"
        return ""

    def _is_hopeful(self, mastered: Mastered, node: NodeId, now: Instant) -> bool:
        """Whether a node that gets no offer now may get one soon: then nothing has to stop to make room."""
        blocked = self._blocked(mastered, node, now)
        if blocked != "refused":
            return blocked in ("unheard", "busy")
        return mastered.refusals[node].code in PASSING

    def _starting_at(self, node: NodeId) -> int:
        count = 0
        for mastered in self.mastered.values():
            watched = mastered.replicas.get(node)
            starting = watched is not None and watched.replica.phase in UNREADY
            count += starting or node in mastered.offers
        return count

    def _may_spare(self, now: Instant) -> bool:
        presence = self._setting.presence
        many_late = presence.suspects_share(now.boot_s) > self._config.suspects_share_max
        return not many_late and not presence.loop_was_late(now.boot_s)

    def _spares_left(self, now: Instant) -> int:
        """How many more spares this node may start: a share of the replicas that it masters, but for one node's all."""
        wanted = spares = 0
        doubtful: dict[NodeId, int] = {}
        for mastered in self.mastered.values():
            wanted += mastered.wanted
            spares += sum(1 for offer in mastered.offers.values() if offer.spare)
            for node, watched in mastered.replicas.items():
                spares += watched.spare
                if self.hearing.is_doubtful(node, now):
                    doubtful[node] = doubtful.get(node, 0) + 1
        return max(int(wanted * self._config.spares_share), *doubtful.values(), 1) - spares

    # -- acting ------------------------------------------------------------------------------------------------

    def _stop(self, mastered: Mastered, decision: Decision, now: Instant) -> None:
        for node in decision.stops:
            self.ordering.stop(mastered, node, "replaced", now)
        for node in decision.trims:
            self.ordering.stop(mastered, node, "one more than wanted", now)
            self._setting.outbox.notify(
                "trimmed",
                f"a replica more than the {mastered.wanted} wanted stops on {self._setting.name(node)}",
                service=mastered.service,
                node=node,
            )

    def _start(self, mastered: Mastered, service: Service, spare: bool, now: Instant) -> bool:
        verdicts = self._judging.verdicts(mastered, service, now)
        available = [v for v in verdicts if v.fit and not self._blocked(mastered, v.node, now)]
        chosen = choose(available, self._setting.rng, self._config.best_choices)
        if chosen is None:
            return False
        holders = [node for node in mastered.replicas if node != chosen.node]
        holders += [node for node, holds in mastered.holders.items() if holds and node not in holders]
        self.ordering.offer(mastered, chosen.node, tuple(holders[: self._config.holders_max]), spare, now)
        if spare:
            self._setting.outbox.notify(
                "spare_started",
                f"a replica was not heard for {self._config.spare_after_s:.0f} s: "
                f"one more is offered to {self._setting.name(chosen.node)}",
                service=mastered.service,
                node=chosen.node,
            )
        return True

    def _preseed(self, mastered: Mastered, service: Service, decision: Decision, now: Instant) -> None:
        """When all is well, the likeliest next executor gets the object ahead."""
        if decision.missing or decision.starts or mastered.offers:
            mastered.preseed_s = now.boot_s
            return
        if now.boot_s < mastered.preseed_s:
            return
        mastered.preseed_s = now.boot_s + self._config.preseed_interval_s
        for verdict in self._judging.verdicts(mastered, service, now):
            node = verdict.node
            if not verdict.fit or self._blocked(mastered, node, now):
                continue
            version = service.specification.version
            if not mastered.holders.get(node) and mastered.preseeded.get(node) != version:
                mastered.preseeded[node] = version
                self.ordering.preseed(mastered, node, version)
            return

    def _follow_number(self, mastered: Mastered, decision: Decision, started: int, now: Instant) -> None:
        """Tell people when replicas are missing, and when the number is full again."""
        outbox, short_s = self._setting.outbox, mastered.short_since_s
        if not decision.missing:
            mastered.told_missing = 0
            if short_s is not None:
                mastered.short_since_s = None
                text = (
                    f"{mastered.wanted} of {mastered.wanted} replicas run, after {now.boot_s - short_s:.1f} s"
                )
                mastered.note(text, self._config.history_max)
                outbox.notify("repaired", text, service=mastered.service)
            for watched in mastered.replicas.values():
                watched.spare = watched.spare and decision.surplus > 0
            return
        if short_s is None:
            mastered.short_since_s = now.boot_s
        lacking = decision.starts - started
        if lacking > 0:
            self._refresh_capacities(mastered, now)
        if lacking > 0 and not mastered.offers and mastered.told_missing != lacking:
            mastered.told_missing = lacking
            text = f"{lacking} of {mastered.wanted} replicas are missing: no willing executor is free"
            mastered.note(text, self._config.history_max)
            outbox.notify("missing_replicas", text, service=mastered.service)

    def _refresh_capacities(self, mastered: Mastered, now: Instant) -> None:
        """Nobody could take a replica: what executors said of their free places may have changed since."""
        for node in self._setting.executors():
            if node in mastered.replicas or node in mastered.offers:
                continue
            if now.boot_s - self._asked_s.get(node, -inf) >= self._config.capacity_refresh_s:
                self.ask(node, [mastered.service], now)

    # -- inventory ---------------------------------------------------------------------------------------------

    def _inventory_done(self, mastered: Mastered, now: Instant) -> bool:
        survey = mastered.survey
        done = survey is None or survey.is_complete() or now.boot_s >= mastered.inventory_until_s
        if done:
            mastered.acting, mastered.survey = True, None
            self._surveys.end(mastered.service)
            running = mastered.running()
            mastered.note(f"took over with {running} running", self._config.history_max)
            self._setting.outbox.notify(
                "took_over",
                f"masters the service by term {mastered.ballot.term}, {running} replicas run",
                service=mastered.service,
                node=self._setting.me,
            )
        return done

    def _adopt(self, mastered: Mastered, node: NodeId, entry: InventoryEntry, now: Instant) -> None:
        mastered.holders[node] = entry.holds
        self.hearing.heard(node, now)
        if entry.replica is None:
            watched = mastered.replicas.get(node)
            # An offer may have crossed the answer; a replica that the executor has reported is known better.
            if watched is not None and watched.ballot != mastered.ballot:
                del mastered.replicas[node]
        elif (entry.replica.service, entry.replica.node) == (entry.service, node):
            mastered.put(entry.replica, min(entry.ballot, mastered.ballot), now)
            mastered.offers.pop(node, None)

    def _forget_gone(self, mastered: Mastered) -> None:
        present = self._setting.presence.is_present
        for node in [node for node in mastered.replicas if not present(node)]:
            del mastered.replicas[node]
            mastered.note(f"{self._setting.name(node)} is absent", self._config.history_max)
        for pending in (mastered.offers, mastered.refusals, mastered.holders, mastered.preseeded):
            for node in [node for node in pending if not present(node)]:
                del pending[node]

    # -- what others are told ----------------------------------------------------------------------------------

    def locations(self, mastered: Mastered, now: Instant) -> tuple[Location, ...]:
        """Where requests should go: replicas that serve on nodes beyond doubt; if there are none, any that live."""
        serving = mastered.serving_nodes()
        sound = [node for node in serving if not self.hearing.is_doubtful(node, now)]
        living = sound or serving
        if not living:
            living = [
                node
                for node in sorted(mastered.replicas)
                if mastered.replicas[node].replica.phase is ReplicaPhase.UNHEALTHY
            ]
        return tuple(mastered.location(node) for node in living)

    def verdicts(self, service: ServiceId, now: Instant) -> list[Verdict]:
        """Placement's judgement of every executor now, the best first."""
        mastered, existing = self.mastered.get(service), self._setting.catalogue.service(service)
        if mastered is None or existing is None:
            return []
        return self._judging.verdicts(mastered, existing, now)

    def known_replicas(self, service: ServiceId) -> tuple[Replica, ...]:
        mastered = self.mastered.get(service)
        return mastered.known_replicas() if mastered is not None else ()

    def _next_check_s(self, now: Instant) -> float:
        """The earliest moment at which something could be due by itself."""
        moments: list[float] = []
        for mastered in self.mastered.values():
            if not mastered.acting:
                moments.append(mastered.inventory_until_s)
            if mastered.surplus_since_s is not None:
                moments.append(mastered.surplus_since_s + self._config.trim_after_s)
            moments.extend(mastered.ill_moments(self._config))
            moments.extend(offer.due_s for offer in mastered.offers.values())
            moments.extend(refused.retry_s for refused in mastered.refusals.values())
            for node, watched in mastered.replicas.items():
                moments.append(self.hearing.doubtful_at_s(node, now))
                moments.append(watched.resend_s)
        ahead = [at_s for at_s in moments if at_s > now.boot_s]
        at_s = min([now.boot_s + self._config.check_interval_s, *ahead])
        return max(at_s, now.boot_s + self._config.check_soonest_s)
