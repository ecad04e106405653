"""What every environment is tested with: one program per kind, artifacts, and patience with a bound."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import subprocess
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import (
    EnvironmentEvent,
    HealthCheck,
    ReplicaExited,
    ReplicaReady,
    ReplicaSpec,
    ReplicaStatus,
    UnixEndpoint,
)
from colla.model.ids import ReplicaId

KINDS = ("static", "process-bubblewrap", "process-none")
PATIENCE_S = 30.0

WEB = """
    import http.server, os, pathlib
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def answer(self, body, status=200):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def do_GET(self):
            if self.path == "/missing":
                return self.answer(b"no", 404)
            if self.path == "/big":
                return self.answer(bytes(range(256)) * 16384)
            if self.path == "/sick":
                pathlib.Path(os.environ["HOME"], "sick").touch()
            if self.path == "/healthy" and pathlib.Path(os.environ["HOME"], "sick").exists():
                return self.answer(b"sick", 500)
            self.answer(f"{os.environ['COLLA_SERVICE']} {os.environ['COLLA_REPLICA']}".encode())
        def do_POST(self):
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))
        def log_message(self, *arguments):
            pass
    print("listening soon", flush=True)
    http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def bubblewrap_problem() -> str:
    """Why bubblewrap cannot be tested here; empty when it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed"
    command = [program, "--unshare-all", "--unshare-user", "--uid", "65534", "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(command, capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"bubblewrap does not work here: {tried.stderr.strip()}"


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """Why bubblewrap cannot be tested here; empty when it can."""
    return bubblewrap_problem()


@dataclass
class Bench:
    """One environment program and what happened in it so far."""

    client: EnvironmentClient
    kind: str
    folder: Path
    events: list[EnvironmentEvent] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    problem: BaseException | None = None

    def artifact(self, **files: str) -> Path:
        """A folder with these files (`app_py` is app.py) and always an index.html."""
        folder = self.folder / f"artifact-{secrets.token_hex(4)}"
        folder.mkdir()
        for name, text in {"index_html": "<h1>home</h1>", "app_py": WEB, **files}.items():
            (folder / name.replace("_", ".")).write_text(textwrap.dedent(text))
        return folder

    def spec(self, artifact: Path | None = None, **more: Any) -> ReplicaSpec:
        """A specification with a fresh id; for programs the small web server above."""
        if self.kind != "static":
            more.setdefault("command", ("python3", "app.py"))
        more.setdefault("replica", secrets.token_hex(16))
        return ReplicaSpec(service="garden", artifact=str(artifact or self.artifact()), **more)

    async def collect(self) -> None:
        try:
            async for event in self.client.events():
                self.events.append(event)
                self._tell()
        except BaseException as problem:
            self.problem = problem
            self._tell()
            raise

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def until(self, found: Callable[[], Any]) -> Any:
        """What `found` gives as soon as that is something, asked again after each event."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                news = self.news
                if result := found():
                    return result
                if self.problem is not None:
                    raise AssertionError("the stream of events broke") from self.problem
                await news.wait()

    async def event(self, replica: str, wanted: type[Any]) -> Any:
        """The first event of this kind about the replica, waiting for it if need be."""

        def found() -> Any:
            for event in self.events:
                if event.replica == replica and isinstance(event, wanted):
                    return event
                if event.replica == replica and isinstance(event, ReplicaExited):
                    raise AssertionError(f"waiting for {wanted.__name__}, but it ended: {event.exit}")
            return None

        return await self.until(found)

    async def ready(self, spec: ReplicaSpec) -> str:
        """Start it and wait until it is ready; the path of its socket."""
        started = await self.client.start(spec)
        await self.event(spec.replica, ReplicaReady)
        assert isinstance(started.endpoint, UnixEndpoint)
        return started.endpoint.path

    async def exited(self, spec: ReplicaSpec) -> ReplicaExited:
        event: ReplicaExited = await self.event(spec.replica, ReplicaExited)
        return event

    async def status(self, spec: ReplicaSpec) -> ReplicaStatus:
        return await self.client.inspect(ReplicaId(spec.replica_id))


async def _run(client: EnvironmentClient, kind: str, folder: Path) -> AsyncIterator[Bench]:
    bench = Bench(client, kind, folder)
    collecting = asyncio.create_task(bench.collect())
    try:
        yield bench
    finally:
        # Stopping everything within this time is a part of what is tested.
        async with asyncio.timeout(PATIENCE_S):
            await bench.client.shut_down(grace_s=0.2)
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


async def launch(kind: str, runtime: Path) -> EnvironmentClient:
    name, _, isolation = kind.partition("-")
    return await EnvironmentClient.launch(
        name, runtime, isolation=isolation or "auto", allow_unsandboxed=True
    )


def require(kind: str) -> None:
    if kind == "process-bubblewrap" and (problem := bubblewrap_problem()):
        pytest.skip(problem)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """Every kind in turn, one program for all tests of a module."""
    require(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    async for made in _run(await launch(request.param, folder / "runtime"), request.param, folder):
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS[1:])
async def programs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """The kinds that run programs."""
    require(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    async for made in _run(await launch(request.param, folder / "runtime"), request.param, folder):
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """The kind with a sandbox alone."""
    require("process-bubblewrap")
    folder = tmp_path_factory.mktemp("sandboxed")
    client = await launch("process-bubblewrap", folder / "runtime")
    async for made in _run(client, "process-bubblewrap", folder):
        yield made


Launcher = Callable[[str, Path], Awaitable[EnvironmentClient]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    require(request.param)
    return str(request.param)


@pytest.fixture(params=KINDS[1:])
def program_kind(request: pytest.FixtureRequest) -> str:
    require(request.param)
    return str(request.param)


@pytest.fixture
def launcher() -> Launcher:
    """Attach to, or spawn, a program of one's own, for tests that kill it."""
    return launch


@pytest.fixture
def bench_of() -> type[Bench]:
    return Bench


@pytest.fixture(scope="module")
def launcher_of_module() -> Launcher:
    """As `launcher`, for what a whole module shares."""
    return launch


@pytest.fixture(scope="module")
def bench_of_module() -> Callable[[EnvironmentClient, str, Path], AsyncIterator[Bench]]:
    """Runs a bench for a whole module, and stops everything at its end."""
    return _run


@pytest.fixture
def get() -> Callable[..., Awaitable[tuple[int, bytes]]]:
    """GET over a Unix socket: (status, body)."""

    async def ask(socket: str, path: str = "/", **more: Any) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session,
            session.request(more.pop("method", "GET"), f"http://replica{path}", **more) as response,
        ):
            return response.status, await response.read()

    return ask


@pytest.fixture
def health() -> Callable[..., HealthCheck]:
    return HealthCheck
