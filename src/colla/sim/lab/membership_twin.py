"""A second reading of the rules of `protocol/membership/judging`, as plain and slow as possible.

No indices, no bit sets, no order of work: every question is answered by looking at all facts. Simulations and tests compare
its verdicts with the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

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
from colla.protocol.membership.facts import Fact
from colla.protocol.membership.grounds import covers, role_to_invite
from colla.protocol.views import Role

Digest = bytes
FAR = 10**6
Needed = tuple[NodeId, MemberId, Role, frozenset[Digest]]


class _Belonging(NamedTuple):
    """`preference`: the least counts of several who claim the node; `role`: what the member is by it, if anything."""

    preference: tuple[bool, tuple[Any, ...]]
    age: tuple[Any, ...]
    member: MemberId
    node: NodeId
    role: Role | None


class _Waits(Exception):
    def __init__(self, on: Sequence[Digest]) -> None:
        self.on = frozenset(on)


class _Void(Exception):
    pass


def verdicts(facts: Sequence[Fact]) -> dict[Digest, bool]:
    """Which of the facts are valid, by the digests of their records."""
    twin = _Twin(facts)
    twin.work()
    return {one: bool(verdict) for one, verdict in twin.status.items()}


class _Twin:
    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = {fact.record.digest: fact for fact in facts}
        self.status: dict[Digest, bool | None] = dict.fromkeys(self.facts)
        self.ignored: frozenset[Digest] | None = None
        self._known_depths: tuple[frozenset[Digest], dict[Digest, int]] = (frozenset(), {})
        self.pasts = {one: self._past(one) for one in self.facts}

    def _past(self, start: Digest) -> frozenset[Digest]:
        found: dict[Digest, None] = {}
        todo = list(self.facts[start].past)
        while todo:
            one = todo.pop()
            if one in self.facts and self.facts[one].is_act and one not in found:
                found[one] = None
                todo += self.facts[one].past
        return frozenset(found)

    def work(self) -> None:
        while True:
            while any(self._decide_if_clear(one) for one in self.facts):
                pass
            supposed = {one: self._suppose(one) for one, verdict in self.status.items() if verdict is None}
            if not supposed:
                return
            alone = {one: verdict for one, (verdict, waits) in supposed.items() if not waits}
            if alone:
                self.status.update(alone)
                continue
            reach = {one: _closure(supposed, one) for one in supposed}
            knots = {
                frozenset(reach[one]) for one in supposed if all(one in reach[other] for other in reach[one])
            }
            cuts = [self._cut({one: supposed[one][0] for one in knot}) for knot in knots]
            for cut in cuts:
                self.status.update(cut)

    def _decide_if_clear(self, one: Digest) -> bool:
        if self.status[one] is not None:
            return False
        self.ignored = None
        try:
            self.status[one] = self.judge(one)
        except _Waits:
            return False
        return True

    def _suppose(self, one: Digest) -> tuple[bool, frozenset[Digest]]:
        """The verdict if all that it waits for did not exist, and what that is."""
        self.ignored = frozenset()
        while True:
            try:
                return self.judge(one), self.ignored
            except _Waits as waits:
                self.ignored |= waits.on

    def _cut(self, knot: dict[Digest, bool]) -> dict[Digest, bool]:
        good = [one for one, verdict in knot.items() if verdict]
        if not good:
            return dict.fromkeys(knot, False)
        self.ignored = frozenset(self.facts)
        chosen = min([one for one in good if not self._rivals(one)] or good, key=self._precedence)
        struck = [act for act in self._strikers(chosen, self._needs(chosen)) if self.status[act] is None]
        return {**dict.fromkeys([*struck, *self._rivals(chosen)], False), chosen: True}

    def _rivals(self, one: Digest) -> list[Digest]:
        """Open facts by which the ticket's author names somebody else before."""
        body = self.facts[one].body
        if not isinstance(body, Admitted):
            return []
        found = [other for other in self._settled_before(one, body) if self.status[other] is None]
        return [other for other in found if _names(self.facts[other]) != body.claim.node]

    def _precedence(self, one: Digest) -> tuple[Any, ...]:
        record = self.facts[one].record
        member = self.owner(record.log.node)
        return (
            self.seniority(member),
            self.ages(record.log.node, member)[0],
            (record.log, record.number, record.digest),
        )

    # One fact.

    def judge(self, one: Digest) -> bool:
        """The verdict. Raises `_Waits`."""
        try:
            self._wait_for([act for act in self.pasts[one] if self.status[act] is None])
            needs = self._needs(one)
            for need in needs:
                self._check(need)
            strikers = self._strikers(one, needs)
            if any(self.status[act] for act in strikers):
                return False
            self._wait_for([act for act in strikers if self.status[act] is None])
            self._check_use(one)
        except _Void:
            return False
        return True

    def _wait_for(self, open_ones: Sequence[Digest]) -> None:
        waits = [one for one in open_ones if self.ignored is None or one not in self.ignored]
        if waits:
            raise _Waits(waits)

    def _needs(self, one: Digest) -> list[Needed]:
        fact = self.facts[one]
        body, past = fact.body, self.pasts[one]
        if isinstance(body, Founding):
            return []
        mine = self.owner(fact.author)
        if isinstance(body, Ticket):
            if body.inviter != mine or (body.member and not body.own_computer):
                raise _Void
            return [(fact.author, mine, role_to_invite(body), past)]
        if isinstance(body, Admitted):
            offer = self._offer(body)
            ticket = self.facts[offer].body
            assert isinstance(ticket, Ticket)
            inviting = (
                body.claim.author,
                ticket.inviter,
                role_to_invite(ticket),
                past | self.pasts[offer],
            )
            return [(fact.author, mine, Role.MEMBER, past), inviting]
        if isinstance(body, Settled):
            return [(fact.author, mine, Role.GUEST, past)]
        if isinstance(body, Appointed):
            role = body.role if body.member == mine else Role.ADMINISTRATOR
        else:
            match body:
                case Removed(member=member):
                    own = member == mine
                case Retired(node=node):
                    own = self.owner(node) == mine
                case Revoked(author=author):
                    own = self.owner(author) == mine
                case Renamed(subject=subject, is_member=is_member):
                    own = (subject if is_member else self.owner(NodeId(subject))) == mine
                case _:
                    assert_never(body)
            role = Role.GUEST if own else Role.ADMINISTRATOR
        return [(fact.author, mine, role, past)]

    def _check(self, need: Needed) -> None:
        node, member, role, past = need
        if self.owner(node) != member:
            raise _Void
        self._wait_for(
            [one for one, fact in self.facts.items() if self.status[one] is None and member == _who(fact)[1]]
        )
        if self.role(member, past).rank >= role.rank:
            return
        if role is not Role.ADMINISTRATOR or self._founder_governs(past):
            raise _Void
        if self.ignored is None:
            raise _Waits(())
        if self.heir(past) != member:
            raise _Void

    def _strikers(self, one: Digest, needs: Sequence[Needed]) -> list[Digest]:
        fact = self.facts[one]
        found = []
        for act, other in self.facts.items():
            if act == one or self._had_seen(act, one):
                continue
            body = other.body
            for node, member, role, _ in needs:
                match body:
                    case Removed(member=struck):
                        strikes = struck == member
                    case Retired(node=struck_node):
                        strikes = struck_node == node
                    case Appointed(member=struck, role=lesser):
                        strikes = struck == member and lesser.rank < role.rank and act not in self.pasts[one]
                    case _:
                        strikes = False
                if strikes:
                    found.append(act)
            if isinstance(body, Revoked) and _uses(fact, body):
                found.append(act)
        return found

    def _had_seen(self, act: Digest, one: Digest) -> bool:
        body, fact = self.facts[act].body, self.facts[one]
        if not isinstance(body, Appointed | Removed | Retired | Revoked):
            return True
        if one in body.kept:
            return True
        known = [self.facts[other] for other in self.pasts[act]]
        if not isinstance(body, Revoked) and any(
            other.log == fact.log and other.number >= fact.number for other in known
        ):
            return True
        through = {} if isinstance(body, Revoked) else {entry.log: entry.number for entry in body.through}
        return through.get(fact.log, 0) >= fact.number

    # Tickets.

    def _offer(self, admitted: Admitted) -> Digest:
        claim = admitted.claim
        offers = [
            one
            for one, fact in self.facts.items()
            if isinstance(fact.body, Ticket)
            and (fact.author, fact.body.ticket) == (claim.author, claim.ticket)
        ]
        self._wait_for([one for one in offers if self.status[one] is None])
        good = [one for one in offers if self.status[one] and covers(_ticket(self.facts[one]), admitted)]
        if not good:
            raise _Void
        return min(good, key=lambda one: (self.facts[one].record.log, self.facts[one].number, one))

    def _check_use(self, one: Digest) -> None:
        body = self.facts[one].body
        if not isinstance(body, Admitted):
            return
        uses = _ticket(self.facts[self._offer(body)]).uses
        counting = self._settled_before(one, body)
        self._wait_for([other for other in counting if self.status[other] is None])
        holders: list[NodeId] = []
        for other in counting:
            node = _names(self.facts[other])
            if self.status[other] and node not in holders:
                holders.append(node)
        if body.claim.node not in holders[:uses] and len(holders) >= uses:
            raise _Void

    def _settled_before(self, one: Digest, body: Admitted) -> list[Digest]:
        counting = self._settling(body)
        return counting[: counting.index(one)] if one in counting else counting

    def _settling(self, admitted: Admitted) -> list[Digest]:
        claim = admitted.claim
        ticket = (claim.author, claim.ticket)
        of_author = [(one, fact) for one, fact in self.facts.items() if fact.author == claim.author]
        homes = [
            (fact.record.log, fact.number)
            for _, fact in of_author
            if isinstance(fact.body, Ticket) and fact.body.ticket == claim.ticket
        ]
        home = min(homes)[0] if homes else None
        ranked = []
        for one, fact in of_author:
            rank = (fact.record.log != home, fact.record.log, fact.number, one)
            if isinstance(fact.body, Settled) and (fact.author, fact.body.ticket) == ticket:
                ranked.append((rank, one))
            elif isinstance(fact.body, Admitted):
                other = fact.body.claim
                if (other.author, other.ticket) == ticket:
                    ranked.append((rank, one))
        return [one for _, one in sorted(ranked)]

    # Who belongs, by what is valid so far.

    def owner(self, node: NodeId) -> MemberId:
        claims = self._belongings(node)
        chosen = any(not one.preference[0] for one in claims)
        open_ones = [
            one
            for one, fact in self.facts.items()
            if self.status[one] is None and node == _who(fact)[0] and not (chosen and _unasked(fact))
        ]
        self._wait_for(open_ones)
        if not claims:
            raise _Void
        return self._preferred(claims)

    def _belongings(self, node: NodeId | None) -> list[_Belonging]:
        """Who belongs to whom, by what is valid so far: of everybody, or of one node. One for each pair."""
        found: dict[tuple[NodeId, MemberId], _Belonging] = {}
        depths = self._depths()
        for one, fact in self.facts.items():
            if not self.status[one] or not isinstance(fact.body, Founding | Admitted):
                continue
            subject = fact.body.node if isinstance(fact.body, Founding) else fact.body.claim.node
            if node is not None and node != subject:
                continue
            member, role = self._ground(fact)
            age = (depths[one], fact.record.stamp, fact.record.digest)
            belonging = _Belonging((_unasked(fact), age), age, member, subject, role)
            other = found.get((subject, member))
            if other is None or belonging.preference < other.preference:
                found[subject, member] = belonging
        return list(found.values())

    def _preferred(self, claims: list[_Belonging]) -> MemberId:
        return min(claims, key=lambda one: (one.preference, one.member)).member

    def _ground(self, fact: Fact) -> tuple[MemberId, Role | None]:
        """Whose the node becomes by a valid founding or admission, and what that member is by it."""
        body = fact.body
        if isinstance(body, Founding):
            return body.member, Role.ADMINISTRATOR
        assert isinstance(body, Admitted)
        before, self.ignored = self.ignored, frozenset(self.facts)
        ticket = _ticket(self.facts[self._offer(body)])
        self.ignored = before
        if body.claim.own_computer:
            return ticket.member or ticket.inviter, None
        return body.claim.member, ticket.role

    def _depths(self) -> dict[Digest, int]:
        """How far each valid founding or admission is from the founding."""
        valid = frozenset(
            one
            for one, fact in self.facts.items()
            if self.status[one] and isinstance(fact.body, Founding | Admitted)
        )
        if self._known_depths[0] != valid:
            self._known_depths = (valid, self._measure(valid))
        return self._known_depths[1]

    def _measure(self, valid: frozenset[Digest]) -> dict[Digest, int]:
        depths = dict.fromkeys(valid, FAR)

        def of_node(node: NodeId) -> int:
            claims = [one for one in valid if _who(self.facts[one])[0] == node and depths[one] < FAR]
            records = {one: self.facts[one].record for one in claims}
            rank = {one: (_unasked(self.facts[one]), depths[one], records[one].stamp, one) for one in claims}
            return depths[min(claims, key=lambda one: rank[one])] if claims else FAR

        for _ in range(len(valid) + 1):
            before = dict(depths)
            for one in sorted(valid):
                body = self.facts[one].body
                if isinstance(body, Founding):
                    depths[one] = 0
                elif isinstance(body, Admitted):
                    depths[one] = 1 + max(of_node(body.claim.author), of_node(self.facts[one].author))
            if depths == before:
                break
        return depths

    def ages(self, node: NodeId, member: MemberId) -> list[tuple[Any, ...]]:
        return sorted(one.age for one in self._belongings(node) if one.member == member)

    def seniority(self, member: MemberId) -> tuple[Any, ...]:
        return min(one.age for one in self._belongings(None) if one.member == member)

    def role(self, member: MemberId, past: frozenset[Digest]) -> Role:
        given = [
            one
            for one in past
            if self.status[one]
            and isinstance(body := self.facts[one].body, Appointed)
            and body.member == member
        ]
        last = [one for one in given if not any(one in self.pasts[other] for other in given)]
        if last:
            return min((_appointed(self.facts[one]).role for one in last), key=lambda role: role.rank)
        came_with = [
            (one.age, one.role)
            for one in self._belongings(None)
            if one.member == member and one.role is not None
        ]
        return min(came_with)[1] if came_with else Role.GUEST

    def _is_here(self, node: NodeId, member: MemberId, past: frozenset[Digest]) -> bool:
        for one in past:
            body = self.facts[one].body
            if self.status[one] and isinstance(body, Removed) and body.member == member:
                return False
            if self.status[one] and isinstance(body, Retired) and body.node == node:
                return False
        return True

    def _founder_governs(self, past: frozenset[Digest]) -> bool:
        return any(
            isinstance(body := fact.body, Founding)
            and self.status[one]
            and self._is_here(body.node, body.member, past)
            and self.role(body.member, past) is Role.ADMINISTRATOR
            for one, fact in self.facts.items()
        )

    def heir(self, past: frozenset[Digest]) -> MemberId | None:
        here: dict[MemberId, None] = {}
        for one in self._belongings(None):
            mine = self._preferred(self._belongings(one.node)) == one.member
            if mine and self._is_here(one.node, one.member, past):
                here[one.member] = None
        elders = sorted(here, key=lambda one: (self.seniority(one), one))
        if any(self.role(one, past) is Role.ADMINISTRATOR for one in elders):
            return None
        no_guests = [one for one in elders if self.role(one, past) is not Role.GUEST]
        return next(iter(no_guests or elders), None)


