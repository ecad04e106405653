"""Serving: what is wanted, in order, not too fast, and no patience with peers that break the protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colla.model.ids import digest
from colla.model.manifest import ChunkId
from colla.node.links.interface import LinkError
from colla.node.objects import UploadLimiter, serve_objects
from colla.node.objects import serving as serving_module
from colla.node.objects.wire import FRAME_BYTES_MAX, Found, FrameReader, NotHeld, Want, frame


async def test_what_is_wanted_comes_in_order(stores: Any, streams: Any) -> None:
    store = await stores.open()
    one, two = await store.put_bytes(b"one"), await store.put_bytes(b"two")
    near, far = streams()
    serving = asyncio.create_task(serve_objects(far, store))
    unknown = ChunkId(bytes(32))
    await near.write(frame(Want((ChunkId(digest(b"two")), unknown))) + frame(Want((ChunkId(one.object),))))
    reader = FrameReader(near, 5)
    assert await reader.answer() == Found(ChunkId(digest(b"two")), 3)
    assert await reader.exactly(3) == b"two"
    assert await reader.answer() == NotHeld(unknown)
    found = await reader.answer()
    assert isinstance(found, Found)
    assert digest(await reader.exactly(found.size)) == one.object != two.object
    await near.finish()
    assert await reader.answer() is None
    served = await serving
    assert (served.chunks, served.not_held, served.violation) == (2, 1, "")


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        b"\0\0\0\5half",
        b"\0\0\0\x03" + msgspec.msgpack.encode([1, 2]),
        frame(Found(ChunkId(bytes(32)), 1)),
        b"\0\0\x08\x00" + b"\x91" * 2048,
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_dropped(stores: Any, streams: Any, sent: bytes) -> None:
    store = await stores.open()
    near, far = streams()
    await near.write(sent)
    await near.finish()
    served = await serve_objects(far, store)
    assert served.violation
    with pytest.raises(LinkError):
        await near.read(1)


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 0xFFFF_FFFF])
async def test_a_frame_too_long_is_refused_before_it_comes(stores: Any, streams: Any, length: int) -> None:
    near, far = streams()
    await near.write(length.to_bytes(4, "big"))
    async with asyncio.timeout(5):
        served = await serve_objects(far, await stores.open())
    assert str(length) in served.violation


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_end_the_serving_in_order(streams: Any, data: bytes) -> None:
    class Nothing:
        async def read_chunk(self, chunk: ChunkId) -> bytes:
            raise AssertionError("nothing was wanted")

    async def serve() -> None:
        near, far = streams()
        await near.write(data)
        await near.finish()
        served = await serve_objects(far, Nothing())
        assert bool(served.violation) == bool(data)

    asyncio.run(serve())


async def test_a_peer_that_takes_nothing_or_wants_nothing_is_dropped(
    stores: Any, streams: Any, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "WRITE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(serving_module, "IDLE_TIMEOUT_S", 0.05)
    store = await stores.open()
    data = noise(1_000_000)
    await store.put_bytes(data)
    near, far = streams()
    await near.write(frame(Want((ChunkId(digest(data)),))))
    assert (await serve_objects(far, store)).violation == "it stalled"
    _, far = streams()
    assert (await serve_objects(far, store)).violation == "it stalled"


async def test_the_upload_limit_is_kept_over_all_streams() -> None:
    now = 100.0
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    limiter = UploadLimiter(1_000_000, lambda: now, sleep)
    for _ in range(5):
        await limiter.take(500_000)
    assert waits == pytest.approx([0.5, 1.0, 1.5, 2.0])
    now = 200.0
    waits.clear()
    await limiter.take(50_000)
    await limiter.take(500_000)
    await limiter.take(500_000)
    assert waits == pytest.approx([0.45])
    limiter.bytes_per_s = None
    await limiter.take(1 << 40)
    assert len(waits) == 1


async def test_serving_heeds_the_limit(stores: Any, streams: Any, noise: Any) -> None:
    store = await stores.open()
    taken: list[int] = []

    class Counting(UploadLimiter):
        async def take(self, count: int) -> None:
            taken.append(count)

    data = noise(900_000)
    await store.put_bytes(data)
    near, far = streams()
    serving = asyncio.create_task(serve_objects(far, store, Counting(1)))
    await near.write(frame(Want((ChunkId(digest(data)),))))
    await near.finish()
    reader = FrameReader(near, 5)
    await reader.answer()
    assert await reader.exactly(len(data)) == data
    await serving
    assert sum(taken) == len(data)
    assert max(taken) <= serving_module.WRITE_BYTES


async def test_a_peer_may_leave_in_the_middle(stores: Any, streams: Any, noise: Any) -> None:
    store = await stores.open()
    data = noise(1_000_000)
    await store.put_bytes(data)
    near, far = streams()
    serving = asyncio.create_task(serve_objects(far, store))
    await near.write(frame(Want((ChunkId(digest(data)),))))
    assert await near.read(10)
    await near.abort()
    served = await serving
    assert served.lost
    assert (served.violation, served.chunks) == ("", 0)
