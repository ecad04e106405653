"""Introductions: who is asked to pass a knock on, who dials, and who is not believed."""

from __future__ import annotations

from types import SimpleNamespace

from colla.kernel.config import PresenceConfig
from colla.kernel.effects import Dial, Send
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.introductions import HOPS, Introductions, Knock

CONFIG = PresenceConfig()
GUEST, FRIEND, OTHER, WATCHER, HIDDEN = (NodeId(bytes([number]) * 32) for number in range(1, 6))
MEMBERS = (GUEST, FRIEND, OTHER, WATCHER, HIDDEN)
STRANGER = NodeId(bytes([9]) * 32)


class Around:
    """One node's membership, presence and admission: everybody is a member, `WATCHER` watches `HIDDEN`."""

    def __init__(self, own: NodeId, linked: tuple[NodeId, ...]) -> None:
        self.own = own
        self.linked = linked

    def node(self, node: NodeId) -> object:
        return SimpleNamespace() if node in MEMBERS else None

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        return (f"10.0.0.{node[0]}:7000",)

    def watchers_of(self, node: NodeId) -> tuple[NodeId, ...]:
        return (WATCHER,) if node == HIDDEN else ()

    def accepted(self, peer: NodeId) -> bool:
        return peer == self.own or peer in self.linked

    def peers(self) -> tuple[NodeId, ...]:
        return tuple(sorted(self.linked))


class Side:
    """The introductions of one node, and what they asked for."""

    def __init__(self, own: NodeId, *linked: NodeId) -> None:
        around = Around(own, linked)
        self.outbox = Outbox(1)
        self.introductions = Introductions(own, CONFIG, self.outbox, around, around, around)

    def slow(self, node: NodeId, at_s: float = 0.0) -> list[NodeId]:
        self.introductions.dial_slow(node, Instant(at_s, at_s))
        return self.asked()

    def hear(self, peer: NodeId, knock: Knock, at_s: float = 0.0) -> list[object]:
        self.introductions.message(peer, knock, Instant(at_s, at_s))
        return list(self.outbox.drain())

    def asked(self) -> list[NodeId]:
        return [effect.to for effect in self.outbox.drain() if isinstance(effect, Send)]


def test_whoever_watches_the_other_is_asked_first_and_few_are_asked() -> None:
    assert Side(GUEST, FRIEND, OTHER, WATCHER).slow(HIDDEN) == [WATCHER, FRIEND]


def test_the_same_is_asked_again_only_after_a_while() -> None:
    guest = Side(GUEST, FRIEND)
    assert guest.slow(HIDDEN) == [FRIEND]
    assert guest.slow(HIDDEN, 1.0) == []
    assert guest.slow(OTHER, 1.0) == [FRIEND]
    assert guest.slow(HIDDEN, CONFIG.introduction_interval_s + 0.1) == [FRIEND]


def test_a_stranger_is_not_introduced() -> None:
    assert Side(GUEST, FRIEND).slow(STRANGER) == []
    assert Side(FRIEND, STRANGER, HIDDEN).hear(STRANGER, Knock(HIDDEN, STRANGER, HOPS)) == []


def test_who_is_linked_with_the_other_passes_it_on() -> None:
    (send,) = Side(FRIEND, GUEST, HIDDEN).hear(GUEST, Knock(HIDDEN, GUEST, HOPS))
    assert isinstance(send, Send)
    assert (send.to, send.message) == (HIDDEN, Knock(HIDDEN, GUEST, 0))


def test_who_is_not_linked_asks_its_watchers_once_more_and_no_further() -> None:
    (send,) = Side(FRIEND, GUEST, WATCHER, OTHER).hear(GUEST, Knock(HIDDEN, GUEST, HOPS))
    assert isinstance(send, Send)
    assert (send.to, send.message) == (WATCHER, Knock(HIDDEN, GUEST, 0))
    assert Side(WATCHER, FRIEND).hear(FRIEND, Knock(HIDDEN, GUEST, 0)) == []


def test_the_other_dials_back_where_the_guest_may_be_found() -> None:
    hidden = Side(HIDDEN, FRIEND)
    (dial,) = hidden.hear(FRIEND, Knock(HIDDEN, GUEST, 0))
    assert isinstance(dial, Dial)
    assert (dial.node, dial.addresses) == (GUEST, (f"10.0.0.{GUEST[0]}:7000",))
    assert hidden.hear(FRIEND, Knock(HIDDEN, GUEST, 0), 1.0) == []
    assert Side(HIDDEN, FRIEND, GUEST).hear(FRIEND, Knock(HIDDEN, GUEST, 0)) == []


def test_nobody_knocks_in_anothers_name() -> None:
    assert Side(HIDDEN, FRIEND).hear(FRIEND, Knock(HIDDEN, GUEST, HOPS)) == []
    assert Side(FRIEND, GUEST, HIDDEN).hear(OTHER, Knock(HIDDEN, GUEST, HOPS)) == []


def test_what_is_remembered_is_bounded() -> None:
    friend = Side(FRIEND, HIDDEN)
    friend.introductions._lately = {
        (NodeId(bytes([number % 256, number // 256]) * 16), GUEST): 0.0
        for number in range(CONFIG.introductions_remembered_max)
    }
    assert friend.hear(GUEST, Knock(HIDDEN, GUEST, HOPS)) == []
    assert friend.hear(GUEST, Knock(HIDDEN, GUEST, HOPS), CONFIG.introduction_interval_s + 0.1) != []
