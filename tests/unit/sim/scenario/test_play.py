"""Playing scenarios: what acts do, that peace ends them, what an outcome tells, that it is the same every time."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from colla.model.contribution import AgentKind
from colla.protocol.views import Role
from colla.sim.checkers import SafetyChecks, Violation
from colla.sim.computer import Computer
from colla.sim.consistency import members_of
from colla.sim.group import Failed
from colla.sim.scenario.acts.computers import (
    CrashAtEffect,
    FullDisk,
    Kill,
    LyingDisk,
    OldDisk,
    PowerOff,
    Slow,
    SlowDisk,
    Suspend,
)
from colla.sim.scenario.acts.environments import BadEnvironment, DetachEnvironments
from colla.sim.scenario.acts.group_life import (
    Appoint,
    NameAnObject,
    Publish,
    Remove,
    Rename,
    Retire,
    Say,
)
from colla.sim.scenario.acts.network import BadLine, Bridge, CutInTwo, Deaf, OneWay
from colla.sim.scenario.acts.people import Contribute, Gives, Join, Leave
from colla.sim.scenario.chaos import Seed, acts_table, failures_table, run_seed, summary
from colla.sim.scenario.compose import compose
from colla.sim.scenario.play import Outcome, Play, run_scenario
from colla.sim.scenario.scenario import AnyAct, FirstService, Scenario, SharedHome

CHAOS_SEEDS = range(9000, 9012)


def played(*acts: AnyAct, nodes: int = 3, ends_s: float = 10.0, services: int = 0) -> Play:
    """A scenario up to the moment before peace."""
    offered = tuple(FirstService(name=f"s{number}") for number in range(services))
    play = Play(Scenario(nodes=nodes, acts=acts, ends_s=ends_s, services=offered), seed=3)
    play.form()
    play.act()
    return play


def test_chaos() -> None:
    """A small piece of the hunt, always the same; `make chaos` is the large one."""
    outcomes = [run_seed(Seed(seed)) for seed in CHAOS_SEEDS]
    for outcome in outcomes:
        assert not outcome.failed, outcome.report
    both = summary(outcomes).rows[-1]
    assert both[:2] == ("both", len(CHAOS_SEEDS))
    assert all(outcome.steps > 0 and outcome.trace for outcome in outcomes)
    assert len(acts_table(outcomes).rows) >= 20
    assert not failures_table(outcomes).rows


def test_a_seed_goes_the_same_way_under_any_hash_seed() -> None:
    program = (
        "from colla.sim.scenario.chaos import Seed, run_seed; import msgspec;"
        "print(msgspec.json.encode(run_seed(Seed(9004))).decode())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


def test_peace_takes_every_fault_back() -> None:
    play = played(
        PowerOff(at_s=1.0, node="n0"),
        Suspend(at_s=1.0, node="n1"),
        FullDisk(at_s=1.0, node="n2"),
        SlowDisk(at_s=1.0, node="n2"),
        BadLine(at_s=1.0, node="n2", loss=0.5),
        BadEnvironment(at_s=1.0, node="n2", never_listens=True),
        CutInTwo(at_s=1.0, side=("n0",)),
        Contribute(at_s=1.0, node="n2", gives=Gives(agents=(AgentKind.USER,))),
        CrashAtEffect(at_s=9.9, node="n2", number=90_000),
        Slow(at_s=2.0, node="n2"),
    )
    group, stage = play.group, play.stage
    one, two, three = group.computers
    usual = Play(Scenario(nodes=3), seed=3)
    usual.form()
    assert not one.powered and two.asleep and three.disk.room_bytes == 0 and three.line.loss == 0.5
    assert not three.settings.contribution.carries(AgentKind.DISPATCHER)
    assert not group.network.connected(three, two)
    stage.peace()
    assert one.up and two.up and three.disk.room_bytes is None
    like = usual.group.computers[2]
    assert (three.line, three.disk.speed, three.environment.behaviour, three.settings.contribution) == (
        like.line,
        like.disk.speed,
        like.environment.behaviour,
        like.settings.contribution,
    )
    assert group.network.connected(one, two) and three.process is not None and three.process.trap is None
    group.run(20.0)
    assert three.up, "nothing of what was to come later comes after peace"


def test_faults_end_by_themselves() -> None:
    play = played(
        PowerOff(at_s=1.0, node="n0", lasts_s=3.0),
        Kill(at_s=1.0, node="n1", lasts_s=2.0),
        Suspend(at_s=4.5, node="n1", lasts_s=1.0),
        Deaf(at_s=1.0, node="n2", lasts_s=2.0),
    )
    group = play.group
    assert all(computer.up for computer in group.computers)
    assert group.network.connected(group[0], group[2])
    assert play.stage.acts == {"power-off": 1, "kill": 1, "suspend": 1, "deaf": 1}


def test_cuts_of_every_shape() -> None:
    group = played(Bridge(at_s=0.0, one=("n0",), other=("n2",)), ends_s=1.0).group
    network = group.network
    one, middle, other = group.computers
    assert network.connected(one, middle) and network.connected(middle, other)
    assert not network.is_open(one, other) and not network.is_open(other, one)
    group = played(OneWay(at_s=0.0, sources=("n0",), targets=("n1",)), ends_s=1.0).group
    assert not group.network.is_open(group[0], group[1]) and group.network.is_open(group[1], group[0])
    assert group.network.is_open(group[0], group[2])


def test_a_crash_at_an_effect() -> None:
    play = played(CrashAtEffect(at_s=1.0, node="n1", number=3, power=True, lasts_s=4.0), ends_s=3.0)
    assert not play.group[1].powered
    play.group.run(5.0)
    assert play.group[1].up


def test_what_cannot_be_done_is_not_counted() -> None:
    play = played(PowerOff(at_s=1.0, node="n1"), Kill(at_s=2.0, node="n1"))
    assert play.stage.acts == {"power-off": 1}
    assert [line.endswith("(nothing to do)") for line in play.stage.log] == [False, True]


def test_an_old_disk_comes_back() -> None:
    play = played(OldDisk(at_s=1.0, node="n1", returns_s=4.0))
    computer = play.group[1]
    assert (computer.wiped, computer.starts, computer.up) == (1, 2, True)


def test_joining_and_leaving() -> None:
    play = played(
        Join(at_s=1.0, node="x0", via="n1"),
        Join(at_s=1.0, node="x1", via="n2", own=True, gives=Gives(agents=(AgentKind.USER,))),
        Leave(at_s=2.0, node="n0", drain_s=2.0),
    )
    group = play.group
    joined = {one.name: one for one in group.computers}
    assert group.joined(joined["x0"]) and group.joined(joined["x1"])
    assert group.owner(joined["x1"]) is group.owner(joined["n2"])
    assert not joined["n0"].runs
    play.stage.peace()
    assert not joined["n0"].runs, "who left does not come back"


def test_computers_behind_one_router() -> None:
    play = Play(Scenario(nodes=3, homes=(SharedHome(nodes=("n1", "n2")),)), seed=3)
    play.form()
    first, *inside = (play.group.network.home_of(one) for one in play.group.computers)
    assert first is None and inside[0] is inside[1] is not None


def test_members_live_with_each_other() -> None:
    play = played(
        Say(at_s=1.0, node="n1", to=("n0", "n2")),
        Publish(at_s=1.0, node="n2"),
        NameAnObject(at_s=1.0, node="n0", path="notes/today"),
        Rename(at_s=2.0, node="n1", by="n1", name="attic"),
        Appoint(at_s=2.0, node="n2", by="n0", role=Role.ADMINISTRATOR),
        DetachEnvironments(at_s=3.0, node="n0", seconds=1.0),
    )
    assert sum(play.stage.acts.values()) == 6
    core = play.group[2].core
    assert {info.name for info in core.membership.nodes()} == {"n0", "attic", "n2"}
    assert core.membership.role(play.group.owner(play.group[2]).id) is Role.ADMINISTRATOR
    for topic in ("messages", "events", "objects"):
        assert core.foundation.book.all_records(topic), topic
    assert play.unlike() == []


def test_who_is_taken_out_counts_no_more() -> None:
    play = played(
        Remove(at_s=1.0, node="n1", by="n0"), Retire(at_s=1.5, node="n2", by="n2"), nodes=4, ends_s=20.0
    )
    assert [one.name for one in members_of(play.group)] == ["n0", "n3"]
    assert play.unlike() == []


def test_what_differs_is_named() -> None:
    play = played(CutInTwo(at_s=1.0, side=("n0",)), Publish(at_s=2.0, node="n0"), ends_s=4.0)
    assert play.unlike() == ["n1 holds other events than n0", "n2 holds other events than n0"]


def test_a_disk_that_lies_is_an_older_one_without_power() -> None:
    play = played(
        LyingDisk(at_s=0.5, node="n1", lies_s=60.0),
        Publish(at_s=1.0, node="n1"),
        PowerOff(at_s=3.0, node="n1", lasts_s=1.0),
    )
    assert play.group[1].wiped == 1


@pytest.mark.parametrize(
    ("raised", "verdict", "why"),
    [
        (Violation("safety violated: it broke\nat 3 s"), "unsafe", "safety violated: it broke"),
        (Failed("not within 3 s: a thing\nand more"), "not consistent", "not within 3 s: a thing"),
        (KeyError("n1"), "crashed", "KeyError: 'n1'"),
    ],
)
def test_a_failure_is_told_with_everything_that_led_to_it(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, verdict: str, why: str
) -> None:
    def look_at(self: SafetyChecks, computer: Computer) -> None:
        if self.group.world.now_s > 9.0:
            raise raised

    monkeypatch.setattr(SafetyChecks, "look_at", look_at)
    act = Kill(at_s=1.0, node="n0", lasts_s=1.0)
    outcome = run_scenario(Scenario(nodes=1, story="alone", acts=(act,), ends_s=5.0), 5, "the command")
    assert (outcome.verdict, outcome.why) == (verdict, why)
    assert outcome.failed and outcome.seed == 5 and outcome.consistent_s is None
    for part in (
        why.partition(": ")[2],
        "--- what happened",
        " kill node=n0",
        "--- the scenario",
        'story = "alone"',
    ):
        assert part in outcome.report


def test_peace_must_help_in_time() -> None:
    scenario = Scenario(nodes=2, acts=(PowerOff(at_s=1.0, node="n1"),), ends_s=20.0, consistent_within_s=0.0)
    scenario = msgspec.structs.replace(scenario, services=(FirstService(name="web", replicas=2),))
    late = run_scenario(scenario, 1)
    assert late.verdict == "not consistent" and "seed 1" in late.report
    in_time = run_scenario(msgspec.structs.replace(scenario, consistent_within_s=60.0), 1)
    assert in_time.verdict == "consistent" and in_time.consistent_s is not None and in_time.consistent_s > 0.0


def test_failures_of_one_sort_are_told_together() -> None:
    told = [
        Outcome(
            seed=seed, verdict="unsafe", why=f"safety violated: n{seed} obeys an offer after {seed + 4}.5"
        )
        for seed in (3, 4)
    ]
    other = Outcome(seed=5, verdict="crashed", why="KeyError: 5")
    assert [row[1:] for row in failures_table([*told, other]).rows] == [(1, "5"), (2, "3, 4")]


def test_the_composed_scenarios_are_of_bounded_size() -> None:
    for seed in range(300):
        scenario = compose(seed)
        joins = sum(isinstance(act, Join) for act in scenario.acts)
        assert scenario.nodes + joins <= 8
        assert scenario.ends_s <= 120.0
