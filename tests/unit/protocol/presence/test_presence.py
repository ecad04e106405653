"""Who is here: crashes, goodbyes, partitions, stalls, sleep, and what an idle group costs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from colla.model.contribution import ALL_AGENTS, AgentKind
from colla.protocol.presence.announcements import sign_announcement
from colla.protocol.presence.messages import Claim, News, SignedAnnouncement
from colla.protocol.views import PresencePhase

ABSENT, LEFT, PRESENT, SUSPECTED = (
    PresencePhase.ABSENT,
    PresencePhase.LEFT,
    PresencePhase.PRESENT,
    PresencePhase.SUSPECTED,
)
LOSSY: dict[str, Any] = {"loss": 0.05, "delay_s": (0.01, 0.2)}
UDP_AND_QUIC_BYTES = 75


def known_after(net: Any, victim: Any, since_s: float, phase: PresencePhase) -> float:
    """When the last of the others knew."""
    times = [node.when(victim, phase, since_s) for node in net.nodes if node is not victim and node.alive]
    assert None not in times, [node.number for node in net.nodes if node.alive]
    return max(times) - since_s


def test_all_see_all_after_a_common_start(network: Any) -> None:
    net = network(30, **LOSSY)
    net.start(settle_s=10.0)
    assert net.all_see_all()
    first, last = net.nodes[0], net.nodes[-1]
    change = next(change for _, change in first.log if change.node == last.id)
    assert change.phase is PRESENT and change.appeared
    assert first.presence.entry(last.id).announcement.addresses == ("10.0.0.29:7000",)
    assert len(first.presence.carrying(AgentKind.GROUP)) == 30


def test_a_crash_is_known_to_all_soon(network: Any) -> None:
    net = network(30, seed=11, **LOSSY)
    net.start(settle_s=10.0)
    latencies = []
    for victim in net.nodes[:6]:
        since_s = net.now.boot_s
        net.crash(victim)
        net.run(9.0 + net.rng.random())
        latencies.append(known_after(net, victim, since_s, ABSENT))
        assert {about for _, _, about in net.absences(since_s)} == {victim.number}
        net.restart(victim)
        net.run(8.0)
        assert net.all_see_all()
    assert max(latencies) <= 6.0
    assert sorted(latencies)[len(latencies) // 2] <= 4.5


@pytest.mark.parametrize(("size", "crashed"), [(2, 1), (3, 1), (5, 2), (5, 3), (30, 15)])
def test_crashes_at_the_same_moment_are_all_found(network: Any, size: int, crashed: int) -> None:
    net = network(size, **LOSSY)
    net.start(settle_s=10.0)
    for victim in net.nodes[:crashed]:
        net.crash(victim)
    assert net.run(6.0 if size <= 5 else 12.0, net.all_see_all)


@pytest.mark.parametrize("size", [2, 5, 30])
def test_goodbye_is_known_to_all_within_two_seconds(network: Any, size: int) -> None:
    net = network(size, seed=4, **LOSSY)
    net.start(settle_s=10.0)
    for round_ in range(4):
        leaver, since_s = net.nodes[round_ % size], net.now.boot_s
        leaver.call(leaver.presence.stopping)
        net.run(0.5)
        net.crash(leaver)
        net.run(5.0)
        assert known_after(net, leaver, since_s, LEFT) <= 2.0
        assert not net.absences(since_s)
        net.restart(leaver)
        assert net.run(15.0, net.all_see_all)


def test_stalls_of_two_seconds_are_no_absence(network: Any) -> None:
    net = network(30, seed=3, **LOSSY)
    net.start(settle_s=10.0)
    since_s = net.now.boot_s

    def stall_somebody() -> None:
        net.stall(net.rng.choice(net.nodes), net.rng.uniform(0.2, 2.0))
        net.later(net.rng.expovariate(1 / 3.0), stall_somebody)

    stall_somebody()
    net.run(150.0)
    assert net.absences(since_s) == []


def test_a_late_loop_counts_itself_out(network: Any) -> None:
    net = network(5)
    net.start()
    slow, victim = net.nodes[0], net.nodes[1]
    net.crash(victim)
    net.run(2.9)
    net.stall(slow, 1.0)
    net.run(1.05)
    assert slow.presence.loop_was_late(net.now.boot_s)
    assert not slow.presence._watch.silent(victim.id, net.now.boot_s)
    net.run(5.0)
    assert not slow.presence.loop_was_late(net.now.boot_s)
    assert not slow.sees(victim)


@pytest.mark.parametrize(("size", "cut_off"), [(2, 1), (5, 2), (20, 1), (20, 10)])
def test_partitions_mark_the_others_absent_and_heal(network: Any, size: int, cut_off: int) -> None:
    net = network(size, **LOSSY)
    net.start(settle_s=10.0)
    left, right = net.nodes[:cut_off], net.nodes[cut_off:]
    net.partition(left, right)

    def apart() -> bool:
        across = [(one, other) for one in left for other in right]
        return not any(one.sees(other) or other.sees(one) for one, other in across)

    since_s = net.now.boot_s
    assert net.run(30.0, apart)
    assert all((who < cut_off) != (about < cut_off) for _, who, about in net.absences(since_s))
    net.run(20.0)
    net.heal()
    healed_s = net.now.boot_s
    assert net.run(120.0, net.all_see_all)
    # Those who come back believing everybody absent frighten nobody.
    assert net.absences(healed_s) == []
    net.run(10.0)
    assert net.all_see_all() and net.absences(healed_s) == []


def test_a_link_that_carries_one_way_only_is_no_absence(network: Any) -> None:
    net = network(6, **LOSSY)
    net.start(settle_s=10.0)
    one, other = net.nodes[:2]
    net.blocked = lambda sender, receiver: sender is one and receiver is other
    since_s = net.now.boot_s
    net.run(120.0)
    assert net.absences(since_s) == [] and net.all_see_all()
    # The other watchers hear it, so nobody is even suspected.
    assert not any(change.phase is SUSPECTED for node in net.nodes for _, change in node.log)


def test_two_nodes_that_never_reach_each_other_see_each_other_through_others(network: Any) -> None:
    net = network(6, **LOSSY)
    one, other = net.nodes[:2]
    net.blocked = lambda sender, receiver: {sender.id, receiver.id} == {one.id, other.id}
    net.start(settle_s=15.0)
    assert net.all_see_all()
    since_s = net.now.boot_s
    net.run(120.0)
    assert net.absences(since_s) == [] and net.all_see_all()


def test_waking_from_sleep(network: Any) -> None:
    net = network(10, **LOSSY)
    net.start(settle_s=10.0)
    sleeper = net.nodes[3]
    net.stall(sleeper, 60.0)
    net.run(60.001)
    assert not net.nodes[0].sees(sleeper)
    sleeper.call(sleeper.presence.resumed, 60.0)
    woke_s = net.now.boot_s
    assert net.run(5.0, net.all_see_all)
    net.run(20.0)
    assert net.all_see_all() and net.absences(woke_s) == []


def test_a_restart_is_told_even_when_nobody_noticed_the_end(network: Any) -> None:
    net = network(5)
    net.start()
    node, witness = net.nodes[0], net.nodes[1]
    net.crash(node)
    net.run(1.0)
    since_s = net.now.boot_s
    net.restart(node)
    assert net.run(10.0, net.all_see_all)
    appeared = [one for at_s, one in witness.log if at_s >= since_s and one.node == node.id and one.appeared]
    assert len(appeared) == 1
    assert witness.presence.entry(node.id).announcement.start == 2
    assert not net.absences(since_s)


def test_an_old_disk_with_an_old_start_number_gets_through(network: Any) -> None:
    net = network(5)
    net.start()
    node = net.nodes[0]
    for _ in range(3):
        net.restart(node)
        net.run(3.0)
    net.crash(node)
    net.run(6.0)
    node.start_number = 0
    net.restart(node)
    assert net.run(10.0, net.all_see_all)


def test_a_restarted_node_dials_by_the_addresses_on_its_disk(network: Any) -> None:
    net = network(4)
    net.start()
    net.crash(net.nodes[0])
    net.run(10.0)
    # The others cannot dial it any more, so it has to find them by itself.
    for node in net.nodes[1:]:
        node.presence._links._addresses.pop(net.nodes[0].id)
    net.restart(net.nodes[0])
    assert net.run(3.0, net.all_see_all)


def test_changes_of_the_contribution_reach_all(network: Any) -> None:
    net = network(12, **LOSSY)
    net.start(settle_s=10.0)
    node = net.nodes[0]
    node.own.contribution = type(node.own.contribution)(agents=(AgentKind.USER,))
    node.call(node.presence.contribution_changed)
    net.run(2.0)
    for other in net.nodes:
        assert node.id not in other.presence.carrying(AgentKind.EXECUTOR)
        assert other.sees(node)
    appeared_s = net.nodes[1].presence.entry(node.id).since_s
    assert appeared_s < net.now.boot_s - 5.0


def test_only_group_agents_watch_and_a_single_one_is_watched_too(network: Any) -> None:
    net = network(
        8, agents=lambda number: ALL_AGENTS if number == 0 else (AgentKind.USER, AgentKind.EXECUTOR)
    )
    net.start(settle_s=10.0)
    group_agent = net.nodes[0]
    for node in net.nodes[1:]:
        assert node.presence._around.rings.watchers_of(node.id) == (group_agent.id,)
    assert len(group_agent.presence._around.rings.watchers_of(group_agent.id)) == 4
    net.crash(net.nodes[5])
    assert net.run(6.0, net.all_see_all)
    net.crash(group_agent)
    assert net.run(8.0, net.all_see_all)


def test_an_idle_group_of_thirty_costs_little(network: Any) -> None:
    net = network(30, **LOSSY)
    net.start(settle_s=40.0)
    for node in net.nodes:
        node.datagrams = node.messages = node.bytes = 0
    seconds = 60.0
    net.run(seconds)
    per_node_second = len(net.nodes) * seconds
    heartbeats = sum(node.datagrams for node in net.nodes) / per_node_second
    others = sum(node.messages - node.datagrams for node in net.nodes) / per_node_second
    wire = sum(node.bytes + UDP_AND_QUIC_BYTES * node.messages for node in net.nodes)
    assert 4.0 <= heartbeats <= 4.8
    assert others <= 0.1
    # iroh's own traffic (48 bytes a second and link) comes on top of this.
    links = len(net.links) / len(net.nodes)
    assert (wire / per_node_second + 48 * links) * 8 <= 8000
    assert links <= 8.5


def test_partners_hear_and_echo_each_other_once_a_second(network: Any) -> None:
    net = network(12, **LOSSY)
    net.start(settle_s=30.0)
    master, executor = net.nodes[2], net.nodes[9]
    for node, other in ((master, executor), (executor, master)):
        node.presence.set_partners("services", [other.id], net.now)
        net.perform(node)
    net.run(2.0)
    before = master.datagrams
    for _ in range(60):
        net.run(1.0)
        for node, other in ((master, executor), (executor, master)):
            assert node.presence.echoed_s(other.id, net.now.boot_s) < 3.5
            assert node.presence.heard_s(other.id, net.now.boot_s) < 2.0
    assert (master.datagrams - before) / 60 <= 6.0
    # A second purpose costs nothing, and the pair lives until the last purpose ends.
    master.presence.set_partners("other", [executor.id], net.now)
    master.presence.set_partners("services", [], net.now)
    net.run(5.0)
    assert master.presence.heard_s(executor.id, net.now.boot_s) < 2.0
    master.presence.set_partners("other", [], net.now)
    if not master.presence._around.minds(executor.id):
        assert master.presence.heard_s(executor.id, net.now.boot_s) is None


def test_a_partner_that_only_sends_is_heard_but_does_not_echo(network: Any) -> None:
    net = network(3)
    net.start(settle_s=10.0)
    ruler, subject = net.nodes[:2]
    for node, other in ((ruler, subject), (subject, ruler)):
        node.presence.set_partners("services", [other.id], net.now)
        net.perform(node)
    net.run(3.0)
    # The ruler can send but not hear.
    net.blocked = lambda sender, receiver: receiver is ruler
    net.run(4.0)
    assert subject.presence.heard_s(ruler.id, net.now.boot_s) < 2.0
    assert subject.presence.echoed_s(ruler.id, net.now.boot_s) > 3.0


def test_the_share_of_suspects_tells_a_crash_from_being_cut_off(network: Any) -> None:
    net = network(12)
    net.start(settle_s=10.0)
    lonely = net.nodes[0]
    assert lonely.presence.suspects_share(net.now.boot_s) == 0.0
    net.partition([lonely], net.nodes[1:])
    net.run(3.0)
    assert lonely.presence.suspects_share(net.now.boot_s) == 1.0


def test_a_new_member_is_seen_by_all_and_a_removed_one_by_nobody(network: Any) -> None:
    net = network(8, **LOSSY)
    newcomer = net.nodes[-1]
    info = net.members.infos.pop(newcomer.id)
    net.start(*net.nodes[:-1], settle_s=10.0)
    assert net.all_see_all()
    net.members.infos[newcomer.id] = info
    for node in net.nodes[:-1]:
        node.call(node.presence.membership_changed)
    newcomer.boot()
    newcomer.call(newcomer.presence.peer_found, net.nodes[0].id, ("10.0.0.0:7000",))
    assert net.run(40.0, net.all_see_all)
    del net.members.infos[newcomer.id]
    for node in net.nodes[:-1]:
        node.call(node.presence.membership_changed)
        assert not node.sees(newcomer)
        assert node.log[-1][1].phase is ABSENT
    net.run(20.0)
    assert not any(node.sees(newcomer) for node in net.nodes[:-1])


def test_forged_announcements_are_rejected(network: Any) -> None:
    net = network(3)
    net.start()
    node, victim, liar = net.nodes
    entry = node.presence.entry(victim.id)
    newer = msgspec.structs.replace(entry.announcement, revision=99)
    forged = sign_announcement(liar.identity, newer)
    garbage = SignedAnnouncement(b"\x00" * 50, bytes(64))
    node.call(node.presence.message, liar.id, News((), (forged, garbage)))
    assert node.presence.rejected == 2
    assert node.presence.entry(victim.id) == entry


def test_claims_about_versions_that_nobody_announced_are_not_believed(network: Any) -> None:
    net = network(3)
    net.start()
    node, victim, liar = net.nodes
    before = node.presence.entry(victim.id)
    for rank in (1, 2, 3):
        lie = News((Claim(victim.id, 2**61, 2**61, rank),), ())
        node.call(node.presence.message, liar.id, lie)
        victim.call(victim.presence.message, liar.id, lie)
    net.run(10.0)
    assert node.presence.entry(victim.id) == before


def test_a_lie_is_refuted_before_anybody_is_taken_for_absent(network: Any) -> None:
    net = network(8, **LOSSY)
    net.start(settle_s=10.0)
    node, victim, liar = net.nodes[:3]
    since_s = net.now.boot_s
    announced = node.presence.entry(victim.id).announcement
    lie = News((Claim(victim.id, announced.start, announced.revision, 2),), ())
    node.call(node.presence.message, liar.id, lie)
    assert node.presence.entry(victim.id).phase is SUSPECTED
    net.run(10.0)
    assert net.absences(since_s) == [] and net.all_see_all()
    assert node.presence.entry(victim.id).announcement.revision == announced.revision + 1


@pytest.mark.parametrize("told", ["itself", "others"])
def test_who_counts_again_from_a_life_that_it_forgot_is_believed_in_the_end(network: Any, told: str) -> None:
    """Another announcement of the very same number: whoever sees both says so, or notices that it is meant."""
    net = network(3)
    net.start()
    node, other = net.nodes[:2]
    former = node.presence.entry(node.id).announcement
    agents = (AgentKind.USER,)
    said = msgspec.structs.replace(former, contribution=type(node.own.contribution)(agents=agents))
    signed = sign_announcement(node.identity, said)
    if told == "itself":
        node.call(node.presence.message, other.id, News((), (signed,)))
    else:
        other.presence._table.announce(said, signed, net.now.boot_s)
        own = sign_announcement(node.identity, former)
        other.call(other.presence.message, node.id, News((), (own,)))
    net.run(5.0)
    for one in net.nodes:
        now = one.presence.entry(node.id).announcement
        assert now.revision == former.revision + 1
        assert now.contribution == former.contribution


def test_absent_members_are_dialled_about_once_per_ten_seconds_in_all(network: Any) -> None:
    net = network(10)
    net.start(settle_s=10.0)
    dials: list[float] = []
    net.crash(net.nodes[0])
    net.run(10.0)
    net.dial = lambda node, other: dials.append(net.now.boot_s)
    net.run(100.0)
    assert 3 <= len(dials) <= 30
    dials.clear()
    net.run(700.0)
    # Backed off to once a minute in all.
    assert 5 <= len(dials) <= 40


def test_news_that_everybody_missed_is_repaired_by_a_session(network: Any) -> None:
    net = network(6)
    net.start(settle_s=30.0)
    node = net.nodes[0]
    send = net.send
    net.send = lambda sender, effect: None if isinstance(effect.message, News) else send(sender, effect)
    node.own.contribution = type(node.own.contribution)(agents=(AgentKind.USER,))
    node.call(node.presence.contribution_changed)
    net.run(2.0)
    assert all(node.id in other.presence.carrying(AgentKind.EXECUTOR) for other in net.nodes[1:])
    assert net.run(150.0, lambda: len({other.presence._table.digest() for other in net.nodes}) == 1)
    assert all(node.id not in other.presence.carrying(AgentKind.EXECUTOR) for other in net.nodes)


def test_restarts_and_crashes_all_the_time_end_in_agreement(network: Any) -> None:
    net = network(10, seed=8, **LOSSY)
    net.start(settle_s=10.0)
    for _ in range(25):
        node = net.rng.choice(net.nodes[1:])
        if node.alive:
            net.crash(node)
        else:
            net.restart(node)
        net.run(net.rng.uniform(0.1, 6.0))
    for node in net.nodes:
        if not node.alive:
            net.restart(node)
    assert net.run(60.0, net.all_see_all)
    net.run(40.0)
    assert len({node.presence._table.digest() for node in net.nodes}) == 1


def test_the_same_seed_gives_the_same_run(network: Any) -> None:
    def story() -> list[Any]:
        net = network(6, seed=5, **LOSSY)
        net.start(settle_s=5.0)
        net.crash(net.nodes[2])
        net.run(20.0)
        return [node.log for node in net.nodes] + [node.bytes for node in net.nodes]

    assert story() == story()
