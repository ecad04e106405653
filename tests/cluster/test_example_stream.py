"""The stream of `examples/stream` plays in a browser on, across the death of the computer that it was playing from."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from computers import Computer, deploy, eventually, everything, located, sees
from example_folders import FOLDER
from playwright.async_api import Page, Response, async_playwright

from colla.client import types

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAYER = FOLDER / "stream" / "node_modules" / "hls.js"

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(not PLAYER.is_dir(), reason="npm install was not run in examples/stream"),
]


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    """Somebody who only watches, and two computers that serve."""
    viewer, *serving = computers = [Computer(tmp_path, name) for name in ("viewer", "home1", "home2")]
    viewer.found("circle", "hashing", everything(()))
    await viewer.up()
    for computer in serving:
        answer = await viewer.ask(lambda client: client.invite(types.InviteRequest()))
        computer.prepare(answer.ticket, everything(), member=f"member-of-{computer.name}")
        await computer.up()
    await eventually(lambda: sees(viewer, 3), 60.0, "the viewer sees all")
    yield computers
    for computer in computers:
        computer.unplug()


async def two_replicas(viewer: Computer) -> dict[str, str] | None:
    replicas = await located(viewer, "stream")
    return replicas if len(replicas) == 2 else None


async def plays_until(page: Page, seconds: float) -> None:
    """Wait until the film is there; a film that stands still or broke off never comes there."""
    await page.wait_for_function(f"document.getElementById('video').currentTime >= {seconds}", timeout=90_000)


async def test_the_stream_plays_on_when_its_computer_dies(group: list[Computer], tmp_path: Path) -> None:
    viewer, *serving = group
    folder = tmp_path / "public"
    make = [sys.executable, str(FOLDER / "stream" / "make.py"), "--seconds", "40", "--into", str(folder)]
    await asyncio.to_thread(subprocess.run, make, check=True)
    await deploy(viewer, folder, "stream", 2)
    replicas = await eventually(lambda: two_replicas(viewer), 60.0, "two replicas run")
    gateway = (await viewer.ask(lambda client: client.node())).gateway
    port = gateway.rpartition(":")[2]
    served: list[tuple[int, str]] = []

    def note(response: Response) -> None:
        if response.url.endswith("video.mp4"):
            served.append((response.status, response.headers["x-colla-replica"]))

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("response", note)
        await page.goto(f"http://stream.localhost:{port}/")
        await page.evaluate("const v = document.getElementById('video'); v.muted = true; v.play()")
        await plays_until(page, 4)
        assert {status for status, _ in served} == {206}

        replica = served[-1][1]
        (victim,) = [one for one in serving if replicas[one.name].startswith(replica)]
        asked_before = len(served)
        victim.unplug()
        died_at = float(await page.evaluate("document.getElementById('video').currentTime"))
        # More than was in its buffer: it has asked others since.
        await plays_until(page, died_at + 16)
        await page.screenshot(path=tmp_path / "playing.png")
        quality = await page.evaluate(
            "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
        )
        assert quality > 100
        assert await page.evaluate("document.getElementById('video').error") is None
        since = served[asked_before:]
        assert any(status == 206 and one != replica for status, one in since)
        await browser.close()
