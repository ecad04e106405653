"""Routers let in only answers: who reaches whom depends on both of them, on introductions and on relays."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from colla.kernel.effects import FetchObject
from colla.kernel.events import Event, ObjectFetched
from colla.model.ids import ObjectId
from colla.sim.computer import Computer
from colla.sim.group import GIVES, SimGroup
from colla.sim.homes import MAPPING_S, Home, Nat

KEEPING, SYMMETRIC, FORWARDING = Nat.KEEPING, Nat.SYMMETRIC, Nat.FORWARDING
BLOB = ObjectId(b"blob" * 8)
RELAY = "http://203.0.113.7:3340"


def test_a_keeping_router_remembers_for_a_while() -> None:
    home = Home(1, KEEPING)
    assert home.move_in("a")[1] == "203.0.0.2:4001"
    assert not home.lets_in("a", "b", True, 100.0)
    home.sent("a", "b", 100.0)
    assert home.lets_in("a", "b", True, 100.0 + MAPPING_S)
    assert not home.lets_in("a", "b", False, 100.0), "from another port than it sent to"
    assert not home.lets_in("a", "c", True, 100.0)
    assert not home.lets_in("a", "b", True, 100.1 + MAPPING_S)


def test_a_symmetric_router_shows_everybody_another_address() -> None:
    home = Home(1, SYMMETRIC)
    assert home.move_in("a")[1] == ""
    assert home.draw_address() != home.draw_address()
    home.sent("a", "b", 0.0)
    assert not home.lets_in("a", "b", True, 0.0)


def link_between(one: Computer, other: Computer):
    """The link that both agree on, if any."""
    assert one.links is not None and other.links is not None
    mine, theirs = one.links.link_to(other.node), other.links.link_to(one.node)
    return mine if mine is theirs else None


def homes_of(nats: list[Nat], *, relay: bool = False) -> tuple[SimGroup, list[Computer]]:
    """A public founder, and a computer in each of these homes, all of which know each other."""
    group = SimGroup(seed=4)
    group[0].contribute(replace(GIVES, relay=RELAY if relay else ""))
    inside = [group.join(home=group.network.build_home(nat)) for nat in nats]
    group.run(8.0)
    for one in inside:
        assert link_between(one, group[0]) is not None
    return group, inside


def dial(group: SimGroup, one: Computer, other: Computer) -> bool:
    """Break whatever link there is, let the routers forget, and dial anew at what presence tells."""
    assert one.links is not None
    one.links.close_link(other.node, "test")
    group.run(0.5)
    outcome: list[bool] = []
    one.links.dial(other.node, one.core.presence.addresses(other.node), outcome.append)
    group.run(6.0)
    return outcome == [True] and link_between(one, other) is not None


@pytest.mark.parametrize(
    ("one", "other", "relay", "meets"),
    [
        (KEEPING, KEEPING, False, True),
        (KEEPING, SYMMETRIC, False, False),
        (SYMMETRIC, SYMMETRIC, False, False),
        (SYMMETRIC, FORWARDING, False, True),
        (SYMMETRIC, SYMMETRIC, True, True),
        (KEEPING, SYMMETRIC, True, True),
    ],
)
def test_who_meets_whom(one: Nat, other: Nat, relay: bool, meets: bool) -> None:
    group, (a, b) = homes_of([one, other], relay=relay)
    assert dial(group, a, b) is meets
    link = link_between(a, b)
    assert (link is not None) is meets
    if link is not None:
        assert (link.via is not None) is relay, "only a relay carries what cannot meet"


def test_two_that_can_meet_leave_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    group, (a, b) = homes_of([KEEPING, KEEPING], relay=True)
    assert dial(group, a, b)
    link = link_between(a, b)
    assert link is not None and link.via is None
    group[0].power_off()
    group.run(40.0)
    assert link_between(a, b) is link, "what stands needs nobody else"


def test_a_relayed_link_dies_with_its_relay() -> None:
    group, (a, b) = homes_of([SYMMETRIC, SYMMETRIC], relay=True)
    assert dial(group, a, b)
    group[0].kill()
    group.run(40.0)
    assert link_between(a, b) is None
    group[0].start()
    group.until(lambda: link_between(a, b) is not None, 90.0, "they meet again")


def test_at_home_all_reach_each_other_without_the_public_one() -> None:
    group = SimGroup(seed=5)
    home = group.network.build_home(SYMMETRIC)
    a, b = group.join(home=home), group.join(home=home)
    group.run(8.0)
    group[0].power_off()
    for one in (a, b):
        one.kill()
    a.start()
    b.start()
    group.until(lambda: link_between(a, b) is not None, 10.0, "found each other as on a LAN")
    assert group.network.delay_s(a, b) < 0.01


def test_a_home_shares_its_uplink() -> None:
    group = SimGroup(seed=6)
    home = group.network.build_home(KEEPING)
    a, b = group.join(home=home), group.join(home=home)
    group.run(2.0)
    group.network.upload_s(a, group[0], 5_000_000)
    assert group.network.upload_s(b, group[0], 1000) > 1.9
    assert group.network.upload_s(b, a, 1000) < 0.001, "but not its LAN"


def test_a_laptop_leaves_home_and_comes_back() -> None:
    group, (a, b) = homes_of([KEEPING, SYMMETRIC])
    home = b.whereabouts.home
    assert home is not None and not dial(group, a, b)
    b.move("198.51.100.9:4000")
    group.run(8.0)
    assert b.core.presence.addresses(b.node) == ("198.51.100.9:4000",)
    assert dial(group, a, b)
    b.live_in(home)
    group.run(8.0)
    assert not dial(group, a, b)


def test_objects_pass_where_links_do() -> None:
    group, (a, b) = homes_of([SYMMETRIC, SYMMETRIC], relay=True)
    group[0].line = replace(group[0].line, upload_bytes_s=100_000.0)
    a.put_object(BLOB, 500_000)
    began_s = group.world.now_s
    fetched: list[Event] = []
    b.objects.fetch(FetchObject(1, BLOB, (a.node,)), fetched.append)
    group.until(lambda: fetched[-1:] == [ObjectFetched(1, BLOB, 500_000)], 30.0)
    assert group.world.now_s - began_s > 4.9, "as fast as the relay's line lets it"


def test_a_group_of_homes_runs_a_service_and_mends_it() -> None:
    group, inside = homes_of([KEEPING, KEEPING, KEEPING])
    web = group.deploy("web", replicas=2, at=inside[0])
    group.until(lambda: group.running(web) == 2, 15.0, "both run")
    lost = next(one for one in group.running_on(web) if one is not group[0])
    lost.power_off()
    group.until(lambda: group.running(web) == 2, 15.0, "the full number again")
