"""Chains of records that prove who belongs, and how they travel between nodes that do not trust each other yet: paged,
bounded, verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colla.kernel.config import MembershipConfig
from colla.model.ids import GroupId, NodeId
from colla.model.record import Record, SignedRecord, open_record
from colla.protocol.membership.bodies import check_record
from colla.protocol.membership.facts import ActSet, members_of
from colla.protocol.membership.grounds import Belonging
from colla.protocol.membership.resolver import Roster


def pages(
    records: Sequence[Record], config: MembershipConfig
) -> Iterator[tuple[tuple[SignedRecord, ...], bool]]:
    """The records in pages, each with whether it is the last; there is always a last one."""
    page: list[SignedRecord] = []
    size = 0
    for record in records:
        full = len(page) >= config.proof_page_records_max
        if page and (full or size + record.size > config.proof_page_bytes_max):
            yield tuple(page), False
            page, size = [], 0
        page.append(record.signed)
        size += record.size
    yield tuple(page), True


class Collector:
    """Takes the pages of one chain; refuses what is too long before it verifies anything."""

    def __init__(self, group: GroupId, config: MembershipConfig) -> None:
        self._group = group
        self._config = config
        self._bytes = 0
        self.records: list[Record] = []

    def add(self, page: Sequence[SignedRecord]) -> str:
        """Verify a page and keep it. Returns "", or the code of what is wrong with it."""
        self._bytes += sum(len(signed.payload) + len(signed.signature) for signed in page)
        too_many = len(page) > self._config.proof_page_records_max
        if too_many or self._bytes > self._config.proof_bytes_max:
            return "proof_too_long"
        for signed in page:
            try:
                record = open_record(self._group, signed)
                check_record(record)
            except ValueError:
                return "bad_proof"
            self.records.append(record)
        return ""


def proof(roster: Roster, nodes: Sequence[NodeId], ends: Sequence[int] = ()) -> tuple[Record, ...]:
    """The records by which these nodes belong, or belonged, each after those it stands on, founding record first.

    `ends` are the places of further acts to prove. The acts in the past of what proves something are part of it, with the
    chains of their authors. The chain of trust has no cycles, since every depth stands on smaller ones.
    """
    if roster.roles is None or roster.lineage is None:
        return ()
    roles, lineage, facts = roster.roles, roster.lineage, roster.facts
    places = {fact.record.digest: place for place, fact in enumerate(facts)}
    reached: dict[Belonging, None] = {}
    acts: ActSet = 0
    open_ends = [roles.first_belonging(node) for node in nodes]

    def with_past(place: int) -> ActSet:
        past = lineage.known_to(place)
        return past | 1 << place if facts[place].is_act else past

    waiting: ActSet = 0
    for place in ends:
        waiting |= with_past(place)
    while open_ends or waiting:
        for place in members_of(waiting):
            open_ends.append(roles.first_belonging(facts[place].author))
        acts |= waiting
        waiting = 0
        belonging = open_ends.pop()
        if belonging is None or belonging in reached:
            continue
        ground = roster.grounds[belonging]
        reached[belonging] = None
        open_ends += ground.parents
        if ground.role is None:
            # A further computer: what its member is stands elsewhere.
            open_ends += roles.came_with(belonging[1])
        for fact in ground.facts:
            waiting |= with_past(places[fact.record.digest]) & ~acts
    found: dict[bytes, Record] = {}
    for belonging in sorted(reached, key=lambda one: (roster.grounds[one].depth, one)):
        for fact in roster.grounds[belonging].facts:
            found.setdefault(fact.record.digest, fact.record)
    for place in members_of(acts):
        found.setdefault(facts[place].record.digest, facts[place].record)
    return tuple(found.values())
