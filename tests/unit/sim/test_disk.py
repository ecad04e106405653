"""A simulated disk: what is not flushed is lost, a group is committed whole or in order, a full disk refuses."""

from __future__ import annotations

from random import Random

import pytest

from colla.kernel.effects import Persist, StoreCell
from colla.kernel.events import Persisted, PersistFailed
from colla.sim.disk import Disk, DiskSpeed, Outcome
from colla.sim.world import World


def cell(number: int, name: str = "name") -> Persist:
    return Persist(number, (StoreCell(name, b"%d" % number), StoreCell(f"{name}/too", b"%d" % number)))


@pytest.fixture
def disk(world: World) -> Disk:
    disk = Disk(world, Random(3), DiskSpeed(slow_share=0.0))
    disk.load()
    return disk


def test_flushing_takes_time_and_groups(world: World, disk: Disk) -> None:
    outcomes: list[Outcome] = []
    for number in range(10):
        disk.persist(cell(number), outcomes.append)
    assert outcomes == []
    world.run(1.0)
    assert outcomes == [Persisted(number) for number in range(10)]
    assert disk.flushes == 2, "the first, and all that came while it was flushed"


def test_a_crash_leaves_a_prefix_and_nothing_torn(world: World) -> None:
    kept = []
    for seed in range(40):
        disk = Disk(world, Random(seed))
        disk.load()
        outcomes: list[Outcome] = []
        disk.persist(cell(1, "a"), outcomes.append)
        world.run(1.0)
        for number, name in enumerate("bcd", 2):
            disk.persist(cell(number, name), outcomes.append)
        disk.crash()
        world.run(1.0)
        assert outcomes == [Persisted(1)], "nobody is told after the crash"
        cells = disk.load().cells
        assert all((f"{name}/too" in cells) == (name in cells) for name in "abcd"), "torn"
        kept.append("".join(name for name in "abcd" if name in cells))
    assert dict.fromkeys(sorted(kept)) == dict.fromkeys(["a", "ab", "abc", "abcd"])


def test_a_group_is_found_whole_or_not_at_all(world: World) -> None:
    """Those that were committed together are one transaction."""
    kept = []
    for seed in range(40):
        disk = Disk(world, Random(seed))
        disk.load()
        for number, name in enumerate("abc", 1):
            disk.persist(cell(number, name), lambda outcome: None)
        while disk.flushes == 0:
            world.run(0.001)
        disk.crash()
        cells = disk.load().cells
        kept.append("".join(name for name in "abc" if name in cells))
    assert dict.fromkeys(sorted(kept)) == dict.fromkeys(["a", "abc"])


def test_a_disk_that_lies_loses_the_newest_without_power_only(world: World, disk: Disk) -> None:
    disk.lies_s = 5.0
    outcomes: list[Outcome] = []
    for number in range(1, 4):
        disk.persist(cell(number, f"c{number}"), outcomes.append)
        world.run(3.0)
    assert len(outcomes) == 3
    assert not disk.crash(), "the operating system goes on, and writes what it took"
    assert disk.load().cells["c3/too"]
    assert disk.crash(power=True)
    assert sorted(disk.load().cells) == ["c1", "c1/too", "c2", "c2/too"]
    assert not disk.crash(power=True)


def test_it_refuses_until_it_is_loaded_again(world: World, disk: Disk) -> None:
    outcomes: list[Outcome] = []
    disk.fill()
    disk.persist(cell(1), outcomes.append)
    world.run(1.0)
    disk.free()
    disk.persist(cell(2), outcomes.append)
    world.run(1.0)
    assert [type(outcome) for outcome in outcomes] == [PersistFailed, PersistFailed]
    assert disk.load().cells == {}
    disk.persist(cell(3), outcomes.append)
    world.run(1.0)
    assert outcomes[-1] == Persisted(3)


def test_an_old_copy_comes_back(world: World, disk: Disk) -> None:
    disk.persist(cell(1), lambda outcome: None)
    world.run(1.0)
    backup = disk.snapshot()
    disk.persist(cell(2), lambda outcome: None)
    world.run(1.0)
    disk.restore(backup)
    assert disk.load().cells["name"] == b"1"
    backup.cells["name"] = b"changed by whoever holds the copy"
    assert disk.load().cells["name"] == b"1"
