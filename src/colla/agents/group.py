"""The group agent (the paper's GAPA): group administration and presence.

Carrying it makes a node admit joiners (`protocol/membership/admission` asks whether the contribution carries it) and
watch its neighbours on the rings (`protocol/presence` lets only such nodes watch). Both mechanisms live in the
foundation of every node, because every node greets, proves itself and answers heartbeats; this agent tells people
what they concluded.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.agent import Agent
from colla.kernel.time import Instant
from colla.protocol.views import PresenceChange, PresencePhase

TOLD = {
    PresencePhase.SUSPECTED: "is suspected to be gone",
    PresencePhase.ABSENT: "is absent",
    PresencePhase.LEFT: "said goodbye",
}


class GroupAgent(Agent):
    """See the module's docstring."""

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        for change in changes:
            if change.node == self.context.identity.node:
                continue
            if change.phase is PresencePhase.PRESENT and not change.appeared:
                continue  # It only said something new of itself.
            text = "is here" if change.phase is PresencePhase.PRESENT else TOLD[change.phase]
            info = self.context.membership.node(change.node)
            name = info.name if info is not None else change.node.hex()[:10]
            self.context.outbox.notify(f"node_{change.phase.value}", f"{name} {text}", node=change.node)
