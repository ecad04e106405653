"""Who belongs: a pure function of the set of membership records, whatever their order of arrival.

- The founder's node is valid, for the founder, who is administrator.
- A ticket is valid when the node that wrote it belongs to the member that it names as inviter, who had the role that it
  takes: guests invite their own further computers only, and nobody gives a role above the own.
- An admission is valid when its signatures hold, its ticket is valid, it was admitted before the ticket expired by a valid
  node of at least a member, and the ticket's author named no other holders. The author names them by `settled` records or by
  admitting somebody itself, whichever comes first in its log, as many as the ticket has uses. While it named fewer, every
  admission is valid provisionally; afterwards the others, and all that they wrote, are void.
- What acts (appointed, removed, retired, revoked) do to each other and to these is in `judging`.

Only the author's own log settles a ticket: it is one sequence, written by one node, so two sides of a partition cannot both
settle. No stamp and no hash decides who belongs (DESIGN section 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from colla.model.ids import MemberId, NodeId
from colla.model.record import Log, Record
from colla.protocol.membership.bodies import (
    NAME_CHARS_MAX,
    Admitted,
    Appointed,
    Founding,
    Removed,
    Renamed,
    Retired,
    Ticket,
)
from colla.protocol.membership.facts import Fact, Lineage, in_order, members_of, read_fact
from colla.protocol.membership.grounds import Belonging, Ground, TicketId
from colla.protocol.membership.judging import Judging
from colla.protocol.membership.roles import Roles
from colla.protocol.records.summary import log_name
from colla.protocol.views import Election, MemberInfo, NodeInfo, Role, Writer

__all__ = ["Fact", "Former", "Roster", "TicketStanding", "read_fact", "resolve"]

SUFFIX_HEX = 4
_VOID_TICKET = "Whoever invited or admitted it had no right to it (any more). Ask for a new ticket."


class Former(msgspec.Struct, frozen=True):
    """Why a node or a member that was admitted does not belong: `code` is stable, `text` for people."""

    code: str
    name: str
    text: str
    at_s: float = 0.0


@dataclass(slots=True)
class TicketStanding:
    """What became of one ticket: its valid records, the valid admissions with it, and whom its author named."""

    offers: list[Fact] = field(default_factory=list)
    admissions: list[Fact] = field(default_factory=list)
    holders: tuple[NodeId, ...] = ()
    revoked: bool = False

    @property
    def uses(self) -> int:
        """How many nodes the ticket admits."""
        return max((fact.body.uses for fact in self.offers if isinstance(fact.body, Ticket)), default=1)

    @property
    def admitted(self) -> tuple[NodeId, ...]:
        """The nodes that came with it, in the order of their admissions' stamps."""
        ordered = sorted(self.admissions, key=lambda fact: fact.order)
        return tuple(dict.fromkeys(_claimed(fact) for fact in ordered))


@dataclass(slots=True)
class Ends:
    """Up to where the records of a node or a member count: for each act that ended it what its author had seen."""

    seen: list[dict[bytes, int]] = field(default_factory=list)

    def through(self, log: bytes) -> int | None:
        """The least number that all of them had seen; None when nothing ended it."""
        return min((seen.get(log, 0) for seen in self.seen), default=None)


@dataclass(slots=True)
class Roster:
    """The resolved membership. Everything is empty when there is no valid founding record."""

    founding: Founding | None = None
    members: dict[MemberId, MemberInfo] = field(default_factory=dict)
    nodes: dict[NodeId, NodeInfo] = field(default_factory=dict)
    former_members: dict[MemberId, Former] = field(default_factory=dict)
    former_nodes: dict[NodeId, Former] = field(default_factory=dict)
    tickets: dict[TicketId, TicketStanding] = field(default_factory=dict)
    grounds: dict[Belonging, Ground] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    """All that was judged, in its total order."""
    lineage: Lineage | None = None
    heads: tuple[bytes, ...] = ()
    heir: MemberId | None = None
    """Who is administrator only because nobody is appointed."""
    acts: tuple[Fact, ...] = ()
    """All acts held, valid or not."""
    valid_acts: tuple[bytes, ...] = ()
    member_ends: dict[MemberId, Ends] = field(default_factory=dict)
    node_ends: dict[NodeId, Ends] = field(default_factory=dict)
    roles: Roles | None = None
    appointments: dict[int, dict[bytes, int]] = field(default_factory=dict)
    """Of each valid appointment, up to where its author had seen the member's logs."""
    renamings: dict[bytes, int] = field(default_factory=dict)
    """The greatest revision of a name, by its subject."""
    names: dict[bytes, str] = field(default_factory=dict)
    """The names that were given later, by their subjects."""

    @property
    def election(self) -> Election:
        return self.founding.election if self.founding else Election.HASHING

    def through(self, log: Log) -> int | None:
        """Up to which number the records of this log count: None for all, 0 for none."""
        belonging = self.roles.first_belonging(log.node) if self.roles else None
        if belonging is None:
            return 0
        name = log_name(log)
        ends = (self.node_ends.get(log.node), self.member_ends.get(belonging[1]))
        found = [through for one in ends if one is not None and (through := one.through(name)) is not None]
        return min(found, default=None)

    def writer(self, record: Record) -> Writer | None:
        """See `views.MembershipView.writer`."""
        through = self.through(record.log)
        if self.roles is None or (through is not None and record.number > through):
            return None
        belonging = self.roles.first_belonging(record.log.node)
        assert belonging is not None
        appointments = self.roles.appointments(belonging[1])
        if appointments:
            name = log_name(record.log)
            appointments = [
                act for act in appointments if record.number > self.appointments[act].get(name, 0)
            ]
        return Writer(belonging[1], self.roles.by(belonging[1], appointments))


