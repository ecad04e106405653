"""Forgetting objects that nothing refers to, on every node: also on those that only put or ran them.

What refers to an object: the existing services, the named objects, and whatever goes on with it here (a put that is
not acknowledged, a copy on its way); the caller knows. Whoever asks about an object (`touch`) shows that something
elsewhere will refer to it.

Invariant: an object is forgotten only after it was unreferenced for `unreferenced_kept_s` without a break, so that
what was just put has time to be named, and a rolling change to end. What is here of it in part goes alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from colla.kernel.config import CopiesConfig
from colla.kernel.effects import ForgetObject
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import ObjectId
from colla.protocol.copies.holdings import Holdings


class Upkeep:
    """Watches which held objects are referenced."""

    def __init__(self, config: CopiesConfig, outbox: Outbox, holdings: Holdings) -> None:
        self._config = config
        self._outbox = outbox
        self._holdings = holdings
        self._since_s: dict[ObjectId, float] = {}

    def touch(self, object_id: ObjectId, now: Instant) -> None:
        """Somebody asked about the object: its time begins anew."""
        if object_id in self._since_s:
            self._since_s[object_id] = now.boot_s

    def look(self, referenced: Iterable[ObjectId], now: Instant) -> None:
        """Forget what has been unreferenced for long enough."""
        named = dict.fromkeys(referenced)
        here = (*self._holdings.held(), *self._holdings.remnants())
        unnamed = [held for held in here if held not in named]
        self._since_s = {held: self._since_s.get(held, now.boot_s) for held in unnamed}
        for held, since_s in list(self._since_s.items()):
            if now.boot_s - since_s >= self._config.unreferenced_kept_s:
                del self._since_s[held]
                self._outbox.put(ForgetObject(self._outbox.new_id(), held))
