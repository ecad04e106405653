"""A scenario as a value: who is there, on what lines, with which services, what happens when, and what must come true.

Read from and written to TOML. Invariants: a scenario that is read names only computers and services that exist in it; what is
written is read back as the same value; with a seed it says everything that a run does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from colla.kernel.config import Config
from colla.model.errors import UNDECODABLE, CollaError
from colla.protocol.views import Election
from colla.sim.homes import Nat
from colla.sim.network import HOME, Line
from colla.sim.scenario.act import Act, NodeName, Seconds, ServiceName
from colla.sim.scenario.acts import computers, environments, group_life, network, people
from colla.sim.scenario.acts.people import Gives, Join, ReplicaCount
from colla.sim.scenario.patterns import PresencePattern

NODES_MAX = 64
CONSISTENT_WITHIN_S = 180.0
"""Longer than any pause that the mechanisms take: backing off and trimming take up to a minute each."""

AnyAct = (
    computers.PowerOff
    | computers.Kill
    | computers.CrashAtEffect
    | computers.Stop
    | computers.Start
    | computers.Suspend
    | computers.Stall
    | computers.Slow
    | computers.Wipe
    | computers.OldDisk
    | computers.FullDisk
    | computers.SlowDisk
    | computers.LyingDisk
    | computers.DamageObjects
    | computers.Drift
    | computers.Jump
    | computers.Move
    | network.CutInTwo
    | network.Bridge
    | network.OneWay
    | network.Deaf
    | network.Disturb
    | network.BadLine
    | network.BreakLinks
    | environments.CrashReplicas
    | environments.HangReplicas
    | environments.BadEnvironment
    | environments.DetachEnvironments
    | people.Create
    | people.Modify
    | people.Scale
    | people.Activate
    | people.Deactivate
    | people.Eliminate
    | people.Contribute
    | people.Leave
    | people.Join
    | group_life.Say
    | group_life.Publish
    | group_life.NameAnObject
    | group_life.Rename
    | group_life.Appoint
    | group_life.Retire
    | group_life.Remove
)


class NodeGives(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A computer that does not give everything from the beginning."""

    node: NodeName
    gives: Gives


