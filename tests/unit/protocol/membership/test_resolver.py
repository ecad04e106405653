"""Named cases of who belongs: concurrent removals, roles, tickets, and what the hunt through seeded worlds found.

People of one small group write on two or more sides that do not hear of each other; then all meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_CATALOGUE, Key, Record
from colla.protocol.membership.bodies import Admitted, Appointed, Body, Removed, Through, consent
from colla.protocol.membership.inviting import make_invitation
from colla.protocol.membership.joining import judge_join
from colla.protocol.membership.tickets import Contact, read_ticket
from colla.protocol.views import Role
from colla.sim.lab.membership_world import Case, MembershipWorld, Person

ADMINISTRATOR, MEMBER, GUEST = Role.ADMINISTRATOR, Role.MEMBER, Role.GUEST


class Club:
    """A group in which everybody knows everything; `sides` then lets people write apart."""

    def __init__(self, *roles: Role) -> None:
        """The founder and one person for each of the roles, in this order of seniority."""
        self.world = MembershipWorld(Case(1, lawless=0.0))
        for role in roles:
            self.come(role)

    @property
    def people(self) -> list[Person]:
        return self.world.people

    def come(self, role: Role = MEMBER, inviter: int = 0, **more: Any) -> Person:
        """Somebody joins with a ticket of that person, and all know it."""
        ticket = self.ticket(self.people[inviter], role, **more)
        joiner = self.use(ticket, self.people[inviter])
        assert joiner is not None
        self.meet()
        return joiner

    def ticket(
        self, inviter: Person, role: Role = MEMBER, uses: int = 1, member: MemberId | None = None
    ) -> Any:
        own_computer = member is not None
        inviter.found.administering.may_invite(role, own_computer, member or MemberId(b""))
        self.tick()
        world = self.world
        invitation = make_invitation(
            inviter.found.identity,
            inviter.membership,
            [Contact(inviter.id, ("192.0.2.1:1",))],
            own_computer,
            1e6,
            world.rng,
            world.now,
            role,
            uses,
            member or MemberId(b""),
        )
        inviter.write(invitation.body)
        return read_ticket(invitation.text)

    def use(self, ticket: Any, by: Person) -> Person | None:
        """Somebody new asks that person to be let in; None when the ticket is refused."""
        self.tick()
        world = self.world
        joiner = Person(world, f"n{len(self.people)}", world.key(), world.key())
        claim = ticket.claim(joiner.id, joiner.name, joiner.member, f"m{len(self.people)}")
        claim = consent(world.group, claim, joiner.found.identity.secret)
        if judge_join(by.membership, claim, joiner.id, 1000, world.now).code:
            return None
        by.write(Admitted(claim, world.now.wall_s, by.membership.heads()))
        records = [record.signed for record in by.found.book.all_records("membership")]
        joiner.found.receive(records, world.now)
        joiner.look()
        self.people.append(joiner)
        return joiner

    def meet(self, *some: Person) -> None:
        """These, or all, come to know the same."""
        people = list(some) or self.people
        for _ in range(3):
            for one in people:
                for other in people:
                    self.world.meet(one, other, anyhow=True)

    def tick(self) -> None:
        self.world.now = self.world.now.later(1.0)

    def write(self, person: Person, body: Body) -> Record:
        self.tick()
        return person.write(body)

    def note(self, person: Person) -> Record:
        """Something of the catalogue."""
        return person.keep(TOPIC_CATALOGUE, Key("note", self.world.rng.randbytes(16)), b"")

    def roles(self, of: Person | None = None) -> dict[str, str]:
        """Name to role, as all see it."""
        views = [
            {info.name: info.role for info in person.membership.members()}
            for person in ([of] if of else self.people)
        ]
        assert all(view == views[0] for view in views)
        return {name: role[0] for name, role in views[0].items()}

    def remove(self, by: Person, whom: Person, reason: str = "") -> Record:
        return self.write(by, by.found.administering.remove(member_of(by, whom), reason, self.world.now))

    def appoint(self, by: Person, whom: Person, role: Role) -> Record:
        return self.write(by, by.found.administering.appoint(member_of(by, whom), role))


def member_of(seen_by: Person, person: Person) -> MemberId:
    member = seen_by.membership.owner_of(person.id)
    assert member is not None
    return member


def codes(calls: Iterable[Any]) -> list[str]:
    found = []
    for call in calls:
        with pytest.raises(CollaError) as refused:
            call()
        found.append(refused.value.code)
    return found


def test_roles_say_who_may_do_what() -> None:
    club = Club(MEMBER, GUEST)
    ada, ben, gus = club.people
    assert club.roles() == {"m0": "a", "m1": "m", "m2": "g"}
    bens, gusts = ben.found.administering, gus.found.administering
    assert (
        codes(
            (
                lambda: bens.remove(member_of(ben, gus), "", club.world.now),
                lambda: bens.appoint(member_of(ben, gus), MEMBER),
                lambda: bens.appoint(member_of(ben, ben), ADMINISTRATOR),
                lambda: bens.retire(ada.id, "", club.world.now),
                lambda: bens.rename_member(member_of(ben, ada), "other"),
                lambda: bens.may_invite(ADMINISTRATOR, False, MemberId(b"")),
                lambda: bens.may_invite(MEMBER, True, member_of(ben, gus)),
                lambda: gusts.may_invite(GUEST, False, MemberId(b"")),
            )
        )
        == ["not_allowed"] * 8
    )
    bens.may_invite(MEMBER, False, MemberId(b""))
    gusts.may_invite(MEMBER, True, MemberId(b""))
    club.appoint(ben, ben, GUEST)
    club.meet()
    assert club.roles() == {"m0": "a", "m1": "g", "m2": "g"}


def test_what_is_written_without_the_right_to_it_is_void() -> None:
    club = Club(MEMBER, GUEST)
    ada, ben, gus = club.people
    for who in (ben, gus):
        administering = who.found.administering
        everything = tuple(Through(log, number) for log, number in sorted(who.found.seen([ada.id])))
        club.write(who, administering.appointed(member_of(who, who), ADMINISTRATOR))
        club.write(who, Removed(member_of(who, ada), "", 0.0, everything, (), who.membership.heads()))
    club.meet()
    assert club.roles() == {"m0": "a", "m1": "m", "m2": "g"}
    assert ada.membership.valid_acts() == ()


def test_guests_write_nothing_that_counts_and_what_they_wrote_as_members_stays() -> None:
    club = Club(MEMBER)
    ada, ben = club.people
    before = club.note(ben)
    club.meet()
    club.appoint(ada, ben, GUEST)
    concurrent = club.note(ben)
    club.meet()
    later = club.note(ben)
    club.appoint(ada, ben, MEMBER)
    club.meet()
    again = club.note(ben)
    club.meet()
    for person in club.people:
        writers = [person.membership.writer(record) for record in (before, concurrent, later, again)]
        assert [one.role if one else None for one in writers] == [MEMBER, GUEST, MEMBER, MEMBER]
    # What was written as a guest and not seen by who gave the role back counts again: nobody had refused it yet.


def test_a_removal_ends_what_its_author_had_not_seen() -> None:
    club = Club(MEMBER, MEMBER)
    ada, ben, eve = club.people
    seen = club.note(ben)
    club.meet()
    club.remove(ada, ben, "moved away")
    unseen = club.note(ben)
    ticket = club.ticket(ben)
    joiner = club.use(ticket, ben)
    assert joiner is not None and joiner.belongs
    club.meet()
    assert club.roles() == {"m0": "a", "m2": "m"}
    assert eve.membership.writer(seen) is not None
    assert eve.membership.writer(unseen) is None
    assert not joiner.belongs
    former = eve.membership.former(ben.id)
    assert former is not None and former.code == "removed"
    assert former.text == "m0 removed m1 from the group: moved away."
    assert eve.membership.former(joiner.id) is not None


def test_concurrent_removals_take_the_least_that_each_had_seen() -> None:
    club = Club(ADMINISTRATOR, MEMBER)
    ada, bob, eve = club.people
    notes = [club.note(eve)]
    club.meet()
    notes.append(club.note(eve))
    club.meet(ada, eve)
    club.remove(ada, eve)
    club.remove(bob, eve)
    club.meet()
    for person in club.people:
        assert [person.membership.writer(note) is not None for note in notes] == [True, False]


def test_administrators_who_remove_each_other_leave_the_elder() -> None:
    club = Club(ADMINISTRATOR, ADMINISTRATOR)
    _, bob, eve = club.people
    club.remove(eve, bob)
    club.remove(bob, eve)
    club.meet()
    assert club.roles() == {"m0": "a", "m1": "a"}


def test_three_who_remove_each_other_in_a_circle() -> None:
    club = Club(ADMINISTRATOR, ADMINISTRATOR, ADMINISTRATOR)
    _, one, two, three = club.people
    club.remove(one, two)
    club.remove(two, three)
    club.remove(three, one)
    club.meet()
    # The eldest is heard; the second so has no say; the third would remove who was heard.
    assert club.roles() == {"m0": "a", "m1": "a", "m3": "a"}


def test_a_removal_beats_what_stands_on_concurrent_acts() -> None:
    club = Club(ADMINISTRATOR, MEMBER, MEMBER)
    ada, bob, eve, gus = club.people
    club.remove(ada, bob)
    # Elsewhere the removed one makes somebody administrator, who removes a third.
    club.appoint(bob, eve, ADMINISTRATOR)
    club.meet(bob, eve)
    club.remove(eve, gus)
    club.meet()
    assert club.roles() == {"m0": "a", "m2": "m", "m3": "m"}


def test_a_knot_waits_for_what_it_depends_on() -> None:
    """Two remove each other; the younger of them also removed a third, who removed the founder. By seniority alone the
    founder's ticket would be judged before anybody knew that the younger one had no say."""
    club = Club(ADMINISTRATOR, ADMINISTRATOR, ADMINISTRATOR)
    ada, dan, eve, cleo = club.people
    club.remove(dan, eve)
    club.remove(eve, dan)
    club.remove(eve, cleo)
    club.remove(cleo, ada)
    ticket = club.ticket(ada)
    club.meet()
    # Dan is the elder: Eve is out, so Cleo stays, so Ada is out, and so is what she wrote meanwhile.
    assert club.roles() == {"m1": "a", "m3": "a"}
    assert dan.membership.ticket(ada.id, _ticket_key(ticket)) is None


