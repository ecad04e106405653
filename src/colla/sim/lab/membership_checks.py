"""What a world of `membership_world` must have kept to, looked at when all hold the same records."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from colla.model.ids import NodeId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, Record
from colla.protocol.membership.bodies import Founding, Removed, Retired
from colla.protocol.membership.facts import Fact, in_order, members_of, read_fact
from colla.protocol.membership.judging import Judging
from colla.protocol.membership.membership import Membership
from colla.protocol.records.summary import log_name
from colla.protocol.views import Role
from colla.sim.lab.membership_twin import verdicts
from colla.sim.lab.membership_world import Case, MembershipWorld

FACTS_FOR_TWIN_MAX = 60
"""The twin takes the cube of that."""
ORDERS = 3


class Findings(msgspec.Struct, frozen=True):
    """What came of a world. `problems` is empty when all promises were kept."""

    seed: int
    nodes: int
    records: int
    acts: int
    void: int
    """Membership records that do not count in the end."""
    ended: int
    """Computers whose records count up to some number only."""
    partitions: int
    twin: bool
    problems: tuple[str, ...]


def run(case: Case) -> Findings:
    """Play one world and check it."""
    world = MembershipWorld(case)
    world.play()
    world.meet_all()
    return check(world)


def check(world: MembershipWorld) -> Findings:
    """Look whether all promises were kept."""
    book, membership = world.people[0].found.book, world.people[0].membership
    records = book.all_records(TOPIC_MEMBERSHIP)
    everything = (*records, *book.all_records(TOPIC_CATALOGUE))
    facts = in_order(fact for one in records if (fact := read_fact(world.group, one)) is not None)
    judging = Judging(facts)
    judging.judge_all()
    twin = world.case.twin and len(facts) <= FACTS_FOR_TWIN_MAX
    problems = [
        *world.problems,
        *_all_see_the_same(world, records, everything),
        *_order_does_not_matter(world, judging),
        *(_twin_agrees(judging) if twin else ()),
        *_administrator_is_there(membership),
        *_nothing_counts_beyond(judging, membership, everything),
        *_removers_say_what_they_saw(world, judging),
        *_tickets_are_held_once(membership),
    ]
    ends = _ends(judging, membership)
    return Findings(
        world.case.seed,
        len(world.people),
        len(everything),
        sum(fact.is_act for fact in facts),
        sum(not one for one in judging.verdicts),
        len(ends),
        world.partitions,
        twin,
        tuple(problems),
    )


def what_one_sees(membership: Membership, records: Sequence[Record]) -> object:
    """All that others ask of a membership."""
    tickets = [
        (author, ticket, standing.admitted, standing.holders)
        for author, ticket, standing in membership.tickets()
    ]
    return (
        membership.members(),
        membership.nodes(),
        membership.former_members(),
        membership.void_authors(),
        membership.valid_acts(),
        membership.heir,
        [membership.writer(record) for record in records],
        tickets,
    )


class _Held:
    """Records in the order in which they came."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def all_records(self, topic: str) -> tuple[Record, ...]:
        return tuple(self.records)


def _all_see_the_same(
    world: MembershipWorld, records: Sequence[Record], everything: Sequence[Record]
) -> list[str]:
    """Every node, and newcomers who got the records in some order and looked now and then."""
    views = {person.name: what_one_sees(person.membership, everything) for person in world.people}
    for number in range(ORDERS):
        order = list(records)
        Random(f"{world.case.seed}/{number}").shuffle(order)
        held = _Held()
        newcomer = Membership(world.group, held)
        for count, record in enumerate(order):
            held.records.append(record)
            if count % 7 == number:
                newcomer.refresh()
        newcomer.refresh()
        views[f"order {number}"] = what_one_sees(newcomer, everything)
    odd = [name for name, view in views.items() if view != views["n0"]]
    return [f"who belongs differs at {', '.join(odd)}"] if odd else []


def _by_digest(judging: Judging) -> dict[bytes, bool | None]:
    return dict(zip((fact.record.digest for fact in judging.facts), judging.verdicts, strict=True))


