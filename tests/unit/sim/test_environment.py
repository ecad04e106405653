"""Replicas do what their behaviour says, outlive the agents, and die with the power."""

from __future__ import annotations

from random import Random

import pytest

from colla.kernel.effects import LaunchReplica, StopReplica, SurveyReplicas
from colla.kernel.events import (
    Event,
    LaunchFailed,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaReady,
    ReplicasSurveyed,
    ReplicaStopped,
    ReplicaUnhealthy,
    StopFailed,
)
from colla.model.ids import MemberId, ObjectId, ReplicaId, ServiceId
from colla.model.service import HealthCheck, Specification
from colla.sim.environment import Behaviour, Environment
from colla.sim.world import World

SERVICE = ServiceId(b"service")
REPLICA = ReplicaId(b"replica")
HEALTH = HealthCheck(interval_s=1.0, timeout_s=1.0, start_period_s=10.0)
SPECIFICATION = Specification("web", MemberId(b"m"), 3, ObjectId(b"o"), 1, "static", health=HEALTH)
LAUNCH = LaunchReplica(1, REPLICA, SERVICE, SPECIFICATION)


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[Event] = []
        self.environment = Environment(world, Random(1), self.heard.append)

    def launch(self, *, has_object: bool = True) -> None:
        self.environment.launch(LAUNCH, has_object, self.heard.append)

    def take(self) -> list[Event]:
        heard = list(self.heard)
        self.heard.clear()
        return heard


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_a_replica_is_launched_then_ready(bench: Bench) -> None:
    bench.launch()
    bench.world.run(0.09)
    assert bench.take() == [ReplicaLaunched(1, REPLICA)]
    assert not bench.environment.of(SERVICE)[0].serves
    bench.world.run(1.0)
    assert bench.take() == [ReplicaReady(REPLICA)]
    assert bench.environment.of(SERVICE)[0].serves


def test_launching_is_idempotent(bench: Bench) -> None:
    bench.launch()
    bench.world.run(1.0)
    bench.take()
    bench.launch()
    bench.world.run(1.0)
    assert bench.take() == [ReplicaLaunched(1, REPLICA)]
    assert bench.environment.launches == 1


@pytest.mark.parametrize(
    ("behaviour", "has_object", "why"),
    [(Behaviour(), False, "object"), (Behaviour(fails_to_launch="no such command"), True, "no such command")],
)
def test_launching_fails(bench: Bench, behaviour: Behaviour, has_object: bool, why: str) -> None:
    bench.environment.behaviour = behaviour
    bench.launch(has_object=has_object)
    bench.world.run(1.0)
    (failed,) = bench.take()
    assert isinstance(failed, LaunchFailed) and why in failed.why
    assert not bench.environment.replicas


