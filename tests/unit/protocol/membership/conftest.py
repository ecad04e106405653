"""A group in memory: nodes with admission, a record book that keeps everything, and links that tests operate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from colla.kernel.config import MembershipConfig
from colla.kernel.effects import AcceptPeer, CloseLink, Dial, Effect, Notify, Send, WakeAt
from colla.kernel.messages import Message
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import GroupId, LogId, NodeId
from colla.model.keys import SecretKey
from colla.model.record import (
    TOPIC_MEMBERSHIP,
    Log,
    Payload,
    Record,
    SignedRecord,
    Stamp,
    open_record,
    sign_record,
)
from colla.protocol.membership.admission import Admission
from colla.protocol.membership.bodies import Body, check_record, encode_body, key_of
from colla.protocol.membership.conclusions import AdmissionConclusion, MembershipChanged
from colla.protocol.membership.founding import found
from colla.protocol.membership.inviting import make_invitation
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.tickets import Contact, TicketText, read_ticket
from colla.protocol.records.summary import log_name
from colla.protocol.views import Election, Identity

START_WALL_S = 1_800_000_000.0


class Book:
    """Keeps every record that verifies; the newest of a log and key would be a real book's business."""

    def __init__(self, group: GroupId, secret: SecretKey, rng: Random) -> None:
        self.group = group
        self.secret = secret
        self.held: dict[bytes, Record] = {}
        self.log = Log(NodeId(secret.public), LogId(rng.randbytes(16)), TOPIC_MEMBERSHIP)
        self.number = 0
        self.ready = True
        self.spread: Callable[[Record], None] = lambda record: None

    def all_records(self, topic: str) -> tuple[Record, ...]:
        return tuple(sorted(self.held.values(), key=lambda record: (record.log, record.number)))

    def write(self, body: Body, now: Instant) -> bool:
        if not self.ready:
            return False
        self.number += 1
        payload = Payload(self.log, self.number, key_of(body), Stamp(now.wall_ms), (), encode_body(body))
        record = sign_record(self.group, self.secret, payload)
        self.held[record.digest] = record
        self.spread(record)
        return True

    def receive(self, records: Sequence[SignedRecord], now: Instant) -> None:
        for signed in records:
            record = open_record(self.group, signed)
            check_record(record)
            self.held[record.digest] = record

    def seen(self, nodes: Sequence[NodeId]) -> list[tuple[bytes, int]]:
        highest: dict[bytes, int] = {}
        for record in self.held.values():
            if record.log.node in nodes:
                name = log_name(record.log)
                highest[name] = max(record.number, highest.get(name, 0))
        return list(highest.items())


class Node:
    """One node: its admission and all that it concluded."""

    def __init__(self, world: World, name: str, group: GroupId, secret: SecretKey, start: int = 1) -> None:
        self.world = world
        self.name = name
        self.secret = secret
        self.id = NodeId(secret.public)
        self.identity = Identity(group, secret)
        self.book = Book(group, secret, world.rng)
        self.outbox = Outbox(start)
        self.membership = Membership(group, self.book)
        self.admits = True
        self.member = SecretKey(world.rng.randbytes(32))
        self.concluded: list[AdmissionConclusion] = []
        self.dialled: list[NodeId] = []
        self.notices: list[str] = []
        self.others: list[Contact] = []
        """Whom it names to joiners that it does not let in itself."""
        self.ahead_s = 0.0
        """How far its wall clock is ahead, when messages arrive."""
        self.admission = Admission(
            self.identity,
            world.config,
            self.outbox,
            self.membership,
            self.book,
            start,
            lambda: self.admits,
            lambda: self.others,
        )
        world.nodes[self.id] = self

    def contact(self) -> Contact:
        return Contact(self.id, (f"10.0.0.{len(self.world.nodes)}:7000",))

    def learn(self, records: Sequence[Record]) -> None:
        """Records arrive by a session or the multicast."""
        for record in records:
            self.book.held[record.digest] = record
        if self.membership.refresh():
            self.conclude(self.admission.membership_changed(self.world.now))

    def conclude(self, conclusions: Sequence[AdmissionConclusion]) -> None:
        self.concluded += [one for one in conclusions if not isinstance(one, MembershipChanged)]
        self.world.perform(self)

    def invite(self, own_computer: bool = False, valid_s: float = 3600.0) -> TicketText:
        invitation = make_invitation(
            self.identity,
            self.membership,
            [self.contact()],
            own_computer,
            valid_s,
            self.world.rng,
            self.world.now,
        )
        assert self.book.write(invitation.body, self.world.now)
        self.membership.refresh()
        return read_ticket(invitation.text)

    def join(self, ticket: TicketText, *contacts: Node) -> None:
        claim = ticket.claim(self.id, self.name, self.member, f"{self.name}-owner")
        chosen = [node.contact() for node in contacts] or list(ticket.contacts)
        self.conclude(self.admission.join(claim, chosen, self.world.now))

    def of(self, kind: type[AdmissionConclusion]) -> list[AdmissionConclusion]:
        return [one for one in self.concluded if isinstance(one, kind)]


