"""Who belongs, under partitions: a world of nodes that only keep records, with many changes of the membership at once.

Each node has the mechanisms of a real one (records, sessions, membership, admission's settling and inheriting), joined as the
router joins them, and speaks through the real codec. Links cost no time: a session is held to its end, news reach whom they
reach, or nobody on the other side of a partition. People mostly do what their program lets them do; some write what they
may not, with a past that they chose, or go on after they were removed.

At the end all meet until all hold the same; then `membership_checks` looks whether every node has the same membership, of
everybody and of every record's writer; so has a newcomer who gets the records in any order; the slow twin agrees; there is
an administrator; nothing of a removed member or computer counts beyond what all who removed it had seen; no settled ticket has
more holders than uses; and what a node wrote with its program's leave was valid in its own eyes at once.
"""

from __future__ import annotations

from random import Random

import msgspec

from colla.agents.foundation import Foundation, Own
from colla.kernel.config import Config
from colla.kernel.durable import Durable
from colla.kernel.effects import Persist, Send
from colla.kernel.messages import Message
from colla.kernel.time import Instant
from colla.model.contribution import GIVES_NOTHING
from colla.model.errors import CollaError
from colla.model.ids import GroupId, MemberId, NodeId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, Key, Record
from colla.model.sharing import begin_sharing
from colla.protocol.membership.bodies import (
    Admitted,
    Appointed,
    Body,
    Removed,
    Retired,
    Through,
    Ticket,
    consent,
    encode_body,
    key_of,
    sign_claim,
)
from colla.protocol.membership.founding import found
from colla.protocol.membership.inviting import make_invitation
from colla.protocol.membership.joining import judge_join
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.resolver import Roster
from colla.protocol.membership.tickets import Contact, TicketText, read_ticket
from colla.protocol.records.summary import log_name
from colla.protocol.records.writes import RecordsNews
from colla.protocol.views import Election, Identity, Role

TOPICS = (TOPIC_MEMBERSHIP, TOPIC_CATALOGUE)
NODES_MAX = 9
ROUNDS_MAX = 30
"""Of meetings at the end; every round may make somebody settle a ticket or inherit."""
WALL_S = 1_800_000_000.0
NO_MEMBER = MemberId(b"")


class Case(msgspec.Struct, frozen=True):
    """One world."""

    seed: int
    steps: int = 60
    lawless: float = 0.2
    """How often somebody does what its program would refuse."""
    twin: bool = True

    @property
    def key(self) -> str:
        return str(self.seed)


class Person:
    """One node with its member."""

    def __init__(self, world: MembershipWorld, name: str, secret: SecretKey, member: SecretKey) -> None:
        self.world = world
        self.name = name
        self.member = member
        self.id = NodeId(secret.public)
        self.side = 0
        identity = Identity(world.group, secret)
        rng = Random(f"{world.case.seed}/{name}")
        self.found = Foundation(identity, Config(), rng, Durable({}, {}), (), Own(GIVES_NOTHING, ()), "")
        self.found.book.opened()
        self.found.membership.rosters = world.rosters

    @property
    def membership(self) -> Membership:
        return self.found.membership

    @property
    def belongs(self) -> bool:
        return self.membership.node(self.id) is not None

    def look(self) -> None:
        """Records may have changed: what the router does then."""
        for _ in range(ROUNDS_MAX):
            self.found.merged.clear()
            if not self.membership.refresh():
                break
            self.found.admission.membership_changed(self.world.now)
        self.drain()

    def write(self, body: Body) -> Record:
        """Write a membership record, whether it may or not."""
        return self.keep(TOPIC_MEMBERSHIP, key_of(body), encode_body(body))

    def keep(self, topic: str, key: Key, body: bytes) -> Record:
        records, _ = self.found.book.write(topic, [(key, body)], self.world.now)
        self.look()
        self.world.written.append((self, records[0]))
        return records[0]

    def drain(self) -> list[tuple[NodeId, Message]]:
        """What it wants to say. Its disk is always fast."""
        said = []
        for effect in self.found.outbox.drain():
            match effect:
                case Send(to=to, message=message):
                    said.append((to, message))
                case Persist(id=persist_id):
                    self.found.writes.persisted(persist_id, self.world.now)
                case _:
                    pass
        return said


