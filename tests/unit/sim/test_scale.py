"""Measuring groups of growing size: what is counted, and how it is carried on beyond what was simulated."""

from __future__ import annotations

import math

import pytest

from colla.protocol.views import Election
from colla.sim.gathering import gather
from colla.sim.group import SimGroup
from colla.sim.scale.measure import SETTLE_S, Cost, Ears, Size, Traffic, crash, create, measure, meet
from colla.sim.scale.summary import BEYOND, draw, fit, growth_table, tables
from colla.sim.scale.watching import BAD


@pytest.fixture(scope="module")
def cost() -> Cost:
    return measure(Size(6, Election.CONTENTION.value, 1))


def test_a_small_group_is_measured(cost):
    assert cost.false_absences == 0
    assert 0 < cost.idle.messages < cost.active.messages
    assert 0 < cost.idle.bytes < cost.active.bytes
    assert cost.active.messages <= cost.active.messages_max
    assert all(0 < took_s < 2 for took_s in cost.changes_s)
    assert all(
        0 < first_s <= last_s < 8
        for first_s, last_s in zip(cost.first_known_s, cost.all_known_s, strict=True)
    )


def test_the_same_case_gives_the_same_figures(cost):
    again = measure(Size(6, Election.CONTENTION.value, 1))
    for field in ("idle", "active", "meeting", "changes_s", "first_known_s", "all_known_s", "virtual_s"):
        assert getattr(again, field) == getattr(cost, field), field


def test_an_absence_of_somebody_who_runs_is_false():
    group = SimGroup(3)
    gather(group, 5)
    ears = Ears(group)
    for computer in group.computers:
        computer.start()
    group.run(10.0)
    group.partition([group[0]], group.computers[1:])
    group.run(10.0)
    assert ears.false_absences >= 4
    before = ears.false_absences
    group.heal()
    group.run(30.0)
    group[4].power_off()
    group.run(10.0)
    assert ears.false_absences == before


def test_a_power_law_is_found_and_carried_on():
    power, law = fit([(10, 30.0), (100, 3000.0), (1000, 300_000.0)])
    assert power == pytest.approx(2.0)
    assert law(2000) == pytest.approx(1_200_000.0)


@pytest.mark.parametrize("points", [[], [(10, 1.0)], [(10, 0.0), (20, 0.0)], [(10, 1.0), (10, 2.0)]])
def test_too_little_to_fit_is_not_a_number(points):
    power, law = fit(points)
    assert math.isnan(power)
    assert math.isnan(law(1000))


def traffic(messages: float) -> Traffic:
    return Traffic(messages, messages * 20, messages * 2)


def test_tables_and_figure_cover_all_sizes(tmp_path, cost):
    costs = [
        Cost(
            nodes, election.value, 1.0, traffic(nodes), traffic(100.0), traffic(120.0 + nodes), (0.1, 0.2), (3.0,), (3.5,),
            0, 200.0, 5.0, 1 << 20,
        )
        for nodes in (10, 100)
        for election in Election
    ]  # fmt: skip
    made = tables(costs)
    assert [len(made[name].rows) for name in ("cost", "speed")] == [4, 4]
    idle = next(row for row in growth_table(costs).rows if row[1] == "messages idle")
    assert idle[2] == pytest.approx(0.0, abs=1e-9)
    assert idle[3:] == pytest.approx([100.0] * len(BEYOND))
    pytest.importorskip("matplotlib")
    draw(tmp_path / "figure", costs)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


def test_a_crash_on_bad_lines_becomes_known():
    group = SimGroup(2, line=BAD)
    gather(group, 8)
    ears = Ears(group)
    meet(group)
    group.run(10.0)
    first_s, last_s = crash(group, ears, 0)
    assert 2.0 < first_s <= last_s < 8.0
    assert ears.false_absences == 0


def test_a_change_reaches_at_once_also_those_to_whom_nobody_has_a_link():
    group = SimGroup(5)
    gather(group, 40)
    meet(group)
    group.run(SETTLE_S)
    author = group[3]
    assert author.links is not None
    assert len(author.links.peers()) < len(group.computers) - 1
    assert create(group, author, "web") < 1.0
