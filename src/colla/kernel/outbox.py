"""Where mechanisms put what they want done. One outbox per node; `step` drains it.

Invariant: effects leave in the order in which they were put. Ids of request effects carry the start number of
the node in their upper bits, so that an outcome of an earlier start is never taken for one of this start.
"""

from __future__ import annotations

from colla.kernel.effects import Effect, Notice, Notify, Persist, Send, WakeAt, Write
from colla.kernel.messages import Message, Timer
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId

START_SHIFT = 40


class Outbox:
    """Collects the effects of one step."""

    def __init__(self, start_number: int) -> None:
        self.start_number = start_number
        self._counter = 0
        self._effects: list[Effect] = []

    def new_id(self) -> int:
        """A fresh id for a request effect."""
        self._counter += 1
        return (self.start_number << START_SHIFT) | self._counter

    def put(self, effect: Effect) -> None:
        self._effects.append(effect)

    def send(
        self, to: NodeId, message: Message, *, unbarriered: bool = False, datagram: bool = False
    ) -> None:
        self._effects.append(Send(to, message, datagram=datagram, unbarriered=unbarriered))

    def wake_in(self, seconds: float, timer: Timer, now: Instant) -> None:
        self._effects.append(WakeAt(now.boot_s + seconds, timer))

    def persist(self, *writes: Write) -> int:
        """Ask for the writes to be made durable; the id comes back in Persisted or PersistFailed."""
        request = self.new_id()
        self._effects.append(Persist(request, writes))
        return request

    def notify(self, kind: str, text: str, *, service: bytes = b"", node: bytes = b"") -> None:
        self._effects.append(Notify(Notice(kind, text, ServiceId(service), NodeId(node))))

    def drain(self) -> list[Effect]:
        """All effects put since the last drain, in order."""
        effects, self._effects = self._effects, []
        return effects
