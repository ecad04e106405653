"""Memory and idle traffic of real nodes in groups of several sizes.

    python benchmarks/idle.py [--nodes 5 30] [--seconds 60] [--services 0]

Method. One `colla up` process per node, with all five agents and the `static` environment, all in one network
namespace of their own (`unshare -Urn`), so that the bytes that its loopback interface carried are all that the nodes
sent: IP, UDP and QUIC headers included. No service is deployed, or `--services` web sites with a replica on every node,
which nobody asks for. After everybody sees everybody and half a minute of
quiet, the interface's counter is read, `--seconds` later again; the difference divided by nodes and time is what one
node sends. Memory is the resident set of each agent process at the end; environment programs are listed apart.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from computers import Computer, deploy, eventually, everything, located
from namespaces import Network

from colla.client import types

QUIET_S = 30.0
TARGET_KBIT = 8.0
TARGET_MB = 80.0


async def sees(computer: Computer, count: int) -> bool:
    reports = await computer.ask(lambda client: client.computers())
    return sum(report.phase == "present" for report in reports) == count


def sent_bytes(pid: int) -> int:
    """Bytes that the loopback interface of the process's network sent."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise RuntimeError("no loopback interface")


async def deploy_sites(computers: list[Computer], folder: Path, services: int) -> None:
    """So many web sites, each with a replica on every computer; returns when all of them run."""
    for number in range(services):
        site = folder / f"site{number}"
        site.mkdir()
        (site / "index.html").write_text(f"site {number}")
        # Small ones: what a replica may take is reserved, and a computer gives a gigabyte here.
        await deploy(computers[0], site, site.name, len(computers), memory_bytes=16 << 20, cpus=0.05)
    for number in range(services):

        async def everywhere(name: str = f"site{number}") -> bool:
            return len(await located(computers[0], name)) == len(computers)

        await eventually(everywhere, 120.0, f"site{number} runs everywhere")


async def measure(count: int, seconds: float, services: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Network() as network:
        prefix = network.add("all")
        computers = [Computer(Path(folder), f"node{n}", prefix) for n in range(count)]
        try:
            computers[0].found("idle", "hashing", everything())
            await computers[0].up()
            for number, computer in enumerate(computers[1:]):
                answer = await computers[0].ask(lambda client: client.invite(types.InviteRequest()))
                computer.prepare(answer.ticket, everything(), member=f"member{number}")
                await computer.up()
            for computer in computers:
                await eventually(lambda one=computer: sees(one, count), 60.0, "everybody sees everybody")
            await deploy_sites(computers, Path(folder), services)
            await asyncio.sleep(QUIET_S)
            pids = [(await one.ask(lambda client: client.node())).pid for one in computers]
            before, began = sent_bytes(pids[0]), time.monotonic()
            cpu_before = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]
            await asyncio.sleep(seconds)
            sent, took = sent_bytes(pids[0]) - before, time.monotonic() - began
            cpu = [
                sum(psutil.Process(pid).cpu_times()[:2]) - was
                for pid, was in zip(pids, cpu_before, strict=True)
            ]
            memory = [psutil.Process(pid).memory_info().rss / 1e6 for pid in pids]
            others = [
                process.memory_info().rss / 1e6
                for one in computers
                for process in one.marked()
                if process.pid not in pids
            ]
            kbit = sent * 8 / 1000 / took / count
            print(
                f"| {count} | {services} | {kbit:.1f} | {TARGET_KBIT:.0f} | {statistics.median(memory):.0f} | {max(memory):.0f} |"
                f" {TARGET_MB:.0f} | {statistics.median(others or [0]):.0f} |"
                f" {100 * statistics.median(cpu) / took:.1f} % |",
                flush=True,
            )
        finally:
            for computer in computers:
                computer.unplug()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[5, 30])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--services", type=int, default=0)
    options = parser.parse_args()
    print(
        "| nodes | services | kbit/s sent per node | target | MB per agent, median | MB, most | target | MB environment | CPU |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in options.nodes:
        asyncio.run(measure(count, options.seconds, options.services))


if __name__ == "__main__":
    main()
