"""A secret reaches the program, a change and another executor too; on no disk and in no command line is it ever to be read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from computers import Computer, deploy, eventually, located, make_group, page

from colla.model.errors import CollaError

pytestmark = pytest.mark.cluster

PROGRAM = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (os.environ["MODE"] + " " + os.environ["PASSWORD"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
FIRST, SECOND = "correct-horse-battery", "staple-of-another-kind"


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 3, ("process",))
    yield computers
    for computer in computers:
        computer.unplug()


def colla(computer: Computer, *words: str, said: str) -> None:
    """Run the command as a person does, with this on its standard input."""
    command = [sys.executable, "-m", "colla", *words, "--home", str(computer.home)]
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def betrayals(computers: list[Computer]) -> list[str]:
    """Where a value is to be read: files, command lines."""
    values = [value.encode() for value in (FIRST, SECOND)]
    files = [path for one in computers for path in one.home.rglob("*") if path.is_file()]
    found = [str(path) for path in files if any(value in path.read_bytes() for value in values)]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or []).encode()
        found += [line.decode()] * any(value in line for value in values)
    return found


async def test_a_secret_reaches_the_program_and_no_disk(tmp_path: Path, group: list[Computer]) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(PROGRAM)
    owner, *others = group
    more = {"environment": "process", "command": ("python3", "app.py"), "secrets": ("PASSWORD",)}
    await deploy(owner, folder, "shop", 2, env={"MODE": "live"}, **more)
    assert (await owner.ask(lambda client: client.service("shop"))).secrets_missing == ("PASSWORD",)
    with pytest.raises(CollaError, match="another member"):
        await others[0].ask(lambda client: client.set_secrets("shop", {"PASSWORD": "mine"}))

    await asyncio.to_thread(colla, owner, "secret", "set", "shop", "PASSWORD", "--no-wait", said=FIRST + "\n")
    await eventually(lambda: answers(group, f"live {FIRST}"), 30.0, "it runs with its secret")
    await owner.ask(lambda client: client.set_secrets("shop", {"PASSWORD": SECOND}))
    await eventually(lambda: answers(group, f"live {SECOND}"), 30.0, "the change is everywhere")
    assert betrayals(group) == []

    running = await located(owner, "shop")
    victim = next(one for one in others if one.name in running)
    victim.unplug()
    left = [one for one in group if one is not victim]
    await eventually(lambda: runs_on(left), 30.0, "another has it")
    await eventually(lambda: answers(left, f"live {SECOND}"), 10.0, "with its secret")
    assert betrayals(group) == []


async def answers(computers: list[Computer], text: str) -> bool:
    """Whether whoever is asked says this."""
    return all([await page(computer, "shop") == text for computer in computers])


async def runs_on(computers: list[Computer]) -> bool:
    return sorted(await located(computers[0], "shop")) == sorted(one.name for one in computers)
