"""The confidant: gives the keys of secrets that this node holds to executors that the service's master chose.

A part of every node, whatever agents it carries: the computers of a service's owner hold the keys of its secrets, and so do
those that run it. Whoever asks is believed only as far as this node can tell itself: the errand must come from the node
that it takes for the master, the service must be active, and the executor's node must belong to a member and be here.
"""

from __future__ import annotations

from collections.abc import Callable

from colla.agents.agent import Agent, Context
from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ServiceId
from colla.protocol.secrets.keyring import Keyring
from colla.protocol.secrets.messages import KeysAnswer, KeysErrand


class Confidant(Agent):
    """See the module's docstring. `is_master` tells whether this node takes another for the master of a service."""

    MESSAGES = (KeysErrand,)

    def __init__(
        self, context: Context, keyring: Keyring, is_master: Callable[[ServiceId, NodeId, Instant], bool]
    ) -> None:
        super().__init__(context)
        self._keyring = keyring
        self._is_master = is_master

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case KeysErrand():
                self._errand(peer, message, now)
            case _:
                raise TypeError(f"not for a confidant: {message!r}")

    def _errand(self, peer: NodeId, errand: KeysErrand, now: Instant) -> None:
        presence = self.context.presence
        service = self.context.catalogue.service(errand.service)
        if service is None or not service.active or not self._is_master(errand.service, peer, now):
            return
        belongs = self.context.membership.owner_of(errand.node) is not None
        if not belongs or errand.node not in presence.carrying(AgentKind.EXECUTOR):
            return
        sealed = self._keyring.give(service, errand.secrets, errand.node)
        if sealed is not None:
            self.context.outbox.send(errand.node, KeysAnswer(errand.service, sealed))
