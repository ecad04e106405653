"""Which runs make up the validation: the paper's own at several sizes, the further settings, and the product."""

from __future__ import annotations

import msgspec

from colla.protocol.views import Election
from colla.sim.lab.experiment import Heading, heading
from colla.sim.validation.activity import Activity
from colla.sim.validation.case import PaperCase, Setting
from colla.sim.validation.profile import Profile

EXPERIMENT = "paper"
MAIN_NODES = 20
MAIN_RUNS = 1300
"""A third is consistent from the start and not counted. Of 1,000 runs, so few are left that the lower bound after two
iterations would stay below its target even if not a single one took longer; of these, some 830 are left."""
OTHER_NODES = (5, 10, 50, 100)
OTHER_RUNS = 200
FULL_RUNS = 10_000
ITERATING = (Profile.PAPER, Profile.PLAIN)


class Plan(msgspec.Struct, frozen=True):
    """What to run. `runs`: how many of each kind, in place of the defaults; `full`: 10,000 of each at the main size."""

    seed: int
    profiles: tuple[Profile, ...] = tuple(Profile)
    elections: tuple[Election, ...] = tuple(Election)
    settings: tuple[Setting, ...] = tuple(Setting)
    nodes: tuple[int, ...] = (MAIN_NODES, *OTHER_NODES)
    runs: int | None = None
    full: bool = False
    activity: Activity = Activity()

    def cases(self) -> list[PaperCase]:
        """All runs, those that matter most first; further settings and the product at the main size only."""
        main = MAIN_NODES if MAIN_NODES in self.nodes else self.nodes[0]
        kinds = [(profile, Setting.USUAL, main) for profile in ITERATING]
        kinds += [(Profile.PAPER, setting, main) for setting in self.settings if setting is not Setting.USUAL]
        kinds.append((Profile.PRODUCT, Setting.USUAL, main))
        kinds += [
            (profile, Setting.USUAL, nodes) for nodes in self.nodes if nodes != main for profile in ITERATING
        ]
        return [
            PaperCase(profile, election, setting, nodes, number, self.seed, self.activity)
            for profile, setting, nodes in kinds
            if profile in self.profiles and setting in self.settings
            for number in range(self._runs(profile, setting, nodes == main))
            for election in self.elections
        ]

    def heading(self) -> Heading:
        """What results must have been made with to be gone on with."""
        return heading(EXPERIMENT, {"seed": self.seed, "activity": msgspec.to_builtins(self.activity)})

    def _runs(self, profile: Profile, setting: Setting, main: bool) -> int:
        if self.runs is not None:
            return self.runs
        if main and profile in ITERATING and setting is Setting.USUAL:
            return FULL_RUNS if self.full else MAIN_RUNS
        return OTHER_RUNS
