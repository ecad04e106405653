"""The membership as this node knows it: the view that all mechanisms read, and the proof of who belongs.

The one writer of `MembershipView`. Decoding and judging a record's signatures is done once per record; resolving
is repeated whenever the set of records changed (`refresh`), and is a pure function of that set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from colla.model.ids import GroupId, MemberId, NodeId, digest
from colla.model.record import TOPIC_MEMBERSHIP, Log, Record
from colla.protocol.membership.bodies import Admitted, TicketKey
from colla.protocol.membership.resolver import (
    Belonging,
    Fact,
    Roster,
    TicketStanding,
    read_fact,
    resolve,
)
from colla.protocol.views import Election, MemberInfo, NodeInfo

FINGERPRINT_BYTES = 8


class HeldRecords(Protocol):
    """What membership reads of the record book."""

    def all_records(self, topic: str) -> tuple[Record, ...]: ...


class Membership:
    """Implements `views.MembershipView`. Call `refresh` after records of the membership topic changed."""

    def __init__(self, group: GroupId, records: HeldRecords) -> None:
        self.group = group
        self._records = records
        self._facts: dict[bytes, Fact | None] = {}
        self._held: tuple[bytes, ...] = ()
        self._fingerprint = b""
        self._roster = Roster()
        self._nodes: tuple[NodeInfo, ...] = ()
        self._members: tuple[MemberInfo, ...] = ()
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
        roster = resolve(fact for fact in facts.values() if fact is not None)
        changed = (roster.nodes, roster.members, roster.outraced) != (
            self._roster.nodes,
            self._roster.members,
            self._roster.outraced,
        )
        self._roster = roster
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

        None of them counts when the author is no member's node (yet), or lost a raced ticket.
        """
        return None if log.node in self._roster.nodes else 0

    def void_authors(self) -> tuple[NodeId, ...]:
        """Nodes whose records are void since another holds the ticket that they came with. Sorted."""
        return tuple(sorted(self._roster.outraced))

    def why_void(self, node: NodeId) -> str | None:
        """Why this node does not belong although it was admitted, for people; None when it was not."""
        holder = self._roster.outraced.get(node)
        if holder is None:
            return None
        return f"Its ticket was used twice, and the member who invited gave it to node {holder.hex()[:10]}."

    # Tickets and proofs, for `Admission`.

    def fingerprint(self) -> bytes:
        """Eight bytes that are equal on nodes which hold the same membership records."""
        return self._fingerprint

    def ticket(self, author: NodeId, ticket: TicketKey) -> TicketStanding | None:
        """The ticket, when its author is a member's node."""
        if author not in self._roster.nodes:
            return None
        return self._roster.tickets.get((author, ticket))

    def unsettled(self, author: NodeId) -> tuple[tuple[TicketKey, NodeId], ...]:
        """Tickets of `author` that others admitted somebody with, and who came first as far as is known."""
        waiting: list[tuple[TicketKey, NodeId]] = []
        for (writer, ticket), standing in self._roster.tickets.items():
            if writer != author or standing.holder is not None:
                continue
            belonging = [fact for fact in standing.admissions if _admitted_node(fact) in self._roster.nodes]
            if belonging:
                first = min(belonging, key=lambda fact: (fact.record.stamp, fact.record.digest))
                waiting.append((ticket, _admitted_node(first)))
        return tuple(sorted(waiting))

    def proof_of(self, *nodes: NodeId) -> tuple[Record, ...]:
        """The records by which these nodes belong, each after those it stands on: founding record first."""
        return proof(self._roster, nodes)

    def suppose(self, more: Iterable[Record]) -> Roster:
        """Who would belong if these records were held as well. Changes nothing."""
        facts = dict(self._facts)
        for record in more:
            if record.digest not in facts:
                facts[record.digest] = self._fact(record)
        return resolve(fact for fact in facts.values() if fact is not None)

    def _fact(self, record: Record) -> Fact | None:
        if record.digest in self._facts:
            return self._facts[record.digest]
        return read_fact(self.group, record)


def proof(roster: Roster, nodes: Sequence[NodeId]) -> tuple[Record, ...]:
    """See `Membership.proof_of`. The chain of trust has no cycles, since every depth stands on smaller ones."""
    found: dict[bytes, Record] = {}
    reached: dict[Belonging, int] = {}
    open_ends = [belonging for node in nodes if (belonging := _belonging(roster, node)) is not None]
    while open_ends:
        belonging = open_ends.pop()
        if belonging not in reached:
            ground = roster.grounds[belonging]
            reached[belonging] = ground.depth
            open_ends.extend(ground.parents)
    for belonging in sorted(reached, key=lambda one: (reached[one], one)):
        for record in roster.grounds[belonging].records:
            found.setdefault(record.digest, record)
    return tuple(found.values())


def _belonging(roster: Roster, node: NodeId) -> Belonging | None:
    info = roster.nodes.get(node)
    return (node, info.member) if info else None


def _admitted_node(fact: Fact) -> NodeId:
    assert isinstance(fact.body, Admitted)
    return fact.body.claim.node
