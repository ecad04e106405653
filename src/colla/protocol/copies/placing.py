"""Placing copies of one object on repository agents chosen by rendezvous, distinct members first (section 9).

Transitions of one placing:

    -      place                           -> asked  the nearest repository agents
    asked  CopyAnswer: kept                -> asked  counted
    asked  CopyAnswer: refused             -> asked  the next candidate is asked
    asked  CopyProgress                    -> asked  that node gets more time
    asked  PlacingDue                      -> asked  those silent are given up, the next candidates are asked
    asked  a node is gone                  -> asked  neither asked nor counted, the next candidate is asked
    asked  enough are kept, or none is left to ask  -> -  concluded with the copies there are

Invariants: a node is asked once per placing; a placing concludes exactly once; at most `PLACINGS_MAX` are open. A
copy on a node that died before the conclusion does not count.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.messages import CopyAnswer, CopyProgress, CopyQuery, KeepCopy, PlacingDue

PLACINGS_MAX = 256
REASONS_MAX = 8


class CopiesPlaced(msgspec.Struct, frozen=True):
    """A placing is over: `holders` have durable copies (the asking node is not among them unless it was)."""

    nonce: int
    object: ObjectId
    holders: tuple[NodeId, ...]
    wanted: int
    reasons: tuple[str, ...]


class PlacingProgress(msgspec.Struct, frozen=True):
    """How far a placing is: copies that are durable, of so many wanted; bytes of each one on its way."""

    kept: int
    wanted: int
    size_bytes: int
    done_bytes: tuple[int, ...]


class Asked(msgspec.Struct):
    """A node that was asked, when it was last heard, and how far it is."""

    heard_s: float
    done_bytes: int = 0


class Placing(msgspec.Struct):
    """One object on its way to its copies."""

    object: ObjectId
    size_bytes: int
    wanted: int
    sources: tuple[NodeId, ...]
    candidates: list[NodeId]
    kept: list[NodeId]
    asked: dict[NodeId, Asked]
    reasons: list[str]
    round: int = 0


class CopyPlacing:
    """All placings that this node began."""

    def __init__(self, config: CopiesConfig, outbox: Outbox) -> None:
        self._config = config
        self._outbox = outbox
        self._open: dict[int, Placing] = {}

    def begin(
        self,
        object_id: ObjectId,
        size_bytes: int,
        wanted: int,
        candidates: list[NodeId],
        kept: list[NodeId],
        sources: tuple[NodeId, ...],
        now: Instant,
    ) -> tuple[int, CopiesPlaced | None]:
        """Place copies until `wanted` nodes hold one. `kept` hold one already; `candidates` are asked in order.

        Returns the nonce of the placing, and its conclusion when nothing has to be asked.
        """
        nonce = self._outbox.new_id()
        placing = Placing(object_id, size_bytes, wanted, sources, list(candidates), list(kept), {}, [])
        if len(self._open) >= PLACINGS_MAX:
            return nonce, CopiesPlaced(nonce, object_id, tuple(kept), wanted, ("too many placings are open",))
        self._open[nonce] = placing
        return nonce, self._advance(nonce, now)

    def progress(self, nonce: int) -> PlacingProgress | None:
        """How far an open placing is."""
        placing = self._open.get(nonce)
        if placing is None:
            return None
        done = tuple(asked.done_bytes for asked in placing.asked.values())
        return PlacingProgress(len(placing.kept), placing.wanted, placing.size_bytes, done)

    def objects(self) -> tuple[ObjectId, ...]:
        """The objects of open placings, sorted."""
        return tuple(sorted(dict.fromkeys(placing.object for placing in self._open.values())))

    def remind(self) -> None:
        """Tell those who hold a copy already that it is still wanted, though nothing may refer to it yet."""
        for nonce, placing in self._open.items():
            for node in placing.kept:
                self._outbox.send(node, CopyQuery((placing.object,), nonce))

    def progressed(self, peer: NodeId, message: CopyProgress, now: Instant) -> None:
        """A node that was asked is about it."""
        placing = self._open.get(message.nonce)
        asked = placing.asked.get(peer) if placing is not None else None
        if placing is not None and asked is not None and placing.object == message.object:
            asked.heard_s = now.boot_s
            asked.done_bytes = min(max(message.done_bytes, 0), placing.size_bytes)

    def answered(self, peer: NodeId, answer: CopyAnswer, now: Instant) -> CopiesPlaced | None:
        """A repository agent answered."""
        placing = self._open.get(answer.nonce)
        if placing is None or peer not in placing.asked or placing.object != answer.object:
            return None
        del placing.asked[peer]
        if answer.kept:
            placing.kept.append(peer)
        else:
            placing.reasons.append(answer.reason)
        return self._advance(answer.nonce, now)

    def due(self, timer: PlacingDue, now: Instant) -> CopiesPlaced | None:
        """Those asked in that round took too long, if they were silent."""
        placing = self._open.get(timer.nonce)
        if placing is None or placing.round != timer.round or not placing.asked:
            return None
        silent_since_s = now.boot_s - self._config.put_timeout_s
        silent = [node for node, asked in placing.asked.items() if asked.heard_s <= silent_since_s]
        for node in silent:
            del placing.asked[node]
            placing.reasons.append("no answer in time")
        if not silent:
            self._arm(timer.nonce, placing, now)
            return None
        return self._advance(timer.nonce, now)

    def drop(self, gone: Callable[[NodeId], bool], now: Instant) -> list[CopiesPlaced]:
        """Nodes are absent: neither wait for them nor count on them."""
        concluded = []
        for nonce, placing in list(self._open.items()):
            if any(gone(node) for node in (*placing.asked, *placing.kept)):
                placing.asked = {node: asked for node, asked in placing.asked.items() if not gone(node)}
                placing.kept = [node for node in placing.kept if not gone(node)]
                done = self._advance(nonce, now)
                if done is not None:
                    concluded.append(done)
        return concluded

    def _advance(self, nonce: int, now: Instant) -> CopiesPlaced | None:
        placing = self._open[nonce]
        missing = placing.wanted - len(placing.kept) - len(placing.asked)
        chosen = placing.candidates[: max(0, missing)]
        del placing.candidates[: len(chosen)]
        for node in chosen:
            placing.asked[node] = Asked(now.boot_s)
        sources = tuple(dict.fromkeys((*placing.sources, *placing.kept)))
        for node in chosen:
            self._outbox.send(node, KeepCopy(placing.object, placing.size_bytes, sources, nonce))
        if placing.asked:
            if chosen:
                self._arm(nonce, placing, now)
            return None
        del self._open[nonce]
        reasons = tuple(placing.reasons[:REASONS_MAX])
        return CopiesPlaced(nonce, placing.object, tuple(placing.kept), placing.wanted, reasons)

    def _arm(self, nonce: int, placing: Placing, now: Instant) -> None:
        """Wake when the one that was silent longest has been so for too long."""
        placing.round += 1
        longest_s = now.boot_s - min(asked.heard_s for asked in placing.asked.values())
        pause_s = max(self._config.put_timeout_s - longest_s, self._config.progress_interval_s)
        self._outbox.wake_in(pause_s, PlacingDue(nonce, placing.round), now)
