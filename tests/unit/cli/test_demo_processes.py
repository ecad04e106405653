"""The demo's processes: a computer that is unplugged with everything on it, and a client that asks all the time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
from aiohttp import web

from colla.cli.demo.asker import Asked, Plan, Target, body_digest
from colla.cli.demo.computer import Order
from colla.cli.demo.computers import Computer
from colla.model.errors import CollaError

# A daemon as an execution environment might start one: in its own session, its parent gone.
LEAVES_ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process adopt orphans")
@pytest.mark.parametrize("way", ["order", "input ends"])
def test_a_computer_is_unplugged_with_its_orphans(tmp_path: Path, way: str) -> None:
    code = f"""
import subprocess, sys
from colla.cli.demo import computer
computer.run = lambda home, order: computer.say(computer.Done(order.id, 0, subprocess.run(
    [sys.executable, "-c", {LEAVES_ORPHAN!r}], capture_output=True, text=True).stdout, ""))
computer.main(sys.argv[1])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(msgspec.json.encode(Order("run", 1, ("anything",))) + b"\n")
    process.stdin.flush()
    orphan = psutil.Process(int(msgspec.json.decode(process.stdout.readline())["output"]))
    assert orphan.is_running() and orphan.ppid() == process.pid
    if way == "order":
        process.stdin.write(msgspec.json.encode(Order("unplug")) + b"\n")
        process.stdin.flush()
    process.stdin.close()
    assert process.wait(20) == 0
    assert not orphan.is_running()
    process.stdout.close()


async def test_commands_run_on_a_computer(tmp_path: Path) -> None:
    computer = Computer(tmp_path, "nas", "ana")
    await computer.switch_on()
    try:
        await computer.colla("group", "create", "choir", "--no-up", "--member", "ana", "--computer", "nas")
        assert computer.folder == tmp_path / "nas" / "choir"
        with pytest.raises(CollaError, match=r"`colla status` on nas failed \(3\)") as raised:
            await computer.colla("status")
        assert "colla up" in raised.value.message
    finally:
        await computer.unplug()
    assert not computer.on and await computer.unplug() > 0


async def test_a_command_cut_off_by_unplugging_ends(tmp_path: Path) -> None:
    computer = Computer(tmp_path, "nas", "ana")
    await computer.switch_on()
    await computer.colla("group", "create", "choir", "--no-up", "--member", "ana", "--computer", "nas")
    (computer.folder / "node.log").write_text("here\n")
    following = asyncio.create_task(computer.colla("log", "-f"))
    await asyncio.sleep(0)  # Lets the command be ordered before the plug is pulled.
    await computer.unplug()
    # Either the command was killed before its computer was, or nobody was left to tell.
    with pytest.raises(CollaError, match=r"unplugged|failed \(-9\)"):
        await following


def test_a_computer_without_a_group_has_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CollaError, match="no group yet"):
        _ = Computer(tmp_path, "nas", "ana").folder


@pytest.fixture
async def door() -> AsyncIterator[tuple[str, list[str]]]:
    """A gateway that answers `good` rightly, `bad` wrongly, `none` not at all."""
    hosts: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        hosts.append(request.headers["Host"])
        if request.path == "/none":
            return web.Response(status=503, headers={"X-Colla-Error": "no_replica"})
        return web.Response(
            text="right" if request.path == "/good" else "wrong", headers={"X-Colla-Replica": "r1"}
        )

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}", hosts
    await runner.cleanup()


async def test_the_client_asks_and_writes_what_came(tmp_path: Path, door: tuple[str, list[str]]) -> None:
    gateway, hosts = door
    digest = body_digest(b"right")
    paths = tuple((path, digest) for path in ("/good", "/bad", "/none"))
    plan = Plan(
        gateway, (Target("site", paths), Target("app", (("/bad", ""),))), str(tmp_path / "log"), 0.005
    )
    (tmp_path / "plan").write_bytes(msgspec.json.encode(plan))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "colla.cli.demo.asker", str(tmp_path / "plan"), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    while len(hosts) < 60:
        assert process.returncode is None
        await asyncio.sleep(0.02)
    process.stdin.close()
    assert await process.wait() == 0
    lines = [msgspec.json.decode(line, type=Asked) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert len(lines) == len(hosts), "every request that was sent is written, the open ones too"
    site = [each for each in lines if each.service == "site"]
    assert {each.error for each in site} == {"", "wrong body of /bad", "no_replica"}
    assert {each.error for each in lines if each.service == "app"} == {""}
    assert set(hosts) == {"site.localhost", "app.localhost"}
    assert all(each.took_s < 5 and each.replica in ("r1", "") for each in lines)


async def test_the_client_tells_of_a_door_that_is_shut(tmp_path: Path, unused_tcp_port: int) -> None:
    from colla.cli.demo.asker import ask_always

    plan = Plan(f"127.0.0.1:{unused_tcp_port}", (Target("site", (("/", ""),)),), "", 0.001)
    ending = asyncio.Event()
    with (tmp_path / "log").open("wb") as log:
        asking = asyncio.create_task(ask_always(plan, log, ending))
        await asyncio.sleep(0.05)
        ending.set()
        await asking
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines and all(msgspec.json.decode(line, type=Asked).error for line in lines)


async def test_a_folder_that_is_no_site_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colla.cli.demo import play
    from colla.cli.output import Output

    monkeypatch.setattr(play, "Stage", lambda *words, **options: pytest.fail("started"))
    (tmp_path / "app.py").write_text("")
    with pytest.raises(CollaError, match="not a web site"):
        await play.play(Output(), "hashing", tmp_path, keep=False)
    with pytest.raises(CollaError, match="There is no folder"):
        await play.play(Output(), "hashing", tmp_path / "nowhere", keep=False)
