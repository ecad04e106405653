"""Every environment beside the same program run bare: start to first answer, requests per second, memory.

    python benchmarks/environments.py [--seconds 2] [--clients 16] [--repeat 3] [--quick]

Method. Each row is one program that answers 10 KB, once run bare, as somebody would in a terminal, once as a replica, in an
environment program started as a node starts it, with the files already prepared. The two take turns, `--repeat` times, and each
figure is the median, so that a change of the computer's load meets both; ratios are of the two medians, replica to bare.

- *static*: nothing is executed; beside it, busybox's web server on the same file.
- *process*: a program of a few lines in Python (asyncio). By *port* the bridge copies every byte into the sandbox; by
  *LISTEN_FDS* the program accepts on the replica's own socket.
- *wasm*: a module, an instance per request, one at a time; beside it the same library making the same instances in a loop, without HTTP.
- *container*: busybox's web server in a container, beside the same without one. It makes a process per connection.

*Start* is from the command, or the call, until the first whole answer. *Requests/s* is a closed loop of `--clients` connections,
kept where the program keeps them. *Memory* is what belongs to it (proportional set size), after the load: bare the program, as a
replica all its processes, those of bridge and runner included; for *static* what the environment's program grew by. What
there is once per kind and node is listed apart: the environments' programs, and what serves Podman's API.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import oci

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import HealthCheck, Limits, ReplicaReady, ReplicaSpec, UnixEndpoint
from colla.environments.sandbox import Bubblewrap

BODY_BYTES = 10_240
REQUEST = b"GET /page.txt HTTP/1.1\r\nHost: site.localhost\r\nConnection: keep-alive\r\n\r\n"
PATIENCE_S = 60.0
RETRY_S = 0.002
APP = f"""
import asyncio, os, socket
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: {BODY_BYTES}\\r\\n\\r\\n" + b"x" * {BODY_BYTES}
class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""
    def data_received(self, data):
        *heads, self.rest = (self.rest + data).split(b"\\r\\n\\r\\n")
        for head in heads:
            self.transport.write(ANSWER)
async def main():
    loop = asyncio.get_running_loop()
    if os.environ.get("LISTEN_FDS"):
        await loop.create_unix_server(Answering, sock=socket.socket(fileno=3))
    else:
        await loop.create_server(Answering, "127.0.0.1", int(os.environ["PORT"]))
    await asyncio.Event().wait()
asyncio.run(main())
"""
WAT = f"""
(module
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 64) "Content-Type: text/plain\\0a\\0a")
 (func (export "_start")
  (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {26 + BODY_BYTES}))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""
BARE_MODULE = """
import sys, time
from colla.environments.wasm_runner import Instances, RunnerConfig
config = RunnerConfig(module=sys.argv[1], name="app.wasm", folder=sys.argv[2], arguments=(), env={},
                      memory_bytes=32 << 20, processes=1)
instances = Instances(config)
instances.keep_time()
assert len(instances.call({}, b"")[0]) > 10_000
print("answered", flush=True)
count, began = 0, time.monotonic()
while time.monotonic() - began < float(sys.argv[3]):
    instances.call({}, b"")
    count += 1
print(count / (time.monotonic() - began), flush=True)
sys.stdin.read()
"""
Address = str | int
"""The path of a Unix socket, or a port of the loopback."""


class Figures(NamedTuple):
    """Of one run: seconds, answers per second, bytes."""

    start_s: float
    rate: float
    memory_bytes: float


class Row(NamedTuple):
    """One line of the table: how to measure the program bare, and as a replica."""

    name: str
    bare: Callable[[], Any]
    replica: Callable[[], Any]


# -- asking ---------------------------------------------------------------------------------------------------


class Asker(asyncio.Protocol):
    """Asks again as soon as an answer is whole, on a new connection where the old one was closed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.answers = 0
        self.going = True
        self._head = b""
        self._left = -1
        self._transport: asyncio.Transport

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(self.address, str):
            await loop.create_unix_connection(lambda: self, self.address)
        else:
            await loop.create_connection(lambda: self, "127.0.0.1", self.address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._head, self._left = transport, b"", -1
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._left, data = int(length), rest
        self._left -= len(data)
        if self._left == 0:
            self.answers += 1
            self._head, self._left = b"", -1
            if self.going:
                self._transport.write(REQUEST)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.going:
            self._again = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        with contextlib.suppress(OSError):
            await self.connect()

    def stop(self) -> None:
        self.going = False
        self._transport.abort()


async def until_answered(address: Address, began_s: float) -> float:
    """Seconds from `began_s` until somebody has answered the request whole."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await (
                    asyncio.open_unix_connection(address)
                    if isinstance(address, str)
                    else asyncio.open_connection("127.0.0.1", address)
                )
                try:
                    writer.write(REQUEST)
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 200 " in head:
                        await reader.readexactly(BODY_BYTES)
                        return time.monotonic() - began_s
                finally:
                    writer.close()
            await asyncio.sleep(RETRY_S)


