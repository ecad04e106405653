"""Who is here (DESIGN section 5): the one writer of `PresenceView`, on every node.

Owns: this node's announcement, the table, and what follows from claims about nodes. Every node heartbeats to its
watchers and partners; the watchers judge silence together (`watch`); news floods (`gossip`) and is repaired by
sessions (`exchange`). A suspicion that is not refuted within `refutation_s` becomes an absence.

An absence that this node learns without having seen the suspicion is taken for a suspicion first, so that a node which
was cut off, and believes everybody absent, frightens nobody when it returns. A node of which something worse than
presence is said announces itself anew with a higher revision: only its own signature refutes. A node whose own loop was
late counts itself out: it was not listening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from colla.kernel.config import PresenceConfig
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId
from colla.protocol.presence.announcements import read_announcement, sign_announcement, signature_holds
from colla.protocol.presence.beats import Beats
from colla.protocol.presence.exchange import Exchange
from colla.protocol.presence.gossip import CLOCK_GRAIN_S, Gossip, Spread
from colla.protocol.presence.messages import (
    PRESENCE_MESSAGES,
    PRESENCE_TIMERS,
    RANKED,
    Claim,
    Heard,
    Heartbeat,
    News,
    NewsDue,
    PresenceTick,
    Probe,
    SignedAnnouncement,
    Silence,
    SuspicionDue,
    TableDigest,
    TableIndex,
    TableRows,
)
from colla.protocol.presence.neighbourhood import Neighbourhood, OwnOffer
from colla.protocol.presence.pairs import Pairs
from colla.protocol.presence.reconnect import Links
from colla.protocol.presence.table import Row, Table
from colla.protocol.presence.watch import Watch
from colla.protocol.views import (
    Announcement,
    Identity,
    MembershipView,
    PresenceChange,
    PresenceEntry,
    PresencePhase,
)

STAGE_CONFIRM, STAGE_LAPSE = 0, 1
TELL_AT_MOST_EVERY_S = 1.0


class Presence:
    """Implements `views.PresenceView` and `agents.agent.PartnerBook`. Calls return what was concluded."""

    MESSAGES = PRESENCE_MESSAGES
    TIMERS = PRESENCE_TIMERS

    def __init__(
        self,
        identity: Identity,
        config: PresenceConfig,
        rng: Random,
        outbox: Outbox,
        membership: MembershipView,
        spread: Spread,
        own: OwnOffer,
        start_number: int,
        cells: Mapping[str, bytes] | None = None,
        version: str = "",
        rhythm: Rhythm | None = None,
    ) -> None:
        """`spread(message, recipients, now)` sends to each recipient, unbarriered. `cells` as found on the disk."""
        self._identity = identity
        self._config = config
        self._rng = rng
        self._outbox = outbox
        self._membership = membership
        self._own = own
        self._version = version
        self._at = (start_number, -1)
        self._addresses: tuple[str, ...] = ()
        self._table = Table(config)
        self._pairs = Pairs(config, outbox, rng)
        self._links = Links(config, outbox, rng, identity.node, cells or {})
        self._watch = Watch(config, outbox, identity.node, self._table, self._pairs, self._links.accepted)
        self._around = Neighbourhood(
            config, identity.node, rng, self._table, self._pairs, self._links, self._watch
        )
        self._gossip = Gossip(config, outbox, spread, self._around.recipients)
        self._exchange = Exchange(config, outbox, rng, self._table)
        self._changes: list[PresenceChange] = []
        self._told_s: dict[NodeId, float] = {}
        self._started_s = 0.0
        self._late_s = float("-inf")
        self._beats = Beats(config, rng, rhythm)
        self._tick_serial = 0
        self._stopping = False
        self.rejected = 0
        """Announcements that were malformed or forged, since the start."""

    # The view.

    def present(self) -> tuple[NodeId, ...]:
        return self._table.present()

    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]:
        return self._table.carrying(agent)

    def entry(self, node: NodeId) -> PresenceEntry | None:
        return self._table.entry(node)

    def is_present(self, node: NodeId) -> bool:
        return self._table.here(node)

    def heard_s(self, node: NodeId, now_s: float) -> float | None:
        """Seconds since anything was heard from it; since it became a partner when nothing was; else None."""
        pair = self._pairs.get(node)
        if pair is None or not self._around.minds(node):
            return None
        return pair.unheard_s(now_s, self._table.here(node))

    def echoed_s(self, node: NodeId, now_s: float) -> float | None:
        pair = self._pairs.get(node)
        return None if pair is None or pair.echoed_s is None else now_s - pair.echoed_s

    def suspects_share(self, now_s: float) -> float:
        return self._around.suspects_share(now_s)

    def loop_was_late(self, now_s: float) -> bool:
        return now_s - self._late_s < self._config.silence_s

    def absent(self) -> tuple[NodeId, ...]:
        """The members' nodes that are not here, sorted."""
        return self._table.away(self._membership.nodes())

    def is_near(self, node: NodeId) -> bool:
        """Whether it watches this node, or is watched by it: so many hold a session with it when it comes, not all."""
        return self._around.is_near(node)

    def watchers_of(self, node: NodeId) -> tuple[NodeId, ...]:
        return self._around.rings.watchers_of(node)

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        """Where a node was or says it is reachable."""
        return self._addresses if node == self._identity.node else self._links.addresses(node)

    # Calls of the router.

    def start(self, now: Instant) -> list[PresenceChange]:
        """The node starts: announce it, and dial all peers at once."""
        self._started_s = now.boot_s
        self._announce(now)
        self._links.dial_all([node.id for node in self._membership.nodes()], now)
        self._beats.begin(now)
        self._schedule(now)
        return self._finish(now)

    def resumed(self, gap_s: float, now: Instant) -> list[PresenceChange]:
        """The computer slept: nobody's silence counts, others may believe this node gone, links are dead."""
        self._count_out(now)
        if gap_s > self._config.late_after_s:
            self._links.reopen_all()
            self._links.dial_all(self.absent(), now)
        return self._finish(now)

    def link_opened(self, peer: NodeId, addresses: Sequence[str], now: Instant) -> list[PresenceChange]:
        self._links.opened(peer, addresses)
        return self._finish(now)

    def peer_accepted(self, peer: NodeId, now: Instant) -> list[PresenceChange]:
        """The peer may speak: tell it of this node, and compare tables. May come again on the same link."""
        self._links.accept(peer)
        self._pairs.forget_link(peer)
        self._outbox.send(peer, News((), (self._own_row().signed,)), unbarriered=True)
        if self._identity.node < peer:
            self._exchange.begin(peer, now)
        self._around.greet_partner(peer, now)
        return self._finish(now)

    def link_closed(self, peer: NodeId, reason: str, now: Instant) -> list[PresenceChange]:
        """A hint only: dial again at once if the link is needed."""
        self._links.closed(peer, now)
        self._pairs.forget_link(peer)
        self._exchange.end(peer)
        self._told_s.pop(peer, None)
        self._around.want_links(now)
        return self._finish(now)

    def peer_found(self, peer: NodeId, addresses: Sequence[str], now: Instant) -> list[PresenceChange]:
        """Somebody names addresses of a member's node (LAN discovery, a ticket, the owner): try them."""
        if self._membership.node(peer) is not None:
            self._links.announced(peer, addresses)
            self._links.dial_all([peer], now)
        return self._finish(now)

    def heard(self, peer: NodeId, now: Instant) -> None:
        """Any message of another mechanism arrived from the peer."""
        self._pairs.heard(peer, now.boot_s)

    def message(self, peer: NodeId, message: Message, now: Instant) -> list[PresenceChange]:
        """One of `MESSAGES` arrived from an accepted peer."""
        self._pairs.heard(peer, now.boot_s)
        match message:
            case Heartbeat() | Probe():
                self._pairs.received(peer, message, now)
                if not self._table.here(peer):
                    self._tell(peer, now)
                return []
            case Silence():
                self._watch.asked(peer, message, now)
                if not self._config.heartbeats:
                    self._schedule(now)
            case Heard():
                self._watch.answered(peer, message, now)
            case News():
                for signed in message.announcements:
                    self._learn(peer, signed, now, passes_on=True)
                for claim in message.claims:
                    self._hear(peer, claim, now, first_hand=True, passes_on=True)
            case TableDigest():
                self._exchange.digest(peer, message, now)
            case TableIndex():
                self._exchange.index(peer, message, now)
            case TableRows():
                # What is news to a node that just started is old to everybody else.
                passes_on = now.boot_s - self._started_s > self._config.fresh_s
                for row in message.rows:
                    self._learn(peer, row.announcement, now, passes_on)
                    self._hear(peer, row.claim, now, first_hand=False, passes_on=passes_on)
                self._exchange.wanted(peer, message.wanted)
            case _:
                pass
        return self._finish(now)

    def timer(self, timer: Timer, late_s: float, now: Instant) -> list[PresenceChange]:
        """One of `TIMERS` is due, `late_s` later than asked for."""
        if late_s > self._config.loop_late_s:
            self._count_out(now)
        match timer:
            case PresenceTick(serial=serial) if serial == self._tick_serial:
                self._tick(now)
            case NewsDue():
                self._gossip.timer(timer, now)
            case SuspicionDue():
                self._suspicion_due(timer, now)
            case _:
                pass
        return self._finish(now)

    def contribution_changed(self, now: Instant) -> list[PresenceChange]:
        """The owner decided anew: say so."""
        self._announce(now)
        return self._finish(now)

    def addresses_changed(self, addresses: Sequence[str], now: Instant) -> list[PresenceChange]:
        """This node can be reached elsewhere: say so."""
        self._addresses = tuple(addresses[: self._config.addresses_max])
        self._announce(now)
        return self._finish(now)

    def membership_changed(self, now: Instant) -> list[PresenceChange]:
        """Forget who belongs no more; ask for those of whom nothing is known yet."""
        members = dict.fromkeys([node.id for node in self._membership.nodes()])
        members[self._identity.node] = None
        for node in self._table.keep_only(members):
            self._changes.append(PresenceChange(node, PresencePhase.ABSENT))
        self._links.keep_only(members)
        peers = self._links.all_accepted()
        if peers and any(self._table.row(node) is None for node in members):
            self._exchange.begin(self._rng.choice(peers), now)
        return self._finish(now)

    def stopping(self, now: Instant) -> list[PresenceChange]:
        """Say goodbye to all."""
        self._stopping = True
        row = self._own_row()
        node = self._identity.node
        left = Claim(node, row.version[0], row.version[1], RANKED.index(PresencePhase.LEFT))
        self._gossip.begin(node, left, row.signed, now)
        return self._finish(now)

    def set_partners(self, purpose: str, nodes: Sequence[NodeId], now: Instant) -> None:
        """Keep a heartbeat pair with each of these nodes, as long as some purpose names them."""
        self._around.set_partners(purpose, nodes, now)
        self._finish(now)

    # What nodes say of themselves and of each other.

    def _announce(self, now: Instant) -> None:
        """Announce this node anew, with the next revision."""
        if self._stopping:
            return
        self._at = (self._at[0], self._at[1] + 1)
        announcement = Announcement(
            self._identity.node,
            self._at[0],
            self._at[1],
            self._own.contribution,
            self._own.environments,
            self._addresses,
            self._version,
            self._own.reachable,
        )
        signed = sign_announcement(self._identity, announcement)
        self._table.announce(announcement, signed, now.boot_s)
        self._gossip.begin(self._identity.node, None, signed, now)
        self._changes.append(PresenceChange(self._identity.node, PresencePhase.PRESENT))

    def _refute(self, version: tuple[int, int], now: Instant) -> None:
        """Something else is said of this node, or it said it in a life that it forgot: announce a version above."""
        self._at = max(version, self._at)
        self._announce(now)

    def _learn(self, peer: NodeId, signed: SignedAnnouncement, now: Instant, passes_on: bool) -> None:
        """Take in an announcement if it is newer than what is known, and genuine."""
        try:
            announcement = read_announcement(signed, self._config.addresses_max)
        except ValueError:
            self.rejected += 1
            return
        node, version = announcement.node, (announcement.start, announcement.revision)
        row = self._table.row(node)
        other = row is not None and version == row.version and signed != row.signed
        if node == self._identity.node:
            if (version > self._at or other) and signature_holds(self._identity.group, announcement, signed):
                self._refute(version, now)
            return
        if row is not None and version <= row.version:
            if node == peer and other:
                # It counts again from where it was in a life that it forgot: show it what it said then.
                self._outbox.send(peer, News((), (row.signed,)), unbarriered=True)
            elif node == peer and not row.here:
                self._tell(peer, now)
            return
        if self._membership.node(node) is None:
            return
        if not signature_holds(self._identity.group, announcement, signed):
            self.rejected += 1
            return
        appeared = row is None or not row.here or announcement.start > row.version[0]
        row = self._table.announce(announcement, signed, now.boot_s)
        self._links.announced(node, announcement.addresses)
        self._pairs.vouch(node, now.boot_s)
        self._watch.refuted(node, now.boot_s)
        self._changes.append(PresenceChange(node, row.phase, appeared))
        if passes_on:
            self._gossip.pass_on(node, None, signed, now)

    def _hear(self, peer: NodeId, claim: Claim, now: Instant, first_hand: bool, passes_on: bool) -> None:
        """Take in what is said of a node, unless it is refuted already."""
        if claim.rank == 0:
            return
        if claim.node == self._identity.node:
            if claim.version == self._at:
                self._refute(claim.version, now)
            return
        row = self._table.row(claim.node)
        if row is None or claim.version > row.version:
            # The announcement of that version is not here yet; the peer has it if it exists.
            if self._membership.node(claim.node) is not None:
                self._compare(peer, now)
            return
        if claim.version < row.version or claim.rank <= RANKED.index(row.phase):
            return
        match claim.phase:
            case PresencePhase.SUSPECTED:
                self._suspect(row, now, passes_on)
            case PresencePhase.ABSENT if row.here:
                self._hear_absence(row, now, first_hand, passes_on)
            case _:
                self._conclude(row, claim.phase, now, passes_on)

    def _hear_absence(self, row: Row, now: Instant, first_hand: bool, passes_on: bool) -> None:
        patience_s = self._config.confirm_s
        if row.phase is PresencePhase.PRESENT:
            self._suspect(row, now, passes_on)
        elif first_hand:
            # The suspicion was seen here: whoever suspects waits `refutation_s`, and so does everybody else.
            patience_s = self._config.refutation_s
        self._wait_for_refutation(row, patience_s, STAGE_CONFIRM, now)

    def _suspect(self, row: Row, now: Instant, passes_on: bool) -> None:
        node = row.entry.node
        self._table.put(node, PresencePhase.SUSPECTED, now.boot_s)
        self._changes.append(PresenceChange(node, PresencePhase.SUSPECTED))
        self._wait_for_refutation(row, self._config.lapse_s, STAGE_LAPSE, now)
        if passes_on:
            self._gossip.pass_on(node, row.claim(), None, now)
        if self._links.accepted(node):
            # Let the suspect itself know by the shortest way.
            self._outbox.send(node, News((row.claim(),), ()), unbarriered=True)

    def _conclude(self, row: Row, phase: PresencePhase, now: Instant, passes_on: bool) -> None:
        node = row.entry.node
        was_here = row.here
        self._table.put(node, phase, now.boot_s)
        self._watch.forget(node)
        if was_here:
            self._changes.append(PresenceChange(node, phase))
        if passes_on:
            self._gossip.pass_on(node, row.claim(), None, now)

    def _wait_for_refutation(self, row: Row, patience_s: float, stage: int, now: Instant) -> None:
        wait_s = max(0.0, row.suspected_s + patience_s - now.boot_s)
        self._outbox.wake_in(wait_s, SuspicionDue(row.entry.node, *row.version, stage), now)

    def _suspicion_due(self, timer: SuspicionDue, now: Instant) -> None:
        row = self._table.row(timer.node)
        same = row is not None and row.version == (timer.start, timer.revision)
        if row is None or not same or row.phase is not PresencePhase.SUSPECTED:
            return
        patience_s = self._config.lapse_s if timer.stage == STAGE_LAPSE else self._config.refutation_s
        if now.boot_s - row.suspected_s < patience_s - CLOCK_GRAIN_S:
            # The suspicion is younger than the timer: this node was late meanwhile, or suspects it again.
            self._wait_for_refutation(row, patience_s, timer.stage, now)
        elif timer.stage == STAGE_LAPSE or self._around.hears(timer.node, now.boot_s):
            self._table.put(timer.node, PresencePhase.PRESENT, now.boot_s)
            self._changes.append(PresenceChange(timer.node, PresencePhase.PRESENT))
        else:
            self._conclude(row, PresencePhase.ABSENT, now, passes_on=True)

    def _tell(self, peer: NodeId, now: Instant) -> None:
        """Let a peer that speaks but is not here know what is said of it, or ask it who it is."""
        row = self._table.row(peer)
        if row is None:
            self._compare(peer, now)
        elif self._may_tell(peer, now):
            self._outbox.send(peer, News((row.claim(),), ()), unbarriered=True)

    def _compare(self, peer: NodeId, now: Instant) -> None:
        """The peer knows something that this node does not: compare tables, but not at every message."""
        if self._links.accepted(peer) and self._may_tell(peer, now):
            self._exchange.begin(peer, now)

    def _may_tell(self, peer: NodeId, now: Instant) -> bool:
        if now.boot_s - self._told_s.get(peer, float("-inf")) < TELL_AT_MOST_EVERY_S:
            return False
        self._told_s[peer] = now.boot_s
        return True

    # Time.

    def _tick(self, now: Instant) -> None:
        if self._beats.due(now) and not self._stopping:
            self._around.beat(now)
            self._links.seek(self.absent(), len(self._table.present()), now)
            self._exchange.round(self._links.all_accepted(), now)
        if not self._stopping:
            for subject in self._around.judge(now):
                self._agreed(subject, now)
        self._schedule(now)

    def _agreed(self, subject: NodeId, now: Instant) -> None:
        """The watchers agree that a node is silent: suspect it, or give it up when it did not refute that."""
        row = self._table.row(subject)
        if row is None or not row.here:
            return
        if row.phase is PresencePhase.PRESENT:
            self._suspect(row, now, passes_on=False)
        elif now.boot_s - row.suspected_s >= self._config.refutation_s - CLOCK_GRAIN_S:
            self._conclude(row, PresencePhase.ABSENT, now, passes_on=False)
        else:
            return
        self._gossip.begin(subject, row.claim(), None, now)

    def _schedule(self, now: Instant) -> None:
        due_s = min(self._beats.next_s, self._around.next_judgement_s(now.boot_s))
        self._tick_serial += 1
        self._outbox.wake_in(max(0.0, due_s - now.boot_s), PresenceTick(self._tick_serial), now)

    def _count_out(self, now: Instant) -> None:
        self._late_s = now.boot_s
        self._pairs.count_anew(now.boot_s)
        self._watch.count_anew()
        self._table.suspect_anew(now.boot_s)

    def _own_row(self) -> Row:
        row = self._table.row(self._identity.node)
        assert row is not None, "presence was not started"
        return row

    def _finish(self, now: Instant) -> list[PresenceChange]:
        self._around.reshape(now)
        self._gossip.flush(now)
        changes, self._changes = self._changes, []
        return changes
