"""Presence on bad lines, many times over: how soon all know of a crash, and how often somebody who runs is called absent.

`python -m colla.sim.scale.watching --crashes 200 --hours 100`, to be broken off and resumed with `--file`. Groups of 30 nodes
with all their agents; 5 % of all packets are lost, and each takes 20 ms and a random time, exponentially distributed with a
mean of 100 ms (one in seven takes more than 200 ms), so that packets overtake each other. In the *hours* nobody ever stops,
and some process stands still every few seconds, for up to two seconds: whatever is concluded then is false.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from colla.protocol.views import Election
from colla.sim.gathering import gather
from colla.sim.group import SimGroup
from colla.sim.lab.experiment import conduct, heading
from colla.sim.lab.statistics import mean, quantile
from colla.sim.lines import Line
from colla.sim.scale.measure import KNOWN_WITHIN_S, SETTLE_S, Ears, crash, meet

NODES = 30
BAD = Line(delay_s=0.010, jitter_s=0.050, loss=0.025)
"""Of each of the two lines that a packet passes."""
CRASHES_PER_WORLD = 10
RETURNED_S = 20.0
HOURS_PER_WORLD = 1.0
"""Node-hours: two minutes of thirty nodes."""
STALL_EVERY_S = 3.0
STALL_S = (0.2, 2.0)


class World(msgspec.Struct, frozen=True):
    """A case: ten crashes, or an hour of nodes in which nobody stops."""

    kind: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.seed}"


class Seen(msgspec.Struct, frozen=True):
    """What came of it. `known_s`: until all knew of each crash."""

    known_s: tuple[float, ...]
    false_absences: int
    node_hours: float


def watch(case: World) -> Seen:
    """Run one world."""
    group = SimGroup(case.seed, Election.HASHING, line=BAD)
    gather(group, NODES)
    ears = Ears(group)
    meet(group)
    group.run(SETTLE_S)
    before, began_s = ears.false_absences, group.world.now_s
    known = _crashes(group, ears) if case.kind == "crash" else _stalls(group)
    hours = NODES * (group.world.now_s - began_s) / 3600
    return Seen(known, ears.false_absences - before, hours)


def _crashes(group: SimGroup, ears: Ears) -> tuple[float, ...]:
    known = []
    for number in range(CRASHES_PER_WORLD):
        known.append(crash(group, ears, number)[1])
        for computer in group.computers:
            computer.start()
        group.run(RETURNED_S)
    return tuple(known)


def _stalls(group: SimGroup) -> tuple[float, ...]:
    rng = group.world.random("stalls")
    until_s = group.world.now_s + HOURS_PER_WORLD * 3600 / NODES
    while group.world.now_s < until_s:
        group.run(rng.expovariate(1 / STALL_EVERY_S))
        rng.choice(group.computers).stall(rng.uniform(*STALL_S))
    return ()


def main() -> int:
    """Run the worlds and tell what was seen; 1 when the target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crashes", type=int, default=200, help="how many plugs to pull")
    parser.add_argument("--hours", type=int, default=10, help="how many node-hours in which nobody stops")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=None, help="all cores if not given")
    parser.add_argument("--file", type=Path, default=None, help="keep results here, and go on from there")
    given = parser.parse_args()
    cases = [World("crash", given.seed + number) for number in range(given.crashes // CRASHES_PER_WORLD)]
    cases += [World("stalls", given.seed + number) for number in range(int(given.hours / HOURS_PER_WORLD))]
    outcome = conduct(cases, watch, Seen, heading("watching", {}), path=given.file, processes=given.processes)
    known = [took_s for _, seen in outcome.results for took_s in seen.known_s]
    hours = sum(seen.node_hours for case, seen in outcome.results if case.kind == "stalls")
    false = sum(seen.false_absences for case, seen in outcome.results if case.kind == "stalls")
    if known:
        late = sum(took_s > KNOWN_WITHIN_S for took_s in known)
        print(
            f"{len(known)} crashes: known to all after {mean(known):.2f} s on average, p50 {quantile(known, 0.5):.2f} s, "
            f"p99 {quantile(known, 0.99):.2f} s, longest {max(known):.2f} s; {late} not within {KNOWN_WITHIN_S:g} s"
        )
    print(f"{hours:.0f} node-hours with stalls of up to {STALL_S[1]:g} s: {false} false absences")
    return 0 if outcome.complete and not false else 1


if __name__ == "__main__":
    sys.exit(main())