def test_there_is_always_an_administrator() -> None:
    club = Club(ADMINISTRATOR, MEMBER)
    ada, bob, eve = club.people
    # Each believes that the other stays.
    club.write(ada, ada.found.administering.leave(club.world.now))
    club.appoint(bob, bob, GUEST)
    club.meet()
    assert club.roles(eve) == {"m1": "g", "m2": "a"}
    assert eve.membership.heir is None, "the heir's computer has said so"
    club.appoint(eve, bob, ADMINISTRATOR)
    club.meet()
    assert club.roles(eve) == {"m1": "a", "m2": "a"}


def test_the_last_administrator_cannot_go_without_naming_another() -> None:
    club = Club(MEMBER)
    ada, ben = club.people
    administering, mine = ada.found.administering, member_of(ada, ada)
    now = club.world.now
    assert (
        codes(
            (
                lambda: administering.appoint(mine, MEMBER),
                lambda: administering.remove(mine, "", now),
                lambda: administering.leave(now),
                lambda: administering.retire(ada.id, "", now),
            )
        )
        == ["last_administrator"] * 4
    )
    club.write(ada, administering.leave(now, anyway=True))
    club.meet()
    assert club.roles(ben) == {"m1": "a"}


def test_both_last_administrators_step_down_at_once() -> None:
    club = Club(ADMINISTRATOR, MEMBER)
    ada, bob, _ = club.people
    club.appoint(ada, ada, MEMBER)
    club.appoint(bob, bob, MEMBER)
    club.meet()
    assert club.roles() == {"m0": "a", "m1": "m", "m2": "m"}


