"""Holding copies for others, within what the owner of the disk gives.

Transitions of one object that was asked for:

    -                  KeepCopy, no room             -> -                 refused
    -                  KeepCopy, room                -> waiting, fetching  as there is a slot
    waiting            a slot is free                -> fetching
    waiting            KeepCopy, KeepingDue          -> waiting           one more asker; every asker is told
    fetching           KeepCopy, KeepingDue          -> fetching          one more asker; every asker is told
    waiting, fetching  ObjectFetched, ObjectStored   -> held              every asker is answered
    waiting, fetching  FetchFailed                   -> -                 every asker is refused
    held               KeepCopy                      -> held              answered at once
    -                  ObjectStored: put here        -> held
    held               given up, eliminated, damaged  -> -
    held               damaged                       -> waiting, fetching  a sound copy is sought

Invariants: at most `fetches_at_once` fetches run; the others queue (bounded). What was promised and is not here
yet counts against the owner's disk like what is; what the owner put here for the own use counts only once it is kept
for others, which is refused when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import FetchObject
from colla.kernel.events import FetchFailed, FetchProgressed, ObjectFetched
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ObjectId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.messages import CopyAnswer, CopyProgress, KeepCopy, KeepingDue

QUEUE_MAX = 1024
DISK_FULL = "the disk that this computer's owner gives is full"


class Wanted(msgspec.Struct):
    """An object that somebody asked this node to hold."""

    object: ObjectId
    size_bytes: int
    holders: tuple[NodeId, ...]
    askers: list[tuple[NodeId, int]]
    done_bytes: int = 0


class CopyKeeping:
    """The repository agent's side of `KeepCopy`. `given_bytes` is what the owner gives of the disk."""

    def __init__(
        self, config: CopiesConfig, outbox: Outbox, holdings: Holdings, given_bytes: Callable[[], int]
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._holdings = holdings
        self._given_bytes = given_bytes
        self._queue: dict[ObjectId, Wanted] = {}
        self._fetching: dict[int, Wanted] = {}
        self._telling = False

    def asked(self, peer: NodeId, ask: KeepCopy, now: Instant) -> None:
        """Somebody wants a copy here."""
        if self._holdings.holds(ask.object):
            kept = self._holdings.claim(ask.object, self._given_bytes())
            self._outbox.send(peer, CopyAnswer(ask.object, ask.nonce, kept, "" if kept else DISK_FULL))
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
        self._tell_later(now)
        self._pump()

    def is_wanted(self, object_id: ObjectId) -> bool:
        """Whether the object is on its way here."""
        return self._find(object_id) is not None

    def wanted(self) -> tuple[ObjectId, ...]:
        """What is on its way here, sorted."""
        return tuple(sorted([*self._queue, *(one.object for one in self._fetching.values())]))

    def progressed(self, event: FetchProgressed) -> None:
        """A fetch goes on."""
        wanted = self._fetching.get(event.id)
        if wanted is not None:
            wanted.done_bytes = event.done_bytes

    def due(self, now: Instant) -> None:
        """Tell those who wait that their copies are on their way."""
        self._telling = False
        for wanted in (*self._fetching.values(), *self._queue.values()):
            for peer, nonce in wanted.askers:
                self._outbox.send(peer, CopyProgress(wanted.object, nonce, wanted.done_bytes))
        if self._fetching or self._queue:
            self._tell_later(now)

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
        if ask.size_bytes + promised + self._holdings.bytes_given() > self._given_bytes():
            return DISK_FULL
        if len(self._queue) >= QUEUE_MAX:
            return "too many objects are waiting"
        return ""

    def _tell_later(self, now: Instant) -> None:
        if not self._telling:
            self._telling = True
            self._outbox.wake_in(self._config.progress_interval_s, KeepingDue(), now)

    def _pump(self) -> None:
        while self._queue and len(self._fetching) < self._config.fetches_at_once:
            wanted = self._queue.pop(next(iter(self._queue)))
            request = self._outbox.new_id()
            self._fetching[request] = wanted
            self._outbox.put(FetchObject(request, wanted.object, wanted.holders))
