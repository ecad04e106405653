"""The right number of replicas: repair, spares, trimming, modification, what is missing, locations and reasons."""

from __future__ import annotations

from types import ModuleType

import msgspec
import pytest

from colla.model.contribution import gives_all
from colla.model.location import ReplicaPhase
from colla.protocol.locations.messages import Locate, Located, LocationFailed

pytestmark = pytest.mark.parametrize("election", ["hashing", "contention"])


def deployed(
    lab: ModuleType, election: str, count: int = 5, seed: int = 0, replicas: int = 3, **changes: object
):
    group = lab.MiniGroup(count, election, seed=seed)
    group.run(8.0 + 0.37 * seed)
    service = group.service("site", replicas, **changes)
    group.deploy(service, group.by_name[f"n{seed % count}"])
    group.settle(service)
    group.run(12.0)
    return group, service


def modified(service, version: int, **changes: object):
    specification = msgspec.structs.replace(service.specification, version=version, **changes)
    return msgspec.structs.replace(service, specification=specification)


def idle_runner(group, service):
    """A node that runs a replica and does not master."""
    return next(node for node in group.ready(service) if node is not group.master(service))


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_computer_is_replaced(lab: ModuleType, election: str, seed: int) -> None:
    group, service = deployed(lab, election, seed=seed)
    group.kill(idle_runner(group, service))
    assert group.settle(service, 6.0) <= 3.0


def test_a_late_node_gets_one_spare_that_is_trimmed_later(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=6)
    late = idle_runner(group, service)
    late.hung = True
    group.until(lambda: bool(group.told("spare_started")), 3.5)
    group.run(0.4)
    late.hung = False
    group.until(lambda: len(group.ready(service)) == 4, 3.0)
    group.always(lambda: len(group.running(service)) == 4, 25.0, "the surplus must be stable first")
    group.until(lambda: len(group.running(service)) == 3, 15.0)
    assert len(group.told("spare_started")) == 1
    group.always(lambda: group.is_full(service), 40.0)


def test_no_spares_when_many_are_late_together(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=6)
    master = group.master(service)
    others = [node for node in group.nodes.values() if node is not master]
    for node in others[:3]:
        node.hung = True
    group.run(3.1)
    assert not group.told("spare_started")


