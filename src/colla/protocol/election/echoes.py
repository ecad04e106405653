"""Who hears me: nonces and their echoes, on messages that must not rely on a one-way link.

"Mastership messages count only from a peer that echoed my nonce within 3 s: who can send but not hear must not
rule" (DESIGN section 7). Between partners the heartbeats of presence prove it; at first contact these fields do:
every such message carries the sender's newest `nonce` and, as `echo`, the newest nonce it had from the receiver.

Invariant: `hears_me` is true only if the peer held, within `echo_s`, something that this node sent it within
`echo_s`. At most `PEERS_MAX` peers are remembered.
"""

from __future__ import annotations

from collections import deque
from math import inf

from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.election.setting import Setting

NONCE_BITS = 48
PEERS_MAX = 4096


class Echoes:
    """The nonces of one agent towards all its peers."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._config = setting.config.election
        self._issued: deque[tuple[int, float]] = deque()
        self._theirs: dict[NodeId, int] = {}
        self._echoed_s: dict[NodeId, float] = {}

    def nonce(self, now: Instant) -> int:
        """What to put into a message now."""
        if not self._issued or now.boot_s - self._issued[-1][1] >= self._config.nonce_interval_s:
            self._issued.append((self._setting.rng.getrandbits(NONCE_BITS) | 1, now.boot_s))
        while now.boot_s - self._issued[0][1] > self._config.echo_s:
            self._issued.popleft()
        return self._issued[-1][0]

    def echo(self, peer: NodeId) -> int:
        """The newest nonce had from the peer (0: none)."""
        return self._theirs.get(peer, 0)

    def heard(self, peer: NodeId, nonce: int, echo: int, now: Instant) -> None:
        """A message with these fields came from the peer."""
        if len(self._theirs) >= PEERS_MAX and peer not in self._theirs:
            self.forget(next(iter(self._theirs)))
        self._theirs[peer] = nonce
        for issued, at_s in self._issued:
            if issued == echo and now.boot_s - at_s <= self._config.echo_s:
                self._echoed_s[peer] = max(at_s, self._echoed_s.get(peer, -inf))

    def echoed_s(self, peer: NodeId, now: Instant) -> float:
        """Seconds since something that the peer is known to have heard was sent to it; infinite for never."""
        if peer == self._setting.me:
            return 0.0
        by_heartbeat = self._setting.presence.echoed_s(peer, now.boot_s)
        here = now.boot_s - self._echoed_s.get(peer, -inf)
        return here if by_heartbeat is None else min(here, by_heartbeat)

    def hears_me(self, peer: NodeId, now: Instant) -> bool:
        """Whether the peer's mastership messages count."""
        return self.echoed_s(peer, now) <= self._config.echo_s

    def forget(self, peer: NodeId) -> None:
        """The peer is gone."""
        self._theirs.pop(peer, None)
        self._echoed_s.pop(peer, None)

    def clear(self) -> None:
        """All of it is stale."""
        self._issued.clear()
        self._theirs.clear()
        self._echoed_s.clear()