async def rate_of(address: Address, clients: int, seconds: float) -> float:
    """Whole answers per second."""
    askers = [Asker(address) for _ in range(clients)]
    for asker in askers:
        await asker.connect()
    await asyncio.sleep(0.2)
    before, began_s = sum(asker.answers for asker in askers), time.monotonic()
    await asyncio.sleep(seconds)
    answers, took_s = sum(asker.answers for asker in askers) - before, time.monotonic() - began_s
    for asker in askers:
        asker.stop()
    return answers / took_s


def memory_of(processes: list[psutil.Process]) -> float:
    """What belongs to them alone, and their share of the rest."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return float(total)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


# -- bare -----------------------------------------------------------------------------------------------------


class Bench:
    """The folders, the settings and the environment programs of one run."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.clients: dict[str, EnvironmentClient] = {}
        self.site = folder / "site"
        self.site.mkdir()
        (self.site / "page.txt").write_bytes(b"x" * BODY_BYTES)
        self.app = folder / "app"
        self.app.mkdir()
        (self.app / "app.py").write_text(APP)

    async def bare(self, command: list[str], port: int) -> Figures:
        """A program that answers on a port, started and ended."""
        began_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(os.environ, PORT=str(port)), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            start_s = await until_answered(port, began_s)
            rate = await rate_of(port, self.options.clients, self.options.seconds)
            return Figures(start_s, rate, memory_of([psutil.Process(process.pid)]))
        finally:
            process.kill()
            await process.wait()

    async def bare_httpd(self) -> Figures:
        port = free_port()
        return await self.bare(
            [str(oci.BUSYBOX), "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(self.site)], port
        )

    async def bare_python(self) -> Figures:
        return await self.bare([sys.executable, str(self.app / "app.py")], free_port())

    async def bare_module(self) -> Figures:
        (compiled,) = (self.folder / "wasm" / "compiled").glob("*.cwasm")
        arguments = [str(compiled), str(self.folder), str(self.options.seconds)]
        began_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            BARE_MODULE,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"answered\n"
            start_s = time.monotonic() - began_s
            rate = float(await process.stdout.readline())
            return Figures(start_s, rate, memory_of([psutil.Process(process.pid)]))
        finally:
            process.kill()
            await process.wait()

    # -- as a replica -----------------------------------------------------------------------------------------

    async def environment(self, kind: str) -> EnvironmentClient:
        if kind not in self.clients:
            self.clients[kind] = await EnvironmentClient.launch(
                kind, self.folder / kind, allow_unsandboxed=True
            )
        return self.clients[kind]

    async def replica(self, kind: str, artifact: Path, **more: Any) -> Figures:
        client = await self.environment(kind)
        await client.prepare(artifact)
        limits = (
            Limits(memory_bytes=32 << 20, cpus=1.0, pids=64) if kind in ("wasm", "container") else Limits()
        )
        spec = ReplicaSpec(
            replica=secrets.token_hex(16),
            service="site",
            artifact=str(artifact),
            limits=limits,
            health=HealthCheck(start_period_s=PATIENCE_S),
            **more,
        )
        before, program_bytes = all_pids(), memory_of([psutil.Process(client.pid)])
        began_s = time.monotonic()
        endpoint = (await client.start(spec)).endpoint
        assert isinstance(endpoint, UnixEndpoint)
        try:
            start_s = await until_answered(endpoint.path, began_s)
            await until_ready(client, spec)
            rate = await rate_of(endpoint.path, self.options.clients, self.options.seconds)
            if kind == "static":
                memory_bytes = memory_of([psutil.Process(client.pid)]) - program_bytes
            else:
                memory_bytes = memory_of(self._processes_of(client, spec, before))
            return Figures(start_s, rate, memory_bytes)
        finally:
            await client.stop(spec.replica_id, 0.2)
            await client.delete(spec.replica_id)

    def _processes_of(
        self, client: EnvironmentClient, spec: ReplicaSpec, before: set[int]
    ) -> list[psutil.Process]:
        """Those below the environment's program, and what an engine started for it outside of them."""
        own = {process.pid: process for process in tree(client.pid)[1:] if process.pid not in before}
        for process in psutil.process_iter(["cmdline"]):
            if f"colla-{spec.replica}" in (process.info["cmdline"] or []):
                own |= {one.pid: one for one in tree(process.pid)}
        return list(own.values())

    async def close(self) -> None:
        for client in self.clients.values():
            await client.shut_down(grace_s=0.2)


def all_pids() -> set[int]:
    return set(psutil.pids())


async def until_ready(client: EnvironmentClient, spec: ReplicaSpec) -> None:
    """What happens until then would disturb the figures."""
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(client.events()) as events:
        async for event in events:
            if isinstance(event, ReplicaReady) and event.replica == spec.replica:
                return


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# -- the table ------------------------------------------------------------------------------------------------


async def rows_of(bench: Bench) -> AsyncIterator[Row]:
    """All that this computer can run; says what it cannot."""
    if oci.BUSYBOX.exists():
        yield Row("static", bench.bare_httpd, partial(bench.replica, "static", bench.site))
    found = Bubblewrap.find(bench.folder)
    how = "bubblewrap" if isinstance(found, Bubblewrap) else "no sandbox"
    for listen, name in (("port", "port"), ("fds", "LISTEN_FDS")):
        wanted = {"command": ("python3", "app.py"), "listen": listen}
        replica = partial(bench.replica, "process", bench.app, **wanted)
        yield Row(f"process ({how}), {name}", bench.bare_python, replica)
    try:
        from wasmtime import wat2wasm

        bundle = bench.folder / "module"
        bundle.mkdir()
        (bundle / "app.wasm").write_bytes(bytes(wat2wasm(WAT)))
        await (await bench.environment("wasm")).prepare(bundle)
        yield Row("wasm", bench.bare_module, partial(bench.replica, "wasm", bundle))
    except ImportError as error:
        print(f"wasm is left out: {error}")
    if problem := oci.problem():
        print(f"container is left out: {problem}")
        return
    os.environ.update(oci.podman_settings(bench.folder / "podman"))
    command = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]
    image = oci.write_folder(bench.folder / "image", oci.image(command, {"www/page.txt": b"x" * BODY_BYTES}))
    yield Row("container", bench.bare_httpd, partial(bench.replica, "container", image))


