"""Fetching an object from whoever holds it: several holders at once, every chunk verified, resumable.

The object is fetched in stages, since only its manifest says what it consists of: the manifest, the manifests
of its parts if it has any, the chunks. Each holder has one stream with several chunks asked for ahead. A holder
that fails, stalls or gives wrong bytes is dropped, and what it was asked for goes to the others. A holder with
nothing left to do asks for what another has kept waiting, so that one slow holder does not hold up the end.

Memory is bounded: a chunk per holder, and `WRITES_WAITING_MAX` on their way to the disk. Whatever arrived is
kept when a fetch fails or the process ends, and the next fetch asks only for the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from colla.model.ids import NodeId, ObjectId, digest
from colla.model.manifest import BadManifest, Chunk, ChunkId, Piece
from colla.node.links.interface import LinkError, LinkStream
from colla.node.objects.problems import FetchFailed, HolderOutcome, ObjectIncomplete
from colla.node.objects.putting import OnProgress, Progress
from colla.node.objects.store import ObjectStore
from colla.node.objects.wire import WANTED_MAX, BadFrame, FrameReader, NotHeld, Want, frame

HOLDERS_AT_ONCE = 4
"""More holders only share the same download line."""
CHUNKS_IN_FLIGHT = 32
"""Chunks asked for ahead of each holder, so that it never waits for the next request."""
BYTES_IN_FLIGHT_MAX = 8 * 1024 * 1024
"""The same in bytes: they wait in the holder, not here; more would make holders share unevenly."""
WRITES_WAITING_MAX = 8
"""Chunks in memory that wait for the disk; beyond, the streams wait."""
OPEN_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 15.0
"""A holder that sends no byte for so long is dropped."""
HEDGE_AFTER_S = 0.3
"""An idle holder asks for a chunk that another owes for so long. A chunk is asked of two holders at most.

