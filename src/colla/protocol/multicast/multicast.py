"""Application-level multicast (DESIGN section 6): a message reaches many nodes, each of which passes it on.

Up to `multicast_direct_max` recipients the author sends to each itself. Beyond that every hop splits the list
of those whom the message is still for among that many of them. Nothing is repeated or acknowledged here:
what a lost message carried comes with the next session, and callers that need certainty ask for an answer.

Invariants: a recipient is handed the message once; the list gets shorter at every hop, so it ends; a carried
message carries no other. The origin is a claim: what matters must be signed inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from colla.kernel.codec import MessageCodec
from colla.kernel.config import RecordConfig
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import KEY_BYTES, NodeId, short
from colla.protocol.views import Identity


class Carried(Message, frozen=True, tag="mc"):
    """A message of `origin` for the receiver, to be passed on to `recipients`."""

    origin: NodeId
    payload: bytes
    recipients: tuple[NodeId, ...] = ()
    unbarriered: bool = False


class Multicast:
    """Spreads messages and passes on those of others."""

    MESSAGES: ClassVar[tuple[type[Message], ...]] = (Carried,)
    TIMERS: ClassVar[tuple[type[Timer], ...]] = ()

    def __init__(
        self, identity: Identity, config: RecordConfig, rng: Random, outbox: Outbox, codec: MessageCodec
    ) -> None:
        self._node = identity.node
        self._direct_max = config.multicast_direct_max
        self._rng = rng
        self._outbox = outbox
        self._codec = codec

    def spread(
        self, payload: Message, recipients: Sequence[NodeId], now: Instant, *, unbarriered: bool = False
    ) -> None:
        """Send `payload` to every one of `recipients` (this node excepted). `unbarriered` as in `Send`.

        Raises `ValueError` when the payload is longer than a frame may be.
        """
        del now
        others = [node for node in dict.fromkeys(recipients) if node != self._node]
        if others:
            carried = Carried(self._node, self._codec.encode(payload), unbarriered=unbarriered)
            self._pass_on(carried, others)

    def message(self, peer: NodeId, message: Message, now: Instant) -> list[tuple[NodeId, Message]]:
        """Pass a carried message on, and return it with its claimed origin to be handed out here."""
        del now
        if not isinstance(message, Carried):
            return []
        try:
            inner = self._codec.decode(message.payload)
        except ValueError as error:
            return self._refuse(peer, f"it carries a message that cannot be read ({error})")
        if isinstance(inner, Carried):
            return self._refuse(peer, "it carries a message within a message")
        if any(len(node) != KEY_BYTES for node in (message.origin, *message.recipients)):
            return self._refuse(peer, "its recipients are malformed")
        others = [node for node in dict.fromkeys(message.recipients) if node not in (self._node, peer)]
        self._pass_on(message, others)
        return [(message.origin, inner)]

    def _pass_on(self, carried: Carried, others: list[NodeId]) -> None:
        if len(others) > self._direct_max:
            # Whoever stands first in a part passes it on: by lot, so that no node always bears the load.
            self._rng.shuffle(others)
        parts = min(len(others), self._direct_max)
        for part in range(parts):
            first, *rest = others[part::parts]
            onward = Carried(carried.origin, carried.payload, tuple(rest), carried.unbarriered)
            self._outbox.send(first, onward, unbarriered=carried.unbarriered)

    def _refuse(self, peer: NodeId, why: str) -> list[tuple[NodeId, Message]]:
        self._outbox.notify(
            "peer_misbehaved", f"A multicast from {short(peer)} was dropped: {why}.", node=peer
        )
        return []
