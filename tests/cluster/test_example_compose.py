"""`examples/compose`: images built here, deployed from the Compose file to two computers, each with an engine of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import oci
import pytest
from computers import Computer, eventually, everything, located, sees
from example_folders import FOLDER

from colla.client import types

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works"),
]
EXAMPLE = FOLDER / "compose"


class Engine:
    """Podman with its storage in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.settings = oci.podman_settings(folder)

    async def run(self, *command: str) -> str:
        environment = dict(os.environ) | self.settings
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
async def group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[tuple[Computer, Engine]]]:
    found: list[tuple[Computer, Engine]] = []
    for name in ("home1", "home2"):
        computer, engine = Computer(tmp_path, name), Engine(tmp_path / f"podman-{name}")
        for variable, value in engine.settings.items():
            monkeypatch.setenv(variable, value)
        if found:
            answer = await found[0][0].ask(lambda client: client.invite(types.InviteRequest()))
            computer.prepare(answer.ticket, everything(("container",)))
        else:
            computer.found("circle", "hashing", everything(("container",)))
        await computer.up()
        found.append((computer, engine))
    for computer, _ in found:
        await eventually(lambda one=computer: sees(one, 2), 60.0, f"{computer.name} sees both")
    yield found
    for computer, engine in found:
        computer.unplug()
        # What an engine started is nobody's child: it would outlive the computer that it belonged to.
        await engine.run("podman", "rm", "--all", "--force", "--time", "0")


async def asked(computer: Computer, service: str, path: str) -> tuple[int, str]:
    gateway = (await computer.ask(lambda client: client.node())).gateway
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.get(f"http://{gateway}{path}", headers={"Host": f"{service}.localhost"}) as response,
    ):
        return response.status, await response.text()


async def both_answer(computer: Computer) -> bool:
    status, page = await asked(computer, "garden", "/")
    planted, beds = await asked(computer, "garden", "/beds.txt")
    rolled, number = await asked(computer, "dice", "/cgi-bin/roll")
    if status != 200 or planted != 200 or rolled != 200:
        return False
    assert "tomatoes" in beds, "configs of the Compose file are there"
    assert "Who waters it today?" in page
    assert 1 <= int(number) <= 20
    return True


async def test_two_containers_survive_the_loss_of_a_computer(group: list[tuple[Computer, Engine]]) -> None:
    (first, engine), (second, _) = group
    await engine.run("sh", str(EXAMPLE / "build.sh"), "podman")
    deploy = ["deploy", str(EXAMPLE / "compose.yaml"), "--home", str(first.home), "--timeout", "240"]
    await engine.run(sys.executable, "-m", "colla", *deploy)

    async def two_of_each() -> bool:
        return all([len(await located(second, name)) == 2 for name in ("garden", "dice")])

    await eventually(two_of_each, 120.0, "two replicas of each run")
    await eventually(lambda: both_answer(second), 30.0, "both answer")
    rolled = {(await asked(second, "dice", "/cgi-bin/roll"))[1] for _ in range(40)}
    assert len(rolled) > 3
    first.unplug()
    await eventually(lambda: both_answer(second), 60.0, "both answer on the computer that is left")