Short, because repair waits for it: a holder that has just died looks like one that is slow.
"""
CLOSE_TIMEOUT_S = 2.0

OpenStream = Callable[[NodeId], Awaitable[LinkStream]]
"""Opens a stream to a holder that ends in its `serve_objects`. Raises `LinkError`."""


class Fetched(msgspec.Struct, frozen=True):
    """The outcome of a fetch: the object, whole and durable; what was received for it and from whom."""

    object: ObjectId
    size: int
    files: int
    received_bytes: int
    holders: tuple[HolderOutcome, ...]


async def fetch_object(
    object_id: ObjectId,
    holders: Sequence[NodeId],
    open_stream: OpenStream,
    store: ObjectStore,
    on_progress: OnProgress | None = None,
    chunks_in_flight: int = CHUNKS_IN_FLIGHT,
) -> Fetched:
    """Bring the object into `store`, asking `holders` in that order, `HOLDERS_AT_ONCE` at a time.

    Returns at once if it is here. Raises `FetchFailed` when no holder can give what is missing, `BadManifest`
    when the object itself breaks the rules, `QuotaExceeded` and `CollaError` (`disk_full`, …) from the store.
    """
    is_new = await store.begin_fetch(object_id)
    fetch = _Fetch(object_id, holders, open_stream, store, on_progress, min(chunks_in_flight, WANTED_MAX))
    try:
        return await fetch.run()
    except BadManifest:
        await store.delete(object_id)
        raise
    except BaseException:
        if is_new and not store.has_chunk(ChunkId(object_id)):
            # Nothing came, so there is nothing to go on with.
            await store.delete(object_id)
        raise


@dataclass(slots=True, eq=False)
class _Wanted:
    """A chunk that is not here: whom it was asked of, at which time of the loop, and who does not have it."""

    chunk: Chunk
    asked_at_s: dict[NodeId, float] = field(default_factory=dict)
    not_held_by: dict[NodeId, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Holder:
    """One holder while it is asked."""

    node: NodeId
    live: bool = True
    owing: bool = False
    """It was asked for something that has not come yet."""
    chunks: int = 0
    size: int = 0
    failure: str = ""
    lied: bool = False

    def outcome(self) -> HolderOutcome:
        return HolderOutcome(self.node, self.chunks, self.size, self.failure, self.lied)


class _Dropped(Exception):
    """The holder is of no more use; says why."""

    def __init__(self, why: str, lied: bool = False) -> None:
        super().__init__(why)
        self.lied = lied


class _Fetch:
    def __init__(
        self,
        object_id: ObjectId,
        holders: Sequence[NodeId],
        open_stream: OpenStream,
        store: ObjectStore,
        on_progress: OnProgress | None,
        chunks_in_flight: int,
    ) -> None:
        self._object = object_id
        self._untried = deque(dict.fromkeys(holders))
        self._open_stream = open_stream
        self._store = store
        self._on_progress = on_progress
        self._chunks_in_flight = max(1, chunks_in_flight)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._wanted: dict[ChunkId, _Wanted] = {}
        self._storing = 0
        self._store_room = asyncio.Semaphore(WRITES_WAITING_MAX)
        self._holders: list[_Holder] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._keeping: dict[asyncio.Task[None], None] = {}
        self._broken: BaseException | None = None
        self._over = False
        self._received_bytes = 0
        self._total_bytes = 0
        self._done_bytes = 0

    async def run(self) -> Fetched:
        """See `fetch_object`."""
        try:
            while missing := await self._store.missing_chunks(self._object):
                await self._stage(missing)
            stored = await self._store.finish_fetch(self._object)
            await self._end()
        finally:
            for task in self._tasks:
                task.cancel()
            # What arrived reaches the disk even so: the next fetch need not ask for it again.
            await asyncio.gather(*self._tasks, *self._keeping, return_exceptions=True)
        outcomes = tuple(holder.outcome() for holder in self._holders)
        return Fetched(self._object, stored.size, stored.files, self._received_bytes, outcomes)

    async def _stage(self, missing: list[Chunk]) -> None:
        """Get these chunks onto the disk. Raises `FetchFailed` and what the store raises."""
        self._total_bytes += sum(chunk.size for chunk in missing)
        async with self._changed:
            self._wanted = {chunk.id: _Wanted(chunk) for chunk in missing}
            self._changed.notify_all()
            while self._wanted or self._storing:
                if self._broken is not None:
                    raise self._broken
                self._call_holders()
                await self._changed.wait()
        if self._broken is not None:
            raise self._broken

    async def _end(self) -> None:
        """Let the streams end in order, but wait for nobody who owes what others gave: perhaps it is dead."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()
        for holder, task in zip(self._holders, self._tasks, strict=True):
            if holder.owing:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    def _call_holders(self) -> None:
        """Ask further holders while there is need. Raises `FetchFailed` if nobody is left for some chunk."""
        while True:
            live = [holder.node for holder in self._holders if holder.live]
            stuck = any(all(node in wanted.not_held_by for node in live) for wanted in self._wanted.values())
            if stuck and not self._untried:
                raise FetchFailed(self._why(), tuple(holder.outcome() for holder in self._holders))
            if not self._untried or (len(live) >= HOLDERS_AT_ONCE and not stuck):
                return
            holder = _Holder(self._untried.popleft())
            self._holders.append(holder)
            self._tasks.append(asyncio.create_task(self._ask(holder)))

    def _why(self) -> str:
        if not self._holders:
            return "no computer is known to hold it"
        reasons = dict.fromkeys(holder.failure or "it does not have all of it" for holder in self._holders)
        return "; ".join(reasons)

    # One holder

    async def _ask(self, holder: _Holder) -> None:
        try:
            await self._converse(holder)
        except _Dropped as dropped:
            holder.failure, holder.lied = str(dropped), dropped.lied
        except (LinkError, BadFrame) as error:
            holder.failure = str(error) or type(error).__name__
        except TimeoutError:
            holder.failure = "it stalled"
        except Exception as error:  # A broken promise of ours or the store's: the fetch ends with it.
            self._broken = error
        finally:
            holder.live = False
            for wanted in self._wanted.values():
                wanted.asked_at_s.pop(holder.node, None)
        await self._notify()

    async def _converse(self, holder: _Holder) -> None:
        holder.owing = True
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            stream = await self._open_stream(holder.node)
        holder.owing = False
        try:
            reader = FrameReader(stream, STALL_TIMEOUT_S)
            owed: deque[Chunk] = deque()
            while True:
                picked = await self._pick(holder, owed)
                if picked:
                    owed.extend(picked)
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        await stream.write(frame(Want(tuple(chunk.id for chunk in picked))))
                elif not owed:
                    break
                holder.owing = True
                await self._take_answer(holder, reader, owed.popleft())
                holder.owing = bool(owed)
            await stream.finish()
            while await stream.read(1):
                raise BadFrame("more bytes than were asked for")
        except BaseException:
            await stream.abort()
            raise

    async def _pick(self, holder: _Holder, owed: deque[Chunk]) -> list[Chunk]:
        """What to ask `holder` next. With nothing owed, waits until there is something; empty at the end."""
        if len(owed) > self._chunks_in_flight // 2:
            return []
        async with self._changed:
            while True:
                picked = self._choose(holder, owed)
                if picked or owed or self._over:
                    return picked
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEDGE_AFTER_S if self._wanted else None):
                        await self._changed.wait()

    def _choose(self, holder: _Holder, owed: deque[Chunk]) -> list[Chunk]:
        now_s = self._loop.time()
        room_bytes = BYTES_IN_FLIGHT_MAX - sum(chunk.size for chunk in owed)
        room = self._chunks_in_flight - len(owed)
        picked: list[Chunk] = []
        for wanted in self._wanted.values():
            if room_bytes <= 0 or len(picked) >= room:
                break
            asked = wanted.asked_at_s
            if holder.node in asked or holder.node in wanted.not_held_by:
                continue
            is_late = len(asked) == 1 and now_s - min(asked.values()) >= HEDGE_AFTER_S
            if not asked or (is_late and not owed):
                asked[holder.node] = now_s
                room_bytes -= wanted.chunk.size
                picked.append(wanted.chunk)
        return picked

    async def _take_answer(self, holder: _Holder, reader: FrameReader, chunk: Chunk) -> None:
        answer = await reader.answer()
        if answer is None or answer.chunk != chunk.id:
            raise BadFrame("an answer is missing" if answer is None else "an answer to something else")
        wanted = self._wanted.get(chunk.id)
        if isinstance(answer, NotHeld):
            if wanted is not None:
                wanted.not_held_by[holder.node] = None
                wanted.asked_at_s.pop(holder.node, None)
            await self._notify()
            return
        data = await reader.exactly(answer.size)
        if digest(data) != chunk.id:
            raise _Dropped("it sent wrong bytes", lied=True)
        holder.chunks += 1
        holder.size += len(data)
        self._received_bytes += len(data)
        if self._wanted.pop(chunk.id, None) is None:
            return  # Another holder was faster.
        if chunk.size and len(data) != chunk.size:
            raise BadManifest("A chunk is not as long as the manifest says.")
        self._storing += 1
        await self._store_room.acquire()
        keeping = asyncio.create_task(self._keep(Piece(chunk.id, data)))
        self._keeping[keeping] = None
        keeping.add_done_callback(self._keeping.pop)

    async def _keep(self, piece: Piece) -> None:
        try:
            if not await self._store.add_chunk(piece):
                raise ObjectIncomplete(self._object)
            self._done_bytes += len(piece.data)
            if self._on_progress is not None and self._total_bytes:
                self._on_progress(Progress(min(self._done_bytes, self._total_bytes), self._total_bytes))
        except Exception as error:  # The fetch as a whole ends with it, in `_stage`.
            self._broken = error
        finally:
            self._store_room.release()
            self._storing -= 1
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
