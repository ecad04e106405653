"""Membership records as facts: decoded, with their own signatures judged, and who knew of whom when it was written.

Acts (see `bodies.Act`) name the digests of the newest acts that their author knew. Digests make no circles, so the acts are
a graph without circles whatever anybody writes; an act that is named and not held is passed over until it arrives. A set
of acts is an integer with one bit for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from colla.model.ids import GroupId, NodeId, digest
from colla.model.record import Record, Stamp
from colla.protocol.membership.bodies import (
    Admitted,
    Appointed,
    Body,
    Founding,
    Heads,
    Removed,
    Renamed,
    Retired,
    Revoked,
    Settled,
    claim_holds,
    decode_body,
    founding_holds,
    is_name,
)
from colla.protocol.records.summary import log_name

ActSet = int
"""A set of acts: bit i is the i-th of all facts."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A membership record beside its decoded body, whose own signatures hold. `log` is the name of its log."""

    record: Record
    body: Body
    log: bytes

    @property
    def author(self) -> NodeId:
        return self.record.log.node

    @property
    def number(self) -> int:
        return self.record.number

    @property
    def past(self) -> Heads:
        """The acts that the author names as known."""
        return () if isinstance(self.body, Founding | Settled) else self.body.past

    @property
    def is_act(self) -> bool:
        return isinstance(self.body, Appointed | Removed | Retired | Revoked)

    @property
    def order(self) -> tuple[Stamp, bytes, int, bytes]:
        """A total order in which most facts come after what they stand on. Decides nothing."""
        return (self.record.stamp, self.log, self.number, self.record.digest)


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
        case Renamed(name=name) if not is_name(name):
            return None
        case _:
            return Fact(record, body, log_name(record.log))


class Lineage:
    """Which acts the author of each fact knew, directly or through others that knew them."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._places = {fact.record.digest: place for place, fact in enumerate(facts) if fact.is_act}
        self._facts = facts
        self._known: list[ActSet | None] = [None] * len(facts)
        for place in range(len(facts)):
            self._trace(place)

    def known_to(self, place: int) -> ActSet:
        """The acts in the causal past of that fact."""
        known = self._known[place]
        assert known is not None
        return known

    def heads(self) -> tuple[bytes, ...]:
        """The digests of the acts that no other act knew, sorted."""
        covered: ActSet = 0
        for place in self._places.values():
            covered |= self.known_to(place)
        return tuple(sorted(one for one, place in self._places.items() if not covered >> place & 1))

    def _trace(self, start: int) -> None:
        # Depth first without recursion: a chain of acts may be longer than Python's stack.
        stack = [start]
        while stack:
            place = stack[-1]
            if self._known[place] is not None:
                stack.pop()
                continue
            named = [self._places[one] for one in self._facts[place].past if one in self._places]
            open_ones = [one for one in named if self._known[one] is None]
            if open_ones:
                stack += open_ones
                continue
            known: ActSet = 0
            for one in named:
                known |= self.known_to(one) | 1 << one
            self._known[place] = known
            stack.pop()


def members_of(acts: ActSet) -> Iterator[int]:
    """The places in a set of acts, ascending."""
    while acts:
        lowest = acts & -acts
        yield lowest.bit_length() - 1
        acts ^= lowest


def in_order(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts without repetitions, in their total order."""
    return tuple(sorted({fact.record.digest: fact for fact in facts}.values(), key=lambda fact: fact.order))