def median(runs: list[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*runs, strict=True)))


async def measure(row: Row, repeat: int) -> tuple[Figures, Figures]:
    """The medians, bare and as a replica; the two take turns."""
    bare, replica = [], []
    for _ in range(repeat):
        bare.append(await row.bare())
        replica.append(await row.replica())
    return median(bare), median(replica)


def shown(row: Row, bare: Figures, replica: Figures) -> list[str]:
    """One line: for each figure bare, replica, ratio."""
    mb = 1e6
    return [
        row.name,
        f"{1000 * bare.start_s:.0f} → {1000 * replica.start_s:.0f}",
        f"{replica.start_s / bare.start_s:.1f}",
        f"{bare.rate:,.0f} → {replica.rate:,.0f}",
        f"{replica.rate / bare.rate:.2f}",
        f"{bare.memory_bytes / mb:.1f} → {replica.memory_bytes / mb:.1f}",
        f"{replica.memory_bytes / bare.memory_bytes:.1f}",
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run of half a second each")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.repeat = 0.5, 1
    table = Table("bare → replica", "start ms", "ratio", "requests/s", "ratio", "memory MB", "ratio")
    with tempfile.TemporaryDirectory(prefix="colla-bench-") as name:
        bench = Bench(Path(name), options)
        try:
            async for row in rows_of(bench):
                table.add_row(*shown(row, *await measure(row, options.repeat)))
            programs = {kind: memory_of(tree(client.pid)) for kind, client in bench.clients.items()}
        finally:
            await bench.close()
    Console(width=120).print(table)
    print(
        "environment programs, MB:", ", ".join(f"{kind} {size / 1e6:.0f}" for kind, size in programs.items())
    )


if __name__ == "__main__":
    asyncio.run(main())
