"""Objects: putting, materialising and transferring, against copying the same bytes without any of it.

    python benchmarks/objects.py [--mebibytes 256] [--repeat 5] [--quick]

Method. One computer, one disk, the median of `--repeat` runs after one to warm up; the two sides of a row take turns.
What is compared never hashes and never verifies:

- *large file*: one file of random bytes. Putting ends when every chunk is synchronised to the disk, so it is shown
  against `cp` (which leaves that to later) and against `cp` followed by one `fsync`.
- *sealed*: the same file encrypted under a key of its own on the way; compared likewise.
- *site*: 300 small files (10 KB on average) in 12 folders, against `cp -r`, and against `cp -r` with every file
  synchronised.
- *materialise*: the site back into a folder, against `cp -r`; once more when it is there already.
- *transfer*: the large file's object and the site's from another process over loopback TCP into an empty store, until it
  is durable there, against `sendfile` in that process and one `recv`/`write` loop and `fsync` here (for the site: of one
  file as long as all its files). No encryption: that belongs to the links' benchmark.
- *get*: the same transfer and then the file written where a person wants it, every chunk verified a second time.

A ratio above 1 means that colla takes longer.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from colla.model.ids import NodeId, ObjectId
from colla.node.links.interface import LinkError
from colla.node.objects import ObjectStore, fetch_object, serve_objects

HOLDER = NodeId(bytes(32))
BLOCK = 1024 * 1024
SITE_FILES = 300
QUOTA_BYTES = 1 << 40
Timed = Callable[[], Awaitable[float]]
"""Runs one side of a row once and says how many seconds the part that counts took."""


class TcpStream:
    """A `LinkStream` over TCP, without encryption."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, at_most: int) -> bytes:
        try:
            return await self._reader.read(at_most)
        except OSError as error:
            raise LinkError(str(error)) from None

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise LinkError(str(error)) from None

    async def finish(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def abort(self) -> None:
        self._writer.close()


# The holder: a process of its own


def hold(folder: Path, plain: Path, ports: Connection) -> None:
    """Serve the store in `folder` on one port and the plain file on another, until the process is ended."""
    asyncio.run(_hold(folder, plain, ports))


async def _hold(folder: Path, plain: Path, ports: Connection) -> None:
    store = await ObjectStore.open(folder, QUOTA_BYTES, print)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_objects(TcpStream(reader, writer), store)
        writer.close()

    def send_plain(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            size = int.from_bytes(peer.recv(8), "big")
            with peer, plain.open("rb") as file:
                peer.sendfile(file, 0, size)

    objects = await asyncio.start_server(serve, "127.0.0.1", 0, limit=BLOCK)
    listener = socket.create_server(("127.0.0.1", 0))
    ports.send((objects.sockets[0].getsockname()[1], listener.getsockname()[1]))
    await asyncio.to_thread(send_plain, listener)


# The sides of the rows


def copy(source: Path, place: Path, *, sync: bool) -> Timed:
    """`cp` to a new place; then perhaps `fsync` of every file."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run(["cp", "-r", source, place], check=True)
        if sync:
            for path in [place, *place.rglob("*")]:
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        took = time.perf_counter() - start
        _remove(place)
        return took

    return lambda: asyncio.to_thread(run)


def put(source: Path, place: Path, *, sealed: bool = False) -> Timed:
    """Put into an empty store, as `colla put` does: so that it can go on when it is interrupted."""

    async def run() -> float:
        store = await ObjectStore.open(place, QUOTA_BYTES, print)
        start = time.perf_counter()
        await store.put_resumably(source, lambda progress: None, sealed=sealed)
        took = time.perf_counter() - start
        await store.close()
        _remove(place)
        return took

    return run


def materialise(store: ObjectStore, object_id: ObjectId, place: Path, again: bool) -> Timed:
    """Write the object as a folder; or find that it is there."""

    async def run() -> float:
        if again:
            await store.materialise(object_id, place)
        start = time.perf_counter()
        await store.materialise(object_id, place)
        took = time.perf_counter() - start
        await store.remove_materialised(place)
        return took

    return run


def fetch(port: int, object_id: ObjectId, place: Path, target: Path | None = None) -> Timed:
    """Fetch into an empty store over TCP; perhaps write it to `target` as well."""

    async def open_stream(node: NodeId) -> TcpStream:
        return TcpStream(*await asyncio.open_connection("127.0.0.1", port, limit=BLOCK))

    async def run() -> float:
        store = await ObjectStore.open(place, QUOTA_BYTES, print)
        start = time.perf_counter()
        await fetch_object(object_id, [HOLDER], open_stream, store)
        if target is not None:
            await store.give(object_id, target)
        took = time.perf_counter() - start
        await store.close()
        _remove(place)
        if target is not None:
            _remove(target)
        return took

    return run


def receive(port: int, size: int, place: Path) -> Timed:
    """Receive as many bytes over TCP into one file."""

    def run() -> float:
        buffer = memoryview(bytearray(BLOCK))
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as peer, place.open("wb", buffering=0) as file:
            peer.sendall(size.to_bytes(8, "big"))
            while count := peer.recv_into(buffer):
                file.write(buffer[:count])
            os.fsync(file.fileno())
        took = time.perf_counter() - start
        assert place.stat().st_size == size
        _remove(place)
        return took

    return lambda: asyncio.to_thread(run)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


# The rows


async def row(name: str, size: int, ours: Timed, other_name: str, other: Timed, repeat: int) -> None:
    """Measure both sides, taking turns, and print the row."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat + 1):
        for taken, side in zip(times, (ours, other), strict=True):
            took = await side()
            if turn:
                taken.append(took)
    mine, others = (statistics.median(taken) for taken in times)
    rate = f"{size / mine / 1e6:,.0f}" if size > 50e6 else ""
    spread = f"{min(times[0]) * 1000:,.1f}–{max(times[0]) * 1000:,.1f}"
    print(
        f"| {name} | {mine * 1000:,.1f} | {spread} | {rate} | {other_name} | {others * 1000:,.1f} "
        f"| {mine / others:.2f} |",
        flush=True,
    )


async def measure(folder: Path, mebibytes: int, repeat: int) -> None:
    """Make the files, start the holder, print the table."""
    random = Random(1)
    large = folder / "large"
    with large.open("wb") as file:
        for _ in range(mebibytes):
            file.write(random.randbytes(BLOCK))
    site, site_size = _make_site(folder / "site", random)
    store = await ObjectStore.open(folder / "holder", QUOTA_BYTES, print)
    large_object = (await store.put_file(large)).object
    site_object = (await store.put_folder(site)).object
    near, far = multiprocessing.Pipe()
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(folder / "holder", large, far))
    holder.start()
    try:
        objects_port, plain_port = near.recv()
        size, place = mebibytes * BLOCK, folder / "place"
        print("| what | ms (median) | ms (range) | MB/s | against | ms | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        what = f"put {mebibytes} MiB file"
        await row(what, size, put(large, place), "`cp`", copy(large, place, sync=False), repeat)
        await row(what, size, put(large, place), "`cp`, `fsync`", copy(large, place, sync=True), repeat)
        what, ours = f"put {mebibytes} MiB file sealed", put(large, place, sealed=True)
        await row(what, size, ours, "`cp`, `fsync`", copy(large, place, sync=True), repeat)
        what = f"put site of {SITE_FILES} files, {site_size / 1e6:.1f} MB"
        await row(what, site_size, put(site, place), "`cp -r`", copy(site, place, sync=False), repeat)
        each = "`cp -r`, `fsync` of each"
        await row(what, site_size, put(site, place), each, copy(site, place, sync=True), repeat)
        first, again = (materialise(store, site_object, place, again) for again in (False, True))
        await row("materialise site", site_size, first, "`cp -r`", copy(site, place, sync=False), repeat)
        await row(
            "the same, there already", site_size, again, "`cp -r`", copy(site, place, sync=False), repeat
        )
        plain = "TCP, `fsync`"
        ours, other = fetch(objects_port, large_object, place), receive(plain_port, size, place)
        await row(f"transfer {mebibytes} MiB file", size, ours, plain, other, repeat)
        ours = fetch(objects_port, large_object, place, folder / "got")
        await row(f"get {mebibytes} MiB file", size, ours, plain, other, repeat)
        ours, other = fetch(objects_port, site_object, place), receive(plain_port, site_size, place)
        await row("transfer site", site_size, ours, plain, other, repeat)
    finally:
        holder.terminate()
        holder.join()
        await store.close()


def _make_site(site: Path, random: Random) -> tuple[Path, int]:
    total = 0
    for number in range(SITE_FILES):
        path = site / f"section-{number % 12}" / f"page-{number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(random.randrange(500, 19_500)))
        total += path.stat().st_size
    return site, total


def main(arguments: list[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=256, help="length of the large file")
    parser.add_argument("--repeat", type=int, default=5, help="measured runs of each side")
    parser.add_argument("--quick", action="store_true", help="a small file, few runs")
    options = parser.parse_args(arguments)
    mebibytes, repeat = (32, 3) if options.quick else (options.mebibytes, options.repeat)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), mebibytes, repeat))


if __name__ == "__main__":
    main(sys.argv[1:])