def _order_does_not_matter(world: MembershipWorld, judging: Judging) -> list[str]:
    mixed = list(judging.facts)
    Random(world.case.seed).shuffle(mixed)
    again = Judging(mixed)
    again.judge_all()
    same = _by_digest(again) == _by_digest(judging)
    return [] if same else ["the verdicts depend on the order of the work"]


def _twin_agrees(judging: Judging) -> list[str]:
    other = verdicts(judging.facts)
    return [
        f"the twin judges {one.hex()[:8]} to be {other[one]}"
        for one, verdict in _by_digest(judging).items()
        if verdict != other[one]
    ]


def _administrator_is_there(membership: Membership) -> list[str]:
    here = {info.member for info in membership.nodes()}
    ruling = any(one.role == Role.ADMINISTRATOR and one.id in here for one in membership.members())
    return ["there is no administrator"] if here and not ruling else []


def _ends(judging: Judging, membership: Membership) -> dict[NodeId, list[dict[bytes, int]]]:
    """For each computer that is out what those who removed it had seen of its logs."""
    ends: dict[NodeId, list[dict[bytes, int]]] = {}
    for place, fact in enumerate(judging.facts):
        if judging.verdicts[place] and isinstance(fact.body, Removed | Retired):
            of_member = isinstance(fact.body, Removed)
            gone = membership.nodes_of(fact.body.member) if isinstance(fact.body, Removed) else ()
            for node in gone if of_member else (fact.body.node,):  # type: ignore[union-attr]
                ends.setdefault(node, []).append(judging.through[place])
    return ends


def _removers_say_what_they_saw(world: MembershipWorld, judging: Judging) -> list[str]:
    """An honest act ends a log where its author's disk ended, or at a later act that somebody else's act told it of."""
    problems = []
    places = {fact.record.digest: place for place, fact in enumerate(judging.facts)}
    for act, held in world.ended:
        place = places[act]
        told: dict[bytes, int] = {}
        for known in members_of(judging.lineage.known_to(place)):
            fact = judging.facts[known]
            told[fact.log] = max(fact.number, told.get(fact.log, 0))
        for log, number in held.items():
            if judging.through[place].get(log, 0) != max(number, told.get(log, 0)):
                problems.append(f"an act ends a log at {judging.through[place].get(log, 0)}, not at {number}")
    return problems


def _nothing_counts_beyond(
    judging: Judging, membership: Membership, everything: Sequence[Record]
) -> list[str]:
    """Records of who is out count exactly up to what all who removed it had seen."""
    problems = []
    ends = _ends(judging, membership)
    facts = {fact.record.digest: fact for fact in judging.facts}
    by_digest = _by_digest(judging)
    for record in everything:
        limits = ends.get(record.log.node)
        if limits is None:
            continue
        name = log_name(record.log)
        allowed = min(limit.get(name, 0) for limit in limits)
        counts = membership.writer(record) is not None
        if counts != (record.number <= allowed):
            problems.append(f"number {record.number} of a log that ended at {allowed}: counts is {counts}")
        fact = facts.get(record.digest)
        beyond = bool(by_digest.get(record.digest)) and record.number > allowed
        if fact is not None and beyond and not _is_last_word(fact, membership):
            problems.append(f"number {record.number} of a log that ended at {allowed} is valid")
    problems += ["a removed computer belongs" for node in ends if membership.node(node) is not None]
    return problems


def _is_last_word(fact: Fact, membership: Membership) -> bool:
    """Who leaves says so beyond all that it had said before; and the founding stands on nobody's authority."""
    match fact.body:
        case Removed(member=member):
            return fact.author in membership.nodes_of(member)
        case Retired(node=node):
            return fact.author == node
        case body:
            return isinstance(body, Founding)


def _tickets_are_held_once(membership: Membership) -> list[str]:
    """A ticket whose author is here, and so has settled it, has as many holders here as uses, at most."""
    problems = []
    for author, _, standing in membership.tickets():
        here = [node for node in standing.admitted if membership.node(node) is not None]
        if membership.node(author) is not None and len(here) > standing.uses:
            problems.append(f"a ticket for {standing.uses} has {len(here)} holders")
    return problems
