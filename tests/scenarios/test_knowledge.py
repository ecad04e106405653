"""What the group knows spreads, is repaired, and is never lost: records, catalogues, old disks, forked logs."""

from __future__ import annotations

import msgspec

from colla.agents.requests import ModifyService, Written
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.sessions.sessions import Sessions
from colla.sim.network import Losing

MEETING_S = 5.0
SPREAD_S = 30.0
"""Anti-entropy repairs within three of its intervals."""


def eliminated_everywhere(group, service):
    return all(computer.core.catalogue.eliminated(service) for computer in group.up())


def test_a_multicast_is_lost_then_repaired(new_scenario):
    scenario = new_scenario(5)
    group = scenario.group
    losing = group.network.add(Losing((*Multicast.MESSAGES, *Sessions.MESSAGES), targets=["n3", "n4"]))
    blog = group.deploy("blog", replicas=1, at=group[1])
    group.run(0.5)
    assert all(computer.core.catalogue.service(blog) is None for computer in group.computers[3:])
    group.network.remove(losing)
    group.until(lambda: len(group.catalogues()) == 1, SPREAD_S, "all hold the same catalogue")
    scenario.settle(20.0)


def test_a_gap_in_a_log(new_scenario):
    """The second of three changes is lost for one node: it uses the third at once, and gets the second later."""
    scenario = new_scenario(4, replicas=1)
    group = scenario.group
    no_sessions = group.network.add(Losing(Sessions.MESSAGES, targets=["n3"]))
    losing = group.network.add(Losing(Multicast.MESSAGES, targets=["n3"]))
    blog = group.deploy("blog", replicas=1, at=group[0], active=False)
    group.network.remove(losing)
    wiki = group.deploy("wiki", replicas=1, at=group[0])
    group.run(0.2)
    behind = group[3].core.catalogue
    assert behind.service(wiki) is not None, "a record ahead of a gap is applied at once"
    assert behind.service(blog) is None
    scenario.checks.look_at(group[3])
    group.network.remove(no_sessions)
    group.until(lambda: behind.service(blog) is not None, SPREAD_S, "the gap is closed")
    scenario.settle(20.0)


def test_elimination_beats_concurrent_change(new_scenario):
    """A member's one computer eliminates what the other modifies and scales, on two sides."""
    scenario = new_scenario(4)
    group, web = scenario.group, scenario.services["web"]
    owner, second = group[0], group.join_own(group[0])
    group.run(MEETING_S)
    group.partition([owner, group[1]], [second, group[2], group[3]])
    group.run(6.0)
    gone = group.eliminate(web, at=owner)
    specification = msgspec.structs.replace(group.specification("web", owner), env=(("A", "B"),))
    modified = second.ask(ModifyService(web, specification))
    scaled = group.scale(web, 2, at=second)
    group.run(10.0)
    assert all(isinstance(asked.result, Written) for asked in (gone, modified, scaled))
    assert second.core.catalogue.service(web).specification.version == 2
    group.heal()
    group.until(lambda: eliminated_everywhere(group, web), 90.0, "all know that web is gone")
    group.until(lambda: group.running(web) == 0, 10.0, "no replica runs")
    scenario.settle(30.0)


def test_both_sides_change_and_one_wins_everywhere(new_scenario):
    """Two computers of one member scale the same service on two sides: the later stamp wins, the conflict is shown."""
    scenario = new_scenario(4, replicas=2)
    group, web = scenario.group, scenario.services["web"]
    second = group.join_own(group[0])
    group.run(5.0)
    group.partition([group[0], group[1]], [second, group[2], group[3]])
    group.run(6.0)
    one = group.scale(web, 1, at=group[0])
    group.run(10.0)
    other = group.scale(web, 3, at=second)
    group.run(3.0)
    assert isinstance(one.result, Written) and isinstance(other.result, Written)
    group.heal()
    scenario.settle(150.0)
    services = [computer.core.catalogue.service(web) for computer in group.up()]
    assert {service.replicas for service in services} == {3}
    assert all("replicas" in service.conflicts for service in services)


def test_return_after_a_long_absence(new_scenario):
    scenario = new_scenario(4, replicas=2)
    group, web = scenario.group, scenario.services["web"]
    absent = group[3]
    group.crash(absent)
    group.run(10.0)
    for number in range(12):
        service = group.deploy(f"s{number}", replicas=1, at=group[number % 3], active=number % 2 == 0)
        if number % 3 == 0:
            group.eliminate(service, at=group[number % 3])
    group.eliminate(web, at=group[0])
    group.run(120.0)
    group.restart(absent)
    group.until(lambda: len(group.catalogues()) == 1, 30.0, "the one that returned knows everything")
    assert absent.core.catalogue.eliminated(web)
    scenario.settle(60.0)


def test_an_old_disk_comes_back(new_scenario):
    """Its log was forked: both branches are kept, and nothing that was acknowledged is lost."""
    scenario = new_scenario(4, replicas=1)
    group = scenario.group
    author = group[1]
    before = group.deploy("before", replicas=1, at=author)
    group.run(15.0)
    backup, objects = author.disk.snapshot(), dict(author.objects.sizes)
    lost = group.deploy("after-backup", replicas=1, at=author)
    group.run(5.0)
    author.power_off()
    group.run(3.0)
    # Alone with its old disk, it goes on with numbers that it had given out already.
    cut = group.partition([author], [one for one in group.computers if one is not author])
    author.restore_disk(backup, objects)
    author.start()
    group.run(8.0)
    forked = group.deploy("forked", replicas=1, at=author)
    group.run(3.0)
    group.network.remove(cut)
    group.until(lambda: len(group.catalogues()) == 1, 120.0, "all catalogues are equal")
    for computer in group.up():
        for service in (before, lost, forked):
            assert computer.core.catalogue.service(service) is not None
    assert any(notice.kind == "log_forked" for _, notice in author.notices)
    later = group.deploy("later", replicas=1, at=author)
    group.run(3.0)
    assert all(computer.core.catalogue.service(later) is not None for computer in group.up())
    scenario.settle(90.0)


def test_a_write_with_nobody_there_says_so_and_survives(new_scenario):
    scenario = new_scenario(3, replicas=1)
    group = scenario.group
    alone = group[0]
    group.crash(group[1], group[2])
    group.run(8.0)
    blog = group.deploy("blog", replicas=1, at=alone)
    group.crash(alone)
    group.restart(group[1], group[2])
    group.run(10.0)
    assert group[1].core.catalogue.service(blog) is None
    group.restart(alone)
    scenario.settle(60.0)
    assert group[1].core.catalogue.service(blog) is not None
