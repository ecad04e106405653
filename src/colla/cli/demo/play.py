"""Playing the demo: build the group, go through the acts, show what was measured, leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from colla.cli.demo.acts import ACTS, how_to_look
from colla.cli.demo.offers import site_paths
from colla.cli.demo.report import Result, dark_seconds, missed, show, tally_acts
from colla.cli.demo.requests import tally
from colla.cli.demo.stage import APP, SITE, Stage, short_root
from colla.cli.output import Output
from colla.client.deploying import STATIC, Said, plan_deploy
from colla.model.errors import CollaError

COUNT_S = 0.5


async def play(out: Output, election: str, site: Path | None, *, keep: bool) -> None:
    """Play all acts. Raises `CollaError` when a service was lost, or a request failed while a replica lived."""
    began_s = time.time()
    if site is not None:
        site = _checked(site)
    stage = Stage(short_root(), election, site, quiet=out.json)
    stage.screen.view = lambda: stage.watcher.latest
    stage.screen.count = lambda: _count_text(stage)
    try:
        await _perform(stage)
        result = _result(stage, time.time() - began_s)
        _present(out, stage, result)
        _judge(result)
    except asyncio.CancelledError:
        await stage.close(keep=False)
        stage.remove()
        raise
    except BaseException:
        await stage.close(keep=False)
        out.note(f"What the nodes wrote is kept in {stage.root}")
        raise
    await stage.close(keep=keep)
    if not keep:
        stage.remove()
        return
    for line in how_to_look(stage.root, stage.gateway):
        out.note(line)


def _checked(site: Path) -> Path:
    """The reader's own site; what is wrong with it is told before anything is started."""
    plan = plan_deploy(site, Said(name=SITE))
    if plan.request.environment != STATIC:
        hint = "Choose a folder with an index.html."
        raise CollaError("not_a_site", f"{site} is {plan.recognised}, not a web site.", hint)
    site_paths(site)
    return site.resolve()


async def _perform(stage: Stage) -> None:
    stage.screen.open()
    counting = asyncio.create_task(_count(stage))
    try:
        stage.screen.act("a group of six computers")
        await stage.build()
        await stage.offer()
        for act in ACTS:
            await act(stage)
        await stage.stop_asking()
    finally:
        counting.cancel()
        stage.screen.close()


def _judge(result: Result) -> None:
    """Raise `CollaError` unless everything held. A lost service would have ended its act already."""
    if not result.whole.sent:
        raise CollaError("no_requests", "The client of the demo asked nothing, so that nothing was shown.")
    if result.whole.failed:
        text = f"{result.whole.failed} of {result.whole.sent} requests failed while a replica lived."
        raise CollaError("requests_failed", text)


async def _count(stage: Stage) -> None:
    while True:
        stage.log.read()
        await asyncio.sleep(COUNT_S)


def _count_text(stage: Stage) -> str:
    counted = tally(stage.log.asked, 0.0, float("inf"), stage.dark)
    if not counted.sent:
        return ""
    return f"{counted.sent} requests, {counted.failed} failed, 99 % within {counted.p99_ms:.0f} ms"


def _result(stage: Stage, took_s: float) -> Result:
    tallies = tally_acts(stage.acts, stage.log, stage.dark)
    whole = tally(stage.log.asked, 0.0, float("inf"), stage.dark)
    dark_s = dark_seconds(stage.dark)
    return Result(tuple(stage.acts), tuple(tallies), whole, dark_s, tuple(missed(stage.acts)), took_s)


def _present(out: Output, stage: Stage, result: Result) -> None:
    if out.json:
        out.answer(result)
        return
    show(out, result.acts, result.tallies, result.whole, result.dark_s)
    for text in result.missed:
        out.say(f"target missed: {text}", "yellow")
    out.say(f"{SITE} and {APP} live. The demo took {result.took_s:.0f} s.")
