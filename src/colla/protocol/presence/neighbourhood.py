"""The nodes that this one has to do with: its watchers, whom it watches, its partners; and the rounds among them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from colla.kernel.config import PresenceConfig
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import NodeId
from colla.protocol.presence.gossip import CLOCK_GRAIN_S
from colla.protocol.presence.pairs import Pairs
from colla.protocol.presence.reconnect import Links
from colla.protocol.presence.rings import Places, Rings
from colla.protocol.presence.table import Table
from colla.protocol.presence.watch import Watch
from colla.protocol.views import PresencePhase

PROBES_BEFORE_LATE = 3
"""A node counts as late for others' decisions only after so many probes went unanswered."""


class OwnOffer(Protocol):
    """What this node gives and which environments are attached (`agents.agent.OwnContribution`)."""

    @property
    def contribution(self) -> Contribution: ...
    @property
    def environments(self) -> tuple[str, ...]: ...
    @property
    def reachable(self) -> bool: ...


class Neighbourhood:
    """Recomputed whenever who is present changes; reads the table, drives pairs, links and the watch."""

    def __init__(
        self,
        config: PresenceConfig,
        own: NodeId,
        rng: Random,
        table: Table,
        pairs: Pairs,
        links: Links,
        watch: Watch,
    ) -> None:
        self._config = config
        self._own = own
        self._rng = rng
        self._table = table
        self._pairs = pairs
        self._links = links
        self._watch = watch
        self._places = Places(config.watchers)
        self._shape: tuple[tuple[NodeId, ...], tuple[NodeId, ...]] = ((), ())
        self.rings = Rings((), (), config.watchers, self._places)
        self._watchers: tuple[NodeId, ...] = ()
        self._watched: dict[NodeId, None] = {}
        self._minds: tuple[NodeId, ...] | None = None
        self._changes_seen = -1
        self._judged = (-1.0, -1.0)
        """When everybody was judged last without anything to ask, and the longest silence then."""
        self._by_purpose: dict[str, tuple[NodeId, ...]] = {}
        self._partners: dict[NodeId, None] = {}

    # Who.

    def set_partners(self, purpose: str, nodes: Sequence[NodeId], now: Instant) -> None:
        """Replace the partners of one purpose."""
        self._by_purpose[purpose] = tuple(node for node in nodes if node != self._own)
        if not nodes:
            del self._by_purpose[purpose]
        before = self._partners
        wanted = [node for name in sorted(self._by_purpose) for node in self._by_purpose[name]]
        self._partners = dict.fromkeys(list(dict.fromkeys(wanted))[: self._config.partners_max])
        self._minds = None
        for node in self._partners:
            if node not in before:
                if node not in self._watched:
                    self._pairs.begin(node, now.boot_s)
                self.greet_partner(node, now)
        if self._partners != before:
            self._keep(now)

    def minds(self, node: NodeId) -> bool:
        """Whether this node cares to hear from that one."""
        return node in self._partners or node in self._watched

    def is_near(self, node: NodeId) -> bool:
        """Whether that node is a neighbour on the rings."""
        return node in self._watched or node in self._watchers

    def hears(self, node: NodeId, now_s: float) -> bool:
        """Whether that node was heard a moment ago, by this one itself."""
        pair = self._pairs.get(node)
        return pair is not None and pair.heard_s is not None and now_s - pair.heard_s < self._late_s()

    def recipients(self, wide: bool) -> Sequence[NodeId]:
        """The accepted peers to whom news goes: all of them, or neighbours on the rings and a few more."""
        accepted = self._links.all_accepted()
        bound = self._config.news_spread_max if wide else self._config.forward_links_max
        if len(accepted) <= bound:
            return accepted
        near = [node for node in self._near() if self._links.accepted(node)]
        chosen = dict.fromkeys(near[:bound])
        rest = [node for node in accepted if node not in chosen]
        return (*chosen, *self._rng.sample(rest, min(len(rest), bound - len(chosen))))

    def suspects_share(self, now_s: float) -> float:
        """Which share of those it cares for is suspected or late beyond a few probes; one alone is none.

        Many together mean that the fault is on this node's side. One of two or three is no sign of that.
        """
        minded = self._minded()
        if not minded:
            return 0.0
        bad = 0
        for node in minded:
            entry, pair = self._table.entry(node), self._pairs.get(node)
            suspected = entry is not None and entry.phase is PresencePhase.SUSPECTED
            bad += suspected or (pair is not None and pair.silence_s(now_s) >= self._late_s())
        return bad / len(minded) if bad > 1 else 0.0

    def reshape(self, now: Instant) -> None:
        """Compute the rings anew if who is present, or who carries a group agent, changed."""
        if self._table.changes == self._changes_seen:
            return
        self._changes_seen = self._table.changes
        self._minds = None
        shape = (self._table.present(), self._table.carrying(AgentKind.GROUP))
        if shape == self._shape:
            return
        self._shape = shape
        self.rings = Rings(*shape, self._config.watchers, self._places, self.rings)
        self._watchers = self.rings.watchers_of(self._own)
        before = self._watched
        self._watched = dict.fromkeys(self.rings.watched_by(self._own))
        for node in self._watched:
            if node not in before:
                grace_s = 0.0 if self._links.accepted(node) else self._config.link_grace_s
                pair = self._pairs.begin(node, now.boot_s)
                pair.clock_s = max(pair.clock_s, now.boot_s + grace_s)
        for node in before:
            if node not in self._watched:
                self._watch.forget(node)
        self._keep(now)

    def _keep(self, now: Instant) -> None:
        near = dict.fromkeys([*self._near(), *self._partners])
        self._links.keep(near)
        self._pairs.keep_only({**near, **dict.fromkeys(self._watch.doubted)}, now.boot_s)
        self.want_links(now)

    def _near(self) -> list[NodeId]:
        return list(dict.fromkeys([*self._watchers, *self._watched]))

    def _minded(self) -> Sequence[NodeId]:
        """Those present of whom it matters whether they are heard."""
        if self._watch.doubted or self._changes_seen != self._table.changes:
            return self._who_matters()
        if self._minds is None:
            self._minds = self._who_matters()
        return self._minds

    def _who_matters(self) -> tuple[NodeId, ...]:
        both = dict.fromkeys([*self._watched, *self._watch.doubted, *self._partners])
        return tuple(node for node in both if self._table.here(node))

    def _late_s(self) -> float:
        return self._config.late_after_s + PROBES_BEFORE_LATE * self._config.probe_interval_s

    # Rounds.

    def greet_partner(self, peer: NodeId, now: Instant) -> None:
        """A partner, or the link to one, is new: a probe brings the first echo at once."""
        pair = self._pairs.get(peer)
        if not self._config.heartbeats:
            return
        if peer in self._partners and pair is not None and self._links.accepted(peer):
            self._pairs.probe(peer, pair, now)

    def want_links(self, now: Instant) -> None:
        """Dial those neighbours and partners, present by all that is known, to which there is no link."""
        self._links.want([node for node in (*self._near(), *self._partners) if self._table.here(node)], now)

    def beat(self, now: Instant) -> None:
        """One heartbeat to each watcher, partner and whoever asked lately; without heartbeats, ask the watched."""
        if not self._config.heartbeats:
            for node in self._watched:
                if self._table.here(node):
                    self._pairs.question(node, now, self._links.accepted(node))
            self.want_links(now)
            return
        self._pairs.next_nonce()
        partners = [node for node in self._partners if self._table.here(node)]
        receivers = dict.fromkeys([*self._watchers, *partners, *self._pairs.askers(now.boot_s)])
        for node in receivers:
            if self._links.accepted(node):
                if node not in self._watched:
                    self._pairs.begin(node, now.boot_s)
                self._pairs.beat(node, ask=node in self._partners)
        self.want_links(now)

    def judge(self, now: Instant) -> list[NodeId]:
        """Probe who is late; returns those on whose silence the watchers agree."""
        now_s, config, silent, longest_s = now.boot_s, self._config, False, -1.0
        late_after_s = config.late_after_s - CLOCK_GRAIN_S
        for node in self._minded():
            pair = self._pairs.begin(node, now_s)
            silence_s = pair.silence_s(now_s)
            if not pair.waits:
                continue
            if silence_s > longest_s:
                longest_s = silence_s
            if silence_s < late_after_s:
                continue
            silent = silent or silence_s >= config.silence_s
            if not self._links.accepted(node):
                self._links.want([node], now)
            elif now_s - pair.probed_s >= self._probe_interval_s(silence_s) - CLOCK_GRAIN_S:
                self._pairs.probe(node, pair, now)
            if silence_s >= self._late_s():
                # Those who watch it too have to be asked soon.
                self._links.want(self.rings.watchers_of(node), now)
        if not silent and not self._watch.busy:
            self._judged = (now_s, longest_s)
            return []
        watched = dict.fromkeys([*self._watched, *self._watch.doubted])
        return self._watch.step(watched, self.rings, now)

    def next_judgement_s(self, now_s: float) -> float:
        """When somebody will be late, or has to be probed or judged again."""
        judged_s, longest_s = self._judged
        if judged_s != now_s:
            longest_s = -1.0
            for node in self._minded():
                pair = self._pairs.get(node)
                if pair is not None and pair.waits:
                    longest_s = max(longest_s, pair.silence_s(now_s))
        if longest_s < 0.0:
            return float("inf")
        return now_s + max(self._config.late_after_s - longest_s, self._config.probe_interval_s)

    def _probe_interval_s(self, silence_s: float) -> float:
        """Long silences are probed once per heartbeat interval only."""
        if silence_s < 2 * self._config.silence_s:
            return self._config.probe_interval_s
        return self._config.heartbeat_interval_s
