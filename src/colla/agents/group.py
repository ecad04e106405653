"""The group agent (the paper's GAPA): group administration and presence.

Carrying it makes a node admit joiners (`protocol/membership/admission` asks whether the contribution carries it) and
watch its neighbours on the rings (`protocol/presence` lets only such nodes watch). Both mechanisms live in the
foundation of every node, because every node greets, proves itself and answers heartbeats; this agent tells people
what they concluded, and remembers for them when each node was here last.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.agent import Agent, Context
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.seen import LastSeen
from colla.protocol.views import PresenceChange, PresencePhase

TOLD = {
    PresencePhase.SUSPECTED: "is suspected to be gone",
    PresencePhase.ABSENT: "is absent",
    PresencePhase.LEFT: "said goodbye",
}


class SeenDue(Timer, frozen=True):
    """Put on the disk who is here."""


class GroupAgent(Agent):
    """See the module's docstring."""

    TIMERS = (SeenDue,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.seen = LastSeen(context.outbox, context.durable)

    def start(self, now: Instant) -> None:
        self._wake(now)

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        self._note(self.context.presence.present(), now)
        self._wake(now)

    def stopping(self, now: Instant) -> None:
        self._note(self.context.presence.present(), now)

    def _note(self, nodes: Sequence[NodeId], now: Instant) -> None:
        me = self.context.identity.node
        members = [info.id for info in self.context.membership.nodes()]
        self.seen.note([node for node in nodes if node != me], members, now)

    def _wake(self, now: Instant) -> None:
        self.context.outbox.wake_in(self.context.config.presence.seen_interval_s, SeenDue(), now)

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        gone = (PresencePhase.ABSENT, PresencePhase.LEFT)
        went = [change.node for change in changes if change.phase in gone]
        if went:
            self._note(went, now)
        for change in changes:
            if change.node == self.context.identity.node:
                continue
            if change.phase is PresencePhase.PRESENT and not change.appeared:
                continue  # It only said something new of itself.
            text = "is here" if change.phase is PresencePhase.PRESENT else TOLD[change.phase]
            info = self.context.membership.node(change.node)
            name = info.name if info is not None else change.node.hex()[:10]
            self.context.outbox.notify(f"node_{change.phase.value}", f"{name} {text}", node=change.node)
