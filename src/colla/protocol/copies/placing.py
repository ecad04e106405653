"""Placing copies of one object on repository agents chosen by rendezvous, distinct members first (section 9).

Transitions of one placing:

    asked      a CopyAnswer(kept)      -> counted; enough -> concluded
    asked      a CopyAnswer(refused)   -> the next candidate is asked
    asked      PlacingDue              -> those silent are given up, the next candidates are asked
    any        no candidate left       -> concluded with the copies there are

Invariants: a node is asked once per placing; a placing concludes exactly once; at most `placings_max` are open.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.messages import CopyAnswer, KeepCopy, PlacingDue

PLACINGS_MAX = 256


class CopiesPlaced(msgspec.Struct, frozen=True):
    """A placing is over: `holders` have durable copies (the asking node is not among them unless it was)."""

    nonce: int
    object: ObjectId
    holders: tuple[NodeId, ...]
    wanted: int
    reasons: tuple[str, ...]


class Placing(msgspec.Struct):
    """One object on its way to its copies."""

    object: ObjectId
    size_bytes: int
    wanted: int
    sources: tuple[NodeId, ...]
    candidates: list[NodeId]
    kept: list[NodeId]
    asked: list[NodeId]
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
        placing = Placing(object_id, size_bytes, wanted, sources, list(candidates), list(kept), [], [])
        if len(self._open) >= PLACINGS_MAX:
            return nonce, CopiesPlaced(nonce, object_id, tuple(kept), wanted, ("too many placings are open",))
        self._open[nonce] = placing
        return nonce, self._advance(nonce, now)

    def answered(self, peer: NodeId, answer: CopyAnswer, now: Instant) -> CopiesPlaced | None:
        """A repository agent answered."""
        placing = self._open.get(answer.nonce)
        if placing is None or peer not in placing.asked or placing.object != answer.object:
            return None
        placing.asked.remove(peer)
        if answer.kept:
            placing.kept.append(peer)
        else:
            placing.reasons.append(answer.reason)
        return self._advance(answer.nonce, now)

    def due(self, timer: PlacingDue, now: Instant) -> CopiesPlaced | None:
        """Those asked in that round took too long."""
        placing = self._open.get(timer.nonce)
        if placing is None or placing.round != timer.round or not placing.asked:
            return None
        placing.reasons.extend("no answer in time" for _ in placing.asked)
        placing.asked.clear()
        return self._advance(timer.nonce, now)

    def drop(self, gone: Callable[[NodeId], bool], now: Instant) -> list[CopiesPlaced]:
        """Nodes are absent: stop waiting for them."""
        concluded = []
        for nonce, placing in list(self._open.items()):
            if any(gone(node) for node in placing.asked):
                placing.asked = [node for node in placing.asked if not gone(node)]
                done = self._advance(nonce, now)
                if done is not None:
                    concluded.append(done)
        return concluded

    def _advance(self, nonce: int, now: Instant) -> CopiesPlaced | None:
        placing = self._open[nonce]
        missing = placing.wanted - len(placing.kept) - len(placing.asked)
        chosen = placing.candidates[: max(0, missing)]
        del placing.candidates[: len(chosen)]
        if chosen:
            placing.round += 1
            self._outbox.wake_in(self._config.put_timeout_s, PlacingDue(nonce, placing.round), now)
        for node in chosen:
            placing.asked.append(node)
            sources = placing.sources + tuple(n for n in placing.kept if n not in placing.sources)
            self._outbox.send(node, KeepCopy(placing.object, placing.size_bytes, sources, nonce))
        if placing.asked:
            return None
        del self._open[nonce]
        return CopiesPlaced(
            nonce, placing.object, tuple(placing.kept), placing.wanted, tuple(placing.reasons[:8])
        )
