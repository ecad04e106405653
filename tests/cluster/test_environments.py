"""Environments that are attached while the node runs: their services are placed, and leave with them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from computers import Computer, deploy, eventually, everything, page

from colla.model.errors import CollaError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "environment-node"
KIND = "node-functions"


@pytest.fixture
async def computer(tmp_path: Path) -> AsyncIterator[Computer]:
    computer = Computer(tmp_path, "attic")
    gives = msgspec.structs.replace(everything(), unsandboxed=True)
    computer.found("circle", "hashing", gives)
    await computer.up()
    yield computer
    computer.unplug()


def colla(computer: Computer, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "colla", *words, "--home", str(computer.home)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=dict(os.environ), cwd=EXAMPLE
    )


async def runs_nothing(computer: Computer) -> bool:
    return (await computer.ask(lambda client: client.node())).replicas == 0


async def test_an_environment_comes_and_goes_while_the_node_runs(computer: Computer) -> None:
    await deploy(computer, EXAMPLE / "hello", "hello", 1, environment=KIND)
    why = await eventually(
        lambda: computer.ask(lambda client: client.why("hello")), 10.0, "there is a master to ask"
    )
    assert why.running == 0 and KIND in why.lines[0].reason

    done = await asyncio.to_thread(colla, computer, "environment", "add", "node", "environment.mjs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert KIND in done.stdout and "consent" not in done.stderr
    shown = await eventually(lambda: page(computer, "hello"), 5.0, "its service answers")
    assert shown == "Hello from Node.js\n"
    (report,) = [
        each for each in await computer.ask(lambda client: client.environments()) if each.kind == KIND
    ]
    assert (report.attached, report.given, report.replicas, report.isolation) == (True, True, 1, "none")
    again = await asyncio.to_thread(colla, computer, "environment", "add", "node", "environment.mjs")
    assert again.returncode == 1 and "attached already" in again.stderr

    # It is a part of the node from now on.
    assert await computer.stop() == 0
    await computer.up()
    await eventually(lambda: page(computer, "hello"), 20.0, "its service answers after a restart")

    done = await asyncio.to_thread(colla, computer, "environment", "remove", KIND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.kind for each in await computer.ask(lambda client: client.environments())] == ["static"]
    await eventually(lambda: runs_nothing(computer), 5.0, "its replica is gone")
    assert not (computer.folder / "run" / KIND).exists()


async def test_what_is_no_environment_is_refused_and_changes_nothing(
    computer: Computer, tmp_path: Path
) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("print('hello')")
    impostor = tmp_path / "impostor.py"
    impostor.write_text(
        textwrap.dedent("""
        import subprocess, sys
        raise SystemExit(subprocess.call([sys.executable, "-m", "colla.environments", "static", *sys.argv[1:]]))
        """)
    )
    before = await computer.ask(lambda client: client.environments())
    for command, code in (
        ((sys.executable, str(silent)), "bad_program"),
        (("/no/such/program",), "bad_program"),
        ((sys.executable, str(impostor)), "kind_taken"),
        ((), "bad_program"),
    ):
        with pytest.raises(CollaError) as refused:
            await computer.ask(lambda client, command=command: client.attach(command))
        assert refused.value.code == code, refused.value
    assert await computer.ask(lambda client: client.environments()) == before
    gives = (await computer.ask(lambda client: client.node())).contribution
    with pytest.raises(CollaError) as refused:
        wrong = msgspec.structs.replace(gives, environments=("static", "unheard-of"))
        await computer.ask(lambda client: client.contribute(wrong))
    assert refused.value.code == "bad_contribution" and "environment add" in refused.value.hint
    assert not list((computer.folder / "run").glob("trial-*"))
