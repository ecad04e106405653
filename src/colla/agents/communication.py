"""Messages and events on one node: the part of the agents that every node has beside its five, as it has the desk.

It gives the router one place to hand things to; what it hands on is in `correspondence` and `happenings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colla.agents.agent import Agent, Context
from colla.agents.correspondence import Correspondence, ReceiptsDue
from colla.agents.foundation import Foundation
from colla.agents.happenings import Happenings
from colla.agents.held_requests import HeldDue
from colla.kernel.effects import Answer, Notice, Refusal
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.protocol.views import RecordChange


class Communication(Agent):
    """See the module's docstring."""

    TIMERS = (ReceiptsDue, HeldDue)
    REQUESTS = (*Correspondence.REQUESTS, *Happenings.REQUESTS)

    def __init__(self, context: Context, foundation: Foundation) -> None:
        super().__init__(context)
        self._foundation = foundation
        self.correspondence = Correspondence(foundation, context.durable)
        self.happenings = Happenings(foundation, context.durable)

    def start(self, now: Instant) -> None:
        self.correspondence.start(now)
        self.happenings.start(now)

    def records_changed(self, changes: Sequence[RecordChange], now: Instant) -> None:
        """These keys have other records than before."""
        for part in (self.correspondence, self.happenings):
            concerned = [change for change in changes if change.topic in part.TOPICS]
            if concerned:
                part.take(concerned, now)

    def session_ended(self, now: Instant) -> None:
        """Frontiers may have moved without any record that is new, and writing may be allowed."""
        self.correspondence.take((), now)
        self.happenings.take((), now)
        self.happenings.flush(now)

    def membership_changed(self, now: Instant) -> None:
        """Authors may count that did not."""
        self.correspondence.membership_changed(now)
        self.happenings.take((), now)

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        """Carry out a request of the API."""
        part = self.correspondence if isinstance(request, Correspondence.REQUESTS) else self.happenings
        try:
            part.request(request_id, request, now)
        except CollaError as error:
            refusal = Refusal(error.code, error.message, error.hint)
            self._foundation.outbox.put(Answer(request_id, refusal))

    def requested(self, request_id: int, request: Any, now: Instant) -> None:
        """Another part of the agents carries this request out."""
        self.happenings.requested(request_id, request, now)

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case ReceiptsDue():
                self.correspondence.timer(now)
            case HeldDue(request=request_id):
                if not self.correspondence.due(request_id):
                    self.happenings.due(request_id)
            case _:
                raise TypeError(f"not for communication: {timer!r}")

    def written(self, request_id: int, copies: int, now: Instant) -> None:
        """A write of this request is durable on so many nodes."""
        self.correspondence.written(request_id, copies)
        self.happenings.written(request_id, copies, now)

    def noticed(self, notice: Notice, now: Instant) -> None:
        """This node told its people something."""
        self.happenings.noticed(notice, now)