class World:
    """Performs effects: messages arrive in order and at once, unless a test holds or drops them."""

    def __init__(self, config: MembershipConfig | None = None) -> None:
        self.config = config or MembershipConfig()
        self.rng = Random(7)
        self.now = Instant(100.0, START_WALL_S)
        self.nodes: dict[NodeId, Node] = {}
        self.links: dict[tuple[NodeId, NodeId], None] = {}
        self.queue: list[tuple[NodeId, NodeId, Message]] = []
        self.timers: list[tuple[float, Node, object]] = []
        self.sent: list[tuple[NodeId, NodeId, Message]] = []
        self.lost: Callable[[NodeId, NodeId, Message], bool] = lambda sender, to, message: False
        self.reachable: Callable[[NodeId, NodeId], bool] = lambda sender, to: True

    def found(self, name: str = "ada", election: Election = Election.HASHING) -> Node:
        member, secret = SecretKey(self.rng.randbytes(32)), SecretKey(self.rng.randbytes(32))
        founded = found("book-club", election, member, secret, f"{name}-owner", name, self.rng, self.now)
        node = Node(self, name, founded.group, secret)
        node.learn(founded.records)
        return node

    def stranger(self, name: str, group: GroupId) -> Node:
        return Node(self, name, group, SecretKey(self.rng.randbytes(32)))

    def joined(self, name: str, inviter: Node, own_computer: bool = False) -> Node:
        """A further node of the group, by the whole handshake."""
        node = self.stranger(name, inviter.identity.group)
        node.join(inviter.invite(own_computer), inviter)
        self.settle()
        return node

    def connect(self, first: Node, second: Node) -> None:
        for one, other in ((first, second), (second, first)):
            self.links[one.id, other.id] = None
        for one, other in ((first, second), (second, first)):
            one.conclude(one.admission.link_opened(other.id, other.contact().addresses, self.now))

    def disconnect(self, first: Node, second: Node) -> None:
        for one, other in ((first, second), (second, first)):
            if self.links.pop((one.id, other.id), 0) is None:
                one.conclude(one.admission.link_closed(other.id, self.now))

    def perform(self, node: Node) -> None:
        for effect in node.outbox.drain():
            self._perform_one(node, effect)

    def _perform_one(self, node: Node, effect: Effect) -> None:
        match effect:
            case Send(to=to, message=message):
                self.sent.append((node.id, to, message))
                if (node.id, to) in self.links and not self.lost(node.id, to, message):
                    self.queue.append((node.id, to, message))
            case WakeAt(at_s=at_s, timer=timer):
                self.timers.append((at_s, node, timer))
            case Dial(node=to):
                node.dialled.append(to)
                if to in self.nodes and self.reachable(node.id, to) and (node.id, to) not in self.links:
                    self.connect(node, self.nodes[to])
            case CloseLink(peer=peer):
                self.settle()
                self.disconnect(node, self.nodes[peer])
            case AcceptPeer():
                pass
            case Notify(notice=notice):
                node.notices.append(notice.kind)
            case _:
                raise AssertionError(effect)

    def settle(self) -> None:
        """Deliver all messages that are under way, and those that follow from them."""
        while self.queue:
            sender, to, message = self.queue.pop(0)
            receiver = self.nodes[to]
            now = Instant(self.now.boot_s, self.now.wall_s + receiver.ahead_s)
            receiver.conclude(receiver.admission.message(sender, message, now))

    def wait(self, seconds: float) -> None:
        """Let time pass: timers and messages."""
        until = self.now.later(seconds)
        while True:
            self.settle()
            self.timers.sort(key=lambda entry: entry[0])
            if not self.timers or self.timers[0][0] > until.boot_s:
                self.now = until
                return
            at_s, node, timer = self.timers.pop(0)
            self.now = self.now.later(max(0.0, at_s - self.now.boot_s))
            node.conclude(node.admission.timer(timer, self.now))  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> type[World]:
    return World
