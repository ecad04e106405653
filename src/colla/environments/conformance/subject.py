"""The environment under check: its program in a runtime folder, a sample service that it can run, and what it told.

`Subject` starts the program, collects its events and waits for them with a bound; nothing in it knows how the
environment works.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, assert_never

import aiohttp
import msgspec

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import (
    Endpoint,
    EnvironmentEvent,
    EnvironmentFault,
    Handshake,
    Occurrence,
    ReplicaExited,
    ReplicaReady,
    ReplicaSpec,
    ReplicaStatus,
    TcpEndpoint,
    UnixEndpoint,
)

PATIENCE_S: Final = 30.0
"""How long anything may take that an environment has promised."""
ANSWER_S: Final = 10.0
PAGE: Final = "<h1>here</h1>"
APP: Final = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        found = self.path.partition("?")[0] == "/"
        body = b"<h1>here</h1>" if found else b"missing"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
print("listening soon", flush=True)
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
"""For environments that run commands: answers `/` like the folder's own index.html, and nothing else."""

EventType = TypeVar("EventType", bound=Occurrence)


class Sample(msgspec.Struct, frozen=True):
    """A service that the environment can run: it answers GET / with 200 and any path that ends in /nothing with 404.

    `config` is what the specification needs beside the folder, as {"command": [...], "env": {...}}.
    """

    folder: Path
    config: dict[str, Any] = {}


def plain_sample(folder: Path, needs_command: bool) -> Sample:
    """The sample for environments that serve files, or run a command that may be Python."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "app.py").write_text(APP)
    return Sample(folder, {"command": ("python3", "app.py")} if needs_command else {})


class Subject:
    """One environment program in a folder of its own."""

    def __init__(self, program: tuple[str, ...], base: Path, sample: Sample | None = None) -> None:
        """`program` is the command without `--runtime DIR`; `base` an empty folder for everything that is made."""
        self.program = program
        self.base = base
        self.runtime = base / "runtime"
        self._sample = sample
        self.client: EnvironmentClient
        self.events: list[EnvironmentEvent] = []
        self._news = asyncio.Event()
        self._problem: EnvironmentFault | None = None
        self._collecting: asyncio.Task[None] | None = None

    # --- the program -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the program, or find the living one, and hear its events. Raises `EnvironmentFault`."""
        self._problem = None
        self.client = await self.another_client()
        self._collecting = asyncio.create_task(self._collect(self.client))

    async def another_client(self) -> EnvironmentClient:
        """One more client of the program of this folder."""
        return await EnvironmentClient.launch(
            "under check", self.runtime, allow_unsandboxed=True, program=self.program
        )

    async def let_go(self) -> None:
        """As when the agent ends: the program goes on."""
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
            self._collecting = None
        await self.client.detach()

    async def close(self) -> None:
        """End the program and everything that it runs."""
        await self.let_go()
        last = await self.another_client()
        await last.shut_down(grace_s=0.2)
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def handshake(self) -> Handshake:
        """What the living program wrote into its folder."""
        return msgspec.json.decode((self.runtime / "program.json").read_bytes(), type=Handshake)

    async def _collect(self, client: EnvironmentClient) -> None:
        try:
            async for event in client.events():
                self.events.append(event)
                self._tell()
        except EnvironmentFault as problem:
            self._problem = problem
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # --- replicas ----------------------------------------------------------------------------------------

    @property
    def sample(self) -> Sample:
        """The sample service, made on first use where none was given."""
        if self._sample is None:
            required = self.client.info.config_schema.get("required", ())
            self._sample = plain_sample(self.base / "sample", "command" in required)
        return self._sample

    def spec(self, **more: Any) -> ReplicaSpec:
        """A specification of the sample with a fresh id."""
        known = {"replica": secrets.token_hex(16), "service": "sample", "artifact": str(self.sample.folder)}
        return msgspec.convert(known | self.sample.config | more, ReplicaSpec, from_attributes=True)

    async def ready(self, spec: ReplicaSpec) -> Endpoint:
        """Start it and wait until it is ready."""
        started = await self.client.start(spec)
        await self.event(spec.replica, ReplicaReady)
        return started.endpoint

    async def status(self, spec: ReplicaSpec) -> ReplicaStatus:
        """As the environment sees it."""
        return await self.client.inspect(spec.replica_id)

    async def listed(self) -> dict[str, ReplicaStatus]:
        """All replicas by their ids."""
        return {status.replica: status for status in await self.client.list()}

    async def event(self, replica: str, wanted: type[EventType]) -> EventType:
        """The first event of this kind about the replica, waiting for it if need be."""

        def found() -> EventType | None:
            for event in self.events:
                if event.replica == replica and isinstance(event, wanted):
                    return event
                if event.replica == replica and isinstance(event, ReplicaExited):
                    raise AssertionError(f"waiting for {wanted.__name__}, but it ended: {event.exit}")
            return None

        return await self.until(found, f"no {wanted.__name__} of replica {replica}")

    async def until(self, found: Callable[[], EventType | None], otherwise: str) -> EventType:
        """What `found` gives as soon as that is something, asked again after each event."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    news = self._news
                    if (result := found()) is not None:
                        return result
                    if self._problem is not None:
                        raise AssertionError(f"the stream of events broke: {self._problem}")
                    await news.wait()
        except TimeoutError:
            raise AssertionError(f"{otherwise} within {PATIENCE_S:g} s") from None

    # --- bare HTTP ---------------------------------------------------------------------------------------

    async def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str, bytes]:
        """One request to the environment itself: status, media type, body."""
        return await ask(UnixEndpoint(path=self.handshake.socket), method, path, body, headers)

    async def get(self, endpoint: Endpoint, path: str = "/") -> tuple[int, bytes]:
        """What a replica answers. Raises `OSError` when nobody does."""
        status, _, body = await ask(endpoint, "GET", path, None, {})
        return status, body

    async def is_silent(self, endpoint: Endpoint) -> bool:
        """Whether nobody answers there any more."""
        try:
            await self.get(endpoint)
        except (OSError, aiohttp.ClientError):
            return True
        return False


async def ask(
    endpoint: Endpoint, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, str, bytes]:
    """One request over a connection of its own."""
    connector: aiohttp.BaseConnector
    match endpoint:
        case UnixEndpoint():
            connector, address = aiohttp.UnixConnector(endpoint.path), "replica"
        case TcpEndpoint():
            connector, address = aiohttp.TCPConnector(), f"{endpoint.host}:{endpoint.port}"
        case _:
            assert_never(endpoint)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
        session.request(method, f"http://{address}{path}", data=body, headers=headers) as response,
    ):
        return response.status, response.content_type, await response.read()
