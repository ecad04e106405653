"""Judging silence together: the watchers of a node ask each other before they suspect it.

A watcher that has not heard its subject for `silence_s` asks the other watchers. Three that do not hear it (all, if there
are fewer) suspect it. A watcher that hears it keeps it from being suspected by the rest; one that does not answer for
`answer_wait_s` counts as silent, since it may have died together with the subject, and is doubted itself: it
is watched too, which is how a node that is cut off finds out within seconds that everybody is out of reach.
Whoever was refuted without having heard the subject itself (it may be unreachable from here alone) keeps quiet about it
until it does hear it, or until `quiet_s` are over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from colla.kernel.config import PresenceConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.messages import Heard, Silence
from colla.protocol.presence.pairs import Pair, Pairs
from colla.protocol.presence.rings import Rings
from colla.protocol.presence.table import Table

ASKS_AT_FIRST = 5
"""So many questions follow each other quickly; further ones are rarer, as the answer seems to stay the same."""
RARER = 4


@dataclass(slots=True)
class _Inquiry:
    """What the watchers said of one silent subject."""

    started_s: float
    asked_s: float
    asked: int = 0
    silent: dict[NodeId, float] = field(default_factory=dict)
    """Who does not hear the subject, and when it said so."""
    hears: dict[NodeId, float] = field(default_factory=dict)
    """Who does, and when it last heard the subject."""
    answered: dict[NodeId, float] = field(default_factory=dict)


class Watch:
    """The inquiries of this node. `step` names the subjects that have to be suspected or given up now."""

    def __init__(
        self,
        config: PresenceConfig,
        outbox: Outbox,
        own: NodeId,
        table: Table,
        pairs: Pairs,
        accepted: Callable[[NodeId], bool],
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._own = own
        self._table = table
        self._pairs = pairs
        self._accepted = accepted
        self._inquiries: dict[NodeId, _Inquiry] = {}
        self._refuted_s: dict[NodeId, float] = {}
        self.doubted: dict[NodeId, float] = {}
        """Watchers that did not answer, and until when they are watched here as well."""

    def silent(self, subject: NodeId, now_s: float) -> bool:
        """Whether this node has not heard the subject for the whole silence period."""
        pair = self._pairs.get(subject)
        return pair is not None and pair.silence_s(now_s) >= self._config.silence_s

    def refuted(self, subject: NodeId, now_s: float) -> None:
        """The subject showed that it lives: what was said of it before is void."""
        inquiry = self._inquiries.pop(subject, None)
        pair = self._pairs.get(subject)
        if inquiry is not None and inquiry.asked:
            unheard = pair is None or pair.heard_s is None or pair.heard_s < inquiry.started_s
            if unheard:
                self._refuted_s[subject] = now_s

    def forget(self, subject: NodeId) -> None:
        """The subject is not watched any more."""
        self._inquiries.pop(subject, None)
        self._refuted_s.pop(subject, None)

    def count_anew(self) -> None:
        """This node was not listening: it withdraws from all inquiries."""
        self._inquiries.clear()

    @property
    def busy(self) -> bool:
        """Whether anything is asked or doubted."""
        return bool(self._inquiries or self.doubted)

    # Messages.

    def asked(self, peer: NodeId, message: Silence, now: Instant) -> None:
        """Another watcher does not hear the subject: remember that, and tell it if this node does."""
        row = self._table.row(message.subject)
        if row is None or not row.here or row.version[0] != message.start:
            return
        pair = self._pairs.get(message.subject)
        hears = pair is not None and pair.heard_s is not None and not self.silent(message.subject, now.boot_s)
        if pair is None:
            return
        if not self._config.heartbeats and hears and not self._heard_lately(pair, now.boot_s):
            # It was not asked for a while: ask it now, and answer when that is known.
            self._pairs.question(message.subject, now, self._accepted(message.subject))
            hears = False
        if hears and pair.heard_s is not None:
            ago_ms = int((now.boot_s - pair.heard_s) * 1000)
            self._outbox.send(peer, Heard(message.subject, ago_ms), unbarriered=True)
        inquiry = self._inquiry(message.subject, now)
        inquiry.silent[peer] = now.boot_s
        inquiry.answered[peer] = now.boot_s

    def _heard_lately(self, pair: Pair, now_s: float) -> bool:
        return pair.heard_s is not None and now_s - pair.heard_s < self._config.silence_s

    def answered(self, peer: NodeId, message: Heard, now: Instant) -> None:
        """Another watcher hears the subject."""
        inquiry = self._inquiries.get(message.subject)
        if inquiry is not None:
            inquiry.hears[peer] = now.boot_s - message.ago_ms / 1000
            inquiry.answered[peer] = now.boot_s
            inquiry.silent.pop(peer, None)

    # Judging.

    def step(self, watched: dict[NodeId, None], rings: Rings, now: Instant) -> list[NodeId]:
        """Ask where it is time to; returns the watched nodes on whose silence the watchers agree."""
        agreed: list[NodeId] = []
        for subject in watched:
            row = self._table.row(subject)
            if row is None or not row.here or not self.silent(subject, now.boot_s):
                continue
            if self._keeps_quiet(subject, now.boot_s):
                continue
            inquiry = self._inquiry(subject, now)
            others = [node for node in rings.watchers_of(subject) if node != self._own]
            self._ask(subject, row.version[0], inquiry, others, now)
            if self._agree(subject, inquiry, others, now.boot_s):
                agreed.append(subject)
        self._tidy(watched, now.boot_s)
        return agreed

    def _keeps_quiet(self, subject: NodeId, now_s: float) -> bool:
        refuted_s = self._refuted_s.get(subject)
        if refuted_s is None:
            return False
        pair = self._pairs.get(subject)
        heard = pair is not None and pair.heard_s is not None and pair.heard_s > refuted_s
        if heard or now_s - refuted_s > self._config.quiet_s:
            del self._refuted_s[subject]
            return False
        return True

    def _inquiry(self, subject: NodeId, now: Instant) -> _Inquiry:
        inquiry = self._inquiries.get(subject)
        if inquiry is None:
            inquiry = self._inquiries[subject] = _Inquiry(now.boot_s, float("-inf"))
        return inquiry

    def _ask(
        self, subject: NodeId, start: int, inquiry: _Inquiry, others: list[NodeId], now: Instant
    ) -> None:
        rarer = 1 if inquiry.asked < ASKS_AT_FIRST else RARER
        if now.boot_s - inquiry.asked_s < self._config.ask_interval_s * rarer:
            return
        if not inquiry.asked:
            inquiry.started_s = now.boot_s
        inquiry.asked += 1
        inquiry.asked_s = now.boot_s
        for node in others:
            if self._accepted(node):
                self._outbox.send(node, Silence(subject, start), unbarriered=True)

    def _agree(self, subject: NodeId, inquiry: _Inquiry, others: list[NodeId], now_s: float) -> bool:
        since_s = now_s - self._config.vote_s
        silent = [node for node, at_s in inquiry.silent.items() if at_s >= since_s]
        needed = min(self._config.silent_watchers, len(others) + 1)
        if len(silent) + 1 >= needed:
            return True
        if now_s - inquiry.started_s < self._config.answer_wait_s:
            return False
        mute: list[NodeId] = []
        for node in others:
            heard_s = inquiry.hears.get(node)
            if heard_s is not None and now_s - heard_s < self._config.silence_s:
                return False
            if inquiry.answered.get(node, float("-inf")) < since_s:
                mute.append(node)
            elif node not in silent:
                # It did hear the subject and has not said anything else yet.
                return False
        for node in mute:
            if self._table.here(node):
                self.doubted.setdefault(node, now_s + self._config.doubt_s)
                self._pairs.begin(node, inquiry.started_s)
        return True

    def _tidy(self, watched: dict[NodeId, None], now_s: float) -> None:
        for node, until_s in list(self.doubted.items()):
            pair = self._pairs.get(node)
            heard = pair is not None and pair.heard_s is not None and pair.heard_s >= pair.clock_s
            if until_s < now_s or heard or not self._table.here(node):
                del self.doubted[node]
        for subject, inquiry in list(self._inquiries.items()):
            own_part = subject in watched and self.silent(subject, now_s)
            newest_s = max([inquiry.asked_s, *inquiry.silent.values()])
            if not own_part and newest_s < now_s - self._config.vote_s:
                del self._inquiries[subject]
