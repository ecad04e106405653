"""Remaking copies that were lost, and giving up those that are too many (DESIGN section 9).

Judged at every count of copies, by each node that holds the object or a part of it. `ranked` are the present
repository agents, nearest first; the first `copies` of them should hold it:

    I am the first ranked holder (or nobody ranked holds it and I do), and too few hold it:
        fewer than `urgent_copies`               -> remade at once
        else, for `remake_after_s` without break -> remade, not faster than `remake_bytes_s`
    I need not hold it, all who should do:
        for `surplus_kept_s` without a break     -> my copy goes
    More is here than the owner gives (any more):
        two who are ranked before me hold it,
        or `copies` others                       -> my copy goes at once
        else                                     -> a copy is made elsewhere at once
    I have a part of it, and should hold it or
        too few do                               -> healed: the rest is fetched from whoever has it

Invariants: at most `remakes_at_once` remakes are open, one per object; a copy is given up only while others say that they
hold the object, who by the same rules keep theirs: `copies` of them, or `urgent_copies` that are ranked before this node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import ForgetObject
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId, short
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.placing import CopiesPlaced, CopyPlacing


class Counted(msgspec.Struct, frozen=True):
    """One object as a count found it. `in_use`: a service runs from it, so that a copy too many may stay."""

    object: ObjectId
    size_bytes: int
    ranked: tuple[NodeId, ...]
    holders: tuple[NodeId, ...]
    in_use: bool


class CopyRepair:
    """See the module."""

    def __init__(
        self,
        me: NodeId,
        config: CopiesConfig,
        outbox: Outbox,
        holdings: Holdings,
        placing: CopyPlacing,
        excess_bytes: Callable[[], int],
    ) -> None:
        """`excess_bytes`: by how much what is here is more than the owner gives; 0 or less when it is not."""
        self._me = me
        self._config = config
        self._outbox = outbox
        self._holdings = holdings
        self._placing = placing
        self._excess_bytes = excess_bytes
        self._short_since_s: dict[ObjectId, float] = {}
        self._surplus_since_s: dict[ObjectId, float] = {}
        self._remaking: dict[int, ObjectId] = {}
        self._budget_bytes = config.remake_burst_bytes
        self._budget_at_s = float("-inf")
        self._next: ObjectId = ObjectId(b"")

    def window(self, referenced: Sequence[ObjectId]) -> list[ObjectId]:
        """Which of the referenced objects to count now: those here, so many at a time, all in their turn."""
        here = [one for one in self._holdings.held() if one in referenced]
        here = sorted([*here, *(one for one in self._holdings.remnants() if one in referenced)])
        for since in (self._short_since_s, self._surplus_since_s):
            for gone in [one for one in since if one not in here]:
                del since[gone]
        if len(here) <= self._config.objects_counted_max:
            return here
        turned = [one for one in here if one > self._next] + [one for one in here if one <= self._next]
        chosen = turned[: self._config.objects_counted_max]
        self._next = chosen[-1]
        return chosen

    def judge(self, counted: Sequence[Counted], now: Instant) -> list[ObjectId]:
        """Act on a count; returns the objects of which a part is here and the whole should be. Scarce ones first."""
        to_heal = []
        excess_bytes = self._excess_bytes()
        for one in sorted(counted, key=lambda one: (len(one.holders), one.object)):
            if excess_bytes > 0 and not one.in_use and self._holdings.holds(one.object):
                excess_bytes -= one.size_bytes
                self._move_away(one, now)
                continue
            if self._is_surplus(one):
                self._give_up(one, now)
                continue
            self._surplus_since_s.pop(one.object, None)
            if self._holdings.holds(one.object):
                self._remake(one, now)
            elif self._me in one.ranked and self._is_wanted(one):
                to_heal.append(one.object)
        return to_heal

    def placed(self, placed: CopiesPlaced) -> bool:
        """A placing is over; whether it was a remake. What is still missing is seen at the next count."""
        return self._remaking.pop(placed.nonce, None) is not None

    def _is_wanted(self, one: Counted) -> bool:
        """Whether the part that is here should become a whole."""
        wanted = min(self._config.copies, len(one.ranked))
        enough = sum(node in one.ranked for node in one.holders) >= wanted
        return self._me in one.ranked[: self._config.copies] or one.in_use or not enough

    def _is_surplus(self, one: Counted) -> bool:
        should = one.ranked[: self._config.copies]
        all_do = len(should) == self._config.copies and all(node in one.holders for node in should)
        return all_do and self._me not in should and not one.in_use

    def _give_up(self, one: Counted, now: Instant) -> None:
        self._short_since_s.pop(one.object, None)
        since_s = self._surplus_since_s.setdefault(one.object, now.boot_s)
        if now.boot_s - since_s >= self._config.surplus_kept_s:
            # Until it is gone (it may be in use) it goes on to be counted.
            self._surplus_since_s[one.object] = now.boot_s
            self._outbox.put(ForgetObject(self._outbox.new_id(), one.object))

    def _move_away(self, one: Counted, now: Instant) -> None:
        """The owner gives less than what is here: the copy goes as soon as others have it."""
        others = [node for node in one.ranked if node in one.holders and node != self._me]
        place = one.ranked.index(self._me) if self._me in one.ranked else len(one.ranked)
        before = sum(node in one.holders for node in one.ranked[:place])
        if before >= self._config.urgent_copies or len(others) >= self._config.copies:
            self._outbox.put(ForgetObject(self._outbox.new_id(), one.object))
        elif one.object not in self._remaking.values() and len(self._remaking) < self._config.remakes_at_once:
            candidates = [node for node in one.ranked if node not in one.holders and node != self._me]
            wanted = min(self._config.copies, len(others) + len(candidates))
            sources = (*others, self._me)
            nonce, placed = self._placing.begin(
                one.object, one.size_bytes, wanted, candidates, others, sources, now
            )
            if placed is None:
                self._remaking[nonce] = one.object

    def _remake(self, one: Counted, now: Instant) -> None:
        holders = [node for node in one.ranked if node in one.holders]
        wanted = min(self._config.copies, len(one.ranked))
        if len(holders) >= wanted or (holders and holders[0] != self._me):
            self._short_since_s.pop(one.object, None)
            return
        since_s = self._short_since_s.setdefault(one.object, now.boot_s)
        if one.object in self._remaking.values() or len(self._remaking) >= self._config.remakes_at_once:
            return
        missing = wanted - len(holders)
        if len(holders) >= min(self._config.urgent_copies, len(one.ranked)):
            late = now.boot_s - since_s >= self._config.remake_after_s
            if not late or not self._spend(missing * one.size_bytes, now):
                return
        candidates = [node for node in one.ranked if node not in holders]
        sources = tuple(holders) or (self._me,)
        nonce, placed = self._placing.begin(
            one.object, one.size_bytes, wanted, candidates, holders, sources, now
        )
        if placed is None:
            self._remaking[nonce] = one.object
        self._outbox.notify(
            "copies_remade", f"object {short(one.object)} had {len(holders)} of {wanted} copies"
        )

    def _spend(self, size_bytes: int, now: Instant) -> bool:
        """Take it from what may be remade without hurry; a large object leaves a debt that the others wait for."""
        elapsed_s = max(0.0, now.boot_s - self._budget_at_s)
        grown = self._budget_bytes + elapsed_s * self._config.remake_bytes_s
        self._budget_bytes = min(grown, self._config.remake_burst_bytes)
        self._budget_at_s = now.boot_s
        if self._budget_bytes <= 0:
            return False
        self._budget_bytes -= size_bytes
        return True
