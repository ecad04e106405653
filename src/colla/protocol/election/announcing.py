"""Telling and hearing who masters what: claims, mastership, knowledge of secondaries, handover, gossip.

Transitions of one mastery of this node:

    -         took                                              -> mastered  all present dispatchers are told
    mastered  a lower claim                                     -> mastered  the other is told mine, and decides
    mastered  a higher claim, and I win (running, proximity)    -> mastered  concluded `Reclaim` above it
    mastered  a higher claim, and I lose                        -> -         concluded `Outranked`
    mastered  somebody knows a higher ballot                    -> mastered  its node is told mine; gone: `Reclaim`
    mastered  a settled nearer dispatcher (the heir)            -> mastered  it is handed the service, and outranks me
    mastered  lost: inactive, stalled, slept, refused           -> -

When two masters meet, only the one with the lower ballot decides, so that never both yield. Mastership costs messages
per pair of nodes, not per service. Secondaries are told what the master knows on every change. Every
`gossip_interval_s` two random dispatchers compare what they know, which repairs lost claims.
"""

from __future__ import annotations

from math import inf

import msgspec

from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId, digest
from colla.model.location import Ballot, Replica
from colla.protocol.election.book import NOBODY, MasterBook
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import (
    Bequest,
    Claim,
    ClaimAnswer,
    HandOver,
    MasterAnswer,
    MasterDelta,
    MasterKnowledge,
    MasterQuery,
    Mastership,
    MastershipAnswer,
    MasterSummary,
    MasteryEntry,
)
from colla.protocol.election.rule import ElectionRule
from colla.protocol.election.setting import Setting

DIGEST_BYTES = 8
MEETING_INTERVAL_S = 1.0
"""A master tells another one of itself no more often than this (per service)."""


class Mastery(msgspec.Struct):
    """A service that this node masters: what other dispatchers are told of it."""

    ballot: Ballot
    running: int = 0
    replicas: tuple[Replica, ...] = ()
    secondaries: tuple[NodeId, ...] = ()
    revision: int = 0
    told_revision: int = -1
    handed_to: NodeId = NodeId(b"")
    handed_s: float = -inf
    reclaimed_s: float = -inf
    met_s: float = -inf
    denied: dict[NodeId, None] = {}
    """Dispatchers that answered a claim of this mastery, and do not master the service themselves."""


class Outranked(msgspec.Struct, frozen=True):
    """Another dispatcher masters the service by a higher ballot."""

    service: ServiceId
    ballot: Ballot


class Reclaim(msgspec.Struct, frozen=True):
    """This node goes on as master, by a ballot above this one."""

    service: ServiceId
    above: Ballot


Conclusion = Outranked | Reclaim


def digest_of(entries: list[MasteryEntry]) -> bytes:
    """The same on all nodes for the same entries."""
    return digest(msgspec.msgpack.encode(sorted(entries)))[:DIGEST_BYTES]