def test_a_lost_computer_is_retired_and_its_owner_gets_another() -> None:
    club = Club(MEMBER)
    ada, ben = club.people
    bens = member_of(ada, ben)
    club.write(ada, ada.found.administering.retire(ben.id, "lost", club.world.now))
    club.meet()
    assert [info.id for info in ada.membership.nodes()] == [ada.id]
    assert club.roles() == {"m0": "a", "m1": "m"}
    again = club.come(member=bens)
    assert member_of(ada, again) == bens and club.roles() == {"m0": "a", "m1": "m"}
    # As that member it may admit others, also for one who knows only what proves it.
    proof = again.membership.proof_of(again.id)
    newcomer = Person(club.world, "alone", club.world.key(), club.world.key())
    newcomer.found.receive([record.signed for record in proof], club.world.now)
    newcomer.look()
    assert newcomer.membership.owner_of(again.id) == bens
    assert newcomer.membership.role(bens) is MEMBER


@pytest.mark.parametrize("uses", [1, 3])
def test_a_ticket_raced_on_two_sides_keeps_as_many_as_it_has_uses(uses: int) -> None:
    club = Club(MEMBER, MEMBER)
    ada, ben, eve = club.people
    ticket = club.ticket(ada, uses=uses)
    club.meet()
    joiners = [club.use(ticket, by) for by in (ben, eve) for _ in range(uses)]
    assert all(joiner is not None and joiner.belongs for joiner in joiners)
    assert club.use(ticket, ben) is None, "on one side the uses are counted"
    club.meet()
    holders = {
        tuple(joiner.id for joiner in joiners if joiner and person.membership.node(joiner.id))
        for person in club.people
    }
    assert [len(one) for one in holders] == [uses]


