"""An executor towards masters: whose orders count, what it answers, and what it reports.

Transitions of one order (an offer, a stop order, a supervision) for one service:

    arrived  its sender does not hear this node  -> refused  `echo`: the answer carries the nonce to echo
    arrived  its ballot is not its sender's      -> refused  `not_its_ballot`
    arrived  its ballot is below the pledge      -> refused  `lower_ballot`
    arrived  its ballot is above what is obeyed  -> waiting  the ballot is being persisted
    arrived  its ballot is obeyed                -> obeyed   carried out
    waiting  Persisted                           -> arrived  judged once more

Invariants: no order of a lower ballot is carried out after one of a higher; a ballot is on disk before it is obeyed
(`election.floors`). An offer names a version only; what is started is what this node's own, verified catalogue holds.
"""

from __future__ import annotations

from math import inf
from typing import assert_never

import msgspec

from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.model.service import Service, lacking_text
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.floors import BallotFloors
from colla.protocol.election.setting import Setting
from colla.protocol.running.running import Changes, Running
from colla.protocol.running.willingness import SOON_S, Unwilling
from colla.protocol.supervision.messages import (
    NO_REPLICA,
    HeldOfferDue,
    InventoryAnswer,
    InventoryEntry,
    InventoryQuery,
    Offer,
    OfferAnswer,
    ReplicaReport,
    ReportEntry,
    StopAnswer,
    StopOrder,
    Supervision,
    SupervisionEntry,
    digest_of_reports,
    digest_of_supervision,
)

OBEYED_PREFIX = "obeyed-ballot/"
WAITING_MAX = 256
"""Orders that wait for their ballot to be durable; more are refused by silence and repeated by their master."""
Order = StopOrder | Supervision


class Supervised(msgspec.Struct):
    """What one master's node said last: its digest and entries."""

    digest: bytes
    entries: tuple[SupervisionEntry, ...]


class Claimed(msgspec.Struct, frozen=True):
    """When a master last gave an order for a service that counted, and its node's start number then."""

    ballot: Ballot
    at_s: float
    start: int


class Accepting(msgspec.Struct, frozen=True):
    """An offer whose reservation is being persisted."""

    peer: NodeId
    offer: Offer


