"""Iterations: every mechanism once in each, in order where nodes follow their wall clocks."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from colla.kernel.config import Config, ElectionConfig, IterationConfig, SupervisionConfig
from colla.kernel.rhythm import Rhythm
from colla.kernel.time import Instant

ALIGNED = IterationConfig(length_s=20.0, aligned=True)


def moments(rhythm: Rhythm, begin: Instant, seconds: float) -> list[Instant]:
    found = []
    now = begin
    while now.boot_s + rhythm.wait_s(now) < begin.boot_s + seconds:
        now = now.later(rhythm.wait_s(now))
        found.append(now)
    return found


def test_the_product_has_no_iterations() -> None:
    assert not Rhythm(Config().iterations, 0.0, Random(1)).given


def test_aligned_moments_are_those_of_the_wall_clock() -> None:
    rhythm = Rhythm(ALIGNED, 7.0, Random(1))
    found = moments(rhythm, Instant(3.0, 1_800_000_001.5), 100.0)
    assert [round(moment.wall_s % 20.0, 6) for moment in found] == [7.0] * 5


def test_moments_by_lot_come_once_per_iteration_whatever_the_wall_clock_does() -> None:
    rhythm = Rhythm(IterationConfig(length_s=20.0), 7.0, Random(1))
    before = moments(rhythm, Instant(0.0, 1_800_000_000.0), 200.0)
    after = moments(rhythm, Instant(0.0, 1_800_004_321.0), 200.0)
    assert [moment.boot_s for moment in before] == [moment.boot_s for moment in after]
    assert [int(moment.boot_s // 20.0) for moment in before] == list(range(10))
    other = Rhythm(IterationConfig(length_s=20.0), 7.0, Random(2))
    assert moments(other, Instant(0.0, 0.0), 30.0) != before[:1]


def test_a_timer_that_rings_at_its_moment_waits_for_the_next() -> None:
    rhythm = Rhythm(ALIGNED, 7.0, Random(1))
    for early_s in (0.0, 1e-4, -1e-4):
        assert rhythm.wait_s(Instant(0.0, 1_800_000_007.0 - early_s)) == pytest.approx(20.0, abs=1e-3)


def test_moments_outside_the_iteration_are_refused() -> None:
    with pytest.raises(ValueError, match="within the iteration"):
        IterationConfig(length_s=10.0, aligned=True)
    with pytest.raises(ValueError, match="shorter than nothing"):
        IterationConfig(length_s=-1.0)


def test_periods_that_are_none_or_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="check_interval_s"):
        Config(supervision=SupervisionConfig(check_interval_s=0.0))
    with pytest.raises(ValueError, match="claim_stale_s"):
        Config(election=msgspec.structs.replace(ElectionConfig(), mastership_interval_s=20.0))
