"""The membership as this node knows it: the view that all mechanisms read, and the proof of who belongs.

The one writer of `MembershipView`. Decoding and judging a record's signatures is done once per record; resolving
is repeated whenever the set of records changed (`refresh`), and is a pure function of that set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from colla.model.ids import GroupId, MemberId, NodeId, digest
from colla.model.record import TOPIC_MEMBERSHIP, Log, Record
from colla.protocol.membership.bodies import Removed, Retired, TicketKey
from colla.protocol.membership.facts import Fact, read_fact
from colla.protocol.membership.proofs import proof
from colla.protocol.membership.resolver import Former, Roster, TicketStanding, resolve
from colla.protocol.records.quarantine import NO_QUARANTINE, Quarantine
from colla.protocol.views import Election, MemberInfo, NodeInfo, Role, Writer

FINGERPRINT_BYTES = 8
ROSTERS_MAX = 64
"""Of those that simulated nodes share; then all are forgotten at once."""


class HeldRecords(Protocol):
    """What membership reads of the record book."""

    def all_records(self, topic: str) -> tuple[Record, ...]: ...


class Membership:
    """Implements `views.MembershipView`. Call `refresh` after records of the membership topic changed."""

    def __init__(self, group: GroupId, records: HeldRecords, quarantine: Quarantine = NO_QUARANTINE) -> None:
        self.group = group
        self._quarantine = quarantine
        self._records = records
        self._facts: dict[bytes, Fact | None] = {}
        self._held: tuple[bytes, ...] = ()
        self._fingerprint = b""
        self._roster = Roster()
        self.rosters: dict[bytes, Roster] | None = None
        """Where simulations keep what other nodes of the process have resolved, by what they held."""
        self._nodes: tuple[NodeInfo, ...] = ()
        self._members: tuple[MemberInfo, ...] = ()
        self._unsettled: dict[NodeId, tuple[tuple[TicketKey, NodeId], ...]] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Resolve anew if the records changed; True when who belongs, or how they are called, changed."""
        records = self._records.all_records(TOPIC_MEMBERSHIP)
        held = tuple(record.digest for record in records)
        if held == self._held and self._fingerprint:
            return False
        self._held = held
        self._fingerprint = digest(b"".join(sorted(held)))[:FINGERPRINT_BYTES]
        facts = {record.digest: self._fact(record) for record in records}
        self._facts = facts
        # Should judging fail, who belonged before belongs on.
        roster = self._quarantine.read(
            "the membership", self.group, lambda: self._resolve(facts), self._roster
        )
        changed = _essence(roster) != _essence(self._roster)
        self._roster = roster
        self._unsettled = {}
        self._nodes = tuple(sorted(roster.nodes.values(), key=lambda node: node.id))
        self._members = tuple(sorted(roster.members.values(), key=lambda member: member.id))
        return changed

    # The view.

    @property
    def group_name(self) -> str:
        """Empty while the founding record is not here (a node that is joining)."""
        return self._roster.founding.group_name if self._roster.founding else ""

    @property
    def election(self) -> Election:
        return self._roster.election

    def members(self) -> tuple[MemberInfo, ...]:
        return self._members

    def nodes(self) -> tuple[NodeInfo, ...]:
        return self._nodes

    def member(self, member: MemberId) -> MemberInfo | None:
        return self._roster.members.get(member)

    def node(self, node: NodeId) -> NodeInfo | None:
        return self._roster.nodes.get(node)

    def owner_of(self, node: NodeId) -> MemberId | None:
        info = self._roster.nodes.get(node)
        return info.member if info else None

    # What counts.

    def through(self, log: Log) -> int | None:
        """Up to which number the records of this log count: None for all, 0 for none.

        None of them counts when the author is no member's node (yet), or lost a raced ticket; of a node or a member
        that is out only what whoever removed it had seen.
        """
        return self._roster.through(log)

    def writer(self, record: Record) -> Writer | None:
        """Whose word a record is, with the role that the member had there; None when it does not count."""
        return self._roster.writer(record)

    def knew(self, node: NodeId) -> bool:
        """Whether the node belongs, or belonged once."""
        return self._roster.roles is not None and self._roster.roles.first_belonging(node) is not None

    def has_room(self, node: NodeId, computers_max: int) -> bool:
        """Whether records of the node are kept as a member's: it belongs, or belonged once, to one who has not too many."""
        roles = self._roster.roles
        belonging = roles.first_belonging(node) if roles is not None else None
        return roles is not None and belonging is not None and roles.is_among_eldest(belonging, computers_max)

    def void_authors(self) -> tuple[NodeId, ...]:
        """Nodes that were admitted and do not belong (any more). Sorted."""
        return tuple(sorted(self._roster.former_nodes))

    def former(self, node: NodeId) -> Former | None:
        """Why this node does not belong although it was admitted; None when it was not, or belongs."""
        return self._roster.former_nodes.get(node)

    def former_member(self, member: MemberId) -> Former | None:
        """Why this member does not belong any more; None when it never did, or does."""
        return self._roster.former_members.get(member)

    def former_members(self) -> tuple[tuple[MemberId, Former], ...]:
        """Who was removed or left, sorted by id."""
        return tuple(sorted(self._roster.former_members.items()))

    def nodes_of(self, member: MemberId) -> tuple[NodeId, ...]:
        """All nodes that are or ever were the member's, eldest first."""
        roles = self._roster.roles
        return tuple(roles.nodes_of(member)) if roles is not None and roles.knows(member) else ()

    def nodes_beside(self, node: NodeId) -> tuple[NodeId, ...]:
        """All nodes that are or ever were of the same member, this one included, also when it belongs to nobody."""
        belonging = self._roster.roles.first_belonging(node) if self._roster.roles is not None else None
        return (node,) if belonging is None else self.nodes_of(belonging[1])

    # For who writes membership records.

    @property
    def heir(self) -> MemberId | None:
        """Who is administrator only because nobody is appointed."""
        return self._roster.heir

    def heads(self) -> tuple[bytes, ...]:
        """The newest acts known here: the causal past of what this node writes next."""
        return self._roster.heads

    def acts(self) -> tuple[Fact, ...]:
        """All acts held, valid or not."""
        return self._roster.acts

    def valid_acts(self) -> tuple[bytes, ...]:
        """The digests of the records of the acts that count, in a fixed order."""
        return self._roster.valid_acts

    def revision(self, subject: bytes) -> int:
        """The greatest revision of a name of the member or node."""
        return self._roster.renamings.get(subject, 0)

    def role(self, member: MemberId) -> Role | None:
        """The member's role now; None for who is none."""
        info = self._roster.members.get(member)
        return Role(info.role) if info is not None else None

    # Tickets and proofs, for `Admission`.

    def fingerprint(self) -> bytes:
        """Eight bytes that are equal on nodes which hold the same membership records."""
        return self._fingerprint

    def ticket(self, author: NodeId, ticket: TicketKey) -> TicketStanding | None:
        """The ticket, when it was its author's to make."""
        return self._roster.tickets.get((author, ticket))

    def tickets(self) -> tuple[tuple[NodeId, TicketKey, TicketStanding], ...]:
        """All tickets, sorted by author and key."""
        return tuple((*ticket, standing) for ticket, standing in sorted(self._roster.tickets.items()))

    def unsettled(self, author: NodeId) -> tuple[tuple[TicketKey, NodeId], ...]:
        """Tickets of `author` that others admitted somebody with, and who came next as far as is known."""
        known = self._unsettled.get(author)
        if known is None:
            # Asked after every session; it follows from the roster alone.
            known = self._unsettled[author] = self._look_for_unsettled(author)
        return known

    def _look_for_unsettled(self, author: NodeId) -> tuple[tuple[TicketKey, NodeId], ...]:
        waiting: list[tuple[TicketKey, NodeId]] = []
        for (writer, ticket), standing in self._roster.tickets.items():
            if writer != author or author not in self._roster.nodes:
                continue
            free = standing.uses - len(standing.holders)
            unnamed = [
                node
                for node in standing.admitted
                if node in self._roster.nodes and node not in standing.holders
            ]
            waiting += [(ticket, node) for node in unnamed[: max(free, 0)]]
        return tuple(sorted(waiting))

    def proof_of(self, *nodes: NodeId) -> tuple[Record, ...]:
        """The records by which these nodes belong, each after those it stands on: founding record first."""
        return self._enough(proof(self._roster, nodes), nodes, belong=True)

    def proof_against(self, node: NodeId) -> tuple[Record, ...]:
        """The records by which this node does not belong any more, with those that they stand on; none if it does."""
        belonging = self._roster.roles.first_belonging(node) if self._roster.roles else None
        if belonging is None or node in self._roster.nodes:
            return ()
        member = belonging[1]
        ends = [
            place
            for place, fact in enumerate(self._roster.facts)
            if (isinstance(fact.body, Removed) and fact.body.member == member)
            or (isinstance(fact.body, Retired) and fact.body.node == node)
        ]
        return self._enough(proof(self._roster, (node,), ends), (node,), belong=False) if ends else ()

    def suppose(self, more: Iterable[Record]) -> Roster:
        """Who would belong if these records were held as well. Changes nothing."""
        facts = dict(self._facts)
        for record in more:
            if record.digest not in facts:
                facts[record.digest] = self._fact(record)
        return resolve(fact for fact in facts.values() if fact is not None)

    def _resolve(self, facts: dict[bytes, Fact | None]) -> Roster:
        key = digest(b"".join(sorted(facts))) if self.rosters is not None else b""
        if self.rosters is None or key not in self.rosters:
            roster = resolve(fact for fact in facts.values() if fact is not None)
            if self.rosters is None:
                return roster
            if len(self.rosters) >= ROSTERS_MAX:
                self.rosters.clear()
            self.rosters[key] = roster
        return self.rosters[key]

    def _enough(
        self, records: tuple[Record, ...], nodes: Sequence[NodeId], *, belong: bool
    ) -> tuple[Record, ...]:
        """These records, or everything when they would be judged otherwise by somebody who has nothing else.

        What made an act void may be no part of a chain; so where acts contradict each other a chain may prove too little.
        """
        if not self._roster.acts:
            return records
        alone = resolve(fact for record in records if (fact := self._fact(record)) is not None)
        if all((node in alone.nodes) == belong for node in nodes):
            return records
        return tuple(fact.record for fact in self._roster.facts)

    def _fact(self, record: Record) -> Fact | None:
        if record.digest in self._facts:
            return self._facts[record.digest]
        return self._quarantine.read(
            "the membership fact", record.digest, lambda: read_fact(self.group, record), None
        )


def _essence(roster: Roster) -> tuple[object, ...]:
    """What others look at: when it changes they have to look again."""
    return (roster.nodes, roster.members, roster.former_nodes, roster.former_members, roster.valid_acts)
