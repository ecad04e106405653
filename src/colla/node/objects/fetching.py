"""All fetches of a node: whoever wants the same object at the same time waits for the same fetch.

A fetch goes on while anybody waits for it. Its progress is kept for whoever wants to show it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from colla.model.ids import NodeId, ObjectId
from colla.node.objects.putting import OnProgress, Progress
from colla.node.objects.store import ObjectStore
from colla.node.objects.transfer import Fetched, OpenStream, fetch_object


class _Running:
    """One fetch, and how many wait for it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.listeners: list[OnProgress] = []
        self.task: asyncio.Task[Fetched] | None = None

    def progressed(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener(progress)


class Fetches:
    """See the module. `open_stream` opens a stream to another node's `serve_objects`."""

    def __init__(self, me: NodeId, store: ObjectStore, open_stream: OpenStream) -> None:
        self._me = me
        self._store = store
        self._open_stream = open_stream
        self._running: dict[ObjectId, _Running] = {}

    async def fetch(
        self, object_id: ObjectId, holders: Iterable[NodeId], on_progress: OnProgress | None = None
    ) -> Fetched:
        """As `transfer.fetch_object`, with which this shares its errors; `holders` count for the first caller only."""
        running = self._running.get(object_id)
        if running is None:
            running = self._running[object_id] = _Running()
            others = [node for node in holders if node != self._me]
            running.task = asyncio.create_task(self._fetch(object_id, others, running.progressed))
        assert running.task is not None
        running.waiting += 1
        if on_progress is not None:
            running.listeners.append(on_progress)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if on_progress is not None:
                running.listeners.remove(on_progress)
            if not running.waiting:
                await self._end(running.task)

    async def _fetch(self, object_id: ObjectId, holders: list[NodeId], on_progress: OnProgress) -> Fetched:
        try:
            with self._store.pinned(object_id):
                return await fetch_object(object_id, holders, self._open_stream, self._store, on_progress)
        finally:
            del self._running[object_id]

    async def _end(self, task: asyncio.Task[Fetched]) -> None:
        """Nobody waits any more: a fetch that is under way stops; what came of it stays."""
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Whoever still waited has it.
