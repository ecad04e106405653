"""Runs a scenario with a seed: forms the group, lets the acts happen with safety checked after every step, ends all
faults, and demands liveness (a) to (d) of DESIGN section 12 within the scenario's bound.

The same scenario and seed give the same outcome, trace hash included, in every process.
"""

from __future__ import annotations

import re
import traceback
from typing import Literal

import msgspec

from colla.sim.checkers import SafetyChecks, Violation
from colla.sim.consistency import members_of, settle
from colla.sim.gathering import gather
from colla.sim.group import GIVES, Failed, SimGroup
from colla.sim.scenario.scenario import Scenario, write_scenario
from colla.sim.scenario.stage import Stage

MEETING_S = 1.5
"""Those who joined know each other, and the first services run, after this time."""
IDENTIFIERS = re.compile(r"b'(?:[^'\\]|\\.)*'|\b[0-9a-f]{8,}\b|\d+(?:\.\d+)?")

Verdict = Literal["consistent", "unsafe", "not consistent", "crashed"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went. `why` is its failure in one line; `report` has the story. Times in virtual seconds.

    `acts`: how many of each kind found something to do. `consistent_s`: from the end of all faults until consistent.
    """

    seed: int
    verdict: Verdict
    why: str = ""
    report: str = ""
    virtual_s: float = 0.0
    messages: int = 0
    bytes: int = 0
    steps: int = 0
    acts: dict[str, int] = {}
    consistent_s: float | None = None
    writes: int = 0
    trace: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict != "consistent"

    @property
    def sort(self) -> str:
        """The failure without its names and numbers: what two failures of one cause have in common."""
        return f"{self.verdict}: {IDENTIFIERS.sub('#', self.why)}"


class Play:
    """One run under way; afterwards its group can be looked at."""

    def __init__(self, scenario: Scenario, seed: int, replay: str = "") -> None:
        """`replay` is the command that runs the same again."""
        self.scenario = scenario
        self.group = SimGroup(
            seed, scenario.election, scenario.configuration(), line=scenario.line, replay=replay
        )
        gather(self.group, scenario.nodes)
        self.checks = SafetyChecks(self.group)
        self.stage = Stage(self.group)
        self.consistent_s: float | None = None

    def run(self) -> None:
        """All of it. Raises `Violation` or `Failed`."""
        self.form()
        self.act()
        self.stage.peace()
        within_s = self.scenario.consistent_within_s
        took_s = settle(self.group, within_s, self.checks, self.scenario.stays_s)
        self.group.until(lambda: not self.unlike(), within_s, "(e) all hold the same records, and belong")
        self.consistent_s = took_s

    def form(self) -> None:
        """All meet, the first services are deployed; then everybody gives what they give."""
        group, stage, scenario = self.group, self.stage, self.scenario
        homes = {
            name: home
            for shared in scenario.homes
            for home in (group.network.build_home(shared.nat, scenario.line),)
            for name in shared.nodes
        }
        for computer in group.computers:
            if computer.name in homes:
                computer.live_in(homes[computer.name])
        if homes:
            self._remember_founder()
        for computer in group.computers:
            computer.start()
        group.run(MEETING_S)
        for service in scenario.services:
            computer = group[int(service.node[1:])]
            stage.created(service.name, group.deploy(service.name, service.replicas, computer), computer)
        for one in scenario.contributions:
            computer = group[int(one.node[1:])]
            computer.contribute(one.gives.applied_to(GIVES))
        for computer in group.computers:
            stage.note(computer)
        group.run(MEETING_S)

    def _remember_founder(self) -> None:
        """Whoever joined knows where its ticket led. Among homes nothing else may lead out: the addresses of others
        that it begins with are those from before they moved in.
        """
        founder, *others = self.group.computers
        for computer in others:
            known = tuple(peer for peer in computer.settings.peers if peer[0] != founder.node)
            computer.settings.peers = ((founder.node, (founder.address,)), *known)

    def act(self) -> None:
        """Everything happens, each thing at its time."""
        world = self.group.world
        begun_s = world.now_s
        for act in self.scenario.all_acts(world.random("patterns")):
            world.at(begun_s + act.at_s, self.stage.perform, act)
        self.group.run(self.scenario.ends_s)

    def unlike(self) -> list[str]:
        """What differs between those who belong: (e) they hold the same records of every topic, know the same nodes, and
        everybody who has a ticket belongs, unless somebody was taken out, or the inviter left before that, or its disk
        was lost with the ticket before anybody else had heard of it.
        """
        members = members_of(self.group)
        if not members:
            return ["nobody belongs"]
        first, *others = members
        held, found = first.core.foundation.book, []
        known = {info.id: None for info in first.core.membership.nodes()}
        for one in self.group.up():
            inside = one in members
            excused = self.stage.out_of_the_group or self.stage.is_void(one.name, members)
            if inside != (one.node in known) or not (inside or excused):
                found.append(f"{one.name} does not belong")
        for one in others:
            book = one.core.foundation.book
            unlike = [topic for topic in book.topics if book.contents(topic) != held.contents(topic)]
            found += [f"{one.name} holds other {topic} than {first.name}" for topic in unlike]
        return found

    def outcome(self, verdict: Verdict, why: str = "", report: str = "") -> Outcome:
        """What there is to tell."""
        network = self.group.network
        return Outcome(
            seed=self.group.world.seed,
            verdict=verdict,
            why=why,
            report=report,
            virtual_s=self.group.world.now_s,
            messages=network.frames + network.datagrams,
            bytes=network.bytes,
            steps=self.checks.checked,
            acts=dict(sorted(self.stage.acts.items())),
            consistent_s=self.consistent_s,
            writes=len(self.checks.acknowledged),
            trace=self.group.world.trace.digest(),
        )

    def report(self, failure: str) -> str:
        """A failure with what happened before, and the scenario."""
        acts = "\n".join(self.stage.log)
        return f"{failure}\n--- what happened\n{acts}\n--- the scenario\n{write_scenario(self.scenario)}"


def run_scenario(scenario: Scenario, seed: int, replay: str = "") -> Outcome:
    """Run it. Never raises for what the agents do wrong: that is the outcome.

    Raises `CollaError("bad_scenario")` when its configuration cannot be.
    """
    return play_out(Play(scenario, seed, replay))


def play_out(play: Play) -> Outcome:
    """Run what was prepared, and say how it went."""
    try:
        play.run()
    except Violation as violation:
        return play.outcome("unsafe", first_line(violation), play.report(str(violation)))
    except Failed as failed:
        return play.outcome("not consistent", first_line(failed), play.report(str(failed)))
    except Exception as error:
        # Whatever the agents raise is a bug of theirs: it is told with all that led to it.
        raised = "".join(traceback.format_exception(error)).rstrip()
        story = play.group.describe(raised, play.group.computers)
        return play.outcome("crashed", f"{type(error).__name__}: {first_line(error)}", play.report(story))
    return play.outcome("consistent")


def first_line(error: BaseException) -> str:
    """What went wrong, and for a group that did not settle also the first thing that is not as it should be."""
    lines = str(error).splitlines() or [""]
    return " ".join(line.strip() for line in lines[:2]) if lines[0].startswith("not consistent") else lines[0]
