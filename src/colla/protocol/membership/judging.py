"""Which membership records are valid: a pure function of the set of them, in whatever order they came.

A fact *stands on* others: on what makes its author a member and on the acts in its causal past that give the role it
needs. An act may *strike* facts: a removal strikes what the removed member's authority carries and its author had
not seen, a retirement likewise for one computer, an appointment to a lesser role what needs the greater one, a revocation
the uses of a ticket. So removal beats what is concurrent to it. A fact is valid when all that it stands on is valid and
all that strikes it is void; void when something valid strikes it or nothing valid carries it. What these two rules decide
does not depend on the order in which they are applied (it is the grounded extension of an argumentation framework: Dung, 1995).

They leave open only knots, such as two administrators who remove each other. A knot that waits for no other is cut by
seniority: of its facts that would be valid if what they wait for did not exist, the most senior author's is valid, and what
strikes it is void. An admission waits until it is known whom else its ticket's author named. Knots of mere liars, whose records carry only each other, are void.

Whoever is administrator is told by the acts in the fact's own past; if these leave none, the most senior member is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, assert_never

from colla.model.ids import MemberId, NodeId
from colla.protocol.membership.bodies import (
    Admitted,
    Appointed,
    Founding,
    Removed,
    Renamed,
    Retired,
    Revoked,
    Settled,
    Ticket,
)
from colla.protocol.membership.facts import ActSet, Fact, Lineage, members_of
from colla.protocol.membership.grounds import (
    Belonging,
    Ground,
    Seniority,
    TicketFacts,
    TicketId,
    covers,
    role_to_invite,
)
from colla.protocol.membership.roles import Roles
from colla.protocol.views import Role


class Need(NamedTuple):
    """A node whose member must have at least that role, as far as the acts in `past` tell."""

    node: NodeId
    member: MemberId
    role: Role
    past: ActSet


class _Open(Exception):
    """The fact cannot be judged before `waits` are."""

    def __init__(self, waits: Sequence[int] = ()) -> None:
        self.waits = list(waits)


class _Void(Exception):
    """Nothing valid carries the fact."""


class Judging:
    """Judges all facts at once. `verdicts` has one for each when `judge_all` is done."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.lineage = Lineage(facts)
        self.verdicts: list[bool | None] = [None] * len(facts)
        self.roles = Roles(facts, self.lineage)
        self.tickets: dict[TicketId, TicketFacts] = {}
        self._admissions: dict[NodeId, list[int]] = {}
        self._persons: dict[MemberId, list[int]] = {}
        """What makes nodes and persons belong: admissions, and the founding. Facts of theirs wait for it."""
        self._removed: dict[MemberId, list[int]] = {}
        self._appointed: dict[MemberId, list[int]] = {}
        self._retired: dict[NodeId, list[int]] = {}
        self._revoked: dict[TicketId, list[int]] = {}
        self.through: dict[int, dict[bytes, int]] = {}
        """Of each act that ends or changes what logs count: up to where its author had seen them, by their names."""
        self._kept: dict[int, frozenset[bytes]] = {}
        self._ignored: dict[int, None] | None = None
        """While a fact is judged on supposition: what is taken as if it were not there."""
        for place, fact in enumerate(facts):
            self._index(place, fact)
        for ticket in self.tickets.values():
            self._order_settlements(ticket)

    def judge_all(self) -> None:
        """Reach a verdict on every fact."""
        while True:
            self._apply_rules()
            open_ones = [place for place, one in enumerate(self.verdicts) if one is None]
            if not open_ones:
                return
            waits: dict[int, dict[int, None]] = {}
            if_free: dict[int, bool] = {}
            for place in open_ones:
                if_free[place], waits[place] = self._suppose(place)
            alone = [place for place in open_ones if not waits[place]]
            for place in alone:
                # It waited for nothing but the question whether there is an administrator in its past.
                self._decide(place, if_free[place])
            if not alone:
                self._cut(_knot(waits), if_free)

    def strikers(self, place: int, needs: Sequence[Need]) -> Iterator[int]:
        """The acts that strike this fact, valid or not."""
        fact, known = self.facts[place], self.lineage.known_to(place)
        for need in needs:
            acts = [*self._removed.get(need.member, ()), *self._retired.get(need.node, ())]
            for act in self._appointed.get(need.member, ()):
                body = self.facts[act].body
                assert isinstance(body, Appointed)
                if body.role.rank < need.role.rank and not known >> act & 1:
                    acts.append(act)
            yield from (act for act in acts if act != place and not self._had_seen(act, place))
        if isinstance(fact.body, Admitted):
            claim = fact.body.claim
            acts = self._revoked.get((claim.author, claim.ticket), [])
            yield from (act for act in acts if not self._had_seen(act, place))

    def holders(self, ticket: TicketFacts, uses: int, before: int | None = None) -> list[NodeId]:
        """The nodes that the ticket's author named, up to `uses`; `before`: only by what counts before that fact.

        Raises `_Open` while one of the facts that name them is not judged.
        """
        counting = ticket.settlements
        if before in counting:
            counting = counting[: counting.index(before)]
        self._wait(place for place in counting if self.verdicts[place] is None)
        named = [_named(self.facts[place]) for place in counting if self.verdicts[place]]
        return list(dict.fromkeys(named))[:uses]

    def is_revoked(self, ticket: TicketId) -> bool:
        """Whether a valid act revoked the ticket."""
        return any(self.verdicts[act] for act in self._revoked.get(ticket, ()))

    # Preparing.

    def _index(self, place: int, fact: Fact) -> None:
        match fact.body:
            case Founding(node=node, member=member):
                self._admissions.setdefault(node, []).append(place)
                self._persons.setdefault(member, []).append(place)
            case Ticket(ticket=ticket):
                self.tickets.setdefault((fact.author, ticket), TicketFacts()).offers.append(place)
            case Admitted(claim=claim):
                self._admissions.setdefault(claim.node, []).append(place)
                self._persons.setdefault(claim.member, []).append(place)
                standing = self.tickets.setdefault((claim.author, claim.ticket), TicketFacts())
                standing.admissions.append(place)
                if fact.author == claim.author:
                    standing.settlements.append(place)
            case Settled(ticket=ticket):
                standing = self.tickets.setdefault((fact.author, ticket), TicketFacts())
                standing.settlements.append(place)
            case Appointed(member=member):
                self._appointed.setdefault(member, []).append(place)
                self._note_seen(place, fact.body)
            case Removed(member=member):
                self._removed.setdefault(member, []).append(place)
                self._note_seen(place, fact.body)
            case Retired(node=node):
                self._retired.setdefault(node, []).append(place)
                self._note_seen(place, fact.body)
            case Revoked(author=author, ticket=ticket, kept=kept):
                self._revoked.setdefault((author, ticket), []).append(place)
                self._kept[place] = frozenset(kept)
            case Renamed():
                pass
            case _:
                assert_never(fact.body)

    def _note_seen(self, place: int, act: Appointed | Removed | Retired) -> None:
        seen = {entry.log: entry.number for entry in act.through}
        for known in members_of(self.lineage.known_to(place)):
            # Whoever knew a record had seen its log up to it, whatever else it says.
            fact = self.facts[known]
            seen[fact.log] = max(fact.number, seen.get(fact.log, 0))
        self.through[place] = seen
        self._kept[place] = frozenset(act.kept)

    def _order_settlements(self, ticket: TicketFacts) -> None:
        # The log with the ticket itself comes first; further logs of the author exist only after an accident to its disk.
        ticket.offers.sort(key=lambda place: self._log_order(place))
        home = self.facts[ticket.offers[0]].record.log if ticket.offers else None

        def rank(place: int) -> object:
            return (self.facts[place].record.log != home, *self._log_order(place))

        ticket.settlements.sort(key=rank)  # type: ignore[arg-type]

    def _log_order(self, place: int) -> tuple[object, ...]:
        record = self.facts[place].record
        return (record.log, record.number, record.digest)

    # Judging one fact.

    def _judge(self, place: int) -> tuple[bool | None, list[int]]:
        """The verdict, or None and some of what it waits for."""
        try:
            self._wait(self.roles.undecided(self.lineage.known_to(place)))
            needs = self._needs(place)
            for need in needs:
                self._check(need)
            strikers = list(self.strikers(place, needs))
            if any(self.verdicts[act] for act in strikers):
                return False, []
            self._wait(act for act in strikers if self.verdicts[act] is None)
            self._check_use(place)
        except _Open as error:
            return None, error.waits
        except _Void:
            return False, []
        return True, []

    def _suppose(self, place: int) -> tuple[bool, dict[int, None]]:
        """The verdict if all that the fact waits for did not exist, and all that it waits for."""
        waits: dict[int, None] = {}
        self._ignored = waits
        try:
            while True:
                verdict, more = self._judge(place)
                if verdict is not None:
                    return verdict, waits
                waits.update(dict.fromkeys(more))
        finally:
            self._ignored = None

    def _wait(self, places: Iterable[int]) -> None:
        """Raise `_Open` if one of these facts, which are not judged yet, is not to be ignored."""
        waits = [place for place in places if self._ignored is None or place not in self._ignored]
        if waits:
            raise _Open(waits)

    def _needs(self, place: int) -> list[Need]:
        """Whose authority the fact stands on. Raises `_Open`, `_Void`."""
        fact, past = self.facts[place], self.lineage.known_to(place)
        body = fact.body
        if isinstance(body, Founding):
            return []
        node, mine = self._belonging(fact.author)
        match body:
            case Ticket(inviter=inviter, own_computer=own_computer, member=member):
                if inviter != mine or (member and not own_computer):
                    raise _Void
                return [Need(node, mine, role_to_invite(body), past)]
            case Admitted():
                offer = self._offer(body)
                ticket = self.facts[offer].body
                assert isinstance(ticket, Ticket)
                both = past | self.lineage.known_to(offer)
                inviting = Need(body.claim.author, ticket.inviter, role_to_invite(ticket), both)
                return [Need(node, mine, Role.MEMBER, past), inviting]
            case Settled():
                return [Need(node, mine, Role.GUEST, past)]
            case Appointed(member=member, role=role):
                needed = role if member == mine else Role.ADMINISTRATOR
            case Removed(member=member):
                needed = Role.GUEST if member == mine else Role.ADMINISTRATOR
            case Retired(node=retired):
                needed = self._own_or_administrator(mine, retired)
            case Revoked(author=author):
                needed = self._own_or_administrator(mine, author)
            case Renamed(subject=subject, is_member=True):
                needed = Role.GUEST if subject == mine else Role.ADMINISTRATOR
            case Renamed(subject=subject):
                needed = self._own_or_administrator(mine, NodeId(subject))
            case _:
                assert_never(body)
        return [Need(node, mine, needed, past)]

    def _own_or_administrator(self, mine: MemberId, node: NodeId) -> Role:
        return Role.GUEST if self._belonging(node)[1] == mine else Role.ADMINISTRATOR

    def _belonging(self, node: NodeId) -> Belonging:
        """The belonging that counts of the node, should several members claim it.

        Who the node consented to need not wait for what others claim: nobody can hold a member up by claiming its computer.
        """
        found = self.roles.first_belonging(node)
        chosen = found is not None and self.roles.grounds[found].is_chosen
        self._wait(
            place
            for place in self._admissions.get(node, ())
            if self.verdicts[place] is None and (not chosen or _consents(self.facts[place]))
        )
        if found is None:
            raise _Void
        return found

    def _check(self, need: Need) -> None:
        """Raise `_Open` or `_Void` unless the need is met."""
        if self._belonging(need.node)[1] != need.member:
            raise _Void
        self._wait(place for place in self._persons.get(need.member, ()) if self.verdicts[place] is None)
        if self.roles.of(need.member, need.past).rank >= need.role.rank:
            return
        if need.role is not Role.ADMINISTRATOR or self.roles.surely_governed(need.past):
            raise _Void
        if self._ignored is None:
            raise _Open
        if self.roles.heir(need.past) != need.member:
            raise _Void

    def _offer(self, admitted: Admitted, *, wait: bool = True) -> int:
        """The valid ticket that this admission uses."""
        claim = admitted.claim
        offers = self.tickets[claim.author, claim.ticket].offers
        if wait:
            self._wait(place for place in offers if self.verdicts[place] is None)
        for place in offers:
            ticket = self.facts[place].body
            if self.verdicts[place] and isinstance(ticket, Ticket) and covers(ticket, admitted):
                return place
        raise _Void

    def _check_use(self, place: int) -> None:
        """Raise `_Void` when the ticket's author gave all its uses to others."""
        body = self.facts[place].body
        if not isinstance(body, Admitted):
            return
        standing = self.tickets[body.claim.author, body.claim.ticket]
        ticket = self.facts[self._offer(body)].body
        assert isinstance(ticket, Ticket)
        holders = self.holders(standing, ticket.uses, before=place)
        if body.claim.node not in holders and len(holders) >= ticket.uses:
            raise _Void

    def _had_seen(self, act: int, place: int) -> bool:
        """Whether the author of the act had seen the fact."""
        fact = self.facts[place]
        seen = self.through.get(act, {}).get(fact.log, 0) >= fact.number
        return seen or fact.record.digest in self._kept[act]

    # Deciding.

    def _apply_rules(self) -> None:
        """Decide all that is clear."""
        left = [place for place, verdict in enumerate(self.verdicts) if verdict is None]
        before = len(left) + 1
        while left and len(left) < before:
            before = len(left)
            remaining = []
            for place in left:
                verdict, _ = self._judge(place)
                if verdict is None:
                    remaining.append(place)
                else:
                    self._decide(place, verdict)
            left = remaining

    def _decide(self, place: int, verdict: bool) -> None:
        self.verdicts[place] = verdict
        fact = self.facts[place]
        if fact.is_act:
            self.roles.judged(place, verdict)
        elif verdict and isinstance(fact.body, Founding):
            self.roles.add((fact.body.node, fact.body.member), Ground(0, (fact,), (), Role.ADMINISTRATOR))
        elif verdict and isinstance(fact.body, Admitted):
            self._admit(fact, fact.body)

    def _admit(self, fact: Fact, admitted: Admitted) -> None:
        claim = admitted.claim
        offer = self.facts[self._offer(admitted, wait=False)]
        ticket = offer.body
        assert isinstance(ticket, Ticket)
        member = (ticket.member or ticket.inviter) if claim.own_computer else claim.member
        role = None if claim.own_computer else ticket.role
        grounds = (self.roles.first_belonging(claim.author), self.roles.first_belonging(fact.author))
        parents = tuple(dict.fromkeys(one for one in grounds if one is not None))
        depth = 1 + max(self.roles.grounds[parent].depth for parent in parents)
        settled = [
            self.facts[place]
            for place in self.tickets[claim.author, claim.ticket].settlements
            if self.verdicts[place] and isinstance(self.facts[place].body, Settled)
        ]
        self.roles.add((claim.node, member), Ground(depth, (offer, *settled, fact), parents, role, claim))

    def _cut(self, knot: Sequence[int], if_free: dict[int, bool]) -> None:
        """Decide at least one fact of a knot."""
        would_be_valid = [place for place in knot if if_free[place]]
        if not would_be_valid:
            for place in knot:
                self._decide(place, False)
            return
        # Who holds a ticket is for its author's log to say: what it says comes before the admissions that wait for it.
        settled = [place for place in would_be_valid if not self._rivals(place)]
        chosen = min(settled or would_be_valid, key=self._precedence)
        self._ignored = dict.fromkeys(knot)
        struck = [*self.strikers(chosen, self._needs(chosen)), *self._rivals(chosen)]
        self._ignored = None
        self._decide(chosen, True)
        for place in struck:
            if self.verdicts[place] is None:
                self._decide(place, False)

    def _rivals(self, place: int) -> list[int]:
        """What would give a use of the ticket of this admission to another node first, and is not judged yet."""
        body = self.facts[place].body
        if not isinstance(body, Admitted):
            return []
        claim = body.claim
        counting = self.tickets[claim.author, claim.ticket].settlements
        if place in counting:
            counting = counting[: counting.index(place)]
        undecided = [one for one in counting if self.verdicts[one] is None]
        return [one for one in undecided if _named(self.facts[one]) != claim.node]

    def _precedence(self, place: int) -> tuple[Seniority, Seniority, object]:
        belonging = self.roles.first_belonging(self.facts[place].author)
        assert belonging is not None
        of_member = self.roles.seniority(belonging[1])
        return (of_member, self.roles.grounds[belonging].seniority, self._log_order(place))


def _consents(fact: Fact) -> bool:
    """Whether the node of this admission, or founding, says itself whose it is."""
    return not isinstance(fact.body, Admitted) or bool(fact.body.claim.consent)


def _named(fact: Fact) -> NodeId:
    """The node that a settlement names."""
    match fact.body:
        case Settled(node=node):
            return node
        case Admitted(claim=claim):
            return claim.node
        case _:
            raise AssertionError(f"{fact.body!r} settles no ticket")


def _knot(waits: Mapping[int, Iterable[int]]) -> list[int]:
    """Facts that wait for each other, directly or not, and for nothing else."""
    place = min(waits)
    while True:
        knot = _reach(waits, place)
        lower = next((one for one in knot if place not in _reach(waits, one)), None)
        if lower is None:
            return sorted(knot)
        place = lower


def _reach(waits: Mapping[int, Iterable[int]], start: int) -> dict[int, None]:
    found = {start: None}
    stack = [start]
    while stack:
        for one in waits[stack.pop()]:
            if one not in found:
                found[one] = None
                stack.append(one)
    return found
