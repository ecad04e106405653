"""Who belongs: a pure function of the set of membership records, whatever their order of arrival.

The rules are monotone, so that their least fixed point is unique:

- The founder's node is valid, for the founder.
- A ticket is valid when the node that wrote it belongs to the member that it names as inviter.
- An admission is valid when its signatures hold, its ticket is valid, it was admitted before the ticket expired
  by a valid node, and the ticket's author named no other holder. The author names the holder by a `settled`
  record or by admitting itself, whichever comes first in its log. While the author named none, every admission is
  valid provisionally; afterwards the others, and all that they wrote, are void.

Only the author's own log settles a ticket: it is one sequence, written by one node, so two sides of a partition
cannot both settle. No stamp and no hash decides who belongs (DESIGN section 10). Seniority is depth in this chain
of trust first, which nobody can forge to be smaller, then stamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from colla.model.ids import GroupId, MemberId, NodeId, digest
from colla.model.record import Log, Record, Stamp
from colla.protocol.membership.bodies import (
    NAME_CHARS_MAX,
    Admitted,
    Body,
    Founding,
    JoinClaim,
    Settled,
    Ticket,
    claim_holds,
    decode_body,
    founding_holds,
)
from colla.protocol.views import Election, MemberInfo, NodeInfo

ROLE_ADMINISTRATOR = "administrator"
ROLE_MEMBER = "member"
SUFFIX_HEX = 4

Belonging: TypeAlias = tuple[NodeId, MemberId]
TicketId: TypeAlias = tuple[NodeId, bytes]
"""The author of the ticket and the ticket's public key."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A membership record beside its decoded body, whose own signatures hold."""

    record: Record
    body: Body

    @property
    def author(self) -> NodeId:
        return self.record.log.node


@dataclass(frozen=True, slots=True)
class Ground:
    """Why a node belongs to a member: the records that say so and whose authority they stand on."""

    depth: int
    stamp: Stamp
    records: tuple[Record, ...]
    parents: tuple[Belonging, ...]
    claim: JoinClaim | None = None
    """What the node said of itself; None for the founder's."""


@dataclass(slots=True)
class TicketStanding:
    """What became of one ticket: its records and its admissions (settled or not)."""

    records: list[Fact] = field(default_factory=list)
    admissions: list[Fact] = field(default_factory=list)
    settlement: tuple[tuple[bool, Log, int], NodeId, Record] | None = None

    @property
    def holder(self) -> NodeId | None:
        """The node that the ticket's author named."""
        return self.settlement[1] if self.settlement else None


@dataclass(slots=True)
class Roster:
    """The resolved membership. Everything is empty when there is no valid founding record."""

    founding: Founding | None = None
    members: dict[MemberId, MemberInfo] = field(default_factory=dict)
    nodes: dict[NodeId, NodeInfo] = field(default_factory=dict)
    tickets: dict[TicketId, TicketStanding] = field(default_factory=dict)
    grounds: dict[Belonging, Ground] = field(default_factory=dict)
    outraced: dict[NodeId, NodeId] = field(default_factory=dict)
    """Nodes that lost a ticket, and who holds it."""

    @property
    def election(self) -> Election:
        return self.founding.election if self.founding else Election.HASHING


def read_fact(group: GroupId, record: Record) -> Fact | None:
    """Decode a record and judge the signatures inside its body; None when it says nothing to this version."""
    body = decode_body(record.key.kind, record.body)
    match body:
        case None:
            return None
        case Founding() if digest(record.body) != group or record.log.node != body.node:
            return None
        case Founding() if not founding_holds(body):
            return None
        case Admitted(claim=claim) if not claim_holds(group, claim):
            return None
        case _:
            return Fact(record, body)


def resolve(facts: Iterable[Fact]) -> Roster:
    """Who belongs, by these facts; order and repetition do not matter."""
    ordered = sorted(facts, key=lambda fact: (fact.record.log, fact.record.number, fact.record.digest))
    roster = Roster(tickets=_gather_tickets(ordered))
    foundings = [fact for fact in ordered if isinstance(fact.body, Founding)]
    if not foundings:
        return roster
    first = foundings[0]
    assert isinstance(first.body, Founding)
    roster.founding = first.body
    base = Ground(0, first.record.stamp, (first.record,), ())
    roster.grounds[first.body.node, first.body.member] = base
    admissions = [fact for fact in ordered if isinstance(fact.body, Admitted)]
    _grow(roster, admissions)
    _name_all(roster)
    _note_outraced(roster)
    return roster


def _gather_tickets(facts: Sequence[Fact]) -> dict[TicketId, TicketStanding]:
    """Bring together what was said of each ticket, by whom it may be said."""
    tickets: dict[TicketId, TicketStanding] = {}
    for fact in facts:
        if isinstance(fact.body, Ticket):
            tickets.setdefault((fact.author, fact.body.ticket), TicketStanding()).records.append(fact)
    for fact in facts:
        match fact.body:
            case Admitted(claim=claim):
                standing = tickets.get((claim.author, claim.ticket))
                if standing is not None:
                    standing.admissions.append(fact)
                    if fact.author == claim.author and _ticket_of(standing, fact.body) is not None:
                        _settle(standing, fact.record, claim.node)
            case Settled(ticket=ticket, node=node):
                standing = tickets.get((fact.author, ticket))
                if standing is not None:
                    _settle(standing, fact.record, node)
            case _:
                pass
    return tickets


