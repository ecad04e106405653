"""What every node has, whatever agents it carries: records and sessions, membership, admission, presence.

Owns the one instance of each of these mechanisms and tells the router what they concluded. Each changes its own
view only; what one concludes is handed to the next by the router, never by the mechanisms themselves.

Invariant: a write reaches the disk before it is spread, and is spread to those present when it was made; whoever
was not gets it in a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from colla.agents.agent import Context
from colla.agents.references import References
from colla.agents.wire import make_codec
from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.effects import StoreCell
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.model.record import (
    TOPIC_CATALOGUE,
    TOPIC_EVENTS,
    TOPIC_HAPPENINGS,
    TOPIC_MEMBERSHIP,
    TOPIC_MESSAGES,
    TOPIC_OBJECTS,
    TOPIC_RECEIPTS,
    Key,
    Record,
    SignedRecord,
)
from colla.protocol.catalogue.catalogue import Catalogue, register_catalogue
from colla.protocol.copies.counting import CopyCounting
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.placing import CopyPlacing
from colla.protocol.copies.upkeep import Upkeep
from colla.protocol.happenings.bodies import register_events
from colla.protocol.membership.administering import Administering
from colla.protocol.membership.admission import Admission
from colla.protocol.membership.bodies import Body, check_record, encode_body, key_of
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.tickets import Contact
from colla.protocol.messaging.bodies import register_messages
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.naming.names import Names, register_names
from colla.protocol.presence.introductions import Introductions
from colla.protocol.presence.presence import Presence
from colla.protocol.records.book import RecordBook
from colla.protocol.records.quota import Quota, subjects_quota
from colla.protocol.records.writes import Writes
from colla.protocol.rendezvous import nearest_spread
from colla.protocol.secrets.keyring import Keyring
from colla.protocol.secrets.writing import SecretWriting
from colla.protocol.sessions.sessions import Sessions
from colla.protocol.views import Identity, RecordChange, Role

START_CELL = "start"
PASSED_ON = (TOPIC_MEMBERSHIP, TOPIC_CATALOGUE)
"""The topics in which everybody waits for every record."""
TOPICS = (
    TOPIC_MEMBERSHIP,
    TOPIC_CATALOGUE,
    TOPIC_OBJECTS,
    TOPIC_MESSAGES,
    TOPIC_RECEIPTS,
    TOPIC_HAPPENINGS,
    TOPIC_EVENTS,
)
"""What every node holds, in the order in which sessions bring it: who belongs and what exists comes first."""


class OpeningDue(Timer, frozen=True):
    """Nobody was met in time: this node may write (section 4)."""


class EpidemicDue(Timer, frozen=True):
    """Hold a session with somebody."""


class Own:
    """What this node gives now. Written by the router; implements `agent.OwnContribution`."""

    def __init__(self, contribution: Contribution, environments: tuple[str, ...]) -> None:
        self._contribution = contribution
        self._attached = environments
        self._isolation: tuple[tuple[str, str], ...] = ()
        self.addresses: tuple[str, ...] = ()
        self.reachable = False

    @property
    def contribution(self) -> Contribution:
        return self._contribution

    @property
    def environments(self) -> tuple[str, ...]:
        """Attached, and given by the owner."""
        return tuple(kind for kind in self._attached if kind in self._contribution.environments)

    def contribute(self, contribution: Contribution) -> None:
        self._contribution = contribution

    @property
    def isolation(self) -> tuple[tuple[str, str], ...]:
        """How the attached environments isolate what they run, by kind."""
        return self._isolation

    def attach(self, environments: tuple[str, ...], isolation: tuple[tuple[str, str], ...] = ()) -> None:
        self._attached = environments
        self._isolation = isolation


class Foundation:
    """The mechanisms that every node has."""

    def __init__(
        self,
        identity: Identity,
        config: Config,
        rng: Random,
        durable: Durable,
        held: Sequence[tuple[ObjectId, int]],
        own: Own,
        version: str,
        remnants: Sequence[ObjectId] = (),
    ) -> None:
        self.identity = identity
        self.config = config
        self.rng = rng
        self.own = own
        self.start_number = int.from_bytes(durable.cells.get(START_CELL, b"")) + 1
        self.outbox = Outbox(self.start_number)
        self.outbox.persist(StoreCell(START_CELL, self.start_number.to_bytes(4)))
        self.codec = make_codec(config.frame_bytes_max)
        self.book = with_topics(RecordBook(identity, config.records, rng, self.outbox, durable), config)
        self.quarantine = self.book.quarantine
        self.membership = Membership(identity.group, self.book, self.quarantine)
        self.book.judge_authors(self._is_known)
        self.book.bound_members(self.membership.nodes_beside, config.quotas.member_bytes)
        self.catalogue = Catalogue(self.book, self.membership, self.quarantine)
        self.names = Names(self.book, self.membership, self.quarantine)
        self.keyring = Keyring(identity, config.secrets, rng, self.outbox, durable, self.catalogue)
        self.secret_writing = SecretWriting(identity, config.secrets, rng, self.catalogue, self.membership)
        self.references = References(self.book, self.membership, self.catalogue, self.names)
        self.sessions = Sessions(identity, config.records, rng, self.outbox, self.book)
        self.multicast = Multicast(identity, config.records, rng, self.outbox, self.codec)
        self.writes = Writes(identity, config.records, self.outbox, self.book, self.multicast)
        self.administering = Administering(identity.node, self.membership, self.seen)
        self.admission = Admission(
            identity,
            config.membership,
            self.outbox,
            self.membership,
            self,
            self.start_number,
            self._admits,
            self.contacts,
        )
        self.presence = Presence(
            identity,
            config.presence,
            rng,
            self.outbox,
            self.membership,
            self.spread,
            own,
            self.start_number,
            durable.cells,
            version,
            Rhythm(config.iterations, config.iterations.presence_at_s, rng),
        )
        self.introductions = Introductions(
            identity.node, config.presence, self.outbox, self.membership, self.presence, self.admission
        )
        self.holdings = Holdings(held, remnants)
        self.placing = CopyPlacing(config.copies, self.outbox)
        self.counting = CopyCounting(
            identity.node, config.copies, self.outbox, self.holdings, self.repositories_for
        )
        self.upkeep = Upkeep(config.copies, self.outbox, self.holdings)
        self._rhythm = Rhythm(config.iterations, config.iterations.sessions_at_s, rng)
        self._to_meet: dict[NodeId, None] = {}
        self._newcomers: dict[NodeId, None] = {}
        self.merged: list[RecordChange] = []

    def context(self, durable: Durable) -> Context:
        """What the agents of this node are given."""
        return Context(
            identity=self.identity,
            config=self.config,
            rng=self.rng,
            outbox=self.outbox,
            durable=durable,
            membership=self.membership,
            presence=self.presence,
            records=self.book,
            catalogue=self.catalogue,
            holdings=self.holdings,
            own=self.own,
            partners=self.presence,
            secrets=self.keyring,
        )

    def start(self, now: Instant) -> None:
        """Ask to be woken for the first permission to write and for sessions."""
        alone = len(self.membership.nodes()) <= 1
        wait_s = 0.0 if alone else self.config.records.first_session_wait_s
        self.outbox.wake_in(wait_s, OpeningDue(), now)
        self._next_epidemic(now)

    def others_present(self) -> tuple[NodeId, ...]:
        """The present nodes but this one."""
        return tuple(node for node in self.presence.present() if node != self.identity.node)

    def spread(self, message: Message, recipients: Sequence[NodeId], now: Instant) -> None:
        """Multicast what does not wait for the disk (news of presence)."""
        self.multicast.spread(message, recipients, now, unbarriered=True)

    # -- sessions -------------------------------------------------------------------------------------------

    def opening_due(self, now: Instant) -> None:
        """After the waiting time, being alone is reason enough to write; somebody present is met first."""
        if self.book.writable(TOPIC_CATALOGUE):
            # Whoever was met may be of a version that does not hold the other topics, and cannot know a log of them.
            self.book.opened(TOPICS)
            return
        if self.others_present():
            self.outbox.wake_in(self.config.records.first_session_wait_s, OpeningDue(), now)
            self.meet(self.rng.choice(self.others_present()), now)
        else:
            self.book.opened(TOPICS)

    def epidemic_due(self, now: Instant) -> None:
        """Periodic anti-entropy: dispatchers with random dispatchers, others with one dispatcher or anybody."""
        self._next_epidemic(now)
        for node in self.epidemic_partners():
            self.meet(node, now)

    def repositories_for(self, object_id: ObjectId) -> list[NodeId]:
        """The present repository agents, nearest to the object first, distinct members first."""
        present = self.presence.carrying(AgentKind.REPOSITORY)
        return nearest_spread(object_id, present, self.membership.owner_of)

    def epidemic_partners(self) -> list[NodeId]:
        """With whom to hold a session now."""
        me = self.identity.node
        dispatchers = [node for node in self.presence.carrying(AgentKind.DISPATCHER) if node != me]
        candidates = dispatchers or list(self.others_present())
        count = self.config.records.sessions_per_interval
        if not self.own.contribution.carries(AgentKind.DISPATCHER):
            count = 1
        # By lot: where several came back at once, not everybody should meet the same one and nobody the others.
        came = [node for node in self._to_meet if node in candidates]
        first = self.rng.sample(came, min(count, len(came)))
        rest = [node for node in candidates if node not in first]
        self._newcomers, self._to_meet = self._to_meet, {}
        return first + self.rng.sample(rest, min(count - len(first), len(rest)))

    def met(self, node: NodeId, now: Instant) -> None:
        """A new link to a node, or a neighbour on the rings is here again: a session finds what either lacks.

        What was sent over a link before the other side accepted it is dropped there, so this brings it, too.
        """
        if self.config.records.session_at_contact:
            self.meet(node, now)
        else:
            self._to_meet[node] = None

    def learned(self, changes: Sequence[RecordChange], now: Instant) -> None:
        """A session brought these: whoever was here before the last newcomers lacks them as this node did."""
        self.merged += changes
        if not self.config.records.pass_on_learned:
            return
        known = [change for change in changes if change.topic in PASSED_ON]
        records = [record for change in known for record in self.book.concurrent(change.topic, change.key)]
        strangers = {**self._to_meet, **self._newcomers}
        self.writes.pass_on(records, [node for node in self.others_present() if node not in strangers], now)

    def meet(self, node: NodeId, now: Instant) -> None:
        """Hold a session over everything with a node."""
        self.sessions.open(node, TOPICS, now)

    def _next_epidemic(self, now: Instant) -> None:
        if self._rhythm.given:
            wait_s = self._rhythm.wait_s(now)
        else:
            wait_s = self.config.records.session_interval_s * (0.75 + self.rng.random() / 2)
        self.outbox.wake_in(wait_s, EpidemicDue(), now)

    # -- the ledger of admission ----------------------------------------------------------------------------

    def write(self, body: Body, now: Instant) -> bool:
        """Write a membership record and spread it; False while this node may not write yet."""
        if not self.book.writable(TOPIC_MEMBERSHIP):
            return False
        items = [(key_of(body), encode_body(body))]
        self.merged += self.writes.submit(None, TOPIC_MEMBERSHIP, items, self.others_present(), now)
        return True

    def receive(self, records: Sequence[SignedRecord], now: Instant) -> None:
        """Merge membership records that admission judged."""
        self.merged += self.book.receive(records, now).changes

    def tell(self, topic: str, items: Sequence[tuple[Key, bytes]], now: Instant) -> None:
        """Write what nobody waits for. Raises `CollaError` as `submit`."""
        self.merged += self.writes.submit(None, topic, items, self.others_present(), now)

    def author_of(self, record: Record) -> MemberId | None:
        """The member whose word a record is; None when it does not count."""
        writer = self.membership.writer(record)
        return writer.member if writer is not None else None

    def submit(self, request_id: int, topic: str, items: Sequence[tuple[Key, bytes]], now: Instant) -> None:
        """Write for a request of the API; `Writes` concludes on how many nodes it is durable."""
        self.merged += self.writes.submit(request_id, topic, items, self.others_present(), now)

    def seen(self, nodes: Sequence[NodeId]) -> Sequence[tuple[bytes, int]]:
        """All logs of these nodes, by name, and the highest number held of each."""
        return self.book.highest_of(nodes)

    def contacts(self) -> list[Contact]:
        """The other nodes, and where they are reachable.

        Who lets strangers in comes first, also if it is away for the moment: a joiner from elsewhere reaches nobody
        else, and a ticket has room for few.
        """
        me, presence = self.identity.node, self.presence
        present = [node for node in presence.carrying(AgentKind.GROUP) if node != me]
        others = [info.id for info in self.membership.nodes() if info.id != me and info.id not in present]
        nodes = sorted([*present, *others], key=lambda node: not self._reachable(node))
        return [Contact(node, presence.addresses(node)) for node in nodes]

    def _reachable(self, node: NodeId) -> bool:
        entry = self.presence.entry(node)
        return entry is not None and entry.announcement.reachable

    def _is_known(self, author: NodeId) -> bool:
        return self.membership.has_room(author, self.config.membership.computers_per_member_max)

    def _admits(self) -> bool:
        owner = self.membership.owner_of(self.identity.node)
        guest = owner is None or self.membership.role(owner) is Role.GUEST
        return self.own.contribution.carries(AgentKind.GROUP) and not guest


def with_topics(book: RecordBook, config: Config) -> RecordBook:
    """The book, with all topics of a group registered."""
    quotas = config.quotas
    membership = Quota(numbers_max=quotas.membership_records, earliest_logs=True)
    book.register(TOPIC_MEMBERSHIP, check_record, quota=membership)
    register_catalogue(book, subjects_quota(quotas, quotas.services))
    register_names(book, subjects_quota(quotas, quotas.names))
    register_messages(book, config.messaging, quotas)
    register_events(book, config.happenings, quotas)
    return book