def test_a_revoked_ticket_admits_nobody_who_was_not_known() -> None:
    club = Club(MEMBER)
    ada, ben = club.people
    ticket = club.ticket(ada, uses=9)
    early = club.use(ticket, ada)
    club.meet()
    club.write(ada, ada.found.administering.revoke(ada.id, _ticket_key(ticket)))
    late = club.use(ticket, ben)
    assert early is not None and late is not None and late.belongs
    club.meet()
    assert early.belongs and not late.belongs
    assert club.use(ticket, ben) is None
    former = ada.membership.former(late.id)
    assert former is not None and former.code == "ticket_revoked"


def test_tickets_of_a_removed_member_admit_nobody_any_more() -> None:
    club = Club(MEMBER, MEMBER)
    ada, ben, eve = club.people
    ticket = club.ticket(ben, uses=3)
    club.meet()
    before = club.use(ticket, eve)
    club.meet()
    club.remove(ada, ben)
    after = club.use(ticket, eve)
    assert before is not None and after is not None
    club.meet()
    assert before.belongs and not after.belongs
    assert club.use(ticket, eve) is None


def test_names_are_given_and_the_elder_keeps_the_one_that_both_claim() -> None:
    club = Club(MEMBER, MEMBER)
    ada, ben, eve = club.people
    club.write(ben, ben.found.administering.rename_member(member_of(ben, ben), "zoe"))
    club.write(eve, eve.found.administering.rename_member(member_of(eve, eve), "zoe"))
    club.write(eve, eve.found.administering.rename_computer(eve.id, "tower"))
    club.meet()
    names = club.roles()
    assert list(names)[:2] == ["m0", "zoe"] and list(names)[2].startswith("zoe-")
    assert {info.name for info in ada.membership.nodes()} == {"n0", "n1", "tower"}
    assert codes([lambda: ben.found.administering.rename_member(member_of(ben, ben), "m0")]) == ["name_taken"]


def test_an_act_that_names_less_than_its_past_shows_ends_no_log_before_that_past() -> None:
    """Found by the hunt (seed 118): a departure that said to have seen nothing, written after acts of the same log."""
    club = Club(ADMINISTRATOR)
    ada, bob = club.people
    act = club.write(bob, bob.found.administering.appointed(member_of(bob, ada), ADMINISTRATOR))
    club.write(bob, Removed(member_of(bob, bob), "", 0.0, (), (), bob.membership.heads()))
    club.meet()
    assert act.digest in ada.membership.valid_acts()
    assert ada.membership.writer(act) is not None


