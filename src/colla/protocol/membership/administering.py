"""What a member may do about members, computers and tickets: makes the bodies to write, or says why not.

Every body names what this node knows at that moment: the newest acts, up to where it had seen the logs of whom the act is
about, and the joiners that may stay. The refusals are for honest people: what another program writes in spite of them is
judged by `judging`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId
from colla.protocol.membership.bodies import (
    HEADS_MAX,
    KEPT_MAX,
    LOGS_NAMED_MAX,
    REASON_CHARS_MAX,
    Appointed,
    Heads,
    Kept,
    Places,
    Removed,
    Renamed,
    Retired,
    Revoked,
    Through,
    TicketKey,
    check_label,
)
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.resolver import TicketStanding
from colla.protocol.views import MemberInfo, NodeInfo, Role

Seen = Callable[[Sequence[NodeId]], Sequence[tuple[bytes, int]]]
"""The logs of these nodes, by name, and the highest number of each that is held here."""


class Administering:
    """Makes the bodies that this node may write. Each call raises `CollaError` when its member may not do it."""

    def __init__(self, node: NodeId, membership: Membership, seen: Seen) -> None:
        self._node = node
        self._membership = membership
        self._seen = seen

    def appoint(self, member: MemberId, role: Role) -> Appointed:
        """Give the member another role. Raises `not_allowed`, `not_found`, `last_administrator`, `no_change`."""
        info = self._member(member)
        if self._me().id != member or role.rank > Role(info.role).rank:
            self._must_administer("give roles")
        if info.role == role and member != self._membership.heir:
            raise CollaError("no_change", f"{info.name} is {role.value} already.")
        if role is not Role.ADMINISTRATOR:
            self._keep_an_administrator(member, "Give the role to somebody else first")
        return self.appointed(member, role)

    def appointed(self, member: MemberId, role: Role) -> Appointed:
        """The same without asking whether it is allowed."""
        nodes = self._membership.nodes_of(member)
        return Appointed(member, role, self._places(nodes), self._kept(nodes), self._past())

    def remove(self, member: MemberId, reason: str, now: Instant) -> Removed:
        """Remove the member for good. Raises `not_allowed`, `not_found`, `last_administrator`, `too_long`."""
        self._member(member)
        if self._me().id != member:
            self._must_administer("remove members")
        self._keep_an_administrator(member, "Name another one first")
        _check_reason(reason)
        nodes = self._membership.nodes_of(member)
        return Removed(member, reason, now.wall_s, self._places(nodes), self._kept(nodes), self._past())

    def retire(self, node: NodeId, reason: str, now: Instant) -> Retired:
        """Take a computer out for good. Raises `not_allowed`, `not_found`, `last_administrator`, `too_long`."""
        info = self._computer(node)
        if self._me().id != info.member:
            self._must_administer("retire computers of others")
        if not self._others_of(info):
            self._keep_an_administrator(info.member, "Name another one first")
        _check_reason(reason)
        return Retired(node, reason, now.wall_s, self._places([node]), self._kept([node]), self._past())

    def leave(self, now: Instant, *, anyway: bool = False) -> Removed | Retired:
        """Leave with this computer; with the last one of its member the member leaves too.

        Raises `last_administrator` unless it shall be `anyway`: then the most senior member follows.
        """
        info = self._computer(self._node)
        nodes = self._membership.nodes_of(info.member)
        if self._others_of(info):
            nodes = (self._node,)
            return Retired(self._node, "", now.wall_s, self._places(nodes), self._kept(nodes), self._past())
        if not anyway:
            self._keep_an_administrator(info.member, "Name another one first")
        return Removed(info.member, "", now.wall_s, self._places(nodes), self._kept(nodes), self._past())

    def revoke(self, author: NodeId, ticket: TicketKey) -> Revoked:
        """Let a ticket admit nobody any more. Raises `not_allowed`, `not_found`, `no_change`."""
        standing = self._membership.ticket(author, ticket)
        if standing is None:
            raise CollaError("not_found", "There is no such ticket.", "`colla tickets` lists them.")
        if standing.revoked:
            raise CollaError("no_change", "The ticket is revoked already.")
        if self._membership.owner_of(author) != self._me().id:
            self._must_administer("revoke tickets of others")
        return Revoked(author, ticket, _digests(standing)[:KEPT_MAX], self._past())

    def rename_member(self, member: MemberId, name: str) -> Renamed:
        """Call the member otherwise. Raises `not_allowed`, `not_found`, `bad_name`, `name_taken`, `no_change`."""
        info = self._member(member)
        if self._me().id != member:
            self._must_administer("rename others")
        others = [one.name for one in self._membership.members()]
        return self._renamed(member, True, info.name, check_label("member", name), others)

    def rename_computer(self, node: NodeId, name: str) -> Renamed:
        """Call the computer otherwise. Raises `not_allowed`, `not_found`, `bad_name`, `name_taken`, `no_change`."""
        info = self._computer(node)
        if self._me().id != info.member:
            self._must_administer("rename computers of others")
        others = [one.name for one in self._membership.nodes()]
        return self._renamed(node, False, info.name, check_label("computer", name), others)

    def inherit(self) -> Appointed | None:
        """If nobody is administrator and this node's member is the one to follow: its appointment."""
        me = self._membership.owner_of(self._node)
        if me is None or me != self._membership.heir:
            return None
        return self.appointed(me, Role.ADMINISTRATOR)

    def may_invite(self, role: Role, own_computer: bool, member: MemberId) -> None:
        """Raise `not_allowed` unless this node's member may make such a ticket, `not_found` for an unknown member."""
        me = self._me()
        if member and member != me.id:
            self._member(member)
            self._must_administer("give a member another computer")
        elif not own_computer and role is Role.ADMINISTRATOR:
            self._must_administer("invite administrators")
        elif not own_computer and me.role == Role.GUEST:
            raise CollaError(
                "not_allowed",
                "Guests cannot invite others.",
                "Ask a member to do it, or an administrator for another role.",
            )

    # Inside.

    def _me(self) -> MemberInfo:
        owner = self._membership.owner_of(self._node)
        info = self._membership.member(owner) if owner is not None else None
        if info is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        return info

    def _member(self, member: MemberId) -> MemberInfo:
        info = self._membership.member(member)
        if info is None:
            raise CollaError("not_found", "There is no such member.", "`colla members` lists them.")
        return info

    def _computer(self, node: NodeId) -> NodeInfo:
        info = self._membership.node(node)
        if info is None:
            raise CollaError("not_found", "There is no such computer.", "`colla nodes` lists them.")
        return info

    def _must_administer(self, what: str) -> None:
        if self._me().role == Role.ADMINISTRATOR:
            return
        names = [info.name for info in self._administrators()]
        hint = f"Ask one of them: {', '.join(names)}." if names else "`colla members` shows the roles."
        raise CollaError("not_allowed", f"Only administrators can {what}.", hint)

    def _administrators(self) -> list[MemberInfo]:
        """Those who have a computer left."""
        with_computer = {info.member: None for info in self._membership.nodes()}
        return [
            info
            for info in self._membership.members()
            if info.role == Role.ADMINISTRATOR and info.id in with_computer
        ]

    def _keep_an_administrator(self, losing: MemberId, hint: str) -> None:
        """Raise `last_administrator` if others stay behind without one."""
        staying = [info for info in self._membership.members() if info.id != losing]
        if staying and [info.id for info in self._administrators()] == [losing]:
            name = self._member(losing).name
            raise CollaError(
                "last_administrator",
                f"{name} is the only administrator of the group.",
                f"{hint}: `colla member role NAME administrator`.",
            )

    def _others_of(self, info: NodeInfo) -> list[NodeInfo]:
        return [
            other for other in self._membership.nodes() if other.member == info.member and other.id != info.id
        ]

    def _renamed(self, subject: bytes, is_member: bool, now: str, name: str, taken: list[str]) -> Renamed:
        if name == now:
            raise CollaError("no_change", f"It is called {name!r} already.")
        if name in taken:
            raise CollaError("name_taken", f"Somebody else is called {name!r} here.", "Choose another name.")
        return Renamed(subject, is_member, name, self._membership.revision(subject) + 1, self._past())

    def _past(self) -> Heads:
        return self._membership.heads()[:HEADS_MAX]

    def _places(self, nodes: Sequence[NodeId]) -> Places:
        seen = [Through(log, number) for log, number in self._seen(nodes) if number > 0]
        return tuple(sorted(seen))[:LOGS_NAMED_MAX]

    def _kept(self, nodes: Sequence[NodeId]) -> Kept:
        """The joiners with tickets of these nodes, of whom this one knows."""
        kept: list[bytes] = []
        for author, _, standing in self._membership.tickets():
            if author in nodes:
                kept += _digests(standing)
        return tuple(kept[:KEPT_MAX])


def _digests(standing: TicketStanding) -> tuple[bytes, ...]:
    return tuple(sorted(fact.record.digest for fact in standing.admissions))


def _check_reason(reason: str) -> None:
    if len(reason) > REASON_CHARS_MAX:
        raise CollaError("too_long", f"A reason has {REASON_CHARS_MAX} characters at most.", "Shorten it.")
