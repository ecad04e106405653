"""Requests per second and latency through the gateway, against direct access to the same program.

    python benchmarks/gateway.py [--requests 6000] [--clients 32] [--repeat 3]

Method. One computer, one process per role, all on loopback: the program (aiohttp, on a Unix socket and a TCP port), the
gateway in front of it, and a client that keeps its connections and sends the next request when the answer is whole
(closed loop). Three ways are compared:

- *direct*: the client asks the program over TCP;
- *gateway*: over the gateway, the replica on the same computer (it is reached over its Unix socket);
- *tunnel*: over the gateway and a tunnel served by one more process over a socket, as between two nodes but
  without the link's encryption, whose cost belongs to the link's own benchmark.

Each way is run once to warm up, then `--repeat` times, the ways taking turns so that a change of the computer's load
meets them all; the median of the runs is shown. With one client the latency is that of an unloaded gateway; with many,
the rate is what everything together can do. *ms of CPU* is what the gateway's own process used per request (user and
system), whatever else ran: 1000 divided by it is what one core can do.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.synchronize
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import msgspec
import psutil
from aiohttp import web

from colla.access.gateway import Door, Gateway
from colla.access.interface import ByteStream, ListedService, Located, ReplicaLocation
from colla.access.streams import SocketStream, UnixEndpoint, connect
from colla.access.tunnels import TunnelHeader, open_tunnel, serve_tunnel
from colla.model.ids import NodeId, ReplicaId, ServiceId

SIZES = (200, 100 * 1024)
SERVICE = ServiceId(b"s" * 16)
LOCATED = Located(
    SERVICE, "bench", "friends", (ReplicaLocation(ReplicaId(b"r" * 16), NodeId(b"n" * 32), "node", 0.0),)
)
REQUEST = (
    "GET /{size}?page=1 HTTP/1.1\r\nHost: bench.localhost\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n\r\n"
)


class OneService:
    """A resolver and tunnels that know one service with one replica."""

    def __init__(self, program: str, far_node: str) -> None:
        self.program, self.far_node = program, far_node

    def locate(self, host_name: str) -> Located | None:
        return LOCATED

    def locate_domain(self, domain: str) -> Located | None:
        return None

    async def locate_fresh(self, host_name: str, timeout_s: float) -> Located | None:
        return LOCATED

    def report_failed(self, service: ServiceId, replica: ReplicaId) -> None:
        print("a request failed", file=sys.stderr)

    def services(self) -> Sequence[ListedService]:
        return ()

    def member_of_request(self, remote: str, headers: Mapping[str, str]) -> str | None:
        return "ada"

    async def open(self, node: NodeId, service: ServiceId, replica: ReplicaId) -> ByteStream:
        if not self.far_node:
            return await connect(UnixEndpoint(self.program), 1.0)
        stream = await connect(UnixEndpoint(self.far_node), 1.0)
        await open_tunnel(stream, TunnelHeader(service, replica))
        return stream


async def program(folder: str, ready: Connection) -> None:
    bodies = {str(size): bytes(size) for size in SIZES}

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bodies[request.path[1:]], content_type="application/octet-stream")

    loop = asyncio.get_running_loop()
    serving = web.Server(answer, access_log=None)
    await loop.create_unix_server(serving, f"{folder}/program")
    listening = await loop.create_server(serving, "127.0.0.1", 0)
    ready.send(listening.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


async def far_node(folder: str, ready: Connection) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_tunnel(SocketStream(reader, writer), lambda *_: UnixEndpoint(f"{folder}/program"))

    await asyncio.start_unix_server(serve, f"{folder}/node")
    ready.send(0)
    await asyncio.Event().wait()


async def gateway(folder: str, ready: Connection) -> None:
    await _gateway(OneService(f"{folder}/program", ""), ready)


async def gateway_and_tunnel(folder: str, ready: Connection) -> None:
    await _gateway(OneService(f"{folder}/program", f"{folder}/node"), ready)


async def _gateway(one: OneService, ready: Connection) -> None:
    ready.send(await Gateway(one, one, Random(1)).listen(Door(port=0)))
    await asyncio.Event().wait()


class Client(asyncio.Protocol):
    """One connection in a closed loop; `times` are the seconds that each request took."""

    def __init__(self, size: int, requests: int) -> None:
        self.request = REQUEST.format(size=size).encode()
        self.size, self.left, self.times = size, requests, []
        self.done = asyncio.get_running_loop().create_future()
        self.missing, self.head = 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.missing, self.head = -1, b""
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(self.head.decode())
            self.missing = self.size - (len(self.head) - end - 4)
        else:
            self.missing -= len(data)
        if self.missing:
            return
        self.times.append(time.perf_counter() - self.sent_at)
        self.left -= 1
        if self.left:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("closed early"))


class Run(msgspec.Struct):
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


async def measure(port: int, size: int, requests: int, clients: int, process: psutil.Process) -> Run:
    loop = asyncio.get_running_loop()
    before, started = sum(process.cpu_times()[:2]), time.perf_counter()
    made = [
        await loop.create_connection(lambda: Client(size, max(1, requests // clients)), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for _, client in made))
    took = time.perf_counter() - started
    cpu = sum(process.cpu_times()[:2]) - before
    times = sorted(one for _, client in made for one in client.times)
    count = len(times)
    return Run(count / took, times[count // 2] * 1e3, times[int(count * 0.99)] * 1e3, cpu / count * 1e3)


def role(main, folder: str, ready: Connection) -> None:
    asyncio.run(main(folder, ready))


def start(main, folder: str) -> tuple[multiprocessing.Process, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=role, args=(main, folder, theirs), daemon=True)
    process.start()
    return process, ours.recv()


def report(options: argparse.Namespace, ways: dict[str, tuple[int, psutil.Process]]) -> None:
    print(
        f"{'size':>8} {'clients':>7}  {'way':<8} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>7}  against direct"
    )
    for size in SIZES:
        for clients in (1, options.clients):
            runs: dict[str, list[Run]] = {way: [] for way in ways}
            for turn in range(options.repeat + 1):
                for way, (port, process) in ways.items():
                    run = asyncio.run(measure(port, size, options.requests, clients, process))
                    if turn:
                        runs[way].append(run)
            middle = {
                way: Run(
                    *(
                        statistics.median(getattr(one, name) for one in several)
                        for name in Run.__struct_fields__
                    )
                )
                for way, several in runs.items()
            }
            direct = middle["direct"]
            for way, run in middle.items():
                ratios = f"{run.rate / direct.rate:.2f} × rate, {run.p50_ms / direct.p50_ms:.1f} × p50, {run.p99_ms / direct.p99_ms:.1f} × p99"
                print(
                    f"{size:>8} {clients:>7}  {way:<8} {run.rate:>10.0f} {run.p50_ms:>8.2f} {run.p99_ms:>8.2f}"
                    f" {run.cpu_ms:>7.3f}  {ratios if way != 'direct' else ''}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the gateway against direct access.")
    parser.add_argument("--requests", type=int, default=6000, help="per run")
    parser.add_argument("--clients", type=int, default=32, help="connections of the loaded runs")
    parser.add_argument("--repeat", type=int, default=3, help="runs per cell")
    options = parser.parse_args()
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        processes = []
        ways: dict[str, tuple[int, psutil.Process]] = {}
        for way, entry in (
            ("direct", program),
            ("far", far_node),
            ("gateway", gateway),
            ("tunnel", gateway_and_tunnel),
        ):
            process, port = start(entry, folder)
            processes.append(process)
            if way != "far":
                ways[way] = (port, psutil.Process(process.pid))
        try:
            print(
                f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {options.repeat} runs\n"
            )
            report(options, ways)
        finally:
            for process in processes:
                process.terminate()
                process.join()
        assert Path(folder).exists()


if __name__ == "__main__":
    main()
