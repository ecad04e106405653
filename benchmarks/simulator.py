"""How fast the simulator is: messages delivered per second of processor time, in four situations.

    python benchmarks/simulator.py [--repeat 5] [--scale 1.0] [--only NAME ...] [--against SRC] [--json FILE]

Method. Each run is one process on one core, with one world; what is counted are the frames and datagrams that reached a node's
agents over the simulated network (not what agents of one node say to each other), divided by the processor time that the
process used for them, founding and joining left out:

- *idle*: 20 nodes, six services of three replicas each run, nothing happens for two minutes;
- *repair*: the same group; every six seconds the plug of another computer is pulled, and that of the one before put back;
- *activity*: 20 nodes in the middle of people's doings: every two seconds a service is created, eliminated, scaled or switched;
- *chaos*: 8 nodes, random faults and people (`sim.faults.Turmoil`), then peace, with all safety checks on.

Each run is cut into slices of virtual seconds, and of each slice the run counts in which it took least, since all runs do exactly
the same. A second of one computer is not that of another, so each run also times a fixed piece of plain Python (calls, dictionaries, small
objects) right before and after, and the table shows messages per such piece as well: that figure may be compared between
computers and between quiet and busy ones. `--against` names the `src` folder of another version: both run in turns, and the
ratio of virtual to real time is compared, since one version may do the same with fewer messages. The hash of all that happened is printed: the same for two versions that behave alike.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

NODES = 20
SERVICES = 6
IDLE_S = 120.0
PULL_EVERY_S = 6.0
REPAIR_S = 90.0
ACT_EVERY_S = 2.0
ACTIVITY_S = 60.0
CHAOS_NODES = 8
CHAOS_ACTS = 20
CHAOS_RUNS = 6
PEACE_S = 30.0
SLICE_S = 1.0
PIECES = 40
TARGET = 50_000


def formed(seed: int, nodes: int):  # type: ignore[no-untyped-def]
    """A group of so many nodes that know each other."""
    from colla.sim.group import SimGroup

    group = SimGroup(seed)
    group.grow(nodes)
    group.run(5.0)
    return group


def served(seed: int):  # type: ignore[no-untyped-def]
    """The group of most measures, with its services."""
    group = formed(seed, NODES)
    for number in range(SERVICES):
        group.deploy(f"s{number}", 3, at=group[number])
    group.run(5.0)
    return group


class Meter:
    """Adds up what was delivered, and the processor time it took."""

    def __init__(self) -> None:
        self.messages = 0
        self.steps = 0
        self.virtual_s = 0.0
        self.slices_s: list[float] = []
        self.traces: list[str] = []

    def pass_time(self, group, seconds: float) -> None:  # type: ignore[no-untyped-def]
        """Let time pass in slices."""
        for _ in range(max(1, round(seconds / SLICE_S))):
            self.run(group, lambda: group.run(SLICE_S))

    def run(self, group, call: Callable[[], object]) -> None:  # type: ignore[no-untyped-def]
        """Count what happens in this group meanwhile."""
        network, world = group.network, group.world
        counted = hasattr(network, "delivered")

        def delivered() -> int:
            # An earlier version counts what leaves only; nearly all of it arrives.
            return network.delivered if counted else network.frames + network.datagrams

        before, happened, began_s = delivered(), world.happened, world.now_s
        cpu_s = time.process_time()
        call()
        self.slices_s.append(time.process_time() - cpu_s)
        self.messages += delivered() - before
        self.steps += world.happened - happened
        self.virtual_s += world.now_s - began_s
        self.traces.append(world.trace.digest())


def idle(meter: Meter, scale: float) -> None:
    group = served(1)
    meter.pass_time(group, IDLE_S * scale)


def repair(meter: Meter, scale: float) -> None:
    group = served(2)

    def pull(turn: int) -> None:
        group[turn % NODES].power_off()
        group[(turn - 1) % NODES].start()

    for turn in range(max(1, int(REPAIR_S * scale / PULL_EVERY_S))):
        meter.run(group, lambda turn=turn: pull(turn))
        meter.pass_time(group, PULL_EVERY_S)


def activity(meter: Meter, scale: float) -> None:
    group = served(3)
    rng = Random(3)

    def act(turn: int) -> None:
        services = list(group.services)
        choice = rng.choice(("create", "eliminate", "scale", "switch"))
        if choice == "create" or len(services) < 3:
            group.deploy(f"a{turn}", rng.randint(1, 4), at=group[rng.randrange(NODES)])
        elif choice == "eliminate":
            service = rng.choice(services)
            group.eliminate(service)
            del group.services[service]
        elif choice == "scale":
            group.scale(rng.choice(services), rng.randint(1, 5))
        else:
            group.set_active(rng.choice(services), rng.random() < 0.5)

    for turn in range(max(1, int(ACTIVITY_S * scale / ACT_EVERY_S))):
        meter.run(group, lambda turn=turn: act(turn))
        meter.pass_time(group, ACT_EVERY_S)


def chaos(meter: Meter, scale: float) -> None:
    from colla.sim.checkers import SafetyChecks
    from colla.sim.faults import Turmoil

    for seed in range(max(1, int(CHAOS_RUNS * scale))):
        group = formed(seed, CHAOS_NODES)
        SafetyChecks(group)
        turmoil = Turmoil(group)
        for _ in range(CHAOS_ACTS):
            meter.run(group, lambda turmoil=turmoil: turmoil.run(1))
        meter.run(group, turmoil.peace)
        meter.pass_time(group, PEACE_S)


MEASURES: dict[str, Callable[[Meter, float], None]] = {
    "idle": idle,
    "repair": repair,
    "activity": activity,
    "chaos": chaos,
}


class _Thing:
    __slots__ = ("name", "number")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number

    def value(self, more: int) -> int:
        return self.number + more


def piece_s() -> float:
    """How long the fixed piece of plain Python takes here, now: a thousandth of the time of so many pieces."""
    began_s = time.process_time()
    known: dict[int, _Thing] = {}
    total = 0
    for number in range(PIECES * 1000):
        thing = known.get(number % 97)
        if thing is None or thing.number > number:
            thing = known[number % 97] = _Thing("thing", number)
        total += thing.value(number)
    return (time.process_time() - began_s) / PIECES


Run = dict[str, Any]


def measure(name: str, scale: float) -> Run:
    """One run, here."""
    pieces = [piece_s() for _ in range(3)]
    meter = Meter()
    gc.collect()
    MEASURES[name](meter, scale)
    pieces += [piece_s() for _ in range(3)]
    return {
        "messages": meter.messages,
        "happened": meter.steps,
        "slices_s": meter.slices_s,
        "virtual_s": meter.virtual_s,
        "piece_s": min(pieces),
        "trace": "".join(trace[:6] for trace in meter.traces[-3:]),
    }


def spawn(name: str, scale: float, source: Path) -> Run:
    """One run in a process of its own, of the version in that `src` folder."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--scale", str(scale)]
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: Run = json.loads(answer.stdout)
    return found


