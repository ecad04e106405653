"""What a group of real computers survives, and how fast: the rows of the design's section 16 that need real processes.

    python benchmarks/cluster.py [--runs 20] [--elections hashing contention] [--rows NAME ...] [--timeline] [--json FILE]

Method. Five computers that give everything, each of a member of its own, and a sixth that gives nothing and carries the
gateway, all on loopback: each a `colla up` process with its own folder, key and disk. A client in the process that
measures asks a service through the gateway every 20 ms, whether or not earlier requests were answered. An unplugged
computer gets SIGKILL for all its processes at once, environments and replicas included, and says no word. All times are
of one monotonic clock, counted from the first SIGKILL (or from the command) until the client has the answer or the
notice arrives here. Every run deploys a new static service, whose object lies on every computer since a run to warm up,
and afterwards restarts what was unplugged and waits until everybody sees everybody. Rows:

- *replica lost*: of three replicas, one's computer dies, not the master's. Full number: three replicas on living computers
  have answered the client, which cannot choose whom it asks.
- *master lost*: its computer, which runs no replica, dies. Acting: the successor has its inventory and says so.
- *both lost*: the master's computer, and that of a replica, die at the same moment.
- *several lost*: the computer with the most replicas of four services dies; the same for all of them.
- *one replica*: it is the only one; how long the client got no good answer. *its master's too*: on the same computer.
- *goodbye*: a replica's computer, or the master's, is stopped politely; replicas move first.
- *deploy*: from the command (or the first call of the API) until three replicas have answered; every time with new files.
- *cold start*: all computers were unplugged; from the start of all until an answer, and until three replicas answered.
- *two computers*: one of two dies; then each operation in turn, until its effect is seen by the client.

A request failed if its answer is not 200 or took more than 2 s; that counts where a replica lives. The *elsewhere*
column is what the design cites for others, measured by its authors with five computers in network namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from _cluster_group import DOOR, LATE_S, WAIT_S, Asker, Fleet, Offered
from computers import eventually

from colla.cli.demo.offers import write_app
from colla.client import types

GIVERS, REPLICAS = 5, 3
SEVERAL = 4
"""Services of the row of several."""
TAIL_S = 1.0
"""The client goes on asking for so long after the number is full."""


class Row(msgspec.Struct, frozen=True):
    """One line of the table. `target` in seconds (None: none); `unit` is `s` or a count's name."""

    name: str
    target: float | None = None
    target_most: float | None = None
    elsewhere: str = ""
    unit: str = "s"


ROWS = {
    "replica.full": Row(
        "replica lost → full number", 3.0, 6.0, "Swarm 17.9, tuned 3.6–8.4; Nomad 10–30; Kubernetes ≈ 350"
    ),
    "master.acting": Row("master lost → successor acting", 3.0, 5.0, "Swarm 14.0; Nomad up to 300"),
    "both.acting": Row("both lost → successor acting"),
    "both.full": Row("both lost → full number", 5.0, 8.0, "Swarm 50.7, tuned 23.1; Nomad 300"),
    "several.full": Row("a computer of several services lost → all in full number", 3.0, 6.0),
    "requests.failed": Row("requests failed meanwhile, per run", 0.0, 0.0, "Swarm 0", "requests"),
    "requests.longest": Row("longest request meanwhile", LATE_S, LATE_S),
    "one.gap": Row("one replica: seconds without answer", 4.0, None, "Swarm 17.7, tuned 3.8–8.4"),
    "one_mastered.gap": Row("the same, its master's too", 4.0, None, "Swarm 50.6, tuned 22.9"),
    "goodbye.replica.failed": Row("goodbye of a replica's: failed", 0.0, 0.0, "", "requests"),
    "goodbye.replica.longest": Row("… longest request", LATE_S, LATE_S),
    "goodbye.replica.full": Row("… full number since the order to stop"),
    "goodbye.master.failed": Row("goodbye of the master's: failed", 0.0, 0.0, "", "requests"),
    "goodbye.master.acting": Row("… successor acting", 3.0, 5.0),
    "deploy.api": Row("deploy by the API → 3 answer, static", 1.3, None, "Swarm 1.4 (image already there)"),
    "deploy.command": Row("deploy by `colla deploy`, static", 1.3, None, "Swarm 1.4 (image already there)"),
    "deploy.process": Row(
        "deploy by the API, a Python program", 1.3, None, "Swarm 1.4 (image already there)"
    ),
    "cold.answer": Row("cold start of all → an answer"),
    "cold.full": Row("cold start of all → 3 replicas"),
    "two.create": Row("one of two dead: create", None, None, "Swarm, Nomad, k3s: refused"),
    "two.modify": Row("… modify", None, None, "refused"),
    "two.deactivate": Row("… deactivate", None, None, "refused"),
    "two.activate": Row("… activate", None, None, "refused"),
    "two.eliminate": Row("… eliminate", None, None, "refused"),
    "two.repair": Row("… repair (its only replica had died)", None, None, "Swarm, Nomad, k3s: never"),
}


