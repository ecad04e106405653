"""Small worlds of people who change who belongs, on sides that do not hear of each other.

The hunt over thousands of them is `make hunt`; what it found is named in `tests/unit/protocol/membership/test_resolver.py`.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colla.protocol.membership.facts import Fact, in_order, read_fact
from colla.protocol.membership.judging import Judging
from colla.sim.lab.membership_checks import run
from colla.sim.lab.membership_twin import verdicts
from colla.sim.lab.membership_world import Case, MembershipWorld

WORLDS = 5


@pytest.mark.parametrize("seed", range(2000, 2014))
def test_every_promise_is_kept(seed: int) -> None:
    assert run(Case(seed)).problems == ()


def test_no_knot_gives_a_ticket_twice() -> None:
    """Found by the hunt. A ticket's author let somebody in with it, another computer somebody else, and both were part of a knot:
    who was let in by the other one removed a member, who was let in by the author removed the author.

    Seniority chose the founder's admission before it was known whether the author's own counts; and then that one did, too.
    """
    assert run(Case(8075)).problems == ()


def test_the_worlds_are_worth_looking_at() -> None:
    """They are no better than what happens in them."""
    found = [run(Case(seed, twin=False)) for seed in range(2000, 2012)]
    assert sum(one.acts for one in found) > 50
    assert sum(one.void for one in found) > 40
    assert sum(one.ended for one in found) > 15


@cache
def history(world: int) -> tuple[Fact, ...]:
    """All facts of a world at its end."""
    played = MembershipWorld(Case(3000 + world))
    played.play()
    played.meet_all()
    records = played.people[0].found.book.all_records("membership")
    return in_order(fact for one in records if (fact := read_fact(played.group, one)) is not None)


@given(st.integers(0, WORLDS - 1), st.floats(0.3, 1.0), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_part_of_what_was_said_is_judged_as_the_twin_does_it(world: int, share: float, seed: int) -> None:
    """Also when records are missing: of whose past, of whose ticket, of whose admission."""
    rng = Random(seed)
    facts = [fact for fact in history(world) if rng.random() < share]
    rng.shuffle(facts)
    judging = Judging(facts)
    judging.judge_all()
    expected = verdicts(facts)
    assert [expected[fact.record.digest] for fact in facts] == judging.verdicts
