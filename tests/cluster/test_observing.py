"""What replicas write and use, merged from all computers that run them, and whom it is shown to."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from computers import Computer, deploy, eventually, located, make_group

from colla.client import types
from colla.model.errors import CollaError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

APP = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path, flush=True)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *arguments):
        pass
print("begins", flush=True)
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 3, ("process",))
    yield computers
    for computer in computers:
        computer.unplug()


async def lines_of(computer: Computer, lines: int = 200) -> list[types.LogLineReport]:
    async with computer.client() as client:
        return [line async for line in client.logs("app", lines)]


async def ask_until_each_answered(computer: Computer, seen: dict[str, None], count: int) -> None:
    """Requests go to replicas by turns and by chance: ask until each has said that it was asked."""
    gateway = (await computer.ask(lambda client: client.node())).gateway
    port = (await computer.ask(lambda client: client.forward("app"))).port
    async with aiohttp.ClientSession() as session:
        for number in range(200):
            address = gateway if number % 2 else f"127.0.0.1:{port}"
            async with session.get(f"http://{address}/page", headers={"Host": "app.localhost"}) as response:
                await response.read()
            if len(seen) >= count:
                return
            await asyncio.sleep(0.02)


async def told_problem(computer: Computer, node: str) -> str:
    async with computer.client() as client:
        with pytest.raises(CollaError) as raised:
            _ = [output async for output in client.exec("app", ("ls",), node=node)]
    return raised.value.message


async def test_logs_and_stats_of_all_replicas(group: list[Computer], tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    await deploy(group[0], folder, "app", 2, environment="process", command=("python3", "app.py"))
    runs = await eventually(lambda: both(group[0]), 30.0, "two replicas run")

    async def begun() -> bool:
        return {line.node for line in await lines_of(group[0]) if line.text == "begins"} == set(runs)

    await eventually(begun, 10.0, "the lines of both replicas are here")
    times = [line.at_s for line in await lines_of(group[0])]
    assert times == sorted(times)
    assert len(await lines_of(group[0], 1)) == 1 and await lines_of(group[0], 0) == []

    used = await group[0].ask(lambda client: client.stats("app"))
    assert {report.node for report in used} == set(runs)
    assert all(report.memory_bytes and report.processes for report in used)

    # Commands run beside the replicas where the owners of their computers allow it.
    async def told(node: str, *words: str) -> types.ExecOutputReport:
        async with group[0].client() as client:
            outputs = [output async for output in client.exec("app", words, node=node)]
        return msgspec.structs.replace(outputs[-1], text="".join(output.text for output in outputs))

    others = [computer for computer in group[1:] if computer.name in runs]
    for computer in others:
        assert "does not let" in (await told(computer.name, "ls")).problem
        given = (await computer.ask(lambda client: client.node())).contribution
        allowed = msgspec.structs.replace(given, exec=True)
        await computer.ask(lambda client, allowed=allowed: client.contribute(allowed))
    for node in runs:
        assert await told(node, "ls") == types.ExecOutputReport(node, "app.py\n", 0)
    assert others and "No replica" in (await told_problem(group[0], "nowhere"))

    # A follower hears what is written from now on, wherever.
    heard: dict[str, None] = {}

    async def follow() -> None:
        async with group[0].client() as client:
            async for line in client.logs("app", 0, follow=True):
                assert line.text == "asked for /page"
                heard[line.node] = None

    following = asyncio.create_task(follow())
    (other,) = [each for each in group[1:] if each.name in runs][:1] or [group[1]]
    try:
        await ask_until_each_answered(other, heard, 1)
        assert heard and set(heard) <= set(runs)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    # Others see what runs on their own computer, and are told why there is no more.
    stranger = next(each for each in group[1:])
    told = await lines_of(stranger)
    elsewhere = [line for line in told if line.node != stranger.name]
    assert elsewhere and {line.stream for line in elsewhere} == {"note"}
    assert "owner and administrators" in elsewhere[0].text
    with pytest.raises(CollaError) as missing:
        async with group[0].client() as client:
            _ = [line async for line in client.logs("nothing")]
    assert missing.value.code == "not_found"


async def both(computer: Computer) -> dict[str, str] | None:
    found = await located(computer, "app")
    return found if len(found) == 2 else None
