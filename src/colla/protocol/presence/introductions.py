"""Introductions: two computers behind routers meet when both dial, so whoever both know asks the other to dial too.

A router lets in only packets from where packets went before. A node whose dial does not get through at once asks
nodes that are linked with the other one, its watchers if possible, to pass a `Knock` on; the other dials back, and
each dial opens the router for the other. The one who introduces carries nothing else. Neighbours on the rings
dial each other anyway; this is for everybody else, and makes neighbours faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from msgspec import Meta

from colla.kernel.config import PresenceConfig
from colla.kernel.effects import Dial
from colla.kernel.messages import Message
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.messages import Node
from colla.protocol.views import MembershipView

HOPS = 1
"""A knock passes one node that knows a neighbour of the other, besides the one who is linked with it."""


class Knock(Message, frozen=True, tag="kn"):
    """`guest` does not get through to `node`: dial it, or pass this on, over `hops` further nodes at most."""

    node: Node
    guest: Node
    hops: Annotated[int, Meta(ge=0, le=HOPS)]


class Whereabouts(Protocol):
    """What introductions ask of presence."""

    def addresses(self, node: NodeId) -> tuple[str, ...]: ...
    def watchers_of(self, node: NodeId) -> tuple[NodeId, ...]: ...


class Accepted(Protocol):
    """What introductions ask of admission."""

    def accepted(self, peer: NodeId) -> bool: ...
    def peers(self) -> tuple[NodeId, ...]: ...


class Introductions:
    """On every node. Dials at most once per guest and interval, whoever asks."""

    MESSAGES = (Knock,)

    def __init__(
        self,
        own: NodeId,
        config: PresenceConfig,
        outbox: Outbox,
        membership: MembershipView,
        presence: Whereabouts,
        links: Accepted,
    ) -> None:
        self._own = own
        self._config = config
        self._outbox = outbox
        self._membership = membership
        self._presence = presence
        self._links = links
        self._lately: dict[tuple[NodeId, NodeId], float] = {}

    def dial_slow(self, node: NodeId, now: Instant) -> None:
        """This node dials `node` and has not got through at once."""
        if self._membership.node(node) is not None and not self._again(node, self._own, now):
            self._ask(self._friends_of(node), Knock(node, self._own, HOPS))

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        """A `Knock` arrived from an accepted peer."""
        if not isinstance(message, Knock):
            return
        node, guest = message.node, message.guest
        # Only the guest itself sends the knock with all hops; who passes it on has used one up.
        honest = guest == peer or message.hops < HOPS
        known = self._membership.node(node) is not None and self._membership.node(guest) is not None
        if not (honest and known) or guest in (self._own, node) or self._again(node, guest, now):
            return
        if node == self._own:
            addresses = self._presence.addresses(guest)
            if addresses and not self._links.accepted(guest):
                self._outbox.put(Dial(self._outbox.new_id(), guest, addresses))
        elif self._links.accepted(node):
            self._ask([node], Knock(node, guest, 0))
        elif message.hops:
            self._ask([one for one in self._watchers(node) if one != guest], Knock(node, guest, 0))

    def _friends_of(self, node: NodeId) -> list[NodeId]:
        """The accepted peers that are likely to be linked with `node`, those who watch it first."""
        return list(dict.fromkeys([*self._watchers(node), *self._links.peers()]))

    def _watchers(self, node: NodeId) -> list[NodeId]:
        """The accepted peers among those who watch `node`."""
        peers = dict.fromkeys(self._links.peers())
        return [one for one in self._presence.watchers_of(node) if one in peers]

    def _ask(self, friends: Sequence[NodeId], knock: Knock) -> None:
        for friend in friends[: self._config.introduction_asked_max]:
            self._outbox.send(friend, knock, unbarriered=True)

    def _again(self, node: NodeId, guest: NodeId, now: Instant) -> bool:
        """Whether the same was asked a moment ago, or too much was. Remembers what is new."""
        since_s = now.boot_s - self._config.introduction_interval_s
        self._lately = {pair: at_s for pair, at_s in self._lately.items() if at_s > since_s}
        if (node, guest) in self._lately or len(self._lately) >= self._config.introductions_remembered_max:
            return True
        self._lately[(node, guest)] = now.boot_s
        return False
