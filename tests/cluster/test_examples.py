"""The examples that need no other program: deployed to two computers, of which one dies; the other goes on with all of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from computers import Computer, deploy, eventually, located, make_group
from example_folders import FOLDER

pytest.importorskip("wasmtime", reason="wasmtime is not installed")

pytestmark = pytest.mark.cluster
SERVICES = ("docs", "mandelbrot", "words")


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 2, ("static", "wasm"))
    yield computers
    for computer in computers:
        computer.unplug()


async def asked(
    computer: Computer, service: str, path: str, method: str = "GET", **more: Any
) -> bytes | None:
    """The answer through the computer's gateway; None unless it is 200."""
    gateway = (await computer.ask(lambda client: client.node())).gateway
    headers = {"Host": f"{service}.localhost"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(method, f"http://{gateway}{path}", headers=headers, **more) as response,
    ):
        return await response.read() if response.status == 200 else None


async def all_answer(computer: Computer) -> bool:
    """Each of the three does what it is for."""
    page = await asked(computer, "docs", "/docs/how-to/deploy-a-web-site.html")
    picture = await asked(computer, "mandelbrot", "/?x=-0.7436&y=0.1318&zoom=300")
    counts = await asked(computer, "words", "/", "POST", data="Grüß dich,\nÖ".encode())
    if page is None or picture is None or counts is None:
        return False
    assert b"<h1" in page and b"Deploy a web site" in page
    assert picture[:2] == b"BM" and len(picture) == 54 + 480 * 320 * 3
    assert len(set(picture[54:])) > 20  # Not one colour: there is something to see.
    assert json.loads(counts) == {"words": 3, "lines": 2, "characters": 12}
    return True


async def test_examples_survive_the_loss_of_a_computer(group: list[Computer], tmp_path: Path) -> None:
    site = tmp_path / "docs"
    command = [sys.executable, str(FOLDER / "website" / "build.py"), str(site)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    await deploy(group[0], site, "docs", 2)
    for name in ("mandelbrot", "words"):
        folder = tmp_path / name
        folder.mkdir()
        module = (FOLDER / "wasm" / f"{name}.wasm").read_bytes()
        (folder / f"{name}.wasm").write_bytes(module)
        await deploy(group[0], folder, name, 2, environment="wasm", command=(f"{name}.wasm",))

    async def two_of_each() -> bool:
        return all([len(await located(group[0], name)) == 2 for name in SERVICES])

    await eventually(two_of_each, 60.0, "two replicas of each run")
    await eventually(lambda: all_answer(group[1]), 30.0, "all answer")
    group[0].unplug()
    await eventually(lambda: all_answer(group[1]), 60.0, "all answer on the one that is left")
