"""Measures the links between two processes on this computer: `python benchmarks/links.py [--bulk-mb N]`.

Method: a second process is started and linked over loopback. Frames: echoes of 64 bytes with 512 under way at
once, counted over some seconds; one alone for the round trip, as a reliable frame and as a datagram. Bulk: N
megabytes (10^6 bytes) on one stream, and the same over plain TCP with asyncio streams, each sent in 256 KiB
writes and counted by the receiver; the best and median of three. The memory is the second process's, with one link.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import psutil
from rich.console import Console
from rich.table import Table

from colla.model.ids import NodeId
from colla.model.keys import SecretKey
from colla.node.links import LinkStream
from colla.node.links.iroh_links import IrohLinks

ALPN = b"colla/benchmark"
WRITE_BYTES = 256 * 1024
WINDOW = 512
FRAME = bytes(64)
ROUND_TRIPS = 1000
RUNS = 3


class Ear:
    """Echoes frames when asked to; swallows bulk and answers with its size."""

    def __init__(self, echo: bool) -> None:
        self.echo = echo
        self.links: IrohLinks
        self.got = 0
        self.arrived = asyncio.Event()
        self.jobs: list[asyncio.Task[None]] = []

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        pass

    def link_closed(self, peer: NodeId, reason: str) -> None:
        pass

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        self.got += 1
        if self.echo:
            self.links.send(peer, frame, datagram=frame[:1] == b"d")
        else:
            self.arrived.set()

    def stream_opened(self, peer: NodeId, kind: str, stream: LinkStream) -> None:
        self.jobs.append(asyncio.create_task(self._swallow(stream)))

    async def _swallow(self, stream: LinkStream) -> None:
        size = 0
        while data := await stream.read(1 << 20):
            size += len(data)
        await stream.write(b"%d" % size)
        await stream.finish()


async def bind(seed: int, peer: int, echo: bool) -> tuple[IrohLinks, Ear, NodeId]:
    ear = Ear(echo)
    ear.links = await IrohLinks.bind(SecretKey(bytes([seed]) * 32), 0, ALPN, ear, bind_host="127.0.0.1")
    other = NodeId(SecretKey(bytes([peer]) * 32).public)
    ear.links.set_accepted(other, True)
    return ear.links, ear, other


async def far(pipe: Connection) -> None:
    """The second process: echo, swallow, and the same over TCP."""
    links, _, _ = await bind(2, 1, echo=True)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 0
        while data := await reader.read(1 << 20):
            size += len(data)
        writer.write(b"%d" % size)
        writer.close()
        await writer.wait_closed()

    tcp = await asyncio.start_server(swallow, "127.0.0.1", 0, limit=1 << 20)
    pipe.send((links.port, tcp.sockets[0].getsockname()[1]))
    await asyncio.to_thread(pipe.recv)
    pipe.send(psutil.Process().memory_info().rss)
    await links.close()
    tcp.close()


def run_far(pipe: Connection) -> None:
    asyncio.run(far(pipe))


async def echoes_per_s(links: IrohLinks, ear: Ear, peer: NodeId, seconds: float) -> float:
    sent = ear.got = 0
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        while sent - ear.got < WINDOW:
            links.send(peer, FRAME, datagram=False)
            sent += 1
        ear.arrived.clear()
        await ear.arrived.wait()
    return ear.got / passed


async def round_trips_ms(links: IrohLinks, ear: Ear, peer: NodeId, *, datagram: bool) -> list[float]:
    frame = (b"d" if datagram else b"r") + FRAME[1:]
    found: list[float] = []
    for _ in range(ROUND_TRIPS):
        ear.arrived.clear()
        begun = time.perf_counter()
        links.send(peer, frame, datagram=datagram)
        await ear.arrived.wait()
        found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


async def bulk_over_link(links: IrohLinks, peer: NodeId, size: int) -> float:
    block = bytes(WRITE_BYTES)
    begun = time.perf_counter()
    stream = await links.open_stream(peer, "bulk")
    for _ in range(size // WRITE_BYTES):
        await stream.write(block)
    await stream.finish()
    counted = int(await stream.read(100))
    assert counted == size // WRITE_BYTES * WRITE_BYTES
    assert await stream.read(1) == b""
    return counted / (time.perf_counter() - begun) / 1e6


async def bulk_over_tcp(port: int, size: int) -> float:
    block = bytes(WRITE_BYTES)
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(size // WRITE_BYTES):
        writer.write(block)
        await writer.drain()
    writer.write_eof()
    counted = int(await reader.read())
    assert counted == size // WRITE_BYTES * WRITE_BYTES
    writer.close()
    return counted / (time.perf_counter() - begun) / 1e6


async def measure(size: int, seconds: float) -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_far, args=(there,))
    process.start()
    port, tcp_port = await asyncio.to_thread(here.recv)
    links, ear, peer = await bind(1, 2, echo=False)
    assert await links.dial(peer, (f"127.0.0.1:{port}",))
    table = Table("what", "result", title="links over loopback, two processes")
    rate = await echoes_per_s(links, ear, peer, seconds)
    assert links.counters().frames_in >= rate * seconds and not links.counters().drops
    table.add_row(f"echoes of {len(FRAME)} bytes, {WINDOW} under way", f"{rate:,.0f} /s")
    for name, datagram in (("reliable frame", False), ("datagram", True)):
        took = await round_trips_ms(links, ear, peer, datagram=datagram)
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        table.add_row(f"round trip, {name}", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    over_link = [await bulk_over_link(links, peer, size) for _ in range(RUNS)]
    over_tcp = [await bulk_over_tcp(tcp_port, size) for _ in range(RUNS)]
    for name, rates in (("one stream of a link", over_link), ("plain TCP", over_tcp)):
        table.add_row(f"bulk, {name}", f"median {statistics.median(rates):,.0f}, best {max(rates):,.0f} MB/s")
    ratio = statistics.median(over_link) / statistics.median(over_tcp)
    table.add_row("link / plain TCP", f"{ratio:.2f}")
    here.send("done")
    table.add_row("memory of one process", f"{await asyncio.to_thread(here.recv) / 1e6:.0f} MB")
    await links.close()
    await asyncio.to_thread(process.join)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bulk-mb", type=int, default=256, help="size of the bulk transfer in MB (256)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long echoes are counted (3)")
    options = parser.parse_args()
    asyncio.run(measure(options.bulk_mb * 10**6, options.seconds))


if __name__ == "__main__":
    main()