class SharedHome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Computers that live together behind one router. The other computers are reachable by everybody."""

    nodes: tuple[NodeName, ...]
    nat: Nat = Nat.KEEPING


class FirstService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service that runs before anything happens, deployed at its owner's computer."""

    name: ServiceName
    replicas: ReplicaCount = 1
    node: NodeName = "n0"


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Times count from when the group is formed and its first services run.

    `nodes` computers (`n0`, `n1`, …) of one member each found and join; at `ends_s` every fault ends, and within
    `consistent_within_s` after that the group must be consistent and stay so for `stays_s`. `config` changes bounds
    and intervals by their name in `kernel.config`, such as `presence.silence_s`.
    """

    story: str = ""
    nodes: Annotated[int, Meta(ge=1, le=NODES_MAX)] = 5
    election: Election = Election.HASHING
    line: Line = HOME
    config: dict[str, float | int] = {}
    homes: tuple[SharedHome, ...] = ()
    contributions: tuple[NodeGives, ...] = ()
    services: tuple[FirstService, ...] = ()
    presence: tuple[PresencePattern, ...] = ()
    acts: tuple[AnyAct, ...] = ()
    ends_s: Seconds = 30.0
    consistent_within_s: Seconds = CONSISTENT_WITHIN_S
    stays_s: Seconds = 5.0

    def all_acts(self, rng: Random) -> list[Act]:
        """The acts and what the patterns of presence come to, in order of time."""
        acts: list[Act] = [*self.acts]
        for pattern in self.presence:
            acts += pattern.acts(rng, self.ends_s)
        return sorted(acts, key=lambda act: act.at_s)

    def configuration(self) -> Config:
        """What ships, with the changes. Raises `CollaError("bad_scenario")` for names that do not exist."""
        sections: dict[str, Any] = msgspec.to_builtins(Config())
        for name, value in self.config.items():
            section, _, entry = name.rpartition(".")
            found = sections.get(section) if section else sections
            if not isinstance(found, dict) or entry not in found or isinstance(found[entry], dict):
                raise CollaError(
                    "bad_scenario",
                    f"config: there is no {name!r}.",
                    "The names are those of docs/reference/bounds.md.",
                )
            found[entry] = value
        try:
            return msgspec.convert(sections, Config)
        except msgspec.ValidationError as error:
            raise CollaError("bad_scenario", f"config: {error}.") from None


def read_scenario(text: str, source: str = "the scenario") -> Scenario:
    """Read TOML. Raises `CollaError("bad_scenario")` that names the line or the key, and what is wrong there."""
    try:
        scenario = msgspec.toml.decode(text, type=Scenario)
    except UNDECODABLE as error:
        message = str(error)
        if isinstance(error.__cause__, tomllib.TOMLDecodeError):
            message = str(error.__cause__)
        raise CollaError("bad_scenario", f"{source}: {_with_line(message, text)}.") from None
    for problem in problems_of(scenario):
        raise CollaError("bad_scenario", f"{source}: {_with_line(problem, text)}.")
    scenario.configuration()
    return scenario


def load_scenario(path: Path) -> Scenario:
    """Read a file. Raises `CollaError` (`not_found`, `bad_scenario`)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CollaError("not_found", f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise CollaError("bad_scenario", f"{path} is not text in UTF-8: {error.reason}.") from None
    return read_scenario(text, str(path))


def write_scenario(scenario: Scenario) -> str:
    """The scenario as TOML, without what is as usual."""
    return msgspec.toml.encode(_without_nothing(msgspec.to_builtins(scenario))).decode()


def _without_nothing(value: Any) -> Any:
    """TOML knows no null: what is None is not written."""
    if isinstance(value, dict):
        return {name: _without_nothing(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_nothing(each) for each in value]
    return value


def problems_of(scenario: Scenario) -> Iterator[str]:
    """Names that lead nowhere, each with the key it stands at."""
    nodes = {f"n{number}": None for number in range(scenario.nodes)}
    nodes |= {act.node: None for act in scenario.acts if isinstance(act, Join)}
    services = {service.name: None for service in scenario.services}
    services |= {act.service: None for act in scenario.acts if isinstance(act, people.Create)}
    named: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        *((f"$.homes[{n}]", one.nodes, ()) for n, one in enumerate(scenario.homes)),
        *((f"$.contributions[{n}]", (one.node,), ()) for n, one in enumerate(scenario.contributions)),
        *((f"$.services[{n}]", (one.node,), ()) for n, one in enumerate(scenario.services)),
        *((f"$.presence[{n}]", one.nodes, ()) for n, one in enumerate(scenario.presence)),
        *((f"$.acts[{n}]", act.nodes(), act.services()) for n, act in enumerate(scenario.acts)),
    ]
    for place, of_nodes, of_services in named:
        yield from (f"there is no computer {name!r} - at `{place}`" for name in of_nodes if name not in nodes)
        yield from (
            f"there is no service {name!r} - at `{place}`" for name in of_services if name not in services
        )
    if any("n0" in home.nodes for home in scenario.homes):
        yield "the founder's computer is in no home, so that others can reach it - at `$.homes`"
    for number, act in enumerate(scenario.acts):
        if act.at_s > scenario.ends_s:
            yield f"the act comes after the end, at {scenario.ends_s:g} s - at `$.acts[{number}].at_s`"


def _with_line(message: str, text: str) -> str:
    """The message, with the line of the table that its path (`$.acts[3].at_s`) leads to."""
    found = re.search(r"`\$\.(\w+)\[(\d+)\]", message)
    if found is None:
        return message
    table = re.compile(rf"\s*\[\[\s*{found[1]}\s*\]\]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if table.match(line)]
    index = int(found[2])
    return f"{message} (line {lines[index]})" if index < len(lines) else message
