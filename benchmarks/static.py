"""How fast the static environment answers: requests per second and CPU time per request, from memory and from disk.

    python benchmarks/static.py [--seconds 4] [--clients 32] [--repeat 3]

Method. One environment program, started as a node starts it, serves a folder on the Unix socket of a replica; this
process asks over `--clients` connections that it keeps, each sending the next request when the answer is whole (closed
loop). Where the computer has two processors, the program is bound to the first and this process to the second, so
that *requests/s* is what one core serves. *ms of CPU* is what the program used per request (user and system), whatever
else ran: 1000 divided by it is what one idle core could do. The median of `--repeat` runs is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import ReplicaSpec, UnixEndpoint
from colla.environments.site import CACHED_FILE_BYTES_MAX

WAYS = {
    "10 KB of text, from memory": ("/text.txt", "identity"),
    "the same, compressed": ("/text.txt", "gzip"),
    "not modified (304)": ("/text.txt", "identity"),
    "10 KB, no text": ("/picture.png", "gzip"),
    "256 KiB, from disk": ("/film.mp4", "identity"),
    "missing (404)": ("/nothing", "identity"),
}
REQUEST = "GET {path} HTTP/1.1\r\nHost: site.localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\nAccept-Encoding: {encoding}\r\n"


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as an answer is whole."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0
        self._buffer = bytearray()
        self._missing = 0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            _, found, rest = head.partition(b"content-length: ")
            length = int(rest.partition(b"\r\n")[0]) if found else 0
            self._missing = end + 4 + length - len(self._buffer)
            self._buffer.clear()
        if self._missing == 0:
            self.answers += 1
            self._transport.write(self.request)

    def close(self) -> None:
        self._transport.close()


async def run(socket: str, request: bytes, clients: int, seconds: float, pid: int) -> tuple[float, float]:
    """Answers per second, and milliseconds of the program's CPU per answer."""
    program = psutil.Process(pid)
    loop = asyncio.get_running_loop()
    askers = [Asker(request) for _ in range(clients)]
    for asker in askers:
        await loop.create_unix_connection(lambda asker=asker: asker, socket)
    await asyncio.sleep(0.2)
    before, began, first = sum(program.cpu_times()[:2]), time.monotonic(), sum(a.answers for a in askers)
    await asyncio.sleep(seconds)
    used, took = sum(program.cpu_times()[:2]) - before, time.monotonic() - began
    answers = sum(asker.answers for asker in askers) - first
    for asker in askers:
        asker.close()
    return answers / took, 1000 * used / max(answers, 1)


def make_site(folder: Path) -> Path:
    site = folder / "site"
    site.mkdir()
    words = [secrets.token_hex(3) for _ in range(300)]
    (site / "text.txt").write_text(" ".join(secrets.choice(words) for _ in range(1463))[:10_240])
    (site / "picture.png").write_bytes(secrets.token_bytes(10_240))
    (site / "film.mp4").write_bytes(secrets.token_bytes(4 * CACHED_FILE_BYTES_MAX))
    return site


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    table = Table("request", "requests/s", "ms of CPU", "per core at most")
    with tempfile.TemporaryDirectory() as name:
        client = await EnvironmentClient.launch("static", Path(name) / "runtime")
        try:
            spec = ReplicaSpec(
                replica=secrets.token_hex(16), service="site", artifact=str(make_site(Path(name)))
            )
            endpoint = (await client.start(spec)).endpoint
            assert isinstance(endpoint, UnixEndpoint)
            pid = client.pid
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            if len(cores) > 1:
                os.sched_setaffinity(pid, {cores[0]})
                os.sched_setaffinity(0, {cores[1]})
            for way, (path, encoding) in WAYS.items():
                request = REQUEST.format(path=path, encoding=encoding)
                request += "If-None-Match: *\r\n\r\n" if "304" in way else "\r\n"
                runs = [
                    await run(endpoint.path, request.encode(), options.clients, options.seconds, pid)
                    for _ in range(options.repeat)
                ]
                rate, cpu_ms = (statistics.median(column) for column in zip(*runs, strict=True))
                table.add_row(way, f"{rate:,.0f}", f"{cpu_ms:.3f}", f"{1000 / cpu_ms:,.0f}")
        finally:
            await client.shut_down(grace_s=0.2)
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
