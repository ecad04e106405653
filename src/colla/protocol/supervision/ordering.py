"""A master's conversation with executors: offers, stop orders, supervision and reports.

Transitions of one offer:

    -        offer                           -> pending
    pending  refused `echo`                  -> pending  repeated with the echo, at most `REPEATS_MAX` times
    pending  accepted, or reported           -> -        the replica is watched
    pending  refused `lower_ballot`          -> -        concluded: the executor obeys a higher ballot
    pending  refused otherwise, no answer    -> -        the node is not asked before the refusal's time
    pending  the node is gone, or mastery    -> -

Invariants: every order carries the mastery's ballot; reports of replicas are believed from the node that runs them
only; what a report does not list is gone only if the report covers the service.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot, Replica, ReplicaPhase
from colla.model.service import Service, lacking_text
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.setting import Setting
from colla.protocol.supervision.hearing import Hearing
from colla.protocol.supervision.messages import (
    Offer,
    OfferAnswer,
    Preseed,
    ReplicaReport,
    ReportEntry,
    StopAnswer,
    StopOrder,
    Supervision,
    SupervisionEntry,
    digest_of_reports,
    digest_of_supervision,
)
from colla.protocol.supervision.roster import Mastered, PendingOffer, Refused

REPEATS_MAX = 3
FAILED_RETRY_S = 1.0
"""A node on which the replica failed is asked again after this; its executor tells when its back-off ends."""


class Obeyed(msgspec.Struct, frozen=True):
    """An executor obeys this ballot for a service, not the lower one of this node."""

    service: ServiceId
    ballot: Ballot


class Heard(msgspec.Struct, frozen=True):
    """What a message of an executor amounts to: the services to evaluate, and who is obeyed instead of this node."""

    touched: tuple[ServiceId, ...] = ()
    obeyed: tuple[Obeyed, ...] = ()


class Ordering:
    """See the module's docstring. `mastered` is the supervisor's."""

    def __init__(
        self, setting: Setting, echoes: Echoes, mastered: dict[ServiceId, Mastered], hearing: Hearing
    ) -> None:
        self._setting = setting
        self._config = setting.config.supervision
        self._echoes = echoes
        self._mastered = mastered
        self._hearing = hearing
        self._told: dict[NodeId, bytes] = {}

    # -- orders ------------------------------------------------------------------------------------------------

    def offer(
        self, mastered: Mastered, node: NodeId, holders: tuple[NodeId, ...], spare: bool, now: Instant
    ) -> None:
        """Offer a replica to a node's executor."""
        due_s = now.boot_s + self._config.offer_timeout_s
        pending = PendingOffer(self._setting.outbox.new_id(), due_s, holders, spare=spare)
        mastered.offers[node] = pending
        self._hearing.asked(node, now.boot_s)
        self._send_offer(mastered, node, pending, now)

    def stop(self, mastered: Mastered, node: NodeId, why: str, now: Instant) -> None:
        """Order the replica at a node to stop, draining first."""
        watched = mastered.replicas[node]
        watched.ordered_s, watched.why = now.boot_s, why
        mastered.note(f"stops on {self._setting.name(node)}: {why}", self._config.history_max)
        self._send_stop(mastered, node, now)

    def preseed(self, mastered: Mastered, node: NodeId, version: int) -> None:
        """Let a likely next executor fetch the object ahead."""
        holders = tuple(list(mastered.replicas)[: self._config.holders_max])
        self._setting.outbox.send(node, Preseed(mastered.service, version, holders))

    def tell_lacking(self, mastered: Mastered, service: Service) -> None:
        """The service cannot start without secrets that nobody has set: tell people, once."""
        text = lacking_text(service)
        if text not in mastered.history:
            mastered.note(text, self._config.history_max)
            self._setting.outbox.notify("missing_secrets", text, service=mastered.service)

    def readers_came(self, mastered: Mastered, nodes: Sequence[NodeId]) -> None:
        """If one of them can read a secret of the service, executors that wait for that may be asked at once."""
        service = self._setting.catalogue.service(mastered.service)
        secrets = service.secrets if service is not None else ()
        if any(key.node in nodes for secret in secrets for key in secret.keys):
            mastered.refusals.clear()

    def expire(self, mastered: Mastered, now: Instant) -> None:
        """Give up offers without an answer; repeat stop orders that had no effect."""
        for node, pending in list(mastered.offers.items()):
            if now.boot_s >= pending.due_s:
                del mastered.offers[node]
                self._refuse(
                    mastered, node, "no_answer", "did not answer", self._config.no_answer_retry_s, now
                )
        for node, watched in mastered.replicas.items():
            if watched.ordered_s is not None and now.boot_s >= watched.resend_s:
                self._send_stop(mastered, node, now)

    def flush(self, now: Instant) -> None:
        """Tell at once every executor for which something changed what this node masters there."""
        for node, entries in self._shared().items():
            if self._told.get(node) != digest_of_supervision(entries):
                self._send_supervision(node, entries, now)

    def interval(self, now: Instant) -> None:
        """Tell every executor with replicas of this node's services what it masters there."""
        shared = self._shared()
        for node in [node for node in self._told if node not in shared]:
            del self._told[node]
        for node, entries in shared.items():
            self._send_supervision(node, entries, now)

    def probe(self, node: NodeId, now: Instant) -> None:
        """Ask one executor for a report now (a user agent could not reach a replica there)."""
        entries = self._shared().get(node)
        if entries is not None:
            self._send_supervision(node, entries, now)

    def forget(self, node: NodeId) -> None:
        """The node is absent."""
        self._told.pop(node, None)

    def clear(self) -> None:
        self._told.clear()

    # -- answers -----------------------------------------------------------------------------------------------

    def offer_answered(self, peer: NodeId, answer: OfferAnswer, now: Instant) -> Heard:
        """An executor accepted or refused."""
        self._hearing.heard(peer, now)
        mastered = self._mastered.get(answer.service)
        pending = mastered.offers.get(peer) if mastered is not None else None
        if mastered is None or pending is None or pending.offer != answer.offer:
            return Heard()
        if answer.code == "echo" and pending.repeats < REPEATS_MAX:
            pending.repeats += 1
            self._send_offer(mastered, peer, pending, now)
            return Heard()
        del mastered.offers[peer]
        if answer.accepted:
            name = self._setting.name(peer)
            mastered.note(f"{name} accepted a {'spare ' * pending.spare}replica", self._config.history_max)
            mastered.refusals.pop(peer, None)
            version = mastered.version
            replica = Replica(answer.replica, answer.service, peer, version, ReplicaPhase.PREPARING)
            if peer not in mastered.replicas:
                mastered.put(replica, answer.ballot, now, spare=pending.spare)
            return Heard((answer.service,))
        self._refuse(mastered, peer, answer.code, answer.reason, answer.retry_s, now)
        if answer.code == "lower_ballot" and answer.ballot > mastered.ballot:
            return Heard((), (Obeyed(answer.service, answer.ballot),))
        return Heard((answer.service,))

    def stop_answered(self, peer: NodeId, answer: StopAnswer, now: Instant) -> Heard:
        """An executor carries out a stop order, or refuses it."""
        self._hearing.heard(peer, now)
        mastered = self._mastered.get(answer.service)
        watched = mastered.replicas.get(peer) if mastered is not None else None
        if mastered is None or watched is None or watched.replica.id != answer.replica:
            return Heard()
        if answer.code == "lower_ballot" and answer.ballot > mastered.ballot:
            return Heard((), (Obeyed(answer.service, answer.ballot),))
        if answer.code == "echo" and watched.ordered_s is not None:
            self._send_stop(mastered, peer, now)
        elif answer.code == "unknown_replica":
            del mastered.replicas[peer]
        return Heard((answer.service,))

    def reported(self, peer: NodeId, report: ReplicaReport, now: Instant) -> Heard:
        """An executor tells what runs there."""
        self._hearing.heard(peer, now)
        obeyed = [Obeyed(entry.service, entry.ballot) for entry in report.refused]
        obeyed += [Obeyed(entry.replica.service, entry.ballot) for entry in report.entries]
        outranked = tuple(o for o in obeyed if self._is_above(o))
        shared = self._shared().get(peer, [])
        if report.unknown:
            self._told.pop(peer, None)
            if shared:
                self._send_supervision(peer, shared, now)
        if report.unchanged:
            return Heard((), outranked)
        return Heard(tuple(self._reconcile(peer, report, shared, now)), outranked)

    # -- steps -------------------------------------------------------------------------------------------------

    def _is_above(self, obeyed: Obeyed) -> bool:
        mastered = self._mastered.get(obeyed.service)
        return mastered is not None and obeyed.ballot > mastered.ballot

    def _reconcile(
        self, peer: NodeId, report: ReplicaReport, shared: list[SupervisionEntry], now: Instant
    ) -> list[ServiceId]:
        listed: dict[ServiceId, None] = {}
        touched: list[ServiceId] = []
        for entry in report.entries:
            mastered = self._mastered.get(entry.replica.service)
            if mastered is None or entry.replica.node != peer:
                continue
            touched.append(mastered.service)
            if entry.replica.phase is ReplicaPhase.FAILED:
                self._failed(mastered, peer, entry, now)
                continue
            listed[mastered.service] = None
            mastered.offers.pop(peer, None)
            mastered.put(entry.replica, entry.ballot, now)
        covers = report.covers == digest_of_supervision(shared)
        for mastered in self._mastered.values():
            watched = mastered.replicas.get(peer)
            if watched is None or mastered.service in listed:
                continue
            if covers or watched.ballot.node == self._setting.me:
                del mastered.replicas[peer]
                touched.append(mastered.service)
                if watched.ordered_s is None:
                    mastered.note(f"gone from {self._setting.name(peer)}", self._config.history_max)
        return touched

    def _failed(self, mastered: Mastered, peer: NodeId, entry: ReportEntry, now: Instant) -> None:
        watched = mastered.replicas.get(peer)
        if watched is not None and watched.replica.id == entry.replica.id:
            del mastered.replicas[peer]
        detail = entry.replica.detail or "failed"
        mastered.note(f"failed on {self._setting.name(peer)}: {detail}", self._config.history_max)
        self._refuse(mastered, peer, "failed", detail, FAILED_RETRY_S, now)

    def _refuse(
        self, mastered: Mastered, node: NodeId, code: str, reason: str, retry_s: float, now: Instant
    ) -> None:
        mastered.refusals[node] = Refused(code, reason, now.boot_s + retry_s)

    def _shared(self) -> dict[NodeId, list[SupervisionEntry]]:
        """Per executor's node the services of which this node masters a replica there, sorted."""
        shared: dict[NodeId, list[SupervisionEntry]] = {}
        for service, mastered in sorted(self._mastered.items()):
            for node in mastered.replicas:
                shared.setdefault(node, []).append(SupervisionEntry(service, mastered.ballot))
        return shared

    def _send_supervision(self, node: NodeId, entries: list[SupervisionEntry], now: Instant) -> None:
        told = digest_of_supervision(entries)
        carried = () if self._told.get(node) == told else tuple(entries)
        self._told[node] = told
        reports = []
        for entry in entries:
            watched = self._mastered[entry.service].replicas[node]
            reports.append(ReportEntry(watched.replica, watched.ballot))
        known = digest_of_reports(reports)
        self._hearing.asked(node, now.boot_s)
        self._send(node, Supervision(told, carried, known, *self._proof(node, now)))

    def _send_offer(self, mastered: Mastered, node: NodeId, pending: PendingOffer, now: Instant) -> None:
        self._send(
            node,
            Offer(
                service=mastered.service,
                ballot=mastered.ballot,
                version=mastered.version,
                offer=pending.offer,
                living=mastered.running(),
                holders=pending.holders,
                nonce=self._echoes.nonce(now),
                echo=self._echoes.echo(node),
            ),
        )

    def _send_stop(self, mastered: Mastered, node: NodeId, now: Instant) -> None:
        watched = mastered.replicas[node]
        watched.resend_s = now.boot_s + self._config.order_retry_s + self._config.drain_s
        proof = self._proof(node, now)
        order = StopOrder(
            mastered.service, watched.replica.id, mastered.ballot, self._config.drain_s, watched.why, *proof
        )
        self._send(node, order)

    def _proof(self, peer: NodeId, now: Instant) -> tuple[int, int]:
        return self._echoes.nonce(now), self._echoes.echo(peer)

    def _send(self, node: NodeId, message: Message) -> None:
        self._setting.outbox.send(node, message)
