"""Holding copies for others, within what the owner of the disk gives.

Transitions of one object that was asked for:

    unknown    KeepCopy, room          -> fetching (FetchObject)
    unknown    KeepCopy, no room       -> refused
    fetching   KeepCopy                -> fetching, one more asker
    fetching   ObjectFetched           -> held; every asker is answered
    fetching   FetchFailed             -> unknown; every asker is refused
    held       KeepCopy                -> answered at once

Invariant: at most `fetches_at_once` fetches run; the others queue (bounded).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import FetchObject
from colla.kernel.events import FetchFailed, ObjectFetched
from colla.kernel.outbox import Outbox
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.messages import CopyAnswer, KeepCopy

QUEUE_MAX = 1024


class Wanted(msgspec.Struct):
    """An object that somebody asked this node to hold."""

    object: ObjectId
    size_bytes: int
    holders: tuple[NodeId, ...]
    askers: list[tuple[NodeId, int]]


class CopyKeeping:
    """The repository agent's side of `KeepCopy`."""

    def __init__(
        self, config: CopiesConfig, outbox: Outbox, holdings: Holdings, room_bytes: Callable[[], int]
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._holdings = holdings
        self._room_bytes = room_bytes
        self._queue: dict[ObjectId, Wanted] = {}
        self._fetching: dict[int, Wanted] = {}

    def asked(self, peer: NodeId, ask: KeepCopy) -> None:
        """Somebody wants a copy here."""
        if self._holdings.holds(ask.object):
            self._outbox.send(peer, CopyAnswer(ask.object, ask.nonce, True))
            return
        wanted = self._find(ask.object)
        if wanted is not None:
            if len(wanted.askers) < QUEUE_MAX and (peer, ask.nonce) not in wanted.askers:
                wanted.askers.append((peer, ask.nonce))
            return
        refusal = self._refusal(ask)
        if refusal:
            self._outbox.send(peer, CopyAnswer(ask.object, ask.nonce, False, refusal))
            return
        holders = ask.holders if peer in ask.holders else (*ask.holders, peer)
        self._queue[ask.object] = Wanted(ask.object, ask.size_bytes, holders, [(peer, ask.nonce)])
        self._pump()

    def fetched(self, event: ObjectFetched) -> bool:
        """A fetch ended well; tells whether it was one of these."""
        wanted = self._fetching.pop(event.id, None)
        if wanted is None:
            return False
        for peer, nonce in wanted.askers:
            self._outbox.send(peer, CopyAnswer(wanted.object, nonce, True))
        self._pump()
        return True

    def failed(self, event: FetchFailed) -> bool:
        """A fetch failed; tells whether it was one of these."""
        wanted = self._fetching.pop(event.id, None)
        if wanted is None:
            return False
        for peer, nonce in wanted.askers:
            self._outbox.send(peer, CopyAnswer(wanted.object, nonce, False, event.why))
        self._pump()
        return True

    def _find(self, object_id: ObjectId) -> Wanted | None:
        for wanted in self._fetching.values():
            if wanted.object == object_id:
                return wanted
        return self._queue.get(object_id)

    def _refusal(self, ask: KeepCopy) -> str:
        promised = sum(w.size_bytes for w in self._fetching.values())
        promised += sum(w.size_bytes for w in self._queue.values())
        if ask.size_bytes + promised > self._room_bytes():
            return "the disk that this computer's owner gives is full"
        if len(self._queue) >= QUEUE_MAX:
            return "too many objects are waiting"
        return ""

    def _pump(self) -> None:
        while self._queue and len(self._fetching) < self._config.fetches_at_once:
            wanted = self._queue.pop(next(iter(self._queue)))
            request = self._outbox.new_id()
            self._fetching[request] = wanted
            self._outbox.put(FetchObject(request, wanted.object, wanted.holders))