def resolve(facts: Iterable[Fact]) -> Roster:
    """Who belongs, by these facts; order and repetition do not matter."""
    ordered = in_order(facts)
    judging = Judging(ordered)
    judging.judge_all()
    roster = Roster(roles=judging.roles, grounds=judging.roles.grounds)
    roster.founding = next((fact.body for fact in ordered if isinstance(fact.body, Founding)), None)
    if roster.founding is None:
        return Roster()
    roster.facts, roster.lineage = ordered, judging.lineage
    roster.heads = judging.lineage.heads()
    roster.acts = tuple(fact for fact in ordered if fact.is_act)
    roster.valid_acts = tuple(ordered[place].record.digest for place in members_of(judging.roles.valid))
    _note_ends(roster, ordered, judging)
    _name_all(roster, ordered, judging)
    _sum_up_tickets(roster, judging)
    _note_former(roster, ordered, judging)
    return roster


def _note_ends(roster: Roster, facts: tuple[Fact, ...], judging: Judging) -> None:
    """Up to where the logs of former members and nodes count, and from where appointments do."""
    for place in members_of(judging.roles.valid):
        match facts[place].body:
            case Removed(member=member):
                roster.member_ends.setdefault(member, Ends()).seen.append(judging.through[place])
            case Retired(node=node):
                roster.node_ends.setdefault(node, Ends()).seen.append(judging.through[place])
            case Appointed():
                roster.appointments[place] = judging.through[place]
            case _:
                pass


def _name_all(roster: Roster, facts: tuple[Fact, ...], judging: Judging) -> None:
    """Fill in members and nodes, eldest first, so that the elder keeps a name that both claim."""
    roles, valid = judging.roles, judging.roles.valid
    roster.names = _renamed(roster, facts, judging)
    member_names: dict[str, MemberId] = {}
    node_names: dict[str, NodeId] = {}
    roster.heir = roles.heir(valid)
    for member in roles.members():
        if roles.removals(member, valid):
            continue
        role = Role.ADMINISTRATOR if member == roster.heir else roles.of(member, valid)
        name = _unique(member_claim(roster, member), member, member_names)
        member_names[name] = member
        roster.members[member] = MemberInfo(member, name, role, seniority=len(roster.members))
    for belonging in sorted(roles.grounds, key=lambda one: (roles.grounds[one].seniority, one)):
        node, member = belonging
        if roles.first_belonging(node) != belonging or member not in roster.members:
            continue
        if roles.retirements(node, valid):
            continue
        name = _unique(node_claim(roster, belonging), node, node_names)
        node_names[name] = node
        roster.nodes[node] = NodeInfo(node, member, name)


def _renamed(roster: Roster, facts: tuple[Fact, ...], judging: Judging) -> dict[bytes, str]:
    """The names that were given later."""
    best: dict[bytes, tuple[int, Fact]] = {}
    for place, fact in enumerate(facts):
        if isinstance(fact.body, Renamed):
            subject, revision = fact.body.subject, fact.body.revision
            roster.renamings[subject] = max(revision, roster.renamings.get(subject, 0))
            if judging.verdicts[place] and (subject not in best or revision >= best[subject][0]):
                # The facts are in their total order: of equal revisions the last one stays.
                best[subject] = (revision, fact)
    return {subject: fact.body.name for subject, (_, fact) in best.items() if isinstance(fact.body, Renamed)}


def member_claim(roster: Roster, member: MemberId) -> str:
    """How the member is to be called: by the last renaming, else by the eldest of its grounds that says so."""
    assert roster.founding is not None
    if member in roster.names:
        return roster.names[member]
    if member == roster.founding.member:
        return roster.founding.member_name
    claims = [roster.grounds[one].claim for one in roster.roles.came_with(member)] if roster.roles else []
    return next((claim.member_name for claim in claims if claim is not None), Role.MEMBER.value)