def cpu_s(runs: Sequence[Run]) -> float:
    """The processor time of one run, had nothing else disturbed it: each slice as in the run where it took least.

    All runs of one version do exactly the same, so what differs is what other programs did to caches and clocks.
    """
    return sum(min(slices) for slices in zip(*(run["slices_s"] for run in runs), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the usual time is simulated")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--against", type=Path, help="the src folder of another version")
    parser.add_argument("--json", type=Path, help="write all runs there")
    parser.add_argument("--child", choices=list(MEASURES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.scale)))
        return 0
    here = Path(__file__).resolve().parent.parent / "src"
    columns = ["what", "messages", "virtual s", "messages/s", "per piece", "× real time", "trace"]
    table = Table(*columns, *(["ratio", "same trace"] if options.against else []))
    every: dict[str, list[Run]] = {}
    for name in options.only:
        ours, theirs = [], []
        for _ in range(options.repeat):
            ours.append(spawn(name, options.scale, here))
            if options.against:
                theirs.append(spawn(name, options.scale, options.against))
        every[name] = ours
        last, took_s = ours[-1], cpu_s(ours)
        per_s, faster = last["messages"] / took_s, last["virtual_s"] / took_s
        row = [name, str(last["messages"]), f"{last['virtual_s']:.0f}", f"{per_s:.0f}"]
        row += [f"{per_s * min(run['piece_s'] for run in ours):.2f}", f"{faster:.0f}", last["trace"]]
        if theirs:
            row.append(f"{faster / (theirs[-1]['virtual_s'] / cpu_s(theirs)):.2f}")
            row.append("yes" if last["trace"] == theirs[-1]["trace"] else "no")
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    print(
        f"each slice of time at its best of {options.repeat} runs; the target is {TARGET} messages/s at {NODES} nodes"
    )
    if options.json:
        options.json.write_text(json.dumps(every, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
