"""What a peer may cost before it is accepted: little memory, few bytes, few links, little time.

Whoever holds some key can open a link, since a joiner is nobody's member yet. The bounds here leave room
for the session about membership that decides, and for nothing else. Pure: `now` is an argument, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict

STRANGER_FRAME_BYTES_MAX = 64 * 1024
STRANGER_BYTES_MAX = 256 * 1024
"""All frames of one link that is not accepted, in bytes."""
STRANGER_FRAMES_MAX = 256
STRANGER_SECONDS_MAX = 10.0
STRANGERS_MAX = 64
"""Links with peers that are not accepted, at once."""
ADDRESS_LINKS_BURST = 256.0
ADDRESS_LINKS_PER_S = 8.0
"""New links of strangers from one IP address: a burst as large as a big household's restart, then this rate."""
ADDRESS_BYTES_BURST = 8.0 * 1024 * 1024
ADDRESS_BYTES_PER_S = 128.0 * 1024
ADDRESSES_MAX = 1024
"""Addresses whose use is remembered; the one unused longest is forgotten first."""


class Bucket:
    """A token bucket: `burst` at once, refilled at `per_s`."""

    __slots__ = ("_burst", "_per_s", "_since", "_tokens")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._tokens = burst
        self._since = now

    def take(self, amount: float, now: float) -> bool:
        """Whether there was room for `amount`; it is taken only then."""
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_s)
        self._since = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True


class AddressQuotas:
    """The use that strangers at each IP address made of this node."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()

    def link(self, ip: str, now: float) -> bool:
        """Whether one more link from `ip` is allowed."""
        return self._of(ip, now)[0].take(1, now)

    def received(self, ip: str, size: int, now: float) -> bool:
        """Whether `size` more bytes from `ip` are allowed."""
        return self._of(ip, now)[1].take(size, now)

    def _of(self, ip: str, now: float) -> tuple[Bucket, Bucket]:
        found = self._known.get(ip)
        if found is None:
            found = (
                Bucket(ADDRESS_LINKS_BURST, ADDRESS_LINKS_PER_S, now),
                Bucket(ADDRESS_BYTES_BURST, ADDRESS_BYTES_PER_S, now),
            )
            self._known[ip] = found
            if len(self._known) > ADDRESSES_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(ip)
        return found


class Allowance:
    """What is left of one link's allowance while its peer is not accepted."""

    __slots__ = ("_bytes_left", "_frames_left")

    def __init__(self) -> None:
        self._bytes_left = STRANGER_BYTES_MAX
        self._frames_left = STRANGER_FRAMES_MAX

    def take(self, size: int) -> bool:
        """Whether a frame of `size` bytes still fits."""
        self._bytes_left -= size
        self._frames_left -= 1
        return self._bytes_left >= 0 and self._frames_left >= 0
