"""Reducing: what the failure does not need goes, what it needs stays, and what is returned was seen to fail."""

from __future__ import annotations

import pytest

from colla.sim.scenario import shrink
from colla.sim.scenario.acts.computers import Kill, PowerOff
from colla.sim.scenario.acts.people import Create
from colla.sim.scenario.compose import compose
from colla.sim.scenario.play import Outcome, run_scenario
from colla.sim.scenario.scenario import FirstService, Scenario, problems_of
from colla.sim.scenario.shrink import Shrinking, replaced


def failure(seed: int = 1, why: str = "safety violated: it broke") -> Outcome:
    return Outcome(seed=seed, verdict="unsafe", why=why)


def test_only_what_fails_is_reduced() -> None:
    with pytest.raises(ValueError, match="only what fails"):
        Shrinking(Scenario(), Outcome(seed=1, verdict="consistent"))


def test_what_the_failure_does_not_need_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulator that fails when n1 is killed after a service was created: two acts of forty are left."""

    def run(scenario: Scenario, seed: int) -> Outcome:
        assert next(problems_of(scenario), None) is None
        kinds = [(act.kind, act.nodes()) for act in sorted(scenario.acts, key=lambda act: act.at_s)]
        create = next((number for number, (kind, _) in enumerate(kinds) if kind == "create"), len(kinds))
        fails = ("kill", ("n1",)) in kinds[create:]
        return failure(seed) if fails else Outcome(seed=seed, verdict="consistent")

    monkeypatch.setattr(shrink, "run_scenario", run)
    noise = [act for seed in (1, 3) for act in compose(seed).acts if act.kind not in ("create", "kill")]
    noise = [
        act for act in noise if not act.services() and act.nodes() and set(act.nodes()) <= {"n0", "n1", "n2"}
    ]
    acts = [*noise[:19], Create(at_s=14.0, node="n2", service="s9"), Kill(at_s=14.5, node="n1", lasts_s=9.0)]
    whole = replaced(
        Scenario(nodes=6, services=(FirstService(name="s0", replicas=3, node="n4"),), ends_s=60.0), acts=acts
    )
    shrinking = Shrinking(whole, failure())
    smallest = shrinking.run()
    assert [act.kind for act in smallest.acts] == ["create", "kill"]
    assert (smallest.nodes, smallest.services) == (3, ())
    assert smallest.ends_s < 10.0
    assert run(smallest, shrinking.outcome.seed).failed
    assert shrinking.runs < 300


def test_another_failure_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "run_scenario", lambda scenario, seed: failure(seed, "KeyError: other"))
    whole = Scenario(acts=(PowerOff(at_s=1.0, node="n1"),))
    assert Shrinking(whole, failure()).run() == whole


def test_runs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shrink, "run_scenario", lambda scenario, seed: Outcome(seed=seed, verdict="consistent")
    )
    shrinking = Shrinking(compose(7), failure(), runs_max=10)
    assert shrinking.run() == compose(7)
    assert shrinking.runs == 10


def test_a_real_one() -> None:
    """Two replicas cannot be had within no time at all after one of two computers was off; nothing else matters."""
    acts = (
        Kill(at_s=1.0, node="n0", lasts_s=0.5),
        PowerOff(at_s=3.0, node="n1"),
        Create(at_s=4.0, node="n0", service="wiki"),
    )
    services = (FirstService(name="web", replicas=2),)
    whole = Scenario(nodes=3, acts=acts, services=services, ends_s=8.0, consistent_within_s=0.0)
    outcome = run_scenario(whole, 1)
    shrinking = Shrinking(whole, outcome, runs_max=40)
    smallest = shrinking.run()
    assert run_scenario(smallest, shrinking.outcome.seed).verdict == "not consistent"
    assert len(smallest.acts) < len(acts)