def test_a_founder_whose_clock_was_set_back_is_still_the_founder() -> None:
    """Found by scenarios with tickets stamped before the founding: what stands on it waits for it."""
    club = Club()
    club.world.now = club.world.now.later(-1e6)
    club.come(MEMBER)
    assert club.roles() == {"m0": "a", "m1": "m"}


def test_who_lost_a_ticket_does_not_keep_it_by_removing_its_author() -> None:
    """Found by the hunt: the loser's admission and the loser's removal of the inviter waited for each other, and were judged before
    the settlement that both wait for."""
    club = Club(MEMBER, MEMBER)
    ada, ben, eve = club.people
    ticket = club.ticket(ada)
    club.meet()
    loser, winner = club.use(ticket, ben), club.use(ticket, eve)
    assert loser is not None and winner is not None
    seen = tuple(sorted(Through(log, number) for log, number in loser.found.seen([ada.id])))
    club.write(loser, Removed(member_of(loser, ada), "", 0.0, seen, (), loser.membership.heads()))
    club.meet(ada, eve)
    club.meet()
    for person in club.people:
        assert person.membership.node(winner.id) is not None
        assert person.membership.node(loser.id) is None


def test_what_made_an_act_void_is_part_of_the_proof() -> None:
    """Found by the hunt: a demotion that the elder's concurrent admission voided was valid for the next joiner, who was shown the
    demotion as part of a past and not the admission."""
    club = Club()
    (ada,) = club.people
    other = club.come(member=member_of(ada, ada))
    ticket = club.ticket(ada, ADMINISTRATOR, uses=2)
    club.meet()
    club.use(ticket, ada)
    dan = club.use(ticket, other)
    assert dan is not None
    club.appoint(dan, ada, GUEST)
    club.meet()
    assert club.roles(ada) == {"m0": "a", "m2": "a", "m3": "a"}
    newcomer = club.use(club.ticket(other), other)
    assert newcomer is not None
    alone = Person(club.world, "alone", club.world.key(), club.world.key())
    alone.found.receive(
        [one.signed for one in other.membership.proof_of(other.id, newcomer.id)], club.world.now
    )
    alone.look()
    assert alone.membership.node(newcomer.id) is not None


def test_nobody_takes_a_computer_that_is_anothers() -> None:
    """Not even a more senior member, nor by claiming it just when it removes the claimant."""
    club = Club(MEMBER, ADMINISTRATOR)
    _, thief, _ = club.people
    victim = club.come(ADMINISTRATOR, inviter=2)
    owner = member_of(victim, victim)
    club.world.steal(thief, victim)
    club.remove(victim, thief)
    club.meet()
    assert {person.membership.owner_of(victim.id) for person in club.people} == {owner}
    assert club.roles() == {"m0": "a", "m2": "a", "m3": "a"}


def test_who_names_a_past_without_administrators_inherits_nothing() -> None:
    """A member picks of all acts those after which nobody would be administrator."""
    club = Club(ADMINISTRATOR, MEMBER)
    ada, bob, eve = club.people
    gone = club.write(ada, ada.found.administering.leave(club.world.now))
    club.meet()
    club.write(eve, Appointed(member_of(eve, eve), ADMINISTRATOR, (), (), (gone.digest,)))
    club.write(eve, Appointed(member_of(eve, eve), ADMINISTRATOR, (), (), ()))
    club.meet()
    assert club.roles(bob) == {"m1": "a", "m2": "m"}


def _ticket_key(ticket: Any) -> bytes:
    return SecretKey(ticket.seed).public


def test_a_member_has_only_so_many_computers_whose_records_are_kept() -> None:
    club = Club()
    ada, own = club.people[0], member_of(club.people[0], club.people[0])
    all_of_her = [ada, *(club.come(member=own) for _ in range(3))]
    assert [ada.membership.has_room(one.id, 3) for one in all_of_her] == [True, True, True, False]
    claim = club.ticket(ada, member=own).claim(NodeId(bytes(32)), "n9", club.world.key(), "m9")
    judged = (judge_join(ada.membership, claim, claim.node, 99, club.world.now, most) for most in (4, 5))
    assert [one.code for one in judged] == ["too_many_computers", ""]
