"""A node that gives canned answers over a real Unix socket, and the command line in this process."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from colla.cli.app import app
from colla.client import types
from colla.model.contribution import GIVES_NOTHING

TOKEN = "the-token"
Answer = Callable[[bytes], Any]


class FakeNode:
    """Answers what was set for (method, path); the last answer of several is repeated. Keeps what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, Any]] = []
        self._answers: dict[tuple[str, str], list[Any]] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def answer(self, route: str, *answers: Any) -> FakeNode:
        method, path = route.split(" ")
        self._answers[method, path] = list(answers)
        return self

    def bodies(self, route: str) -> list[Any]:
        return [body for method, path, body in self.asked if f"{method} {path}" == route]

    def start(self) -> FakeNode:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        (self.folder / types.TOKEN_NAME).write_text(TOKEN)
        await web.UnixSite(runner, str(self.folder / types.SOCKET_NAME)).start()
        self._started.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.headers[types.TOKEN_HEADER] == TOKEN
        path = request.path.removeprefix(f"/{types.API_VERSION}/")
        raw = await request.read()
        self.asked.append((request.method, path, json.loads(raw) if raw else None))
        answers = self._answers.get((request.method, path))
        if not answers:
            return _json(types.ApiError("not_found", f"Nothing is at {path}.", "A hint."), 404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, types.ApiError):
            return _json(answer, 400)
        if path == "notices" or path.endswith(("/follow", "/logs")):
            lines = b"".join(msgspec.json.encode(each) + b"\n" for each in answer)
            return web.Response(body=lines, content_type="application/x-ndjson")
        return _json(answer)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


NODE = types.NodeReport(
    node="aa" * 32, name="nas", group="bb" * 32, group_name="club", election="hashing", member="cc" * 32,
    member_name="ana", joined=True, join_problem="", version="0.1.0", pid=2**30, port=4242,
    gateway="127.0.0.1:8642", addresses=("192.0.2.1:4242",), contribution=GIVES_NOTHING, environments=(),
    replicas=0, objects=0, object_bytes=0, resident_bytes=0, uptime_s=1.0,
)  # fmt: skip


@dataclass
class Samples:
    """Answers as a node of a small group would give them."""

    node: types.NodeReport = NODE
    computers: tuple[types.ComputerReport, ...] = field(
        default_factory=lambda: (
            computer("nas", "aa" * 32, me=True),
            computer("vps", "dd" * 32, path="direct", rtt_ms=12.4),
            computer("old", "ee" * 32, phase="absent"),
        )
    )

    def service(self, name: str = "blog", *places: str, **changes: Any) -> types.ServiceReport:
        report = types.ServiceReport(
            id="11" * 16, name=name, owner="ana", active=True, replicas_wanted=3, version=1, environment="static",
            object="22" * 32, object_bytes=2048, public=False, domains=(), url=f"http://{name}.localhost:8642/",
            master="vps", locations=tuple(types.ReplicaReport(f"{place}-1", place * 16, place) for place in places),
        )  # fmt: skip
        return msgspec.structs.replace(report, **changes)

    def line(self, node: str, text: str) -> types.LogLineReport:
        """What a replica on the computer called `node` wrote."""
        return types.LogLineReport(node, f"{node}-1", 1, 0.0, "stdout", text)


def computer(name: str, node: str, **changes: Any) -> types.ComputerReport:
    report = types.ComputerReport(
        node=node, name=name, member="ana", phase="present", me=False, since_s=0.0, agents=("user", "executor"),
        environments=("static",), draining=False, paused=False, cpus=1.5, memory_bytes=1 << 30, disk_bytes=0, labels={},
    )  # fmt: skip
    return msgspec.structs.replace(report, **changes)


@pytest.fixture
def samples() -> Samples:
    return Samples()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with the group `club`. Not in pytest's folder: the path of a socket has to be short."""
    path = Path(tempfile.mkdtemp(prefix="colla-cli-"))
    make_group(path, "club")
    yield path
    shutil.rmtree(path)


def make_group(home: Path, name: str) -> Path:
    folder = home / name
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text(
        f'group = "{"bb" * 32}"\ngroup_name = "{name}"\nnode_name = "nas"\n'
    )
    return folder


@pytest.fixture
def node(home: Path, samples: Samples) -> Iterator[FakeNode]:
    fake = FakeNode(home / "club").answer("GET node", samples.node).answer("GET nodes", samples.computers)
    yield fake.start()
    fake.stop()


@pytest.fixture
def make_node() -> Callable[[Path], FakeNode]:
    """A node for another folder; the test starts and stops it."""
    return FakeNode


@pytest.fixture
def colla(home: Path) -> Callable[..., Result]:
    """Run the command line: `colla("deploy", path)`; `terminal=True` makes it believe in a person."""

    def run(*words: object, terminal: bool = False, **options: Any) -> Result:
        env = {
            "COLLA_HOME": str(home),
            "FORCE_COLOR": "1" if terminal else None,
            "COLUMNS": "200",
            "TERM": "xterm",
        }
        return CliRunner().invoke(app, [str(word) for word in words], env=env, **options)

    return run