def _closure(supposed: dict[Digest, tuple[bool, frozenset[Digest]]], start: Digest) -> set[Digest]:
    found = {start}
    while True:
        more = {other for one in found for other in supposed[one][1]} - found
        if not more:
            return found
        found |= more


def _ticket(fact: Fact) -> Ticket:
    assert isinstance(fact.body, Ticket)
    return fact.body


def _appointed(fact: Fact) -> Appointed:
    assert isinstance(fact.body, Appointed)
    return fact.body


def _unasked(fact: Fact) -> bool:
    """Whether the node that the fact is about did not sign it."""
    return isinstance(fact.body, Admitted) and not fact.body.claim.consent


def _who(fact: Fact) -> tuple[bytes, ...]:
    """The node and the person that the fact makes belong; empty if it does not do that."""
    match fact.body:
        case Founding(node=node, member=member):
            return (node, member)
        case Admitted(claim=claim):
            return (claim.node, claim.member)
        case _:
            return (b"", b"")


def _uses(fact: Fact, revoked: Revoked) -> bool:
    body = fact.body
    return isinstance(body, Admitted) and (body.claim.author, body.claim.ticket) == (
        revoked.author,
        revoked.ticket,
    )


def _names(fact: Fact) -> NodeId:
    match fact.body:
        case Settled(node=node):
            return node
        case Admitted(claim=claim):
            return claim.node
        case _:
            raise AssertionError(fact)