def node_claim(roster: Roster, belonging: Belonging) -> str:
    """How the node is to be called: by the last renaming, else as it called itself when it came."""
    assert roster.founding is not None
    if belonging[0] in roster.names:
        return roster.names[belonging[0]]
    claim = roster.grounds[belonging].claim
    return claim.node_name if claim else roster.founding.node_name


def _sum_up_tickets(roster: Roster, judging: Judging) -> None:
    for ticket_id, ticket in judging.tickets.items():
        offers = [judging.facts[place] for place in ticket.offers if judging.verdicts[place]]
        if not offers:
            continue
        standing = TicketStanding(offers, revoked=judging.is_revoked(ticket_id))
        standing.admissions = [judging.facts[place] for place in ticket.admissions if judging.verdicts[place]]
        standing.holders = tuple(judging.holders(ticket, standing.uses))
        roster.tickets[ticket_id] = standing


def _note_former(roster: Roster, facts: tuple[Fact, ...], judging: Judging) -> None:
    """Find who was admitted and does not belong, to be able to say why."""
    for place in members_of(judging.roles.valid):
        fact = facts[place]
        match fact.body:
            case Removed(member=member, reason=reason, removed_s=at_s) if judging.roles.knows(member):
                name = member_claim(roster, member)
                left = _author_member(roster, fact) == member
                said = (
                    f"{name} left the group" if left else f"{_by(roster, fact)} removed {name} from the group"
                )
                former = Former("left" if left else "removed", name, _with(said, reason), at_s)
                roster.former_members.setdefault(member, former)
                for node in judging.roles.nodes_of(member):
                    computer = node_claim(roster, (node, member))
                    roster.former_nodes.setdefault(node, msgspec.structs.replace(former, name=computer))
            case Retired(node=node, reason=reason, retired_s=at_s):
                belonging = judging.roles.first_belonging(node)
                if belonging is None:
                    continue
                name = node_claim(roster, belonging)
                left = fact.author == node
                said = f"{name} left the group" if left else f"{_by(roster, fact)} retired {name}"
                former = Former("left" if left else "retired", name, _with(said, reason), at_s)
                roster.former_nodes.setdefault(node, former)
            case _:
                pass
    for place, fact in enumerate(facts):
        if isinstance(fact.body, Admitted) and not judging.verdicts[place]:
            node = fact.body.claim.node
            if node not in roster.nodes:
                refused = _refused(roster, fact.body, judging)
                if refused is not None:
                    roster.former_nodes.setdefault(node, refused)


def _refused(roster: Roster, admitted: Admitted, judging: Judging) -> Former | None:
    """Why an admission is void, if its ticket was not."""
    claim = admitted.claim
    standing = roster.tickets.get((claim.author, claim.ticket))
    if standing is None:
        known = judging.roles.first_belonging(claim.author) is not None
        return Former("ticket_void", claim.node_name, _VOID_TICKET) if known else None
    if standing.holders and claim.node not in standing.holders and len(standing.holders) >= standing.uses:
        others = ", ".join(holder.hex()[:10] for holder in standing.holders)
        text = f"Its ticket was used too often, and the member who invited gave it to node {others}."
        return Former("ticket_raced", claim.node_name, f"{text} Ask for a new ticket.")
    if standing.revoked:
        return Former("ticket_revoked", claim.node_name, "Its ticket was revoked. Ask for a new ticket.")
    return Former("ticket_void", claim.node_name, _VOID_TICKET)


def _author_member(roster: Roster, fact: Fact) -> MemberId | None:
    belonging = roster.roles.first_belonging(fact.author) if roster.roles else None
    return belonging[1] if belonging else None


def _by(roster: Roster, fact: Fact) -> str:
    member = _author_member(roster, fact)
    assert member is not None
    info = roster.members.get(member)
    return info.name if info is not None else member_claim(roster, member)


def _with(text: str, reason: str) -> str:
    return f"{text}: {reason.rstrip('.')}." if reason else f"{text}."


def _claimed(fact: Fact) -> NodeId:
    assert isinstance(fact.body, Admitted)
    return fact.body.claim.node


def _unique(name: str, owner: bytes, taken: Mapping[str, bytes]) -> str:
    """`name`, or with a suffix from the owner's id when an elder has it. Ids differ, so this ends."""
    digits = SUFFIX_HEX
    shown = name
    while shown in taken:
        suffix = owner.hex()[:digits]
        shown = f"{name[: NAME_CHARS_MAX - len(suffix) - 1].rstrip('-')}-{suffix}"
        digits += SUFFIX_HEX
    return shown