def test_tiny_groups_repair_before_the_absence_is_confirmed(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(3, election)
    group.run(6.0)
    service = group.service(replicas=2)
    group.deploy(service)
    group.settle(service)
    group.run(12.0)
    group.kill(idle_runner(group, service))
    group.until(lambda: group.is_full(service), 3.0)


def test_a_crashed_replica_is_started_elsewhere(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    node = idle_runner(group, service)
    node.exit_replica(service.id)
    assert group.settle(service, 3.0) < 1.0
    assert node not in group.ready(service)
    assert group.told("replica_exited")


def test_a_program_that_crashes_at_once_backs_off_and_harms_nobody(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=3)
    bad = group.service("bad", 2)
    group.broken["", bad.id] = True
    group.deploy(bad)
    group.run(100.0)
    launches = len(group.told("refused")) + group.sent.get("Offer", 0)
    group.run(100.0)
    more = len(group.told("refused")) + group.sent.get("Offer", 0) - launches
    assert more < 30, "at most one try per minute and node, and the offers that are refused meanwhile"
    assert group.is_full(service)
    assert not group.running(bad)
    lines = group.explain(bad).lines
    assert any("crashed" in line.reason or "failed" in line.reason for line in lines)
    del group.broken["", bad.id]
    group.until(lambda: group.is_full(bad), 70.0)


def test_a_service_broken_on_one_node_runs_on_the_others(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(4, election)
    group.run(6.0)
    service = group.service()
    group.broken["n2", service.id] = True
    group.deploy(service)
    group.settle(service, 6.0)
    assert group.by_name["n2"] not in group.ready(service)


def test_scaling_up_and_down_takes_effect_at_once(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    more = msgspec.structs.replace(service, replicas=5)
    group.write(more, group.by_name["n1"])
    assert group.settle(more, 3.0) < 1.0
    fewer = msgspec.structs.replace(service, replicas=1)
    group.write(fewer, group.by_name["n1"])
    assert group.until(lambda: len(group.running(fewer)) == 1, 5.0) < 3.0
    group.always(lambda: group.is_full(fewer), 60.0)


def test_more_replicas_than_executors(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(3, election)
    group.run(6.0)
    service = group.service(replicas=5)
    group.deploy(service)
    group.until(lambda: len(group.ready(service)) == 3, 2.0)
    group.run(5.0)
    assert group.told("missing_replicas")
    explanation = group.explain(service)
    assert (explanation.wanted, explanation.running) == (5, 3)
    assert "2 of 5 replicas are missing" in " ".join(explanation.history)
    group.always(lambda: len(group.ready(service)) == 3, 30.0)


def test_a_rolling_update_with_a_free_node_starts_before_it_stops(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    newer = modified(service, 2)
    group.write(newer, group.by_name["n2"])

    def done() -> bool:
        versions = [r.version for n in group.running(newer) for r in n.ready_of(newer.id)]
        return versions == [2, 2, 2] and len(group.running(newer)) == 3

    while not done():
        assert len(group.ready(service)) >= 3, group.tell()
        assert len(group.running(service)) <= 4, "one at a time"
        group.run(0.02)
        assert group.t < 60.0, group.tell()
    group.always(done, 20.0)


def test_a_rolling_update_without_a_free_node_keeps_serving(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=3)
    newer = modified(service, 2)
    group.write(newer, group.by_name["n2"])

    def done() -> bool:
        return [r.version for n in group.nodes.values() for r in n.ready_of(newer.id)] == [2, 2, 2]

    while not done():
        assert len(group.ready(service)) >= 2, group.tell()
        group.run(0.02)
        assert group.t < 60.0, group.tell()
    group.always(done, 20.0)


def test_a_single_replica_on_a_single_node_is_updated(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(1, election)
    group.run(4.0)
    service = group.service(replicas=1)
    group.deploy(service)
    group.settle(service)
    newer = modified(service, 2)
    only = group.by_name["n0"]
    group.write(newer, only)
    group.until(lambda: [r.version for r in only.ready_of(service.id)] == [2], 6.0)


def test_two_modifications_in_a_row_end_with_the_last(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    group.write(modified(service, 2), group.by_name["n2"])
    group.run(1.2)
    group.write(modified(service, 3), group.by_name["n0"])
    newest = [3, 3, 3]
    group.until(
        lambda: [r.version for n in group.running(service) for r in n.ready_of(service.id)] == newest, 30.0
    )
    group.until(lambda: len(group.running(service)) == 3, 10.0)


def test_a_broken_new_version_leaves_the_old_one_serving(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    group.broken["", service.id] = True
    group.write(modified(service, 2), group.by_name["n2"])
    group.always(lambda: len(group.ready(service)) >= 3, 60.0, "the old version serves on")


def test_elimination_against_running_replicas(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    side = [group.by_name["n0"]]
    rest = [node for node in group.nodes.values() if node not in side]
    group.split(side, rest)
    group.run(8.0)
    group.write(service, side[0], gone=True)
    group.until(lambda: not [n for n in group.running(service) if n in side], 2.0)
    assert [n for n in group.running(service) if n in rest]
    group.heal()
    group.until(lambda: not group.running(service), 4.0, "elimination wins everywhere")
    group.always(lambda: not group.running(service) and not group.masters(service), 30.0)


def test_executors_keep_running_when_they_hear_from_nobody(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    lonely = idle_runner(group, service)
    given = lonely.own.contribution
    group.contribute(lonely, msgspec.structs.replace(given, agents=("executor",)))
    group.split([lonely], [node for node in group.nodes.values() if node is not lonely])
    group.always(lambda: bool(lonely.ready_of(service.id)), 120.0)


def test_an_object_is_fetched_from_whoever_holds_it(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(5, election)
    group.run(6.0)
    service = group.service()
    group.deploy(service, group.by_name["n3"], everywhere=False)
    for node in group.sorted_nodes():
        node.own.contribution = msgspec.structs.replace(
            node.own.contribution, agents=("repository", "dispatcher", "executor")
        )
    group.settle(service, 15.0)


def test_likely_next_executors_get_the_object_ahead(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(6, election)
    group.run(6.0)
    service = group.service()
    group.deploy(service, group.by_name["n3"], everywhere=False)
    group.settle(service, 15.0)
    group.run(10.0)
    holding = [n for n in group.nodes.values() if n.holdings.holds(service.specification.object)]
    assert len(holding) > 3


def test_subscribers_are_told_every_change(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    master = group.master(service)
    asker = next(node for node in group.nodes.values() if node is not master)
    group.answers.clear()
    master.deliver(asker.id, Locate(service.id, True))
    group.run(0.2)
    (first,) = [m for *_, m in group.answers if isinstance(m, Located)]
    assert first.authoritative and len(first.locations) == 3
    assert {location.node for location in first.locations} == {node.id for node in group.ready(service)}
    victim = next(node for node in group.ready(service) if node not in (master, asker))
    group.answers.clear()
    victim.exit_replica(service.id)
    group.run(1.5)
    told = [m for *_, m in group.answers if isinstance(m, Located)]
    assert victim.id not in {location.node for location in told[0].locations}
    assert len(told[-1].locations) == 3
    group.run(15.0)
    group.answers.clear()
    group.ready(service)[0].exit_replica(service.id)
    group.run(3.0)
    assert not [m for *_, m in group.answers if isinstance(m, Located)], "the subscription has expired"


def test_other_dispatchers_name_the_master(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=6)
    master = group.master(service)
    for node in group.nodes.values():
        if node is master:
            continue
        group.answers.clear()
        asker = next(other for other in group.nodes.values() if other is not node)
        node.deliver(asker.id, Locate(service.id, True))
        group.run(0.1)
        (located,) = [m for *_, m in group.answers if isinstance(m, Located)]
        assert located.master == master.id and not located.authoritative
        if node in group.secondaries(service):
            assert len(located.locations) == 3, "a secondary knows what the master knows"


def test_a_hint_makes_the_master_look_not_obey(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election)
    master = group.master(service)
    located = group.located(service)
    location = next(item for item in located.locations if item.node != master.id)
    before = group.sent["Supervision"]
    master.deliver(group.by_name["n0"].id, LocationFailed(service.id, location.replica))
    group.run(0.01)
    assert group.sent["Supervision"] == before + 1
    group.always(lambda: group.is_full(service), 10.0)


def test_why_names_every_node(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(6, election)
    group.run(6.0)
    poor = gives_all(4.0, 8 * 2**30, 2**30, ("wasm",))
    group.contribute(group.by_name["n5"], poor)
    group.run(2.0)
    service = group.service()
    group.deploy(service)
    group.settle(service)
    group.run(3.0)
    explanation = group.explain(service)
    verdicts = {group.nodes[line.node].name: line.verdict for line in explanation.lines}
    assert sorted(verdicts) == ["n0", "n1", "n2", "n3", "n4", "n5"]
    assert list(verdicts.values()).count("runs") == 3
    assert verdicts["n5"] == "unfit"
    assert explanation.master == group.master(service).id and explanation.term == 1


def test_replicas_spread_over_members(lab: ModuleType, election: str) -> None:
    for seed in range(4):
        group = lab.MiniGroup(6, election, seed=seed)
        group.run(6.0)
        service = group.service(replicas=3)
        group.deploy(service)
        group.settle(service)
        assert len({node.member for node in group.ready(service)}) == 3


def test_an_unhealthy_replica_is_replaced_and_then_stopped(lab: ModuleType, election: str) -> None:
    from colla.kernel.events import ReplicaUnhealthy

    group, service = deployed(lab, election)
    ill = idle_runner(group, service)
    (replica,) = ill.ready_of(service.id)
    replica.ready = False
    ill.event(ill.start_number, ReplicaUnhealthy(replica.id, "HTTP 500"))
    group.run(0.2)
    assert ill.id not in {location.node for location in group.located(service).locations}
    group.until(lambda: group.is_full(service) and ill not in group.running(service), 20.0)


def test_many_services_share_the_executors(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(6, election)
    group.run(6.0)
    services = [group.service(f"site{number}", 3) for number in range(12)]
    for service in services:
        group.deploy(service)
    group.until(lambda: all(group.is_full(service) for service in services), 15.0)
    group.run(10.0)
    victim = group.by_name["n2"]
    group.kill(victim)
    group.until(lambda: all(group.is_full(service) for service in services), 15.0)
    assert all(len(group.masters(service)) == 1 for service in services)


def test_all_services_of_one_silent_computer_get_their_spares(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(4, election)
    group.run(6.0)
    services = [group.service(f"site{number}", 3) for number in range(16)]
    for service in services:
        group.deploy(service)
    group.until(lambda: all(group.is_full(service) for service in services), 15.0)
    group.run(10.0)
    masters = {service.id: group.master(service) for service in services}
    victim = group.by_name["n2"]
    hit = [service for service in services if victim in group.ready(service)]
    hit = [service for service in hit if masters[service.id] is not victim]
    group.kill(victim)
    # One master has several services there: not one of them waits until the absence is confirmed.
    assert len(hit) > len({masters[service.id] for service in hit})
    group.until(lambda: all(group.is_full(service) for service in hit), 3.0)


def test_executors_start_two_at_a_time(lab: ModuleType, election: str) -> None:
    group = lab.MiniGroup(1, election)
    group.run(4.0)
    only = group.by_name["n0"]
    services = [group.service(f"site{number}", 1) for number in range(8)]
    for service in services:
        group.deploy(service)

    def starting() -> int:
        return sum(1 for replica in only.runs.values() if not replica.ready)

    while not all(group.is_full(service) for service in services):
        assert starting() <= 2
        group.run(0.02)
        assert group.t < 30.0, group.tell()


def test_draining_replicas_are_shown_as_such(lab: ModuleType, election: str) -> None:
    group, service = deployed(lab, election, count=3)
    node = idle_runner(group, service)
    group.contribute(node, msgspec.structs.replace(node.own.contribution, draining=True))
    group.run(1.0)
    (shown,) = node.executor.replicas()
    assert shown.phase is ReplicaPhase.DRAINING
    assert len(group.located(service).locations) == 3, "it serves until somebody takes its place"