class MembershipWorld:
    """The people, who reaches whom, and what happens."""

    def __init__(self, case: Case) -> None:
        begin_sharing()
        self.case = case
        self.rng = Random(f"membership/{case.seed}")
        self.now = Instant(0.0, WALL_S)
        self.people: list[Person] = []
        self.rosters: dict[bytes, Roster] = {}
        self.tickets: list[TicketText] = []
        self.written: list[tuple[Person, Record]] = []
        self.partitions = 0
        self.problems: list[str] = []
        self.ended: list[tuple[bytes, dict[bytes, int]]] = []
        """What honest removers had seen: (the act's record, the highest number of each log that it ends)."""
        member, node = self.key(), self.key()
        founded = found("club", Election.HASHING, member, node, "m0", "n0", self.rng, self.now)
        self.group: GroupId = founded.group
        founder = Person(self, "n0", node, member)
        founder.found.book.receive([record.signed for record in founded.records], self.now)
        founder.look()
        self.people.append(founder)

    def key(self) -> SecretKey:
        return SecretKey(self.rng.randbytes(32))

    # What happens.

    def play(self) -> None:
        """A few people come, then everything at once."""
        for _ in range(self.rng.randint(3, 5)):
            self.invite(self.people[0], self.rng.choice((Role.MEMBER, Role.ADMINISTRATOR)))
            self.meet_all()
            self.join(self.tickets[-1])
        self.meet_all()
        for _ in range(self.case.steps):
            # Clocks differ, by more than anything lasts here.
            self.now = Instant(self.now.boot_s + 1.0, WALL_S + self.rng.uniform(0.0, 100.0))
            self.step()

    def step(self) -> None:
        person = self.rng.choice(self.people)
        lawless = self.rng.random() < self.case.lawless
        choice = self.rng.choices(
            ("part", "heal", "meet", "news", "invite", "join", "act", "note", "rename", "steal"),
            (3, 2, 14, 8, 5, 9, 13, 6, 2, 2),
        )[0]
        match choice:
            case "part":
                self.partitions += 1
                for one in self.people:
                    one.side = self.rng.randint(0, 1)
            case "heal":
                for one in self.people:
                    one.side = 0
            case "meet":
                self.meet(person, self.rng.choice(self.people))
            case "news":
                self.tell_news()
            case "invite":
                self.invite(person, self.rng.choice(list(Role)))
            case "join" if self.tickets and len(self.people) < NODES_MAX:
                self.join(self.rng.choice(self.tickets[-4:]), lawless)
            case "act":
                self.act(person, lawless)
            case "note":
                person.keep(TOPIC_CATALOGUE, Key("note", self.rng.randbytes(16)), b"")
            case "rename":
                self.rename(person)
            case "steal" if lawless:
                self.steal(person, self.rng.choice(self.people))
            case _:
                pass

    def meet(self, one: Person, other: Person, anyhow: bool = False) -> None:
        """A session, if they reach each other and each lets the other in."""
        welcome = (
            one.membership.node(other.id) is not None and other.membership.node(one.id) is not None
        ) or self.rng.random() < self.case.lawless / 2
        if one is other or (not anyhow and (one.side != other.side or not welcome)):
            return
        by_id = {one.id: one, other.id: other}
        one.found.sessions.open(other.id, TOPICS, self.now)
        under_way = [(one, said) for said in one.drain()]
        while under_way:
            sender, (to, message) = under_way.pop(0)
            receiver = by_id.get(to)
            if receiver is not None:
                receiver.found.sessions.message(sender.id, self.through_codec(message), self.now, TOPICS)
                under_way += [(receiver, said) for said in receiver.drain()]
        one.look()
        other.look()

    def tell_news(self) -> None:
        """A recent record reaches some of those that its author reaches, ahead of what came before it."""
        if not self.written:
            return
        author, record = self.rng.choice(self.written[-6:])
        news = self.through_codec(RecordsNews((record.signed,), False))
        for one in self.people:
            known = one.membership.node(author.id) is not None
            if one is not author and one.side == author.side and known and self.rng.random() < 0.6:
                one.found.writes.message(author.id, news, self.now)
                one.look()

    def through_codec(self, message: Message) -> Message:
        codec = self.people[0].found.codec
        return codec.decode(codec.encode(message))

    def invite(self, person: Person, role: Role) -> None:
        own_computer, member = self.rng.random() < 0.2, NO_MEMBER
        if self.rng.random() < 0.1 and person.membership.members():
            own_computer, member = True, self.rng.choice(person.membership.members()).id
        try:
            if self.rng.random() >= self.case.lawless / 2:
                person.found.administering.may_invite(role, own_computer, member)
            contacts = [Contact(person.id, ("192.0.2.1:7000",))]
            invitation = make_invitation(
                person.found.identity,
                person.membership,
                contacts,
                own_computer,
                1000.0,
                self.rng,
                self.now,
                role,
                self.rng.choice((1, 1, 1, 2, 3)),
                member,
            )
        except CollaError:
            return
        person.write(invitation.body)
        self.tickets.append(read_ticket(invitation.text))

    def join(self, ticket: TicketText, lawless: bool = False) -> None:
        """Somebody new is let in by somebody, if that one's program does it."""
        by = self.rng.choice(self.people)
        joiner = Person(self, f"n{len(self.people)}", self.key(), self.key())
        joiner.side = by.side
        claim = ticket.claim(joiner.id, joiner.name, joiner.member, f"m{len(self.people)}")
        if self.rng.random() < 0.9:  # Earlier versions do not sign it.
            claim = consent(self.group, claim, joiner.found.identity.secret)
        verdict = judge_join(by.membership, claim, joiner.id, 1000, self.now)
        guest = by.membership.role(by.membership.owner_of(by.id) or NO_MEMBER) in (None, Role.GUEST)
        if (verdict.code or guest) and not lawless:
            return
        admitted = Admitted(claim, self.now.wall_s, by.membership.heads())
        by.write(admitted)
        proofs = by.membership.proof_of(by.id, joiner.id)
        joiner.found.receive([record.signed for record in proofs], self.now)
        joiner.look()
        if not lawless and not joiner.belongs:
            self.problems.append(f"{joiner.name} was let in and cannot prove it")
        self.people.append(joiner)

    def act(self, person: Person, lawless: bool) -> None:
        """Give a role, remove, retire, revoke or leave."""
        members = person.membership.members()
        nodes = person.membership.nodes()
        if not members or not nodes:
            return
        administering = person.found.administering
        member, node = self.rng.choice(members).id, self.rng.choice(nodes).id
        kind = self.rng.choices(("role", "remove", "retire", "revoke", "leave"), (9, 5, 3, 2, 1))[0]
        tickets = person.membership.tickets()
        try:
            body: Body
            match kind:
                case "role":
                    body = administering.appoint(member, self.rng.choice(list(Role)))
                case "remove":
                    body = administering.remove(member, "", self.now)
                case "retire":
                    body = administering.retire(node, "", self.now)
                case "revoke" if tickets:
                    author, ticket, _ = self.rng.choice(tickets)
                    body = administering.revoke(author, ticket)
                case "leave":
                    body = administering.leave(self.now)
                case _:
                    return
        except CollaError:
            if not lawless:
                return
            body = self.lawless_body(person, member, node)
        else:
            lawless = False
        record = person.write(body)
        if not lawless and isinstance(body, Removed | Retired):
            self.note_end(person, record, body)
        if not lawless and record.digest not in person.membership.valid_acts():
            self.problems.append(f"{person.name} was allowed to write {kind} and holds it for void itself")

    def note_end(self, person: Person, record: Record, body: Removed | Retired) -> None:
        """Remember what the remover's disk held of the logs that it ended."""
        ended = person.membership.nodes_of(body.member) if isinstance(body, Removed) else (body.node,)
        held = dict(person.found.seen(ended))
        if person.id in ended:
            held[log_name(record.log)] = record.number - 1  # The last word itself came after it looked.
        self.ended.append((record.digest, held))

    def lawless_body(self, person: Person, member: MemberId, node: NodeId) -> Body:
        """What no honest program writes: without the right to it, with a past and a view of its own choice."""
        heads = person.membership.heads()
        everything = sorted(fact.record.digest for fact in person.membership.acts())
        past = self.rng.choice((heads, (), tuple(self.rng.sample(everything, len(everything) // 2))))
        nodes = person.membership.nodes_of(member)
        seen = [Through(log, number) for log, number in person.found.seen(nodes) if number]
        places = tuple(sorted(self.rng.choice((seen, [], seen[:1]))))
        match self.rng.randint(0, 2):
            case 0:
                return Appointed(member, self.rng.choice(list(Role)), places, (), past)
            case 1:
                return Removed(member, "", self.now.wall_s, places, (), past)
            case _:
                return Retired(node, "", self.now.wall_s, places, (), past)

    def rename(self, person: Person) -> None:
        nodes = person.membership.nodes()
        if nodes:
            try:
                name = f"x{self.rng.randint(0, 3)}"
                person.write(person.found.administering.rename_computer(self.rng.choice(nodes).id, name))
            except CollaError:
                return

    def steal(self, thief: Person, victim: Person) -> None:
        """A member claims another one's computer for itself, with a ticket and a stamp of its own making."""
        owner = thief.membership.owner_of(thief.id)
        if owner is None or thief is victim:
            return
        secret = self.key()
        thief.write(Ticket(secret.public, owner, WALL_S * 2, True, past=thief.membership.heads()))
        claim = sign_claim(self.group, secret, thief.id, victim.id, "mine", None, "")
        now, self.now = self.now, Instant(self.now.boot_s, WALL_S - 1e6)
        thief.write(Admitted(claim, self.now.wall_s, thief.membership.heads()))
        self.now = now

    # The end.

    def meet_all(self) -> None:
        """Everybody meets everybody until nothing is new to anybody."""
        for _ in range(ROUNDS_MAX):
            for one, other in zip(self.people, [*self.people[1:], self.people[0]], strict=True):
                self.meet(one, other, anyhow=True)
            if len({one.found.book.fingerprint(TOPICS) for one in self.people}) == 1:
                return
        self.problems.append("the nodes do not come to hold the same records")