def _settle(standing: TicketStanding, record: Record, node: NodeId) -> None:
    # The log with the ticket itself comes first; further logs of the author exist only after an accident to its disk.
    home = standing.records[0].record.log
    rank = (record.log != home, record.log, record.number)
    if standing.settlement is None or rank < standing.settlement[0]:
        standing.settlement = (rank, node, record)


def _ticket_of(standing: TicketStanding, admitted: Admitted) -> Fact | None:
    """The ticket record that covers this admission: of the same sort, and not expired when it was used."""
    for fact in standing.records:
        assert isinstance(fact.body, Ticket)
        same_sort = fact.body.own_computer == admitted.claim.own_computer
        if same_sort and admitted.admitted_s <= fact.body.expires_s:
            return fact
    return None


def _grow(roster: Roster, admissions: Sequence[Fact]) -> None:
    """Add belongings, one depth of the chain of trust at a time, until nothing is added."""
    depth = 0
    while True:
        depth += 1
        by_node = _first_belongings(roster.grounds)
        added: dict[Belonging, Ground] = {}
        for fact in admissions:
            assert isinstance(fact.body, Admitted)
            ground = _judge(roster, by_node, fact, fact.body, depth)
            if ground is None:
                continue
            belonging, found = ground
            known = added.get(belonging)
            if belonging not in roster.grounds and (known is None or _order(found) < _order(known)):
                added[belonging] = found
        if not added:
            return
        roster.grounds.update(added)


def _judge(
    roster: Roster, by_node: Mapping[NodeId, Belonging], fact: Fact, admitted: Admitted, depth: int
) -> tuple[Belonging, Ground] | None:
    """Whether the admission is valid given who is valid so far, and on what grounds."""
    claim = admitted.claim
    standing = roster.tickets.get((claim.author, claim.ticket))
    admitting = by_node.get(fact.author)
    if standing is None or admitting is None or standing.holder not in (None, claim.node):
        return None
    ticket = _ticket_of(standing, admitted)
    if ticket is None:
        return None
    assert isinstance(ticket.body, Ticket)
    inviting = (claim.author, ticket.body.inviter)
    if inviting not in roster.grounds:
        return None
    records = [ticket.record, fact.record]
    if standing.settlement is not None and standing.settlement[2] != fact.record:
        records.append(standing.settlement[2])
    member = ticket.body.inviter if claim.own_computer else claim.member
    parents = tuple(dict.fromkeys((inviting, admitting)))
    return (claim.node, member), Ground(depth, fact.record.stamp, tuple(records), parents, claim)


def _order(ground: Ground) -> tuple[int, Stamp, bytes]:
    return (ground.depth, ground.stamp, ground.records[1].digest if len(ground.records) > 1 else b"")


def _first_belongings(grounds: Mapping[Belonging, Ground]) -> dict[NodeId, Belonging]:
    """The belonging that counts of each node, should several members claim it: the one of the greatest age."""
    first: dict[NodeId, Belonging] = {}
    for belonging in sorted(grounds, key=lambda one: (_order(grounds[one]), one)):
        first.setdefault(belonging[0], belonging)
    return first


def _name_all(roster: Roster) -> None:
    """Fill in members and nodes, eldest first, so that the elder keeps a name that both claim."""
    assert roster.founding is not None
    member_names: dict[str, MemberId] = {}
    node_names: dict[str, NodeId] = {}
    for node, belonging in _first_belongings(roster.grounds).items():
        member = belonging[1]
        claim = roster.grounds[belonging].claim
        if member not in roster.members:
            claimed = claim.member_name if claim else roster.founding.member_name
            role = ROLE_MEMBER if claim else ROLE_ADMINISTRATOR
            name = _unique(claimed or ROLE_MEMBER, member, member_names)
            member_names[name] = member
            roster.members[member] = MemberInfo(member, name, role, seniority=len(roster.members))
        name = _unique(claim.node_name if claim else roster.founding.node_name, node, node_names)
        node_names[name] = node
        roster.nodes[node] = NodeInfo(node, member, name)


def _note_outraced(roster: Roster) -> None:
    """Find who was admitted with a ticket that another node holds, to be able to say so."""
    for (author, _), standing in roster.tickets.items():
        if author not in roster.nodes:
            continue
        for fact in standing.admissions:
            assert isinstance(fact.body, Admitted)
            loser = fact.body.claim.node
            if standing.holder not in (None, loser) and loser not in roster.nodes:
                assert standing.holder is not None
                roster.outraced[loser] = standing.holder


def _unique(name: str, owner: bytes, taken: Mapping[str, bytes]) -> str:
    """`name`, or with a suffix from the owner's id when an elder has it. Ids differ, so this ends."""
    digits = SUFFIX_HEX
    shown = name
    while shown in taken:
        suffix = owner.hex()[:digits]
        shown = f"{name[: NAME_CHARS_MAX - len(suffix) - 1].rstrip('-')}-{suffix}"
        digits += SUFFIX_HEX
    return shown
