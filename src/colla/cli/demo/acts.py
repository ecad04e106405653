"""The acts of the demo, in order. Each does one thing to the group and waits until that is made good.

What an act measured stands in its `Act`; what must hold is waited for, and a wait in vain ends the demo. Victims are
chosen from what is true at that moment, never fixed beforehand.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from colla.cli.demo.report import Act
from colla.cli.demo.requests import Dark
from colla.cli.demo.stage import APP, LAPTOP, REPAIR_TIMEOUT_S, REPLICAS, SITE, Stage
from colla.cli.demo.watching import MASTER_SEEN, TOOK_OVER, find, running
from colla.client.types import StatusReport, WhyReport
from colla.model.errors import CollaError

REPLICA_TARGET_S, BOTH_TARGET_S = 6.0, 8.0
NOTES = "notes"
LAST_ASKED_S = 2.0
"""So long the client goes on at the end, so that the cold start is seen from its side too."""


async def begin(stage: Stage, name: str, target_s: float | None = None) -> Act:
    """Open an act."""
    stage.screen.act(name)
    act = Act(name, time.time(), target_s=target_s)
    stage.acts.append(act)
    return act


async def lose(stage: Stage, act: Act, *names: str) -> None:
    """Unplug computers at once and wait until everything is as it was, without them."""
    mastered = [each.name for each in stage.view.services if each.active and each.master in names]
    act.began_s = blow_s = await stage.unplug(*names)
    full = asyncio.create_task(stage.full_number(blow_s))
    act.detected_s = await stage.gone(names, blow_s) - blow_s
    act.full_s = await full
    await stage.mastered()
    act.ended_s = time.time()
    took = [
        stage.timeline.first(TOOK_OVER, blow_s, service=name)
        or stage.timeline.first(MASTER_SEEN, blow_s, service=name)
        for name in mastered
    ]
    known = [each for each in took if each is not None]
    act.taken_over_s = max(known) - blow_s if known else None
    told = (
        f"full number again after {act.full_s:.1f} s"
        if act.full_s
        else "as many replicas as can be, all the time"
    )
    stage.screen.line(told, "bold green")


def pick(stage: Stage, score: Callable[[str, StatusReport], float]) -> str:
    """The contributing computer that is on and has the highest score."""
    view = stage.view
    return max((each.name for each in stage.givers), key=lambda name: (score(name, view), name))


def needed(stage: Stage, name: str, view: StatusReport) -> int:
    """How many services would have fewer replicas than wanted without that computer."""
    return sum(
        name in here and len(here) <= each.replicas_wanted
        for each in view.services
        if each.active and (here := running(each, stage.computers))
    )


def masters(name: str, view: StatusReport) -> int:
    """How many services that computer masters."""
    return sum(each.master == name for each in view.services if each.active)


async def a_replicas_computer(stage: Stage) -> None:
    """A computer that runs replicas and masters as little as possible."""
    act = await begin(stage, "a replica's computer dies", REPLICA_TARGET_S)
    victim = pick(stage, lambda name, view: needed(stage, name, view) - 10 * masters(name, view))
    await lose(stage, act, victim)
    await stage.restart(victim)


async def a_masters_computer(stage: Stage) -> None:
    """A computer that masters a service, and runs replicas if one of them does."""
    act = await begin(stage, "a master's computer dies", BOTH_TARGET_S)
    victim = pick(stage, lambda name, view: 10 * bool(masters(name, view)) + needed(stage, name, view))
    await lose(stage, act, victim)
    await stage.restart(victim)


async def both_at_once(stage: Stage) -> None:
    """A computer that masters a service, and another one that runs replicas."""
    act = await begin(stage, "a master's and a replica's computer die at once", BOTH_TARGET_S)
    master = pick(stage, lambda name, view: 10 * bool(masters(name, view)) + needed(stage, name, view))
    other = pick(stage, lambda name, view: -1 if name == master else needed(stage, name, view))
    await lose(stage, act, master, other)
    await stage.restart(master, other)


async def one_after_another(stage: Stage) -> None:
    """Each after repair, until two are left, and one of the two."""
    for ordinal in ("one more", "the next", "and the next"):
        act = await begin(stage, f"{ordinal} dies: {len(stage.givers) - 1} left", REPLICA_TARGET_S)
        await lose(
            stage, act, pick(stage, lambda name, view: needed(stage, name, view) + masters(name, view))
        )
    act = await begin(stage, "one of the last two dies", REPLICA_TARGET_S)
    await lose(stage, act, pick(stage, lambda name, view: masters(name, view)))


async def manage_with_one(stage: Stage) -> None:
    """With one of two dead: create, modify, deactivate, activate, eliminate."""
    act = await begin(stage, "managing with one of two dead")
    folder = stage.root / "offers" / NOTES
    folder.mkdir(exist_ok=True)
    for verb, words in (
        ("created", ("deploy", str(folder), "--name", NOTES, "--replicas", "1")),
        ("modified", ("deploy", str(folder), "--name", NOTES, "--replicas", "1")),
    ):
        (folder / "index.html").write_text(f"notes, {verb}\n")
        await stage.laptop.colla(*words)
        await _read_notes(stage, f"notes, {verb}\n")
        stage.screen.line(f"{NOTES} is {verb} and answers", "green")
    await stage.laptop.colla("deactivate", NOTES)
    await stage.watcher.until(
        "notes inactive",
        lambda view: (found := find(view, NOTES)) is not None and not found.active and not found.locations,
        REPAIR_TIMEOUT_S,
    )
    await stage.laptop.colla("activate", NOTES)
    await _read_notes(stage, "notes, modified\n")
    stage.screen.line(f"{NOTES} is deactivated and activated", "green")
    await stage.laptop.colla("eliminate", NOTES, "--yes")
    await stage.watcher.until("notes eliminated", lambda view: find(view, NOTES) is None, REPAIR_TIMEOUT_S)
    stage.screen.line(f"{NOTES} is eliminated", "green")
    act.ended_s = time.time()


async def _read_notes(stage: Stage, wanted: str) -> None:
    """Ask the gateway until the right text comes: a replica of the old version may answer until it has stopped."""
    deadline = time.monotonic() + REPAIR_TIMEOUT_S
    while True:
        with suppress(OSError):
            if await asyncio.to_thread(_fetch, stage.gateway, NOTES) == wanted:
                return
        if time.monotonic() > deadline:
            raise CollaError("timeout", f"{NOTES} does not answer {wanted!r}.")
        await asyncio.sleep(0.1)


def _fetch(gateway: str, service: str) -> str:
    request = urllib.request.Request(f"http://{gateway}/index.html", headers={"Host": f"{service}.localhost"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


async def come_back(stage: Stage) -> None:
    """All that died are switched on again."""
    act = await begin(stage, "the dead come back")
    dead = [each.name for each in stage.computers.values() if not each.on]
    await stage.restart(*dead)
    await stage.full_number(act.began_s)
    act.ended_s = time.time()
    act.full_s = act.ended_s - act.began_s
    stage.screen.line("everybody is here, full number", "bold green")


async def the_owner_decides(stage: Stage) -> None:
    """An owner drains a computer, then refuses the services of others."""
    act = await begin(stage, "an owner drains a computer")
    name = pick(
        stage, lambda name, view: (stage.computers[name].owner != "ana") * (1 + needed(stage, name, view))
    )
    owner = stage.computers[name].owner
    stage.screen.line(f"{owner}: colla drain on {name}")
    await stage.computers[name].colla("drain", "--timeout", str(REPAIR_TIMEOUT_S))
    act.full_s = await stage.full_number(act.began_s)
    act.ended_s = time.time()
    stage.screen.line(f"{name} is empty, full number elsewhere", "bold green")

    act = await begin(stage, "the owner refuses the services of others")
    stage.screen.line(f"{owner}: colla contribute --own-only on {name}")
    await stage.computers[name].colla("contribute", "--own-only")
    await stage.computers[name].colla("drain", "--undo")
    everywhere = len(stage.givers)
    await stage.laptop.colla("scale", SITE, str(everywhere), "--no-wait")
    stage.screen.line(f"{SITE} shall have {everywhere} replicas: one on every contributing computer")
    await stage.watcher.until(
        f"{everywhere - 1} replicas of {SITE}",
        lambda view: stage.running_of(SITE, view) >= everywhere - 1,
        REPAIR_TIMEOUT_S,
    )
    reason = await _why_not(stage, name)
    stage.screen.line(f"{SITE} has {everywhere - 1}; colla why {SITE}: {name}: {reason}", "yellow")
    found = find(stage.view, SITE)
    if found is not None and name in running(found, stage.computers):
        raise CollaError("not_obeyed", f"{name} runs {SITE} against its owner's will.")
    await stage.laptop.colla("scale", SITE, str(REPLICAS), "--no-wait")
    await stage.computers[name].colla("contribute", "--not-own-only")
    act.ended_s = time.time()


async def _why_not(stage: Stage, name: str) -> str:
    deadline = time.monotonic() + REPAIR_TIMEOUT_S
    while True:
        async with stage.laptop.client() as client:
            report: WhyReport = await client.why(SITE)
        for line in report.lines:
            if line.node == name and line.reason:
                return f"{line.verdict}, {line.reason}"
        if time.monotonic() > deadline:
            raise CollaError("no_reason", f"`colla why {SITE}` gives no reason for {name}.")
        await asyncio.sleep(0.2)


async def everything_dies(stage: Stage) -> None:
    """The power fails everywhere, the laptop's too; then everything is switched on again."""
    act = await begin(stage, "everything dies, then a cold start")
    dark = Dark(time.time())
    stage.dark.append(dark)
    act.began_s = dark.from_s = await stage.unplug(*stage.computers)
    names = list(stage.computers)
    await asyncio.gather(*(stage.computers[name].start_node() for name in names))
    started_s = time.time()
    stage.screen.line("all are switched on again")
    dark.until_s = await stage.watcher.until(
        "a living replica of both",
        lambda view: all(
            (found := find(view, name)) is not None and running(found, stage.computers)
            for name in (SITE, APP)
        ),
        REPAIR_TIMEOUT_S,
    )
    await stage.full_number(started_s)
    act.ended_s = time.time()
    act.full_s = act.ended_s - started_s
    stage.screen.line(
        f"both services are back {act.full_s:.1f} s after the last computer started", "bold green"
    )
    await asyncio.sleep(LAST_ASKED_S)


ACTS = (
    a_replicas_computer,
    a_masters_computer,
    both_at_once,
    one_after_another,
    manage_with_one,
    come_back,
    the_owner_decides,
    everything_dies,
)


def how_to_look(root: Path, gateway: str) -> list[str]:
    """What a person can do with a group that was kept."""
    laptop = root / LAPTOP
    return [
        f"The group runs on. Look at it through the laptop: colla status --home {laptop}",
        f"  colla why {SITE} --home {laptop}",
        f"  http://{SITE}.localhost:{gateway.rpartition(':')[2]}/ in a browser",
        f"  curl -H 'Host: {APP}.localhost' http://{gateway}/",
        f"Stop it: for home in {root}/*/demo; do colla down --home $(dirname $home); done; rm -r {root}",
    ]
