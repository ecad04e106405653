"""The code moves as the tables of transitions say with which the mechanisms' modules begin.

After every step of every node in turmoil, the states of all its machines are compared with those before: each change must
be a path of its table (one step may take several transitions). And every state of every table is seen at last, so that
no table speaks of what does not exist. `tools/diagrams.py` reads the same tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path

import pytest

from colla.agents.requests import PlaceObject, SetSecrets
from colla.agents.router import Router
from colla.kernel.effects import Effect
from colla.kernel.events import Event
from colla.model.ids import ObjectId, digest
from colla.model.secret import Hidden
from colla.protocol.views import Election
from colla.sim.computer import Computer
from colla.sim.faults import Turmoil
from colla.sim.group import SimGroup
from colla.sim.network import Line

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from diagrams import NOTHING, Machine, machines

States = Mapping[Hashable, str]
SEEDS = range(2)
ACTS = 30
LARGE_BYTES = 3_000_000
"""So large that not all objects that come at once are fetched at once."""
BY_MODULE = {machine.module: machine for machine in machines()}


def _replicas(core: Router) -> States:
    return {own.id: own.stage.value for own in core.executor._running.table.all()}


def _floors(core: Router) -> States:
    floors = core.executor._obeying.floors
    return {
        service: "obeyed" if floors.obeyed(service) == floors.pledged(service) else "pledged"
        for service in floors.services()
    }


def _candidacies(core: Router) -> States:
    return {
        service: "claiming" if one.persist else "asking" if one.contend_until_s is None else "contending"
        for service, one in core.dispatcher._candidacies._open.items()
    }


def _negotiations(core: Router) -> States:
    return dict.fromkeys(core.dispatcher._candidacies._negotiation._open, "contending")


def _masteries(core: Router) -> States:
    return dict.fromkeys(core.dispatcher._announcing.masteries, "mastered")


def _mastered(core: Router) -> States:
    mastered = core.dispatcher._supervisor.mastered
    return {service: "acting" if one.acting else "inventory" for service, one in mastered.items()}


def _offers(core: Router) -> States:
    mastered = core.dispatcher._supervisor.mastered
    return {(service, node): "pending" for service, one in mastered.items() for node in one.offers}


def _presence(core: Router) -> States:
    rows = core.presence._table._rows
    return {node: row.phase.value for node, row in rows.items() if node != core.foundation.identity.node}


def _sessions(core: Router) -> States:
    sessions = core.foundation.sessions._sessions
    return {
        peer: "opening" if one.initiated and not one.round else "pulling" for peer, one in sessions.items()
    }


def _keeping(core: Router) -> States:
    keeping = core.repository._keeping
    held = dict.fromkeys(keeping._holdings.held(), "held")
    fetching = dict.fromkeys((one.object for one in keeping._fetching.values()), "fetching")
    return held | dict.fromkeys(keeping._queue, "waiting") | fetching


def _placings(core: Router) -> States:
    return dict.fromkeys(core.repository._placing._open, "asked")


def _questions(core: Router) -> States:
    return dict.fromkeys(core.executor._entrusting._asked, "asked")


PROBES: dict[str, Callable[[Router], States]] = {
    "copies/keeping": _keeping,
    "copies/placing": _placings,
    "election/announcing": _masteries,
    "election/candidacy": _candidacies,
    "election/contention": _negotiations,
    "election/floors": _floors,
    "presence/table": _presence,
    "running/entrusting": _questions,
    "running/replicas": _replicas,
    "sessions/sessions": _sessions,
    "supervision/ordering": _offers,
    "supervision/supervisor": _mastered,
}
"""How to see the states of one node's machines. What an executor does with an order is over within one step."""
MOMENTARY = ("running/obeying",)
ABSENT = {"election/candidacy": "following"}
"""What it is called when there is nothing, where the table has a word for it."""