class Announcing:
    """See the module's docstring."""

    def __init__(self, setting: Setting, rule: ElectionRule, book: MasterBook, echoes: Echoes) -> None:
        self._setting = setting
        self._config = setting.config.election
        self._rule = rule
        self._book = book
        self._echoes = echoes
        self.masteries: dict[ServiceId, Mastery] = {}
        self._told: dict[NodeId, bytes] = {}
        self._heard: dict[NodeId, tuple[bytes, tuple[MasteryEntry, ...]]] = {}

    # -- this node's masteries ---------------------------------------------------------------------------------

    def took(self, service: ServiceId, ballot: Ballot, running: int, now: Instant) -> None:
        """This node masters the service by this ballot now (perhaps by a lower one before)."""
        mastery = self.masteries.get(service)
        if mastery is None:
            mastery = self.masteries[service] = Mastery(ballot, running)
        else:
            mastery.ballot, mastery.revision = ballot, mastery.revision + 1
        self._book.raise_floor(service, ballot)
        self._choose_secondaries(service, mastery, now)
        for node in self._setting.dispatchers():
            self._send_claim(node, service, mastery, now)

    def lost(self, service: ServiceId) -> None:
        """This node masters the service no more."""
        self.masteries.pop(service, None)

    def update(self, service: ServiceId, running: int, replicas: tuple[Replica, ...]) -> None:
        """What runs has changed, perhaps. `flush` tells secondaries."""
        mastery = self.masteries.get(service)
        if mastery is not None and (mastery.running, mastery.replicas) != (running, replicas):
            mastery.running, mastery.replicas = running, replicas
            mastery.revision += 1

    def presence_changed(self, now: Instant) -> None:
        """Somebody came or went: choose secondaries anew."""
        for service, mastery in self.masteries.items():
            self._choose_secondaries(service, mastery, now)

    def appeared(self, node: NodeId, now: Instant) -> None:
        """A dispatcher is here (again): tell it what this node masters."""
        if node != self._setting.me:
            self._send_mine(node, now)

    def flush(self, now: Instant) -> None:
        """Tell secondaries what changed since they were told last."""
        for service, mastery in self.masteries.items():
            if mastery.told_revision != mastery.revision:
                mastery.told_revision = mastery.revision
                for node in mastery.secondaries:
                    self._send_knowledge(node, service, mastery, now)

    def interval(self, now: Instant) -> None:
        """Tell every secondary's node which services this node still masters; hand over to heirs."""
        shared: dict[NodeId, list[MasteryEntry]] = {node: [] for node in self._told}
        for service, mastery in self.masteries.items():
            for node in mastery.secondaries:
                entry = MasteryEntry(service, mastery.ballot, mastery.revision)
                shared.setdefault(node, []).append(entry)
        for node in sorted(shared):
            self._send_mastership(node, shared[node], now)
            if not shared[node]:
                del self._told[node]
        for service, mastery in self.masteries.items():
            heir = self._rule.heir(service, now.boot_s)
            if heir is not None and now.boot_s - mastery.handed_s >= self._config.handover_interval_s:
                self._hand_over(heir, service, mastery, self._setting.catalogue.fingerprint(), now)

    def resign(self, now: Instant) -> None:
        """This node is about to stop: its secondaries should not have to notice."""
        for service, mastery in self.masteries.items():
            if mastery.secondaries:
                self._hand_over(mastery.secondaries[0], service, mastery, b"", now)

    def bequeath(
        self, service: ServiceId, successor: NodeId, nodes: tuple[NodeId, ...], now: Instant
    ) -> None:
        """This node masters the service no more: tell who does on which nodes there are replicas that it started."""
        if nodes and successor not in (NOBODY, self._setting.me):
            self._send(successor, Bequest(service, nodes, *self._proof(successor, now)))

    def bequest(self, peer: NodeId, message: Bequest, now: Instant) -> tuple[NodeId, ...]:
        """Nodes with replicas of a service that this node masters; for another's service, its master is told, once."""
        if message.service in self.masteries:
            return message.nodes
        master = self._book.master(message.service, now)
        if not message.passed_on and master not in (NOBODY, self._setting.me, peer):
            passed = Bequest(message.service, message.nodes, *self._proof(master, now), passed_on=True)
            self._send(master, passed)
        return ()

    def gossip(self, now: Instant) -> None:
        """Compare with a random dispatcher who masters what."""
        others = [node for node in self._setting.dispatchers() if node != self._setting.me]
        if others:
            peer = self._setting.rng.choice(others)
            self._send(peer, MasterSummary(digest_of(self._entries()), *self._proof(peer, now)))

    def partners(self) -> list[NodeId]:
        """The secondaries of all services that this node masters."""
        return list(dict.fromkeys(node for m in self.masteries.values() for node in m.secondaries))

    def clear(self) -> None:
        """All of it is stale, and this node masters nothing."""
        self.masteries.clear()
        self._told.clear()
        self._heard.clear()

    # -- messages ----------------------------------------------------------------------------------------------

    def claim(self, peer: NodeId, message: Claim, now: Instant) -> list[Conclusion]:
        """Another dispatcher masters the service, so it says."""
        counts = self._echoes.hears_me(peer, now) and message.ballot.node == peer
        mine = self.masteries.get(message.service)
        if mine is not None and counts:
            mine.denied.pop(peer, None)
            return self._meet(peer, message, mine, now)
        if counts:
            self._book.claimed(message.service, message.ballot, now)
        ballot = mine.ballot if mine is not None else self._book.ballot(message.service)
        self._send(
            peer,
            ClaimAnswer(message.service, ballot, mine is not None, counts, *self._proof(peer, now)),
        )
        return []

    def claim_answered(self, peer: NodeId, message: ClaimAnswer, now: Instant) -> list[Conclusion]:
        """A dispatcher heard my claim: was it counted, and does it know better?"""
        mine = self.masteries.get(message.service)
        if mine is None:
            return []
        if not message.counted:
            self._send_claim(peer, message.service, mine, now)
            return []
        if not message.mastering:
            mine.denied[peer] = None
        rules_no_more = message.ballot.node == peer and not message.mastering
        return self.higher(message.service, message.ballot, now, rules_no_more=rules_no_more)

    def is_denied(self, service: ServiceId, node: NodeId) -> bool:
        """Whether that node itself said that it does not master the service, which this one masters."""
        mine = self.masteries.get(service)
        return mine is not None and node in mine.denied

    def higher(
        self, service: ServiceId, ballot: Ballot, now: Instant, *, rules_no_more: bool = False
    ) -> list[Conclusion]:
        """Somebody knows of this ballot for a service that this node masters. Does it rule, and who is it?"""
        mine = self.masteries.get(service)
        if mine is None or ballot <= mine.ballot:
            return []
        other = ballot.node
        gone = other == self._setting.me or other not in self._setting.dispatchers()
        if gone or rules_no_more or other in mine.denied:
            if now.boot_s - mine.reclaimed_s < self._config.reclaim_interval_s:
                return []
            mine.reclaimed_s = now.boot_s
            return [Reclaim(service, ballot)]
        if now.boot_s - mine.met_s >= MEETING_INTERVAL_S:
            mine.met_s = now.boot_s
            self._send_claim(other, service, mine, now)
        return []

    def query(self, peer: NodeId, message: MasterQuery, now: Instant) -> None:
        """A dispatcher asks whether I heard the service's master."""
        mine = self.masteries.get(message.service)
        if mine is not None:
            ballot, heard_s = mine.ballot, 0.0
            # Who asks may still take itself for a secondary, and me for silent.
            self._send_knowledge(peer, message.service, mine, now)
        else:
            ballot = self._book.ballot(message.service)
            heard_s = self._book.witness_s(message.service, peer, now)
        self._send(peer, MasterAnswer(message.service, ballot, heard_s, *self._proof(peer, now)))

    def mastership(self, peer: NodeId, message: Mastership, now: Instant) -> list[ServiceId]:
        """A master's node tells which services it masters, me being secondary. Returns the services to review."""
        before_digest, before = self._heard.get(peer, (b"", ()))
        entries = message.entries
        unknown = not self._echoes.hears_me(peer, now)
        if not entries and message.digest == before_digest:
            entries = before
        elif message.digest != digest_of(list(entries)):
            unknown = True
        if unknown:
            self._send(peer, MastershipAnswer(True, (), (), *self._proof(peer, now)))
            return []
        self._heard[peer] = (message.digest, entries)
        wants, refused = self._compare(peer, entries, now)
        listed = {entry.service for entry in entries}
        released = [e for e in before if e.service not in listed and self._is_released(e)]
        for entry in released:
            self._book.released(entry.service, now)
        # Without heartbeats nothing else would prove to the two that they hear each other.
        if wants or refused or not self._setting.config.presence.heartbeats:
            self._send(peer, MastershipAnswer(False, wants, refused, *self._proof(peer, now)))
        return [entry.service for entry in released]

    def mastership_answered(self, peer: NodeId, message: MastershipAnswer, now: Instant) -> list[Conclusion]:
        """A secondary misses something, or knows higher ballots."""
        if message.unknown:
            entries = [
                MasteryEntry(service, mastery.ballot, mastery.revision)
                for service, mastery in self.masteries.items()
                if peer in mastery.secondaries
            ]
            self._told.pop(peer, None)
            self._send_mastership(peer, entries, now)
        for service in message.wants:
            mine = self.masteries.get(service)
            if mine is not None:
                self._send_knowledge(peer, service, mine, now)
        conclusions: list[Conclusion] = []
        for entry in message.refused:
            conclusions += self.higher(entry.service, entry.ballot, now)
        return conclusions

    def knowledge(self, peer: NodeId, message: MasterKnowledge, now: Instant) -> None:
        """A master tells what it knows."""
        if message.ballot.node != peer or message.service in self.masteries:
            return
        if self._echoes.hears_me(peer, now):
            self._book.learn(message, now)
        else:
            self._send(peer, MastershipAnswer(False, (message.service,), (), *self._proof(peer, now)))

    def may_take_over(self, peer: NodeId, message: HandOver, now: Instant) -> bool:
        """Whether to claim a service that its master hands over."""
        catalogue = self._setting.catalogue
        return (
            self._echoes.hears_me(peer, now)
            and message.ballot.node == peer
            and message.service not in self.masteries
            and self._book.is_watched(message.service)
            and message.ballot >= self._book.ballot(message.service)
            and message.fingerprint in (b"", catalogue.fingerprint())
        )

    def summary(self, peer: NodeId, message: MasterSummary, now: Instant) -> None:
        """A dispatcher compares: when we differ, tell it all that is known here."""
        entries = self._entries()
        if message.digest == digest_of(entries):
            return
        self._send_mine(peer, now)
        window = self._config.entries_per_message_max
        first = self._setting.rng.randrange(len(entries)) if len(entries) > window else 0
        chosen = tuple(entries[first : first + window])
        self._send(peer, MasterDelta(chosen, False, True, *self._proof(peer, now)))

    def delta(
        self, peer: NodeId, message: MasterDelta, now: Instant
    ) -> tuple[list[ServiceId], list[Conclusion]]:
        """What another dispatcher knows. Returns the services to review, and conclusions."""
        if message.mine and not self._echoes.hears_me(peer, now):
            self._send(peer, MasterSummary(b"", *self._proof(peer, now)))
            return [], []
        touched: list[ServiceId] = []
        conclusions: list[Conclusion] = []
        better: list[MasteryEntry] = []
        listed: dict[ServiceId, None] = {}
        wants: list[ServiceId] = []
        for entry in message.entries:
            listed[entry.service] = None
            mine = self.masteries.get(entry.service)
            floor = mine.ballot if mine is not None else self._book.ballot(entry.service)
            if entry.ballot < floor:
                better.append(MasteryEntry(entry.service, floor))
                if mine is not None and message.mine:
                    self._send_claim(peer, entry.service, mine, now)
            elif mine is not None:
                conclusions += self.higher(entry.service, entry.ballot, now)
            elif self._note(peer, message, entry, now):
                touched.append(entry.service)
                outdated = self._book.told_revision(entry.service) != entry.revision
                if message.mine and outdated and self._book.is_secondary(entry.service):
                    # Perhaps it is none any more: what the master told while this node was away is lost.
                    wants.append(entry.service)
        if wants:
            self._send(peer, MastershipAnswer(False, tuple(wants), (), *self._proof(peer, now)))
        if message.reply:
            better += [entry for entry in self._entries() if entry.service not in listed]
            chosen = tuple(better[: self._config.entries_per_message_max])
            if chosen:
                self._send(peer, MasterDelta(chosen, False, False, *self._proof(peer, now)))
        return touched, conclusions

    # -- steps -------------------------------------------------------------------------------------------------

    def _meet(self, peer: NodeId, message: Claim, mine: Mastery, now: Instant) -> list[Conclusion]:
        """Two masters: more running replicas wins, then proximity. Who has the lower ballot decides."""
        if message.ballot <= mine.ballot:
            self._send_claim(peer, message.service, mine, now)
            return []
        theirs = (message.running, message.ballot.proximity, message.ballot.node)
        wins = (mine.running, mine.ballot.proximity, mine.ballot.node) > theirs
        fought = now.boot_s - mine.reclaimed_s < self._config.reclaim_interval_s
        handed = mine.handed_to == peer
        if not wins or fought or handed:
            self._book.claimed(message.service, message.ballot, now)
            self._send(
                peer, ClaimAnswer(message.service, message.ballot, False, True, *self._proof(peer, now))
            )
            return [Outranked(message.service, message.ballot)]
        mine.reclaimed_s = now.boot_s
        return [Reclaim(message.service, message.ballot)]

    def _note(self, peer: NodeId, message: MasterDelta, entry: MasteryEntry, now: Instant) -> bool:
        if message.mine and entry.ballot.node == peer:
            return self._book.claimed(entry.service, entry.ballot, now)
        return self._book.hearsay(entry.service, entry.ballot, now)

    def _compare(
        self, peer: NodeId, entries: tuple[MasteryEntry, ...], now: Instant
    ) -> tuple[tuple[ServiceId, ...], tuple[MasteryEntry, ...]]:
        """Which knowledge is missing here, and of which services a higher ballot is known."""
        wants: list[ServiceId] = []
        refused: list[MasteryEntry] = []
        for entry in entries:
            mine = self.masteries.get(entry.service)
            if mine is not None:
                self._send_claim(peer, entry.service, mine, now)
            elif not self._book.is_watched(entry.service):
                continue
            elif not self._book.claimed(entry.service, entry.ballot, now):
                refused.append(MasteryEntry(entry.service, self._book.ballot(entry.service)))
            elif self._book.told_revision(entry.service) != entry.revision:
                wants.append(entry.service)
        return tuple(wants), tuple(refused)

    def _is_released(self, entry: MasteryEntry) -> bool:
        known = self._book.known(entry.service)
        return known is not None and known.ballot == entry.ballot and self._book.is_secondary(entry.service)

    def _choose_secondaries(self, service: ServiceId, mastery: Mastery, now: Instant) -> None:
        chosen = self._rule.secondaries(service, mastery.secondaries, now.boot_s)
        if chosen == mastery.secondaries:
            return
        dropped = [node for node in mastery.secondaries if node not in chosen]
        mastery.secondaries = chosen
        mastery.revision += 1
        for node in dropped:
            self._send_knowledge(node, service, mastery, now)

    def _entries(self) -> list[MasteryEntry]:
        """Every active service with the highest ballot known here, sorted."""
        entries = []
        for service in self._book.watched():
            mine = self.masteries.get(service)
            known = self._book.known(service)
            if mine is not None:
                entries.append(MasteryEntry(service, mine.ballot))
            elif known is not None:
                entries.append(MasteryEntry(service, known.ballot))
        return entries

    def _hand_over(
        self, heir: NodeId, service: ServiceId, mastery: Mastery, fingerprint: bytes, now: Instant
    ) -> None:
        mastery.handed_to, mastery.handed_s = heir, now.boot_s
        self._send(heir, HandOver(service, mastery.ballot, fingerprint, *self._proof(heir, now)))

    def _send_mine(self, node: NodeId, now: Instant) -> None:
        entries = [MasteryEntry(service, m.ballot, m.revision) for service, m in self.masteries.items()]
        step = self._config.entries_per_message_max
        for first in range(0, len(entries), step):
            chosen = tuple(entries[first : first + step])
            self._send(node, MasterDelta(chosen, True, False, *self._proof(node, now)))

    def _send_claim(self, node: NodeId, service: ServiceId, mastery: Mastery, now: Instant) -> None:
        if node != self._setting.me:
            self._send(node, Claim(service, mastery.ballot, mastery.running, *self._proof(node, now)))

    def _send_knowledge(self, node: NodeId, service: ServiceId, mastery: Mastery, now: Instant) -> None:
        self._send(
            node,
            MasterKnowledge(
                service,
                mastery.ballot,
                mastery.revision,
                mastery.secondaries,
                mastery.replicas,
                *self._proof(node, now),
            ),
        )

    def _send_mastership(self, node: NodeId, entries: list[MasteryEntry], now: Instant) -> None:
        told = digest_of(entries)
        carried = () if self._told.get(node) == told else tuple(sorted(entries))
        self._told[node] = told
        self._send(node, Mastership(told, carried, *self._proof(node, now)))

    def _proof(self, peer: NodeId, now: Instant) -> tuple[int, int]:
        return self._echoes.nonce(now), self._echoes.echo(peer)

    def _send(self, node: NodeId, message: Message) -> None:
        self._setting.outbox.send(node, message)
