"""Stores that are closed again, and streams in memory whose ends can be made to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from colla.model.ids import NodeId
from colla.node.links.interface import LinkError
from colla.node.objects import Damage, ObjectStore, Served, serve_objects

GIB = 1 << 30
PIPE_BYTES_MAX = 512 * 1024


class Pipe:
    """One direction of a stream: bytes, bounded, with an end."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = False
        self.broken = False
        self.changed = asyncio.Condition()

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def read(self, at_most: int) -> bytes:
        async with self.changed:
            await self.changed.wait_for(lambda: self.buffer or self.ended or self.broken)
            if self.broken:
                raise LinkError("the link is lost")
            data = bytes(self.buffer[:at_most])
            del self.buffer[:at_most]
            self.changed.notify_all()
            return data

    async def write(self, data: bytes) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.buffer) < PIPE_BYTES_MAX or self.broken)
            if self.broken:
                raise LinkError("the link is lost")
            self.buffer += data
            self.changed.notify_all()


class MemoryStream:
    """A `LinkStream` in memory. `on_write(data)` may change what is written, raise, or wait for ever."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.on_write: Callable[[bytes], Awaitable[bytes]] | None = None

    async def read(self, at_most: int) -> bytes:
        return await self.incoming.read(at_most)

    async def write(self, data: bytes) -> None:
        if self.on_write is not None:
            data = await self.on_write(data)
        await self.outgoing.write(data)

    async def finish(self) -> None:
        self.outgoing.ended = True
        await self.outgoing.note()

    async def abort(self) -> None:
        for pipe in (self.incoming, self.outgoing):
            pipe.broken = True
            await pipe.note()


def stream_pair() -> tuple[MemoryStream, MemoryStream]:
    """Both ends of one stream."""
    there, back = Pipe(), Pipe()
    return MemoryStream(back, there), MemoryStream(there, back)


class Net:
    """Nodes with stores, and streams to them. A node without a store cannot be reached."""

    def __init__(self) -> None:
        self.stores: dict[NodeId, ObjectStore] = {}
        self.faults: dict[NodeId, Callable[[bytes], Awaitable[bytes]]] = {}
        self.opened: list[NodeId] = []
        self.served: list[tuple[NodeId, Served]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open_stream(self, node: NodeId) -> MemoryStream:
        self.opened.append(node)
        if node not in self.stores:
            raise LinkError("nobody answers")
        near, far = stream_pair()
        far.on_write = self.faults.get(node)
        self.tasks.append(asyncio.create_task(self._serve(node, far)))
        return near

    async def _serve(self, node: NodeId, stream: MemoryStream) -> None:
        self.served.append((node, await serve_objects(stream, self.stores[node])))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Stores:
    """Opens stores under the test's folder; the damage that each reports is in `damage`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open_ones: list[ObjectStore] = []
        self.damage: list[Damage] = []

    async def open(self, name: str = "store", quota_bytes: int = GIB) -> ObjectStore:
        store = await ObjectStore.open(self.folder / name, quota_bytes, self.damage.append)
        self.open_ones.append(store)
        return store

    def files(self, name: str = "store") -> dict[str, int]:
        """All chunk, marker and temporary files of a store, with their lengths."""
        root = self.folder / name
        kinds = ("chunks", "held", "partial", "temporary", "quarantine")
        found = [path for kind in kinds for path in (root / kind).rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.stat().st_size for path in sorted(found)}

    def chunk_path(self, chunk: bytes, name: str = "store") -> Path:
        return self.folder / name / "chunks" / chunk.hex()[:2] / chunk.hex()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    made = Stores(tmp_path)
    yield made
    for store in made.open_ones:
        await store.close()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net()
    yield made
    await made.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with nested, empty, executable and large files."""
    folder = tmp_path / "site"
    write(folder / "index.html", b"<h1>hello</h1>")
    write(folder / "empty.txt", b"")
    write(folder / "deep/er/page ä.html", b"page" * 1000)
    write(folder / "bin/run", b"#!/bin/sh\n").chmod(0o755)
    write(folder / "video.bin", noise(2_600_000))
    return folder


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat, the same each time."""
    from random import Random

    return Random(seed).randbytes(size)


@pytest.fixture(name="noise")
def noise_fixture() -> Callable[..., bytes]:
    return noise


@pytest.fixture(name="write")
def write_fixture() -> Callable[[Path, bytes], Path]:
    return write


@pytest.fixture
def streams() -> Callable[[], tuple[MemoryStream, MemoryStream]]:
    return stream_pair
