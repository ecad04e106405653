"""Reduces a scenario that fails to a small one that fails alike: what is left is what the failure needs.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 2002) over the acts, patterns,
contributions, services and changes of configuration; then computers, times and durations. A reduction shifts what
chance brings: it counts as failing when it fails with one of a few seeds. Invariant: what is returned was seen to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from colla.sim.network import HOME
from colla.sim.scenario.patterns import PresencePattern
from colla.sim.scenario.play import Outcome, run_scenario
from colla.sim.scenario.scenario import FirstService, Scenario, SharedHome, problems_of

SEEDS_TRIED = 3
"""A reduction is given up when it fails with none of so many seeds."""
RUNS_MAX = 600
LATER_S = 3.0
"""So long after the last act the faults end."""
ROUNDS_MAX = 6

S = TypeVar("S", PresencePattern, SharedHome)
Progress = Callable[[int, Scenario], None]


class Shrinking:
    """One reduction under way. `outcome` is the failure of the smallest scenario so far."""

    def __init__(
        self,
        scenario: Scenario,
        outcome: Outcome,
        runs_max: int = RUNS_MAX,
        progress: Progress = lambda runs, scenario: None,
    ) -> None:
        """`outcome` is how `scenario` failed. `progress` hears (runs so far, the smallest scenario) now and then."""
        if not outcome.failed:
            raise ValueError("only what fails can be reduced")
        self.scenario = scenario
        self.outcome = outcome
        self.runs = 0
        self._runs_max = runs_max
        self._progress = progress
        self._wanted = signature(outcome)

    def run(self) -> Scenario:
        """Reduce until nothing more can go, or the runs are used up."""
        for _ in range(ROUNDS_MAX):
            before = self.scenario
            for name in ("acts", "presence", "homes", "contributions"):
                self._reduce_tuple(name)
            self._drop_services()
            self._drop_nodes()
            for simpler in simplifications(self.scenario):
                self._try(simpler)
            for index in range(len(self.scenario.acts)):
                self._simplify_act(index)
            if self.scenario == before or self.runs >= self._runs_max:
                break
        return self.scenario

    def _try(self, smaller: Scenario) -> bool:
        """Whether it fails alike; then it is the smallest from now on."""
        if smaller == self.scenario or next(problems_of(smaller), None) is not None:
            return False
        for seed in range(self.outcome.seed, self.outcome.seed + SEEDS_TRIED):
            if self.runs >= self._runs_max:
                return False
            self.runs += 1
            outcome = run_scenario(smaller, seed)
            if signature(outcome) == self._wanted:
                self.scenario, self.outcome = smaller, outcome
                self._progress(self.runs, smaller)
                return True
        return False

    def _reduce_tuple(self, name: str) -> None:
        """Leave out as much of one list as can be, first in large parts, then one by one (ddmin)."""
        size = len(getattr(self.scenario, name))
        while size:
            begin = 0
            while begin < len(items := getattr(self.scenario, name)):
                rest = items[:begin] + items[begin + size :]
                if not self._try(replaced(self.scenario, **{name: rest})):
                    begin += size
            size = min(size // 2, len(getattr(self.scenario, name)))

    def _drop_services(self) -> None:
        for service in reversed(self.scenario.services):
            acts = [act for act in self.scenario.acts if service.name not in act.services()]
            services = [one for one in self.scenario.services if one is not service]
            self._try(replaced(self.scenario, services=services, acts=acts))

    def _drop_nodes(self) -> None:
        """The last computer goes, and what is done to it; the services of its owner become the first one's."""
        while self.scenario.nodes > 1:
            scenario = self.scenario
            last = f"n{scenario.nodes - 1}"
            smaller = replaced(
                scenario,
                nodes=scenario.nodes - 1,
                acts=[act for act in scenario.acts if last not in act.nodes()],
                contributions=[one for one in scenario.contributions if one.node != last],
                presence=[_without(one, last) for one in scenario.presence],
                homes=[_without(one, last) for one in scenario.homes],
                services=[
                    msgspec.structs.replace(one, node="n0") if one.node == last else one
                    for one in scenario.services
                ],
            )
            if not self._try(smaller):
                break

    def _simplify_act(self, index: int) -> None:
        for changes in ({"lasts_s": None}, {"lasts_s": 1.0}, {"number": 0}, {"replicas": 1}, {"replicas": 2}):
            act = self.scenario.acts[index]
            name, value = next(iter(changes.items()))
            if getattr(act, name, value) != value:
                acts = [*self.scenario.acts]
                acts[index] = msgspec.structs.replace(act, **changes)
                self._try(replaced(self.scenario, acts=acts))


def signature(outcome: Outcome) -> str:
    """What failures must have in common to count as one: what was violated, or what raised; or that peace did not help."""
    return outcome.verdict if outcome.verdict == "not consistent" else outcome.sort


def replaced(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with other parts."""
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return msgspec.structs.replace(scenario, **whole)


def simplifications(scenario: Scenario) -> Iterator[Scenario]:
    """The same with usual lines, no changes, fewer replicas, and a shorter time."""
    yield replaced(scenario, line=HOME)
    yield replaced(scenario, config={})
    for number, service in enumerate(scenario.services):
        for replicas in range(1, service.replicas):
            yield replaced(scenario, services=_with(scenario.services, number, replicas=replicas))
    last_s = max((act.at_s for act in scenario.acts), default=0.0)
    if scenario.ends_s > last_s + LATER_S:
        yield replaced(scenario, ends_s=last_s + LATER_S)
    first_s = min((act.at_s for act in scenario.acts), default=0.0)
    if first_s > 1.0:
        earlier = [msgspec.structs.replace(act, at_s=round(act.at_s - first_s, 3)) for act in scenario.acts]
        yield replaced(scenario, acts=earlier, ends_s=scenario.ends_s - first_s)


def _without(shared: S, node: str) -> S:
    """The pattern or home of the other computers."""
    return msgspec.structs.replace(shared, nodes=tuple(name for name in shared.nodes if name != node))


def _with(services: Sequence[FirstService], number: int, **changes: Any) -> list[FirstService]:
    """The services with one of them changed."""
    changed = [*services]
    changed[number] = msgspec.structs.replace(changed[number], **changes)
    return changed
