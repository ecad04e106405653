"""How soon all know of a crash or goodbye, how often the living are declared absent, and what presence costs while idle.

Method. Only `Presence` runs, in virtual time, over the network of `tests/unit/protocol/presence/support_presence.py`: every
message passes the codec; 5 % of all messages are lost for good, streams included; delay is uniform from 10 to 200 ms.
*Crash*: a random node of the group stops without a word at a random moment; until the last of the others has concluded
that it is absent. *Goodbye*: likewise, until the last one has heard it. *False absences*: nodes stall again and again
(0.2 to 2 s, one stall somewhere every 3 s on average), nobody ever stops; every conclusion that somebody is absent
is false. *Idle*: messages and bytes that a node sends a second; on the wire each message costs 75 bytes more (UDP, IP,
QUIC), and each link 48 bytes a second of iroh's own.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from colla.protocol.views import PresencePhase

SUPPORT = Path(__file__).parent.parent / "tests/unit/protocol/presence/support_presence.py"
LOSS = 0.05
DELAY_S = (0.01, 0.2)
UDP_AND_QUIC_BYTES = 75
IROH_LINK_BYTES_PER_S = 48


def load_support() -> ModuleType:
    """The network that the tests use."""
    spec = importlib.util.spec_from_file_location("support_presence", SUPPORT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["support_presence"] = module
    spec.loader.exec_module(module)
    return module


def make_network(support: ModuleType, size: int, seed: int) -> Any:
    network = support.Network(size, seed=seed, loss=LOSS, delay_s=DELAY_S)
    network.start(settle_s=30.0)
    return network


def known_after(network: Any, phase: PresencePhase, gone: Any, since_s: float) -> float:
    """When the last of the others concluded it; infinite when somebody never did."""
    times = [node.when(gone, phase, since_s) for node in network.nodes if node is not gone]
    return float("inf") if None in times else max(times) - since_s


def endings(support: ModuleType, size: int, runs: int, goodbye: bool) -> list[float]:
    """Latencies of crashes or goodbyes, sorted; a new group every 20."""
    latencies: list[float] = []
    while len(latencies) < runs:
        network = make_network(support, size, seed=len(latencies) + 1)
        for _ in range(min(20, runs - len(latencies))):
            network.run(network.rng.uniform(0.0, 2.0))
            gone, since_s = network.rng.choice(network.nodes), network.now.boot_s
            if goodbye:
                gone.call(gone.presence.stopping)
                network.run(0.5)
            network.crash(gone)
            network.run(12.0)
            phase = PresencePhase.LEFT if goodbye else PresencePhase.ABSENT
            latencies.append(known_after(network, phase, gone, since_s))
            network.restart(gone)
            network.run(15.0)
    return sorted(latencies)


def false_absences(support: ModuleType, size: int, node_hours: float) -> tuple[int, int]:
    """False absences and suspicions (each counted at every node that concluded it)."""
    network = make_network(support, size, seed=77)
    since_s = network.now.boot_s
    suspicions = absences = 0

    def stall_somebody() -> None:
        network.stall(network.rng.choice(network.nodes), network.rng.uniform(0.2, 2.0))
        network.later(network.rng.expovariate(1 / 3.0), stall_somebody)

    stall_somebody()
    while (network.now.boot_s - since_s) * size / 3600 < node_hours:
        network.run(120.0)
        for node in network.nodes:
            phases = [change.phase for at_s, change in node.log if at_s >= since_s]
            suspicions += phases.count(PresencePhase.SUSPECTED)
            absences += phases.count(PresencePhase.ABSENT)
            node.log.clear()
    return absences, suspicions


def idle(support: ModuleType, size: int) -> dict[str, float]:
    """What a node sends while nothing happens."""
    network = make_network(support, size, seed=5)
    network.run(60.0)
    for node in network.nodes:
        node.datagrams = node.messages = node.bytes = 0
    seconds = 300.0
    network.run(seconds)
    total = size * seconds
    messages = sum(node.messages for node in network.nodes) / total
    payload = sum(node.bytes for node in network.nodes) / total
    links = len(network.links) / size
    return {
        "heartbeats/s": sum(node.datagrams for node in network.nodes) / total,
        "other messages/s": messages - sum(node.datagrams for node in network.nodes) / total,
        "links kept": links,
        "kbit/s by presence": (payload + UDP_AND_QUIC_BYTES * messages) * 8 / 1000,
        "kbit/s with iroh's own": (payload + UDP_AND_QUIC_BYTES * messages + IROH_LINK_BYTES_PER_S * links)
        * 8
        / 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--node-hours", type=float, default=100.0, help="the target is stated for 10000")
    options = parser.parse_args()
    support, began = load_support(), time.monotonic()
    table = Table("what", "result", "target", title=f"Presence, {options.nodes} nodes, 5 % loss")
    for name, goodbye, target in (
        ("crash known to all", False, "p99 ≤ 6 s"),
        ("goodbye known to all", True, "≤ 2 s"),
    ):
        seconds = endings(support, options.nodes, options.runs, goodbye)
        p50, p99 = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
        result = f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {seconds[-1]:.2f} s ({len(seconds)} runs)"
        table.add_row(name, result, target)
    absences, suspicions = false_absences(support, options.nodes, options.node_hours)
    hours = f"{options.node_hours:g} node-hours"
    table.add_row(f"false absences in {hours}", str(absences), "0")
    table.add_row("suspicions refuted meanwhile", str(suspicions), "-")
    for name, value in idle(support, options.nodes).items():
        table.add_row(f"idle: {name}", f"{value:.2f}", "≤ 8 in all" if "iroh" in name else "-")
    Console().print(table)
    print(f"in {time.monotonic() - began:.0f} s of computing")


if __name__ == "__main__":
    main()