def test_a_replica_that_never_listens_is_given_up(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(never_listens=True)
    bench.launch()
    bench.world.run(9.0)
    assert bench.take() == [ReplicaLaunched(1, REPLICA)]
    bench.world.run(2.0)
    assert [type(event) for event in bench.take()] == [ReplicaExited]
    assert not bench.environment.replicas


def test_a_replica_crashes(bench: Bench) -> None:
    bench.environment.behaviours["web"] = Behaviour(crash_after_s=2.0)
    bench.launch()
    bench.world.run(5.0)
    assert [type(event) for event in bench.take()] == [ReplicaLaunched, ReplicaReady, ReplicaExited]


def test_a_replica_hangs_and_recovers(bench: Bench) -> None:
    bench.launch()
    bench.world.run(1.0)
    bench.take()
    bench.environment.hang(SERVICE)
    assert not bench.environment.of(SERVICE)[0].serves
    bench.world.run(5.0)
    assert bench.take() == []
    bench.world.run(2.0)
    assert [type(event) for event in bench.take()] == [ReplicaUnhealthy]
    bench.environment.recover(SERVICE)
    assert bench.take() == [ReplicaReady(REPLICA)]


def test_a_replica_flaps(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(flap_s=(5.0, 20.0))
    bench.launch()
    bench.world.run(60.0)
    kinds = [type(event) for event in bench.take()]
    assert kinds == [ReplicaLaunched, ReplicaReady, *([ReplicaUnhealthy, ReplicaReady] * 2)]


def test_one_that_is_ill_for_a_moment_only_is_never_told(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(flap_s=(3.5, 4.0))
    bench.launch()
    bench.world.run(60.0)
    assert [type(event) for event in bench.take()] == [ReplicaLaunched, ReplicaReady]


def test_a_replica_hangs_some_time_after_its_start(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(hang_after_s=5.0)
    bench.launch()
    bench.world.run(4.0)
    assert bench.environment.of(SERVICE)[0].serves
    bench.world.run(10.0)
    assert [type(event) for event in bench.take()] == [ReplicaLaunched, ReplicaReady, ReplicaUnhealthy]


def test_some_launches_fail(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(fails_to_launch="out of luck", fails_share=0.5)
    for number in range(40):
        launch = LaunchReplica(number, ReplicaId(b"%d" % number), SERVICE, SPECIFICATION)
        bench.environment.launch(launch, True, bench.heard.append)
    bench.world.run(0.1)
    failed = [event for event in bench.take() if isinstance(event, LaunchFailed)]
    assert 10 < len(failed) < 30


def test_without_its_program_nothing_is_asked_or_told(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(crash_after_s=5.0)
    bench.launch()
    bench.world.run(2.0)
    bench.take()
    bench.environment.attached = False
    bench.environment.stop(StopReplica(2, REPLICA, 5.0), bench.heard.append)
    bench.launch()
    bench.environment.survey(SurveyReplicas(3), bench.heard.append)
    bench.world.run(0.1)
    assert [type(event) for event in bench.take()] == [StopFailed, LaunchFailed, ReplicasSurveyed]
    assert bench.environment.of(SERVICE)[0].serves
    bench.world.run(5.0)
    assert bench.take() == [] and not bench.environment.replicas, "it ended unheard"


def test_stopping(bench: Bench) -> None:
    bench.launch()
    bench.world.run(1.0)
    bench.take()
    bench.environment.stop(StopReplica(2, REPLICA, 5.0), bench.heard.append)
    bench.world.run(1.0)
    assert bench.take() == [ReplicaStopped(2, REPLICA)]
    bench.environment.stop(StopReplica(3, REPLICA, 5.0), bench.heard.append)
    assert bench.take() == [ReplicaStopped(3, REPLICA)]


def test_one_that_ignores_the_signal_is_killed_after_the_grace(bench: Bench) -> None:
    bench.environment.behaviour = Behaviour(ignores_stop=True)
    bench.launch()
    bench.world.run(1.0)
    bench.take()
    bench.environment.stop(StopReplica(2, REPLICA, 5.0), bench.heard.append)
    bench.world.run(4.9)
    assert bench.take() == []
    bench.world.run(0.2)
    assert bench.take() == [ReplicaStopped(2, REPLICA)]


def test_stopping_one_that_starts(bench: Bench) -> None:
    bench.launch()
    bench.environment.stop(StopReplica(2, REPLICA, 5.0), bench.heard.append)
    bench.world.run(1.0)
    assert sorted(type(event).__name__ for event in bench.take()) == ["LaunchFailed", "ReplicaStopped"]
    assert not bench.environment.replicas


def test_a_survey_lists_what_runs_until_the_power_goes(bench: Bench) -> None:
    bench.launch()
    bench.world.run(1.0)
    bench.take()
    bench.environment.survey(SurveyReplicas(4), bench.heard.append)
    bench.world.run(0.1)
    (surveyed,) = bench.take()
    assert isinstance(surveyed, ReplicasSurveyed)
    assert [(one.replica, one.service, one.version, one.ready) for one in surveyed.replicas] == [
        (REPLICA, SERVICE, 3, True)
    ]
    bench.environment.power_off()
    bench.environment.survey(SurveyReplicas(5), bench.heard.append)
    bench.world.run(0.1)
    assert bench.take() == [ReplicasSurveyed(5, ())]
