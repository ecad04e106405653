"""Forgetting objects that no existing service refers to, on every node: also on those that only put or ran them.

Invariant: an object is forgotten only after it was unreferenced for `unreferenced_kept_s` without a break, so that
what was just put has time to be named in the catalogue, and a rolling change to end.
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

    def look(self, referenced: Iterable[ObjectId], now: Instant) -> None:
        """Forget what has been unreferenced for long enough."""
        named = dict.fromkeys(referenced)
        unnamed = [held for held in self._holdings.held() if held not in named]
        self._since_s = {held: self._since_s.get(held, now.boot_s) for held in unnamed}
        for held, since_s in list(self._since_s.items()):
            if now.boot_s - since_s >= self._config.unreferenced_kept_s:
                del self._since_s[held]
                self._outbox.put(ForgetObject(self._outbox.new_id(), held))
