"""When computers are there: churn by the hours of days and weeks, compressed into the seconds of a simulation.

Most computers of people are on in the evening, some at office hours, some always; weekends differ. A `PresencePattern`
says so for some computers, and becomes plain acts: each absence is a `suspend`, `stop` or `power-off` that lasts so long.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from colla.sim.scenario.act import Act, NodeName, Seconds
from colla.sim.scenario.acts.computers import PowerOff, Stop, Suspend

DAYS_OF_WEEK = 7
WORKING_DAYS = 5
HOURS_OF_DAY = 24.0
SHORTEST_S = 0.05
"""An absence that is shorter than this in the simulation is none."""

Hour = Annotated[float, Meta(ge=0.0, le=HOURS_OF_DAY)]
Hours = tuple[tuple[Hour, Hour], ...]


class PresencePattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The computers are on in these hours. A day takes `day_s` of the simulation; days begin on Monday at midnight.

    Nobody is punctual: each coming and going is earlier or later by up to `unpunctual_h` hours.
    """

    nodes: tuple[NodeName, ...]
    weekdays: Hours
    weekend: Hours
    day_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 24.0
    away: Literal["suspend", "stop", "power-off"] = "suspend"
    unpunctual_h: Annotated[float, Meta(ge=0.0, le=6.0)] = 0.5

    def acts(self, rng: Random, until_s: Seconds) -> list[Act]:
        """The absences until then, as acts."""
        return [
            self._absence(node, from_s, to_s)
            for node in self.nodes
            for from_s, to_s in self._gaps(rng, until_s)
        ]

    def _gaps(self, rng: Random, until_s: float) -> Iterator[tuple[float, float]]:
        """From when to when one computer is away, in seconds."""
        away_since_s = 0.0
        for comes_s, leaves_s in (*self._presences(rng, until_s), (until_s, until_s)):
            if min(comes_s, until_s) - away_since_s > SHORTEST_S:
                yield away_since_s, min(comes_s, until_s)
            away_since_s = max(away_since_s, leaves_s)

    def _presences(self, rng: Random, until_s: float) -> Iterator[tuple[float, float]]:
        """From when to when one computer is there, in seconds."""
        hour_s = self.day_s / HOURS_OF_DAY
        for day in range(int(until_s / self.day_s) + 1):
            for start_h, end_h in self.weekdays if day % DAYS_OF_WEEK < WORKING_DAYS else self.weekend:
                comes_h, leaves_h = start_h + self._late_h(rng), end_h + self._late_h(rng)
                yield (day * HOURS_OF_DAY + comes_h) * hour_s, (day * HOURS_OF_DAY + leaves_h) * hour_s

    def _late_h(self, rng: Random) -> float:
        return rng.uniform(-self.unpunctual_h, self.unpunctual_h)

    def _absence(self, node: str, from_s: float, to_s: float) -> Act:
        at_s, lasts_s = round(from_s, 3), round(to_s - from_s, 3)
        match self.away:
            case "suspend":
                return Suspend(at_s=at_s, node=node, lasts_s=lasts_s)
            case "stop":
                return Stop(at_s=at_s, node=node, lasts_s=lasts_s)
            case "power-off":
                return PowerOff(at_s=at_s, node=node, lasts_s=lasts_s)
