"""`colla simulate run`: one scenario, from a file or composed from a seed; its story; reducing it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from colla.cli.command import LAB_PANEL, Here, command
from colla.cli.up import ElectionName
from colla.model.errors import CollaError

if TYPE_CHECKING:
    from colla.sim.scenario.play import Outcome
    from colla.sim.scenario.scenario import Scenario


async def run(
    here: Here,
    file: Annotated[
        Path | None, typer.Argument(help="A scenario. Without one, the random scenario of the seed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="All randomness comes from it.")] = 1,
    election: Annotated[
        ElectionName | None, typer.Option("--election", help="This election, whatever the scenario says.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the scenario there, as TOML, instead of running it.")
    ] = None,
    shrink: Annotated[
        Path | None,
        typer.Option(
            "--shrink", help="If it fails, reduce it to a small one that fails alike; write that there."
        ),
    ] = None,
) -> None:
    """Run one scenario and tell what happened.

    A scenario says which computers there are, which services, what happens when, and how soon the group must be
    consistent again. The same scenario and seed always go the same way. Fails if something was violated.
    """
    from colla.sim.scenario.play import Play, play_out

    scenario, replay = _scenario(file, seed, election)
    if save is not None:
        _write(here, scenario, save)
        return
    play = Play(scenario, seed, replay)
    with here.out.progress("The scenario is played …"):
        outcome = await asyncio.to_thread(play_out, play)
    if shrink is not None and outcome.failed:
        await _shrink(here, scenario, outcome, shrink)
    _tell(here, outcome, play.stage.log)
    if shrink is not None and not outcome.failed:
        here.out.note("There is nothing to reduce: it did not fail.")
    if outcome.failed:
        hint = "" if shrink is not None else "--shrink FILE reduces the scenario."
        raise CollaError("violated", f"The scenario failed: {outcome.why}", hint)


def _scenario(file: Path | None, seed: int, election: ElectionName | None) -> tuple[Scenario, str]:
    """What to run, and the command that runs it again."""
    from colla.sim.scenario.chaos import replay_command
    from colla.sim.scenario.compose import compose
    from colla.sim.scenario.scenario import load_scenario

    if file is None:
        scenario, replay = compose(seed), replay_command(seed)
    else:
        scenario, replay = load_scenario(file), f"colla simulate run {file} --seed {seed}"
    if election is None:
        return scenario, replay
    scenario = msgspec.structs.replace(scenario, election=type(scenario.election)(election.value))
    return scenario, f"{replay} --election {election.value}"


def _tell(here: Here, outcome: Outcome, log: list[str]) -> None:
    if here.out.json:
        here.out.answer(outcome)
        return
    if outcome.failed:
        here.out.say(outcome.report)
        return
    for line in log:
        here.out.say(line)
    here.out.say(
        f"Consistent {outcome.consistent_s:.2f} s after the faults ended, and it stayed so. "
        f"{outcome.virtual_s:.0f} virtual seconds, {outcome.messages} messages, {outcome.steps} steps checked, "
        f"{outcome.writes} acknowledged writes kept. Trace {outcome.trace[:16]}."
    )


async def _shrink(here: Here, scenario: Scenario, outcome: Outcome, target: Path) -> None:
    from colla.sim.scenario.shrink import Shrinking

    with here.out.progress("It failed; it is being reduced …") as progress:
        shrinking = Shrinking(scenario, outcome, progress=_teller(progress.update))
        await asyncio.to_thread(shrinking.run)
    _write(here, shrinking.scenario, target)
    here.out.note(
        f"{len(shrinking.scenario.acts)} of {len(scenario.acts)} acts are left after {shrinking.runs} runs. "
        f"It fails with: colla simulate run {target} --seed {shrinking.outcome.seed}"
    )


def _teller(update: Callable[[str], None]) -> Callable[[int, Scenario], None]:
    def tell(runs: int, smallest: Scenario) -> None:
        update(f"Reducing: {len(smallest.acts)} acts, {smallest.nodes} computers after {runs} runs …")

    return tell


def _write(here: Here, scenario: Scenario, target: Path) -> None:
    from colla.sim.scenario.scenario import write_scenario

    target.write_text(write_scenario(scenario), encoding="utf-8")
    here.out.note(f"Written: {target}")


def add(app: typer.Typer) -> None:
    """Declare this command."""
    command(
        app,
        LAB_PANEL,
        examples=(
            "colla simulate run master-dies.toml --seed 3",
            "colla simulate run --seed 4711 --shrink small.toml",
            "colla simulate run --seed 4711 --save whole.toml",
        ),
    )(run)