def reachable(machine: Machine, nothing: str) -> dict[str, dict[str, None]]:
    """From each state, all states to which some path of the table leads that does not pass through nothing."""
    after: dict[str, dict[str, None]] = {}
    for one in machine.transitions:
        after.setdefault(one.before, {})[one.after] = None
    for _ in machine.states:
        for targets in after.values():
            for state in [state for state in targets if state != nothing]:
                targets.update(after.get(state, {}))
    return after


REACHABLE = {name: reachable(BY_MODULE[name], ABSENT.get(name, NOTHING)) for name in PROBES}


class Watcher:
    """Compares the machines of a node after each of its steps with what they were before."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, None]] = {name: {} for name in PROBES}
        self.changes = 0
        self._cores: dict[str, Router] = {}
        self._states: dict[tuple[str, str], States] = {}

    def will_step(self, computer: Computer, event: Event) -> None:
        if self._cores.get(computer.name) is not computer.core:
            # Other agents: whatever they found on their disk, or have done when they began, is their beginning.
            self._cores[computer.name] = computer.core
            for name, probe in PROBES.items():
                self._states[computer.name, name] = probe(computer.core)

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        for name, probe in PROBES.items():
            before, after = self._states[computer.name, name], probe(computer.core)
            if before == after:
                continue
            nothing = ABSENT.get(name, NOTHING)
            for key in dict.fromkeys((*before, *after)):
                one, other = before.get(key, nothing), after.get(key, nothing)
                self.seen[name][other] = None
                if one != other:
                    self.changes += 1
                    assert other in REACHABLE[name].get(one, {}), (
                        f"{name}: {one} -> {other} by {event!r} is no path of the table"
                    )
            self._states[computer.name, name] = after

    def performed(self, computer: Computer, effect: Effect) -> None:
        pass


@pytest.fixture(scope="module")
def watcher() -> Watcher:
    """Has seen turmoil with both elections."""
    watcher = Watcher()
    for seed in SEEDS:
        group = SimGroup(seed, list(Election)[seed % 2], line=Line(loss=0.01 * (seed % 3)))
        group.observers.append(watcher)
        group.grow(6)
        group.run(5.0)
        web = group.deploy("web", 3)
        group.run(10.0)
        for computer in group.computers:
            computer.environment.hang(web)
        group.run(25.0)
        for computer in group.computers:
            computer.environment.recover(web)
        # Its replicas are replaced, also on computers that have to be given the key first.
        group[0].ask(SetSecrets(web, (("KEY", Hidden("value")),)))
        group.run(15.0)
        for number in range(8):
            object_id = ObjectId(digest(b"%d" % number))
            group[0].put_object(object_id, LARGE_BYTES)
            group[0].ask(PlaceObject(object_id, LARGE_BYTES))
        for computer in group.computers[:4]:
            # So many at once that executors let some wait.
            creation = group.creation(f"of-{computer.name}", computer, replicas=6)
            computer.put_object(creation.specification.object, creation.specification.object_bytes)
            computer.ask(creation)
        turmoil = Turmoil(group)
        turmoil.run(ACTS)
        turmoil.peace()
        group.run(30.0)
    return watcher


def test_every_table_is_held_to(watcher: Watcher) -> None:
    assert sorted((*PROBES, *MOMENTARY)) == sorted(BY_MODULE), "a table that no probe looks at"
    assert watcher.changes > 1000


def unseen(watcher: Watcher) -> Iterator[str]:
    for name in PROBES:
        for state in BY_MODULE[name].states:
            if state not in watcher.seen[name]:
                yield f"{name}: {state}"


def test_every_state_is_seen(watcher: Watcher) -> None:
    assert "; ".join(unseen(watcher)) == ""


def test_the_probes_speak_of_the_tables_states(watcher: Watcher) -> None:
    for name, seen in watcher.seen.items():
        strange = [state for state in seen if state not in (NOTHING, *BY_MODULE[name].states)]
        assert strange == [], name
