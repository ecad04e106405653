"""Virtual time, and that one seed gives one course of events."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from colla.kernel.time import Instant
from colla.sim.clock import EPOCH_S, Clock
from colla.sim.world import World

STORY = """
from colla.protocol.views import Election
from colla.sim.group import SimGroup

group = SimGroup(seed=5, election=Election({election!r}))
group.grow(4)
web = group.deploy("web", replicas=2)
group.run(3.0)
group.crash(group.master_of(web))
group.partition(group.computers[:2], group.computers[2:])
group.run(8.0)
group.heal()
group.run(8.0)
print(group.world.trace.digest(), group.world.trace.entries)
"""


def test_happenings_come_in_order(world: World) -> None:
    seen: list[tuple[str, float]] = []
    for name, at_s in [("b", 2.0), ("a", 1.0), ("c", 2.0), ("d", 9.0)]:
        world.at(at_s, lambda name=name: seen.append((name, world.now_s)))
    world.run(3.0)
    assert seen == [("a", 1.0), ("b", 2.0), ("c", 2.0)]
    assert world.now_s == 3.0


def test_what_is_over_comes_now(world: World) -> None:
    world.run(5.0)
    seen: list[float] = []
    world.at(1.0, lambda: seen.append(world.now_s))
    world.run(0.0)
    assert seen == [5.0]


def test_waiting_for_a_condition_tells_how_long_it_took(world: World) -> None:
    seen: list[int] = []
    world.after(1.0, seen.append, 1)
    took_s = world.run_until(lambda: bool(seen), within_s=5.0, look_every_s=0.1)
    assert took_s == pytest.approx(1.0, abs=0.11)
    assert world.run_until(lambda: len(seen) > 1, within_s=2.0) is None
    assert world.now_s == pytest.approx(took_s + 2.0)


def test_randomness_depends_on_seed_and_name_only() -> None:
    first = World(3).random("network").random()
    other = World(3)
    other.random("disk").random()
    assert other.random("network").random() == first
    assert World(3).random("disk").random() != first
    assert World(4).random("network").random() != first


@pytest.mark.parametrize("election", ["hashing", "contention"])
def test_the_trace_does_not_depend_on_the_hash_seed(election: str) -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", STORY.format(election=election)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "77")
    ]
    assert traces[0] == traces[1]
    assert int(traces[0].split()[1]) > 500


def test_a_clock_drifts_and_its_timers_with_it(world: World) -> None:
    clock = Clock(world, drift_ppm=1000.0)
    world.run(100.0)
    assert clock.boot_s() == pytest.approx(100.1)
    assert clock.true_at(200.2) == pytest.approx(200.0)
    clock.drift(0.0)
    world.run(10.0)
    assert clock.boot_s() == pytest.approx(110.1)


def test_the_wall_clock_jumps_and_the_boot_clock_does_not(world: World) -> None:
    clock = Clock(world)
    world.run(1.0)
    clock.jump(-3600.0)
    assert clock.now() == Instant(1.0, EPOCH_S + 1.0 - 3600.0)


def test_a_reboot_begins_the_boot_clock_anew(world: World) -> None:
    clock = Clock(world, wall_error_s=2.0)
    world.run(50.0)
    clock.reboot()
    world.run(1.0)
    assert clock.now() == Instant(1.0, EPOCH_S + 53.0)
