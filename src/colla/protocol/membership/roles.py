"""Who has which role, as seen from a set of acts: from the past of one fact, or from all that is valid."""

from __future__ import annotations

from collections.abc import Sequence

from colla.model.ids import MemberId, NodeId
from colla.protocol.membership.bodies import Appointed, Removed, Retired
from colla.protocol.membership.facts import ActSet, Fact, Lineage, members_of
from colla.protocol.membership.grounds import Belonging, Ground, Seniority
from colla.protocol.views import Role


class Roles:
    """Grows as facts are judged: belongings are added, acts become valid or void."""

    def __init__(self, facts: Sequence[Fact], lineage: Lineage) -> None:
        self._facts = facts
        self._lineage = lineage
        self._open: ActSet = sum(1 << place for place, fact in enumerate(facts) if fact.is_act)
        self.valid: ActSet = 0
        """The acts found valid so far."""
        self.grounds: dict[Belonging, Ground] = {}
        """For each belonging the most senior ground."""
        self._nodes: dict[NodeId, list[Belonging]] = {}
        self._members: dict[MemberId, list[Belonging]] = {}
        self._appointed: dict[MemberId, list[int]] = {}
        self._removed: dict[MemberId, ActSet] = {}
        self._retired: dict[NodeId, ActSet] = {}

    # Growing.

    def judged(self, place: int, valid: bool) -> None:
        """That act was judged."""
        self._open &= ~(1 << place)
        if not valid:
            return
        self.valid |= 1 << place
        match self._facts[place].body:
            case Appointed(member=member):
                self._appointed.setdefault(member, []).append(place)
            case Removed(member=member):
                self._removed[member] = self._removed.get(member, 0) | 1 << place
            case Retired(node=node):
                self._retired[node] = self._retired.get(node, 0) | 1 << place
            case _:
                pass

    def add(self, belonging: Belonging, ground: Ground) -> None:
        """That admission (or the founding) is valid."""
        known = self.grounds.get(belonging)
        if known is None:
            self._nodes.setdefault(belonging[0], []).append(belonging)
            self._members.setdefault(belonging[1], []).append(belonging)
        if known is None or ground.preference < known.preference:
            self.grounds[belonging] = ground

    # Reading.

    def undecided(self, acts: ActSet) -> list[int]:
        """Those of the acts that are not judged yet."""
        return list(members_of(acts & self._open))

    def first_belonging(self, node: NodeId) -> Belonging | None:
        """The belonging that the node consented to, or else the eldest, should several members claim it."""
        claims = self._nodes.get(node, ())
        if len(claims) == 1:
            return claims[0]
        return min(claims, key=lambda one: (self.grounds[one].preference, one), default=None)

    def knows(self, member: MemberId) -> bool:
        """Whether the member belongs or belonged."""
        return member in self._members

    def members(self) -> list[MemberId]:
        """All that ever belonged, eldest first."""
        return sorted(self._members, key=lambda member: (self.seniority(member), member))

    def seniority(self, member: MemberId) -> Seniority:
        """The age of a member that belongs or belonged."""
        claims = self._members[member]
        return min([self.grounds[one].seniority for one in claims])

    def nodes_of(self, member: MemberId) -> list[NodeId]:
        """All nodes that ever were the member's, eldest first."""
        own = sorted(self._members[member], key=self._age)
        return [one[0] for one in own if self.first_belonging(one[0]) == one]

    def is_among_eldest(self, belonging: Belonging, computers_max: int) -> bool:
        """Whether the node is one of the first so many of its member."""
        node, member = belonging
        if len(self._members[member]) <= computers_max:
            return True
        return node in self.nodes_of(member)[:computers_max]

    def removals(self, member: MemberId, past: ActSet) -> ActSet:
        """The valid acts in `past` that removed the member."""
        return self._removed.get(member, 0) & past

    def retirements(self, node: NodeId, past: ActSet) -> ActSet:
        """The valid acts in `past` that retired the node."""
        return self._retired.get(node, 0) & past

    def of(self, member: MemberId, past: ActSet) -> Role:
        """The member's role by these acts: by those that no other of them knew, the least of concurrent ones."""
        return self.by(member, [place for place in self._appointed.get(member, ()) if past >> place & 1])

    def appointments(self, member: MemberId) -> Sequence[int]:
        """The valid appointments of the member."""
        return self._appointed.get(member, ())

    def by(self, member: MemberId, appointments: Sequence[int]) -> Role:
        """The role that these appointments give the member; without any, the one that it came with."""
        last: list[Role] = []
        for place in appointments:
            body = self._facts[place].body
            assert isinstance(body, Appointed)
            if not any(self._lineage.known_to(other) >> place & 1 for other in appointments):
                last.append(body.role)
        if last:
            return min(last, key=lambda role: role.rank)
        eldest = [self.grounds[one].role for one in self.came_with(member)]
        return next((role for role in eldest if role), Role.GUEST)

    def came_with(self, member: MemberId) -> list[Belonging]:
        """The eldest belonging by which the member itself came, not a further computer; at most one."""
        own = [one for one in self._members[member] if self.grounds[one].role]
        return own if len(own) < 2 else sorted(own, key=self._age)[:1]

    def administrators(self, past: ActSet) -> list[MemberId]:
        """Who is appointed administrator and has a computer left, by these acts; eldest first."""
        return [one for one in self._here(past) if self.of(one, past) is Role.ADMINISTRATOR]

    def heir(self, past: ActSet) -> MemberId | None:
        """Who is administrator since these acts leave none: the most senior, guests last. None when there is one."""
        here = self._here(past)
        if any(self.of(one, past) is Role.ADMINISTRATOR for one in here):
            return None
        return min(here, key=lambda one: self.of(one, past) is Role.GUEST, default=None)

    def surely_governed(self, past: ActSet) -> bool:
        """Whether the founder is administrator by these acts: then nobody inherits, whoever else may come."""
        founders = [one for one, ground in self.grounds.items() if ground.claim is None]
        return any(
            not self.removals(member, past)
            and not self.retirements(node, past)
            and self.of(member, past) is Role.ADMINISTRATOR
            for node, member in founders
        )

    def _here(self, past: ActSet) -> list[MemberId]:
        return [
            member
            for member in self.members()
            if not self.removals(member, past)
            and any(not self.retirements(node, past) for node in self.nodes_of(member))
        ]

    def _age(self, belonging: Belonging) -> tuple[Seniority, Belonging]:
        return (self.grounds[belonging].seniority, belonging)
