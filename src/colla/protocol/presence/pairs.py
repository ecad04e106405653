"""Heartbeats, one pair of nodes at a time: nonces, echoes, and who was heard when.

One heartbeat per pair and second serves presence and mastership alike. A nonce proves to its author that the peer
hears it *now*: only an echo of a newer nonce than the last echoed one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from colla.kernel.config import PresenceConfig
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.messages import Heartbeat, Probe

FIRST_NONCE_MAX = 60_000
"""Nonces stay short on the wire and begin anywhere, so that an echo from an earlier start seldom fits."""


@dataclass(slots=True)
class Pair:
    """One peer. `clock_s` is where its silence is counted from when nothing was heard since."""

    clock_s: float
    heard_s: float | None = None
    nonce: int = 0
    echoed: int = 0
    echoed_s: float | None = None
    wanted_until_s: float = 0.0
    probed_s: float = -1.0

    def silence_s(self, now_s: float) -> float:
        """For how long it has been silent, not counting what this node itself missed."""
        if self.heard_s is None or self.heard_s < self.clock_s:
            return now_s - self.clock_s
        return now_s - self.heard_s

    @property
    def waits(self) -> bool:
        """Whether its silence counts at all."""
        return True

    def unheard_s(self, now_s: float, here: bool) -> float:
        """For how long nothing was heard that it could have said; `here`: it counts as present."""
        return max(0.0, now_s - (self.clock_s if self.heard_s is None else self.heard_s))


@dataclass(slots=True)
class AskedPair(Pair):
    """One peer where there are no heartbeats: only a question without an answer (since `asked_s`) is silence."""

    asked_s: float | None = None

    def silence_s(self, now_s: float) -> float:
        """For how long a question to it is unanswered."""
        return now_s - max(self.asked_s, self.clock_s) if self.waits and self.asked_s is not None else 0.0

    @property
    def waits(self) -> bool:
        """Whether a question is unanswered."""
        return self.asked_s is not None and (self.heard_s is None or self.heard_s < self.asked_s)

    def unheard_s(self, now_s: float, here: bool) -> float:
        # The zero-argument `super` does not work in a dataclass with slots.
        return self.silence_s(now_s) if here else Pair.unheard_s(self, now_s, here)


class Pairs:
    """All pairs of this node. Owns the nonces."""

    def __init__(self, config: PresenceConfig, outbox: Outbox, rng: Random) -> None:
        self._config = config
        self._outbox = outbox
        self._nonce = rng.randrange(1, FIRST_NONCE_MAX)
        self._pairs: dict[NodeId, Pair] = {}

    def get(self, node: NodeId) -> Pair | None:
        return self._pairs.get(node)

    def begin(self, node: NodeId, clock_s: float) -> Pair:
        """The pair, made when it is new."""
        pair = self._pairs.get(node)
        if pair is None:
            kind = Pair if self._config.heartbeats else AskedPair
            pair = self._pairs[node] = kind(clock_s)
        return pair

    def question(self, node: NodeId, now: Instant, linked: bool) -> None:
        """Without heartbeats: ask the node now, and count its silence from here unless that goes on already.

        Without a link the question leaves with the first probe after it is up.
        """
        pair = self.begin(node, now.boot_s)
        if isinstance(pair, AskedPair) and not pair.waits:
            pair.asked_s = now.boot_s
            if linked:
                self.probe(node, pair, now)

    def vouch(self, node: NodeId, now_s: float) -> None:
        """The node announced itself through others: it lives, so its silence is counted anew."""
        pair = self._pairs.get(node)
        if pair is not None:
            pair.clock_s = max(pair.clock_s, now_s)

    def count_anew(self, now_s: float) -> None:
        """This node was not listening: nobody's silence so far counts."""
        for pair in self._pairs.values():
            pair.clock_s = max(pair.clock_s, now_s)

    def forget_link(self, node: NodeId) -> None:
        """Nonces of an earlier link are no proof on the next one."""
        pair = self._pairs.get(node)
        if pair is not None:
            pair.nonce = pair.echoed = 0
            pair.echoed_s = None

    def keep_only(self, nodes: dict[NodeId, None], now_s: float) -> None:
        """Forget pairs that nobody wants any more."""
        for node in [node for node in self._pairs if node not in nodes]:
            if self._pairs[node].wanted_until_s < now_s:
                del self._pairs[node]

    def askers(self, now_s: float) -> list[NodeId]:
        """Those who asked for heartbeats a short while ago."""
        return [node for node, pair in self._pairs.items() if pair.wanted_until_s >= now_s]

    # Sending.

    def next_nonce(self) -> None:
        """One nonce a round of heartbeats."""
        self._nonce += 1

    def beat(self, node: NodeId, ask: bool) -> None:
        """Send a heartbeat."""
        pair = self._pairs.get(node)
        echo = pair.nonce if pair else 0
        self._outbox.send(node, Heartbeat(self._nonce, echo, ask), unbarriered=True, datagram=True)

    def probe(self, node: NodeId, pair: Pair, now: Instant) -> None:
        """Ask whether the node is there."""
        pair.probed_s = now.boot_s
        self._nonce += 1
        self._outbox.send(node, Probe(self._nonce, pair.nonce), unbarriered=True, datagram=True)

    # Receiving.

    def heard(self, node: NodeId, now_s: float) -> None:
        """Anything arrived from the node."""
        pair = self._pairs.get(node)
        if pair is not None:
            pair.heard_s = now_s

    def received(self, node: NodeId, message: Heartbeat | Probe, now: Instant) -> None:
        """A heartbeat or probe arrived; a probe is answered at once."""
        asks = isinstance(message, Probe) or message.ask
        pair = self._pairs.get(node)
        if pair is None:
            if not asks:
                return
            pair = self.begin(node, now.boot_s)
        pair.heard_s = now.boot_s
        pair.nonce = message.nonce
        if pair.echoed < message.echo <= self._nonce:
            pair.echoed = message.echo
            pair.echoed_s = now.boot_s
        if asks:
            pair.wanted_until_s = now.boot_s + self._config.silence_s
        if isinstance(message, Probe):
            self.beat(node, ask=False)
