"""How many strangers may knock: bounds what nodes that nobody knows can make this one do.

Verifying a proof costs up to some tens of milliseconds, so strangers are bounded at once and per address and minute.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.kernel.config import MembershipConfig
from colla.kernel.time import Instant


class StrangerGuard:
    """Counts strangers by the address that they come from, over a sliding window."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._knocks: dict[str, list[float]] = {}

    def lets_in(self, addresses: Sequence[str], pending: int, now: Instant) -> bool:
        """Whether one more stranger from there may begin the handshake; `pending` are in it already."""
        if pending >= self._config.peers_pending_max:
            return False
        since_s = now.boot_s - self._config.strangers_window_s
        for place in dict.fromkeys(_place_of(address) for address in addresses):
            knocks = [at_s for at_s in self._knocks.pop(place, []) if at_s > since_s]
            refused = len(knocks) >= self._config.strangers_per_address_max
            if not refused:
                knocks.append(now.boot_s)
            # The place knocked at last goes to the end, so that the oldest is forgotten when there are too many.
            self._knocks[place] = knocks
            if refused:
                return False
        while len(self._knocks) > self._config.addresses_remembered_max:
            self._knocks.pop(next(iter(self._knocks)))
        return True


def _place_of(address: str) -> str:
    """The address without its port."""
    place, separator, port = address.rpartition(":")
    return place if separator and port.isdigit() else address