class Obeying:
    """See the module's docstring."""

    def __init__(self, setting: Setting, running: Running, echoes: Echoes) -> None:
        self._setting = setting
        self._config = setting.config
        self._running = running
        self._echoes = echoes
        self.floors = BallotFloors(OBEYED_PREFIX, setting.durable)
        self._supervised: dict[NodeId, Supervised] = {}
        self._claimed: dict[ServiceId, Claimed] = {}
        self._accepting: dict[int, Accepting] = {}
        self._held: dict[ServiceId, Accepting] = {}
        self._raising: dict[int, list[tuple[ServiceId, Ballot]]] = {}
        self._waiting: dict[int, list[tuple[NodeId, Order]]] = {}

    # -- questions ---------------------------------------------------------------------------------------------

    def inventory(self, peer: NodeId, query: InventoryQuery, now: Instant) -> None:
        """A dispatcher asks what runs here."""
        self._send_inventory(peer, query.services, now)

    def tell_orphans(self, now: Instant) -> None:
        """Tell all dispatchers of the replicas here that no master has claimed for a while: one of them masters them,
        or will, and would otherwise not know (the offer's master lost an election meanwhile; this node restarted).
        """
        stale_s = self._config.supervision.orphan_after_s
        orphans = tuple(
            own.service
            for own in self._running.table.all()
            if not own.going and now.boot_s - self._claimed_at_s(own.service) > stale_s
        )
        for node in self._setting.dispatchers() if orphans else ():
            self._send_inventory(node, orphans, now)

    def heard_master_s(self, service: ServiceId, asker: NodeId, now: Instant) -> float:
        """How long ago the obeyed master was heard (negative: never, the asker itself, or it restarted since)."""
        claimed = self._claimed.get(service)
        if claimed is None or claimed.ballot.node == asker:
            return -1.0
        master, age_s = claimed.ballot.node, now.boot_s - claimed.at_s
        if self._start_of(master) > claimed.start:
            return -1.0
        heard_s = self._setting.presence.heard_s(master, now.boot_s)
        stale = age_s > self._config.election.claim_stale_s
        silence_s = age_s if heard_s is None or stale else min(age_s, heard_s)
        echoed_s = self._echoes.echoed_s(master, now)
        if echoed_s > self._config.election.echo_silence_s:
            return -1.0 if echoed_s == inf else max(silence_s, echoed_s)
        return silence_s

    # -- orders ------------------------------------------------------------------------------------------------

    def offer(self, peer: NodeId, offer: Offer, now: Instant) -> None:
        """A master offers a replica: accept and reserve, or refuse with a reason."""
        code = self._refused_order(peer, offer.service, offer.ballot, now)
        if code:
            self._refuse(peer, offer, Unwilling(code, "its ballot does not count here", SOON_S), now)
            return
        service = self._setting.catalogue.service(offer.service)
        if service is None or service.specification.version < offer.version:
            self._hold(peer, offer, now)
            return
        unwilling = self._unwilling(service, offer, now)
        own = self._running.table.of(offer.service)
        if unwilling is not None:
            self._refuse(peer, offer, unwilling, now)
        elif own is not None:
            self._accept_again(peer, offer, now)
        else:
            raised = self.floors.raise_to(offer.service, offer.ballot)
            writes = (raised,) if raised is not None else ()
            reserved = self._running.reserve(
                offer.service, service.specification, offer.living, offer.holders, writes
            )
            self._accepting[reserved.pending] = Accepting(peer, offer)

    def order(self, peer: NodeId, order: Order, now: Instant) -> None:
        """A stop order or a supervision; carried out once its ballots are durable."""
        match order:
            case StopOrder():
                self._stop_order(peer, order, now)
            case Supervision():
                self._supervision(peer, order, now)
            case _:
                assert_never(order)

    def persisted(self, request: int, now: Instant) -> None:
        """Something is durable: a reservation is accepted, or ballots count from now."""
        accepting = self._accepting.pop(request, None)
        own = self._running.persisted(request, now)
        if accepting is not None:
            offer = accepting.offer
            self.floors.persisted(offer.service, offer.ballot)
            if own is None:
                gone = Unwilling("stopped", "the owner or the catalogue decided otherwise meanwhile", SOON_S)
                self._refuse(accepting.peer, offer, gone, now)
            else:
                self._note_claim(offer.service, offer.ballot, now)
                self._answer_offer(accepting.peer, offer, own.id, Unwilling("", ""), now)
        for service, ballot in self._raising.pop(request, []):
            self.floors.persisted(service, ballot)
        for peer, order in self._waiting.pop(request, []):
            self.order(peer, order, now)

    def held_offer_due(self, timer: HeldOfferDue, now: Instant) -> None:
        """The catalogue did not catch up with an offer in time."""
        held = self._held.get(timer.service)
        if held is not None and held.offer.offer == timer.offer:
            del self._held[timer.service]
            unknown = Unwilling(
                "unknown_service", "this computer has not heard of that version of the service yet", SOON_S
            )
            self._refuse(held.peer, held.offer, unknown, now)

    def catalogue_changed(self, services: list[ServiceId], now: Instant) -> None:
        """Held offers may be judged now; eliminated services need no floor."""
        for service in services:
            held = self._held.pop(service, None)
            if held is not None:
                self.offer(held.peer, held.offer, now)
            if self._setting.catalogue.eliminated(service):
                self._claimed.pop(service, None)
                self._running.backoff.forget(service)
                forgotten = self.floors.forget(service)
                if forgotten is not None:
                    self._setting.outbox.persist(forgotten)

    # -- reports -----------------------------------------------------------------------------------------------

    def report(self, changes: Changes, now: Instant) -> None:
        """Tell masters what changed."""
        failed: dict[NodeId, list[ReportEntry]] = {}
        for replica in changes.failed:
            ballot = self.floors.obeyed(replica.service)
            failed.setdefault(ballot.node, []).append(ReportEntry(replica, ballot))
        masters = {self.floors.obeyed(service).node: None for service in changes.services}
        for master in [*masters, *(node for node in failed if node not in masters)]:
            if master != NO_BALLOT.node and self._setting.presence.is_present(master):
                entries = tuple(self._entries(master) + failed.get(master, []))
                self._send_report(master, entries, (), now, unchanged=False, unknown=False)

    def partners(self) -> list[NodeId]:
        """The nodes that master the replicas here."""
        masters = [self.floors.obeyed(own.service).node for own in self._running.table.all()]
        return [node for node in dict.fromkeys(masters) if node not in (NO_BALLOT.node, self._setting.me)]

    def forget_node(self, node: NodeId) -> None:
        """The node is absent."""
        self._supervised.pop(node, None)
        self._echoes.forget(node)

    def clear(self) -> None:
        """This node slept: what masters said is stale; what is obeyed stays."""
        self._supervised.clear()
        self._claimed.clear()
        self._held.clear()

    # -- steps -------------------------------------------------------------------------------------------------

    def _claimed_at_s(self, service: ServiceId) -> float:
        claimed = self._claimed.get(service)
        return claimed.at_s if claimed is not None else -inf

    def _send_inventory(self, peer: NodeId, services: tuple[ServiceId, ...], now: Instant) -> None:
        entries = []
        for service in services[: self._config.supervision.services_per_inventory_max]:
            existing = self._setting.catalogue.service(service)
            own = self._running.table.of(service)
            entries.append(
                InventoryEntry(
                    service=service,
                    ballot=self.floors.pledged(service),
                    heard_s=self.heard_master_s(service, peer, now),
                    holds=existing is not None and self._running.holds(existing.specification.object),
                    replica=self._running.shown(own) if own is not None else None,
                )
            )
        ready, capacity = self._running.surveyed, self._running.capacity()
        self._send(peer, InventoryAnswer(tuple(entries), capacity, ready, *self._proof(peer, now)))

    def _refused_order(self, peer: NodeId, service: ServiceId, ballot: Ballot, now: Instant) -> str:
        if not self._echoes.hears_me(peer, now):
            return "echo"
        if ballot.node != peer:
            return "not_its_ballot"
        if self._setting.catalogue.eliminated(service):
            # Its floor is forgotten: nothing may bring it back.
            return "unknown_service"
        return "lower_ballot" if ballot < self.floors.pledged(service) else ""

    def _unwilling(self, service: Service, offer: Offer, now: Instant) -> Unwilling | None:
        specification = service.specification
        if not service.active:
            return Unwilling("inactive", "this computer's catalogue shows the service inactive", SOON_S)
        if specification.version > offer.version:
            return Unwilling("old_version", f"version {specification.version} is known here", SOON_S)
        if service.lacking:
            return Unwilling("secret_missing", lacking_text(service), SOON_S)
        own = self._running.table.of(service.id)
        if own is None:
            return self._running.refuses(service.id, specification, now)
        if own.going or own.version != offer.version:
            return Unwilling("already_here", "an older replica has not stopped yet", SOON_S)
        return None

    def _accept_again(self, peer: NodeId, offer: Offer, now: Instant) -> None:
        """The replica is here already: the acceptance was lost, or another master had it started."""
        own = self._running.table.of(offer.service)
        if own is None or own.pending in self._accepting:
            return
        raised = self.floors.raise_to(offer.service, offer.ballot)
        if raised is not None:
            request = self._setting.outbox.persist(raised)
            self._raising[request] = [(offer.service, offer.ballot)]
        # Sends wait for earlier persists, so that the answer leaves only when the ballot is durable.
        self._answer_offer(peer, offer, own.id, Unwilling("", ""), now)

    def _hold(self, peer: NodeId, offer: Offer, now: Instant) -> None:
        """The multicast of the catalogue may be just behind the offer."""
        config = self._config.supervision
        if self._setting.catalogue.eliminated(offer.service) or len(self._held) >= config.held_offers_max:
            self._refuse(peer, offer, Unwilling("unknown_service", "the service does not exist", SOON_S), now)
            return
        self._held[offer.service] = Accepting(peer, offer)
        due = HeldOfferDue(offer.service, offer.offer)
        self._setting.outbox.wake_in(config.held_offer_s, due, now)

    def _stop_order(self, peer: NodeId, order: StopOrder, now: Instant) -> None:
        code = self._refused_order(peer, order.service, order.ballot, now)
        own = self._running.table.of(order.service)
        if not code and (own is None or own.id != order.replica):
            code = "unknown_replica"
        if not code and self._must_wait(peer, order, [(order.service, order.ballot)]):
            return
        if not code and own is not None:
            self._note_claim(order.service, order.ballot, now)
            self._running.stop(own, order.drain_s, order.why, now)
        ballot = self.floors.pledged(order.service)
        self._send(peer, StopAnswer(order.service, order.replica, ballot, code, *self._proof(peer, now)))

    def _supervision(self, peer: NodeId, message: Supervision, now: Instant) -> None:
        before = self._supervised.get(peer)
        entries = message.entries
        unknown = not self._echoes.hears_me(peer, now)
        if not entries and before is not None and before.digest == message.digest:
            entries = before.entries
        unknown = unknown or message.digest != digest_of_supervision(entries)
        if unknown:
            self._send_report(peer, (), (), now, unchanged=True, unknown=True)
            return
        over = self._setting.catalogue.eliminated
        mine = [entry for entry in entries if entry.ballot.node == peer and not over(entry.service)]
        counting = [entry for entry in mine if entry.ballot >= self.floors.pledged(entry.service)]
        if self._must_wait(peer, message, [(entry.service, entry.ballot) for entry in counting]):
            return
        self._supervised[peer] = Supervised(message.digest, entries)
        for entry in counting:
            self._note_claim(entry.service, entry.ballot, now)
        refused = tuple(
            SupervisionEntry(entry.service, self.floors.pledged(entry.service))
            for entry in mine
            if entry not in counting
        )
        own = self._entries(peer)
        unchanged = digest_of_reports(own) == message.reports
        shown = () if unchanged else tuple(own)
        self._send_report(peer, shown, refused, now, unchanged=unchanged, unknown=False)

    def _must_wait(self, peer: NodeId, order: Order, ballots: list[tuple[ServiceId, Ballot]]) -> bool:
        """Persist the ballots that are not obeyed yet; the order comes again when they are durable."""
        pending = [(service, ballot) for service, ballot in ballots if ballot > self.floors.obeyed(service)]
        if not pending:
            return False
        if len(self._waiting) >= WAITING_MAX:
            return True
        raised = [self.floors.raise_to(service, ballot) for service, ballot in pending]
        request = self._setting.outbox.persist(*(write for write in raised if write is not None))
        self._raising[request] = pending
        self._waiting[request] = [(peer, order)]
        return True

    def _entries(self, master: NodeId) -> list[ReportEntry]:
        """What this master is told of: its services by its word, or by the ballot that is obeyed or pledged."""
        supervised = self._supervised.get(master)
        named = {entry.service for entry in supervised.entries} if supervised is not None else set()
        entries = []
        for own in self._running.table.all():
            ballot = self.floors.obeyed(own.service)
            # Also what is about to obey it: it was told so already, and would take what is not listed for gone.
            if own.service in named or master in (ballot.node, self.floors.pledged(own.service).node):
                entries.append(ReportEntry(self._running.shown(own), ballot))
        return entries

    def _note_claim(self, service: ServiceId, ballot: Ballot, now: Instant) -> None:
        self._claimed[service] = Claimed(ballot, now.boot_s, self._start_of(ballot.node))

    def _start_of(self, node: NodeId) -> int:
        entry = self._setting.presence.entry(node)
        return entry.announcement.start if entry is not None else 0

    def _refuse(self, peer: NodeId, offer: Offer, why: Unwilling, now: Instant) -> None:
        if why.retry_s > SOON_S and why.code != "backing_off":
            service = self._setting.catalogue.service(offer.service)
            name = service.name if service is not None else offer.service.hex()[:10]
            self._setting.outbox.notify(
                "refused", f"{name}: {why.reason}", service=offer.service, node=self._setting.me
            )
        self._answer_offer(peer, offer, NO_REPLICA, why, now)

    def _answer_offer(
        self, peer: NodeId, offer: Offer, replica: ReplicaId, why: Unwilling, now: Instant
    ) -> None:
        self._send(
            peer,
            OfferAnswer(
                service=offer.service,
                offer=offer.offer,
                replica=replica,
                ballot=self.floors.pledged(offer.service),
                code=why.code,
                reason=why.reason,
                retry_s=why.retry_s,
                capacity=self._running.capacity(),
                nonce=self._echoes.nonce(now),
                echo=self._echoes.echo(peer),
            ),
        )

    def _send_report(
        self,
        peer: NodeId,
        entries: tuple[ReportEntry, ...],
        refused: tuple[SupervisionEntry, ...],
        now: Instant,
        *,
        unchanged: bool,
        unknown: bool,
    ) -> None:
        supervised = self._supervised.get(peer)
        self._send(
            peer,
            ReplicaReport(
                entries=entries,
                unchanged=unchanged,
                refused=refused,
                unknown=unknown,
                covers=supervised.digest if supervised is not None else b"",
                capacity=self._running.capacity(),
                nonce=self._echoes.nonce(now),
                echo=self._echoes.echo(peer),
            ),
        )

    def _proof(self, peer: NodeId, now: Instant) -> tuple[int, int]:
        return self._echoes.nonce(now), self._echoes.echo(peer)

    def _send(self, node: NodeId, message: Message) -> None:
        self._setting.outbox.send(node, message)
