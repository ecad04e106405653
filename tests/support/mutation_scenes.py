"""Scenes in which a broken mechanism shows: small stories of a simulated group with every checker on.

Each ends by demanding consistency; none of them fails as long as nothing is broken.
"""

from __future__ import annotations

from typing import Any

import msgspec

from colla.agents.requests import SetReplicas
from colla.kernel.events import MessageReceived
from colla.model.contribution import AgentKind
from colla.model.ids import ServiceId
from colla.model.record import TOPIC_CATALOGUE, Key, Payload, SignedRecord
from colla.protocol.catalogue.bodies import KIND_GONE
from colla.protocol.multicast.multicast import Carried, Multicast
from colla.protocol.records.writes import RecordsNews
from colla.protocol.sessions.sessions import Sessions
from colla.protocol.supervision.messages import InventoryAnswer, Offer
from colla.protocol.views import Election
from colla.sim.checkers import SafetyChecks
from colla.sim.computer import PRODUCT, Computer
from colla.sim.consistency import settle
from colla.sim.disk import DiskSpeed
from colla.sim.group import SimGroup
from colla.sim.network import PASS, Losing, Parcel, Rule, Verdict
from colla.sim.restraint import Restraint

MEETING_S = 5.0
FORMING_S = 15.0


class Scene:
    """A group of one member per computer with the service `web` running, all checkers on."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        replicas: int = 3,
        election: Election = Election.HASHING,
        **options: Any,
    ) -> None:
        self.group = SimGroup(seed, election, replay="pytest tests/scenarios/test_mutations.py", **options)
        self.checks = SafetyChecks(self.group)
        self.restraint = Restraint(self.group)
        self.group.grow(nodes)
        self.group.run(MEETING_S)
        self.web = ServiceId(b"")
        if replicas:
            self.web = self.group.deploy("web", replicas)
            self.settle(FORMING_S)
        self.restraint.reset()

    def settle(self, within_s: float, stays_s: float = 3.0) -> None:
        settle(self.group, within_s, self.checks, stays_s)

    def others(self, *without: Computer) -> list[Computer]:
        return [one for one in self.group.computers if one not in without]

    def gives_no(self, agent: AgentKind, *computers: Computer) -> None:
        """These owners give everything but that agent."""
        for computer in computers:
            gives = computer.settings.contribution
            agents = tuple(kind for kind in gives.agents if kind is not agent)
            computer.contribute(msgspec.structs.replace(gives, agents=agents))
        self.group.run(1.0)


def two_masters_and_a_bridge(seed: int) -> None:
    """Two sides that do not reach each other, a computer between them that reaches both; then all is well again."""
    scene = Scene(seed, 5)
    group = scene.group
    group.partition(group.computers[:2], group.computers[3:])
    for _ in range(40):
        group.run(1.0)
        if group.running(scene.web) < 3:
            group.fail("(c) less than three replicas serve while every side could have its own")
    group.heal()
    scene.settle(150.0, stays_s=10.0)


def news_is_lost_on_the_way(seed: int) -> None:
    """One computer misses a record, gets the next one, and may repair that only by sessions."""
    scene = Scene(seed, 3, replicas=0)
    group = scene.group
    losing = [
        group.network.add(Losing(kinds, targets=["n2"])) for kinds in (Sessions.MESSAGES, Multicast.MESSAGES)
    ]
    group.deploy("lost", replicas=1, active=False)
    group.network.remove(losing[1])
    group.deploy("arrives", replicas=1, active=False)
    group.run(5.0)
    group.heal()
    scene.settle(60.0)


def much_to_tell(seed: int) -> None:
    """One computer misses more than one message carries, then hears the newest; the rest it is told bit by bit."""
    records = msgspec.structs.replace(PRODUCT.records, delta_bytes_max=1024)
    scene = Scene(seed, 3, replicas=0, config=msgspec.structs.replace(PRODUCT, records=records))
    group = scene.group
    losing = [
        group.network.add(Losing(kinds, targets=["n2"])) for kinds in (Sessions.MESSAGES, Multicast.MESSAGES)
    ]
    for number in range(8):
        group.deploy(f"s{number}", replicas=1, at=group[0], active=False)
    group.network.remove(losing[1])
    group.deploy("newest", replicas=1, at=group[0], active=False)
    group.run(1.0)
    group.heal()
    for _ in range(800):
        group.run(0.02)
        scene.checks.look_at(group[2])
    scene.settle(60.0)


def everybody_restarts_after_an_elimination(seed: int) -> None:
    scene = Scene(seed, 3, replicas=1)
    group = scene.group
    group.eliminate(scene.web)
    group.run(5.0)
    group.crash(*group.computers)
    group.restart(*group.computers)
    scene.settle(60.0)


def the_power_fails_right_after_a_write(seed: int) -> None:
    """Somebody is told that a write is safe on two disks; at once everything is dark, and one of the two is broken."""
    scene = Scene(seed, 4, replicas=0)
    group = scene.group
    web = group.deploy("web", replicas=1, at=group[0], active=False)
    group.run(3.0)
    for computer in group.computers[1:]:
        computer.disk.speed = DiskSpeed(flush_s=1.0, slow_share=0.0)
    for replicas in range(2, 10):
        group.answer(group[0], SetReplicas(web, replicas))
    group.crash(*group.computers)
    group[0].wipe()
    group.run(2.0)
    group.restart(*group.computers[1:])
    scene.settle(60.0)


def an_owner_pauses(seed: int) -> None:
    scene = Scene(seed, 3, replicas=0)
    group = scene.group
    gives = group[1].settings.contribution
    group[1].contribute(msgspec.structs.replace(gives, paused=True))
    group.deploy("web", replicas=3)
    scene.settle(30.0)


def both_sides_change_the_same(seed: int) -> None:
    """The owner and an administrator change one service while they cannot hear each other."""
    scene = Scene(seed, 4, replicas=0)
    group = scene.group
    web = group.deploy("web", replicas=1, at=group[3])
    group.run(3.0)
    group.partition(group.computers[:2], group.computers[2:])
    group.run(10.0)
    for replicas, at in ((2, group[0]), (3, group[3])):
        asked = group.scale(web, replicas, at)
        group.until(lambda asked=asked: asked.answered, 10.0)
        group.run(2.0)
    group.heal()
    scene.settle(150.0)


def masters_die_by_contention(seed: int) -> None:
    """Six in a row. A successor takes about two seconds, most of which goes to noticing."""
    scene = Scene(seed, 6, election=Election.CONTENTION)
    group = scene.group
    took_s = 0.0
    for _ in range(6):
        master = group.master_of(scene.web)
        master.power_off()
        took_s += group.until(lambda: bool(group.masters(scene.web)), 15.0, "(b) somebody masters web")
        group.run(8.0)
        master.start()
        scene.settle(60.0)
    if took_s / 6 > 2.6:
        group.fail(f"(b) it took {took_s / 6:.1f} s until somebody mastered web, in the mean")


def orders_are_late(seed: int) -> None:
    """A master is just about to start more replicas when its owner takes the dispatcher away; its offers are slow."""
    scene = Scene(seed, 6, replicas=1)
    group = scene.group
    master = group.master_of(scene.web)
    late = Verdict(delay_s=1.5, in_order=False)
    rule = group.network.add(LateOffers(master.name, late))
    group.scale(scene.web, 6)
    group.until(lambda: rule.late > 2, 10.0)
    gives = master.settings.contribution
    agents = tuple(kind for kind in gives.agents if kind is not AgentKind.DISPATCHER)
    master.contribute(msgspec.structs.replace(gives, agents=agents))
    scene.settle(90.0)


class LateOffers(Rule):
    """The offers of one master arrive late."""

    def __init__(self, source: str, verdict: Verdict) -> None:
        self.late = 0
        self._source, self._verdict = source, verdict

    def judge(self, parcel: Parcel) -> Verdict:
        if parcel.source != self._source or not isinstance(parcel.message, Offer):
            return PASS
        self.late += 1
        return self._verdict


def a_partition_heals(seed: int) -> None:
    scene = Scene(seed, 5)
    group = scene.group
    group.partition(group.computers[:2], group.computers[2:])
    group.run(60.0)
    group.deploy("left", replicas=1, at=group[0])
    group.heal()
    scene.settle(120.0)


def the_master_and_a_secondary_lose_each_other(seed: int) -> None:
    """One cable is bad for a minute. Everybody else hears both, so nobody has a reason to take over."""
    scene = Scene(seed, 5)
    group = scene.group
    master = group.master_of(scene.web)
    secondary = group.of(master.core.dispatcher._announcing.masteries[scene.web].secondaries[0])
    group.partition([master], [secondary])
    group.run(60.0)
    # A spare, since the master does not hear the other's executor.
    scene.restraint.allow(launches=2)
    group.heal()
    scene.settle(60.0)


def master_and_secondaries_die(seed: int) -> None:
    """Who knew what runs is gone, and all of it runs on: the successor has to ask, and has nothing to start."""
    scene = Scene(seed, 8, replicas=0)
    group = scene.group
    scene.gives_no(AgentKind.EXECUTOR, *group.computers[:4])
    scene.gives_no(AgentKind.DISPATCHER, *group.computers[4:])
    scene.web = group.deploy("web", replicas=2, at=group[7])
    scene.settle(FORMING_S)
    scene.restraint.reset()
    master = group.master_of(scene.web)
    group.crash(master, *map(group.of, master.core.dispatcher._announcing.masteries[scene.web].secondaries))
    # Executors are far away: they answer later than a candidate waits for witnesses, and sooner than inventories end.
    group.network.add(Losing((InventoryAnswer,), verdict=Verdict(delay_s=0.7)))
    group.until(lambda: bool(group.masters(scene.web)), 20.0, "(b) somebody masters web")
    group.run(15.0)
    scene.restraint.allow(takeovers=1)
    group.heal()
    scene.settle(60.0)


def a_computer_stalls(seed: int) -> None:
    """For three seconds, twice: too short for anybody to be dead."""
    scene = Scene(seed, 6)
    for computer in scene.group.computers[1:3]:
        computer.stall(3.4)
        scene.group.run(12.0)
    scene.restraint.allow(launches=2, takeovers=2)
    scene.settle(60.0)


def a_replica_that_nobody_wrote_down(seed: int) -> None:
    """A node comes back with an old disk, beside a replica that this disk does not know, of a service that is no more."""
    scene = Scene(seed, 3, replicas=0)
    group = scene.group
    before = {computer.name: computer.disk.snapshot() for computer in group.computers}
    web = group.deploy("web", replicas=1, at=group[0])
    scene.settle(FORMING_S)
    one = group.running_on(web)[0]
    one.kill()
    one.disk.restore(before[one.name])
    one.wiped += 1
    author = next(computer for computer in group.computers if computer.up)
    group.run(6.0)
    group.eliminate(web, at=author)
    group.run(5.0)
    one.start()
    scene.settle(75.0)


def a_service_is_eliminated(seed: int) -> None:
    scene = Scene(seed, 3)
    scene.group.eliminate(scene.web)
    scene.settle(20.0)


def replicas_end(seed: int) -> None:
    """Programs crash on computers that live: user agents that watch the service are told at once."""
    scene = Scene(seed, 6, replicas=2)
    group = scene.group
    took_s = 0.0
    for _ in range(10):
        one = group.running_on(scene.web)[0]
        one.environment.crash(scene.web)
        took_s += settle(group, 60.0, scene.checks, 1.0)
    if took_s / 10 > 0.9:
        group.fail(f"(d) it took {took_s / 10:.1f} s until every location was live, in the mean")


def the_master_stands_still(seed: int) -> None:
    """Two seconds and a half, long enough to find everybody late; nobody is gone."""
    scene = Scene(seed, 8, replicas=4)
    for _ in range(3):
        scene.group.master_of(scene.web).stall(2.6)
        scene.group.run(15.0)
    scene.restraint.allow(launches=3, takeovers=9)
    scene.settle(60.0)


def the_master_restarts(seed: int) -> None:
    """Its process dies and is back before anybody could notice."""
    scene = Scene(seed, 4)
    for _ in range(2):
        master = scene.group.master_of(scene.web)
        master.kill()
        scene.group.run(1.0)
        master.start()
        for _ in range(40):
            scene.group.run(0.05)
            scene.checks.look_at(master)
        scene.settle(60.0)


def somebody_forges(seed: int) -> None:
    """A member tells the others that another member's service is eliminated, in the other's name, without the key."""
    scene = Scene(seed, 4)
    group = scene.group
    author, liar = group[0], group[3]
    truth = author.core.foundation.book.all_records(TOPIC_CATALOGUE)[-1]
    log = truth.log
    forged = Payload(log, truth.number + 1, Key(KIND_GONE, scene.web), truth.stamp.next(0), (), b"")
    news = RecordsNews((SignedRecord(msgspec.msgpack.encode(forged), bytes(64)),), False)
    for computer in group.computers[:3]:
        carried = Carried(liar.node, computer.core.codec.encode(news))
        computer.post(MessageReceived(liar.node, carried))
    group.run(5.0)
    scene.settle(30.0)
