"""Examples whose Python packages come from an index, deployed by `colla deploy` itself: they travel, and survive a loss."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from computers import Computer, eventually, make_group
from example_folders import FOLDER

from colla.uv_program import find_uv

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(find_uv() is None, reason="uv is not installed"),
]


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 2, ("process",))
    yield computers
    for computer in computers:
        computer.unplug()


async def deploy_by_command(computer: Computer, folder: Path) -> None:
    words = ["deploy", str(folder), "--replicas", "2", "--home", str(computer.home), "--timeout", "240"]
    command = [sys.executable, "-m", "colla", *words]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "uv cannot resolve" in done.stderr:
        pytest.skip(f"no package index can be reached: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr


async def asked(
    computer: Computer, service: str, path: str, method: str = "GET", **more: Any
) -> tuple[int, str, Any]:
    gateway = (await computer.ask(lambda client: client.node())).gateway
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(
            method, f"http://{gateway}{path}", headers={"Host": f"{service}.localhost"}, **more
        ) as response,
    ):
        return response.status, await response.text(), response.headers


async def test_an_api_with_packages_keeps_its_notes(group: list[Computer]) -> None:
    await deploy_by_command(group[0], FOLDER / "api")
    status, _, headers = await asked(group[0], "pinboard", "/notes", "POST", data="Milk")
    assert status == 201
    assert (await asked(group[0], "pinboard", "/notes", "POST", data=""))[0] == 400

    async def shown() -> bool:
        status, text, _ = await asked(group[1], "pinboard", headers["Location"])
        return status == 200 and json.loads(text) == {"text": "Milk", "by": "anna"}

    await eventually(shown, 30.0, "the note is shown")
    group[0].unplug()
    await eventually(shown, 60.0, "the note is still shown")
    assert (await asked(group[1], "pinboard", headers["Location"], "DELETE"))[0] == 204
    assert (await asked(group[1], "pinboard", headers["Location"]))[0] == 404
    assert json.loads((await asked(group[1], "pinboard", "/"))[1]) == {"notes": []}


async def test_the_calendar_brings_its_packages(group: list[Computer]) -> None:
    await deploy_by_command(group[0], FOLDER / "calendar")

    async def there() -> bool:
        return (await asked(group[1], "calendar", "/everyone/calendar/"))[0] == 200

    await eventually(there, 60.0, "the calendar is there")
    group[0].unplug()
    await eventually(there, 60.0, "the calendar is still there")