class Results:
    """What was measured, by row, for one election."""

    def __init__(self, *, timeline: bool) -> None:
        self.measured: dict[str, list[float]] = {}
        self.problems: list[str] = []
        self._timeline = timeline

    def add(self, row: str, value: float) -> None:
        self.measured.setdefault(row, []).append(value)

    def requests(self, prefix: str, asker: Asker, from_s: float, until_s: float) -> None:
        """Count what the client met."""
        asked = asker.between(from_s, until_s)
        failed = [each for each in asked if each.failed]
        self.add(f"{prefix}.failed", len(failed))
        self.add(f"{prefix}.longest", max(each.ended_s - each.sent_s for each in asked))
        for each in failed[:3]:
            self.problems.append(
                f"{prefix}: {each.status} {each.error} after {each.ended_s - each.sent_s:.2f} s, "
                f"sent {each.sent_s - from_s:.2f} s after the blow"
            )

    def tell(self, fleet: Fleet, what: str, since_s: float, until_s: float) -> None:
        if self._timeline:
            print("\n".join([f"--- {what}", *fleet.timeline(since_s, until_s)]), flush=True)


# -- what is done to the group ---------------------------------------------------------------------------------------


async def replica_lost(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer(REPLICAS)
    await _blow(fleet, results, offered, "replica", lambda asked: [_hit(offered, asked)])


async def master_lost(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer_that(REPLICAS, lambda one: one.master not in one.replicas.values())
    await _blow(fleet, results, offered, "master", lambda _: [offered.master])


async def both_lost(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer_that(REPLICAS, lambda one: one.master not in one.replicas.values())
    await _blow(fleet, results, offered, "both", lambda asked: [offered.master, _hit(offered, asked)])


async def several_lost(fleet: Fleet, results: Results) -> None:
    several = [await fleet.offer(REPLICAS) for _ in range(SEVERAL)]
    masters = [one.master for one in several]

    def hit(name: str) -> list[Offered]:
        return [one for one in several if name in one.replicas.values()]

    victim = max(sorted(fleet.on), key=lambda name: (name not in masters, len(hit(name))))
    began_s = await fleet.kill([victim])
    ended = await asyncio.gather(
        *(fleet.full_number(one.name, REPLICAS, one.replicas) for one in hit(victim))
    )
    if ended:
        results.add("several.full", max(ended) - began_s)
    results.tell(fleet, f"several: {len(ended)} services", began_s, time.monotonic())
    await fleet.restart()
    for one in several:
        await fleet.eliminate(one)


async def one_replica(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer_that(1, lambda one: one.master not in one.replicas.values())
    await _gap(fleet, results, offered, "one")


async def one_mastered(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer_that(1, lambda one: one.master in one.replicas.values())
    await _gap(fleet, results, offered, "one_mastered")


def _hit(offered: Offered, asker: Asker) -> str:
    """A computer with a replica that is not the master's: where the client was just answered, if it is one."""
    others = {replica: name for replica, name in offered.replicas.items() if name != offered.master}
    last = asker.asked[-1].replica
    return others.get(last, next(iter(others.values())))


async def _blow(
    fleet: Fleet, results: Results, offered: Offered, what: str, choose: Callable[[Asker], list[str]]
) -> None:
    async with Asker(fleet.gateway, offered.name) as asker:
        await asker.replicas(1)
        victims = choose(asker)
        began_s = await fleet.kill(victims)
        full_s = acting_s = began_s
        if offered.master in victims:
            acting_s = await fleet.told("took_over", offered.id, began_s)
            results.add(f"{what}.acting", acting_s - began_s)
        if any(name in victims for name in offered.replicas.values()):
            full_s = await fleet.full_number(offered.name, REPLICAS, offered.replicas)
            results.add(f"{what}.full", full_s - began_s)
        await asyncio.sleep(TAIL_S)
        until_s = max(full_s, acting_s) + TAIL_S
    results.requests("requests", asker, began_s - TAIL_S, until_s)
    results.tell(fleet, f"{what}: full after {full_s - began_s:.2f} s", began_s, until_s)
    await fleet.restart()
    await fleet.eliminate(offered)


async def _gap(fleet: Fleet, results: Results, offered: Offered, what: str) -> None:
    async with Asker(fleet.gateway, offered.name) as asker:
        await asker.replicas(1)
        began_s = await fleet.kill(list(offered.replicas.values()))
        answered_s = await asker.replicas(1, list(offered.replicas))
    results.add(f"{what}.gap", answered_s - began_s)
    results.tell(fleet, f"{what}: answered after {answered_s - began_s:.2f} s", began_s, answered_s)
    await fleet.restart()
    await fleet.eliminate(offered)


async def goodbye_replica(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer(REPLICAS)
    async with Asker(fleet.gateway, offered.name) as asker:
        await asker.replicas(1)
        began_s = await fleet.stop(_hit(offered, asker))
        full_s = await fleet.full_number(offered.name, REPLICAS, offered.replicas)
        results.add("goodbye.replica.full", full_s - began_s)
        await _said_goodbye(fleet, results, "replica", asker, began_s)
    await fleet.eliminate(offered)


async def goodbye_master(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer_that(REPLICAS, lambda one: one.master not in one.replicas.values())
    async with Asker(fleet.gateway, offered.name) as asker:
        await asker.replicas(1)
        began_s = await fleet.stop(offered.master)
        acting_s = await fleet.told("took_over", offered.id, began_s)
        results.add("goodbye.master.acting", acting_s - began_s)
        await _said_goodbye(fleet, results, "master", asker, began_s)
    await fleet.eliminate(offered)


async def _said_goodbye(fleet: Fleet, results: Results, what: str, asker: Asker, began_s: float) -> None:
    await fleet.stopped()
    await asyncio.sleep(TAIL_S)
    until_s = time.monotonic()
    results.requests(f"goodbye.{what}", asker, began_s, until_s)
    results.tell(fleet, f"goodbye of the {what}'s", began_s, until_s)
    await fleet.restart()


async def deploy(fleet: Fleet, results: Results) -> None:
    for kind, work in (("api", _by_api), ("command", _by_command), ("process", _process_by_api)):
        name = fleet.new_name()
        async with Asker(fleet.gateway, name):
            began_s = time.monotonic()
            doing = asyncio.create_task(work(fleet, name))
            full_s = await fleet.full_number(name, REPLICAS)
            results.add(f"deploy.{kind}", full_s - began_s)
            await doing
        results.tell(fleet, f"deploy by {kind}: {full_s - began_s:.2f} s", began_s, full_s)
        await fleet.door.ask(lambda client, name=name: client.eliminate(name))


async def _by_api(fleet: Fleet, name: str) -> None:
    folder = fleet.site(name)
    async with fleet.door.client() as client:
        put = await client.put(folder)
        await client.deploy(types.DeployRequest(name, put.object, put.size_bytes, "static", REPLICAS))


async def _by_command(fleet: Fleet, name: str) -> None:
    folder = fleet.site(name)
    words = ("deploy", str(folder), "--name", name, "--replicas", str(REPLICAS))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "colla",
        *words,
        "--home",
        str(fleet.door.home),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0, "colla deploy failed"


async def _process_by_api(fleet: Fleet, name: str) -> None:
    folder = fleet.base / name
    write_app(folder)
    (folder / "name.txt").write_text(name)
    async with fleet.door.client() as client:
        put = await client.put(folder)
        request = types.DeployRequest(
            name, put.object, put.size_bytes, "process", REPLICAS, command=("python3", "app.py")
        )
        await client.deploy(request)


async def cold(fleet: Fleet, results: Results) -> None:
    offered = await fleet.offer(REPLICAS)
    await fleet.kill(list(fleet.on))
    began_s = time.monotonic()
    starting = asyncio.create_task(fleet.restart())
    gateway = await eventually(lambda: fleet.gateway_of(DOOR), WAIT_S, "the client's gateway is back")
    async with Asker(gateway, offered.name) as asker:
        results.add("cold.answer", await asker.replicas(1) - began_s)
        results.add("cold.full", await fleet.full_number(offered.name, REPLICAS) - began_s)
        await starting
    results.tell(fleet, "cold start", began_s, time.monotonic())
    await fleet.eliminate(offered)


async def two(fleet: Fleet, results: Results) -> None:
    """In a group of two givers: the one with the only replica dies, then everything is done on the other."""
    offered = await fleet.offer(1)
    (victim,) = offered.replicas.values()
    async with Asker(fleet.gateway, offered.name) as asker:
        began_s = await fleet.kill([victim])
        results.add("two.repair", await asker.replicas(1, list(offered.replicas)) - began_s)
    door, name = fleet.door, fleet.new_name()
    results.tell(fleet, "one of two died", began_s, time.monotonic())
    since_s = time.monotonic()
    put = await fleet.store("first")
    request = types.DeployRequest(name, put.object, put.size_bytes, "static", 1)
    async with Asker(fleet.gateway, name) as asker, door.client() as client:

        async def step(row: str, work: Awaitable[object], good: Callable[[], bool]) -> None:
            began_s = time.monotonic()
            await work
            await asker.until(row, good)
            results.add(row, time.monotonic() - began_s)

        def last_is(status: int) -> bool:
            return bool(asker.asked) and asker.asked[-1].status == status

        await step("two.create", client.deploy(request), lambda: last_is(200))
        put = await fleet.store("second")
        newer = msgspec.structs.replace(request, object=put.object, object_bytes=put.size_bytes)
        known = list(asker.first_s)
        await step(
            "two.modify",
            client.deploy(newer),
            lambda: any(each not in known for each in asker.first_s),
        )
        await step("two.deactivate", client.deactivate(name), lambda: not last_is(200))
        await step("two.activate", client.activate(name), lambda: last_is(200))
        await step("two.eliminate", client.eliminate(name), lambda: last_is(404))
    results.tell(fleet, "done on the other", since_s, time.monotonic())
    await fleet.restart()
    await fleet.eliminate(offered)


FIVE = {
    "replica": replica_lost,
    "master": master_lost,
    "both": both_lost,
    "several": several_lost,
    "one": one_replica,
    "one_mastered": one_mastered,
    "goodbye_replica": goodbye_replica,
    "goodbye_master": goodbye_master,
    "deploy": deploy,
    "cold": cold,
}
TWO = {"two": two}


# -- running and telling ---------------------------------------------------------------------------------------------


async def measure(election: str, options: argparse.Namespace) -> Results:
    results = Results(timeline=options.timeline)
    for givers, rows in ((GIVERS, FIVE), (2, TWO)):
        chosen = [name for name in rows if name in options.rows]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory(prefix="colla-") as folder:
            fleet = Fleet(Path(folder), election, givers)
            try:
                await fleet.begin()
                for name in chosen:
                    for number in range(options.runs):
                        print(f"{election}: {name} {number + 1}/{options.runs}", file=sys.stderr, flush=True)
                        await rows[name](fleet, results)
            finally:
                await fleet.end()
    return results


def report(election: str, results: Results) -> None:
    print(f"\n{election}\n")
    print("| what | median | target | most | target | runs | elsewhere |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, row in ROWS.items():
        values = results.measured.get(key)
        if not values:
            continue
        middle, most = statistics.median(values), max(values)
        shown = "{:.2f} s" if row.unit == "s" else "{:.0f}"
        bound = row.target_most if row.target_most is not None else None
        print(
            f"| {row.name} | {shown.format(middle)}{_missed(middle, row.target)} | {_bound(row.target, row.unit)} |"
            f" {shown.format(most)}{_missed(most, bound)} | {_bound(bound, row.unit)} | {len(values)} |"
            f" {row.elsewhere} |"
        )
    for problem in results.problems:
        print(f"failed request: {problem}")
    sys.stdout.flush()


def _bound(target: float | None, unit: str) -> str:
    if target is None:
        return ""
    return f"≤ {target:g} s" if unit == "s" else f"{target:g}"


def _missed(value: float, target: float | None) -> str:
    return " (missed)" if target is not None and value > target else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*FIVE, *TWO]
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--elections", nargs="+", default=["hashing", "contention"])
    parser.add_argument(
        "--rows", nargs="+", default=known, choices=known, metavar="ROW", help=", ".join(known)
    )
    parser.add_argument("--timeline", action="store_true", help="show what was told in each run")
    parser.add_argument("--json", type=Path, help="write every single value there")
    options = parser.parse_args()
    raw: dict[str, dict[str, list[float]]] = {}
    for election in options.elections:
        results = asyncio.run(measure(election, options))
        report(election, results)
        raw[election] = results.measured
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(raw)))


if __name__ == "__main__":
    main()
