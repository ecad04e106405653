"""Carries out the effects of the agents on a real node: links, store, replicas, objects, answers, notices.

Every effect type has one performer here or in the module that owns the resource. Outcomes come back as events;
nothing in here decides anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from colla.kernel.codec import MessageCodec
from colla.kernel.effects import (
    AcceptPeer,
    Answer,
    CloseLink,
    Dial,
    Effect,
    FetchObject,
    ForgetObject,
    KeepLinks,
    LaunchReplica,
    NoteAddresses,
    Notify,
    Persist,
    Send,
    StopReplica,
    SurveyReplicas,
)
from colla.kernel.events import (
    DialFailed,
    Dialled,
    Event,
    FetchFailed,
    FetchProgressed,
    LaunchFailed,
    ObjectFetched,
    ObjectForgotten,
    ObjectKept,
    Persisted,
    PersistFailed,
    StopFailed,
    SurveyFailed,
)
from colla.model.errors import CollaError
from colla.model.ids import NodeId
from colla.node.asking import Asking
from colla.node.links.interface import Links
from colla.node.notices import Notices
from colla.node.objects import ObjectStore, Progress
from colla.node.objects.fetching import Fetches
from colla.node.replicas import Replicas
from colla.node.store import RecordStore

log = logging.getLogger(__name__)

DIALS_AT_ONCE = 32
PROGRESS_EVERY_S = 1.0


class NodePerformer:
    """Implements `runner.Performer`."""

    def __init__(
        self,
        codec: MessageCodec,
        links: Links,
        store: RecordStore,
        objects: ObjectStore,
        fetches: Fetches,
        replicas: Replicas,
        asking: Asking,
        notices: Notices,
        node_name: Callable[[NodeId], str],
    ) -> None:
        self._codec = codec
        self._links = links
        self._store = store
        self._objects = objects
        self._fetches = fetches
        self._replicas = replicas
        self._asking = asking
        self._notices = notices
        self._node_name = node_name
        self._post: Callable[[Event], None] = lambda event: None
        self._running: dict[asyncio.Task[None], None] = {}
        self._dials = asyncio.Semaphore(DIALS_AT_ONCE)

    def connect(self, post: Callable[[Event], None]) -> None:
        """Where outcomes go."""
        self._post = post

    def perform(self, effect: Effect) -> None:
        """Carry out one effect; returns at once."""
        match effect:
            case Send(to=to, message=message, datagram=datagram):
                self._links.send(to, self._codec.encode(message), datagram=datagram)
            case AcceptPeer(peer=peer):
                self._links.set_accepted(peer, True)
            case CloseLink(peer=peer, reason=reason):
                self._links.close_link(peer, reason)
            case NoteAddresses(node=node, addresses=addresses):
                self._links.note_addresses(node, addresses)
            case KeepLinks(nodes=nodes):
                self._links.close_idle(nodes)
            case Answer():
                self._asking.answered(effect)
            case Notify(notice=notice):
                name = self._node_name(notice.node) if notice.node else ""
                self._notices.tell(notice, name)
            case _:
                self._spawn(self._long(effect), effect)

    async def persist(self, effect: Persist) -> Persisted | PersistFailed:
        """Make the writes durable."""
        return await self._store.persist(effect)

    async def close(self) -> None:
        """Give up what is under way."""
        for work in list(self._running):
            work.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Event], effect: Effect) -> None:
        async def carry() -> None:
            try:
                self._post(await work)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # An effect without an outcome would hang the agents: a fault of ours becomes a failure of theirs.
                log.exception("performing %s failed", type(effect).__name__)
                outcome = _failed(effect, f"internal error: {error!r}")
                if outcome is not None:
                    self._post(outcome)

        running = asyncio.get_running_loop().create_task(carry())
        self._running[running] = None
        running.add_done_callback(lambda done: self._running.pop(done, None))

    async def _long(self, effect: Effect) -> Event:
        match effect:
            case LaunchReplica():
                return await self._replicas.launch(effect)
            case StopReplica():
                return await self._replicas.stop(effect)
            case SurveyReplicas():
                return await self._replicas.survey(effect)
            case FetchObject():
                return await self._fetch(effect)
            case ForgetObject(id=request, object=object_id):
                gone = await self._objects.forget(object_id)
                return ObjectForgotten(request, object_id) if gone else ObjectKept(request, object_id)
            case Dial():
                return await self._dial(effect)
            case _:
                raise TypeError(f"no performer for {effect!r}")

    async def _fetch(self, effect: FetchObject) -> Event:
        told_s = asyncio.get_running_loop().time()

        def progressed(progress: Progress) -> None:
            nonlocal told_s
            now_s = asyncio.get_running_loop().time()
            if now_s - told_s >= PROGRESS_EVERY_S:
                told_s = now_s
                self._post(FetchProgressed(effect.id, effect.object, progress.done_bytes))

        try:
            fetched = await self._fetches.fetch(effect.object, effect.holders, progressed)
        except CollaError as error:
            return FetchFailed(effect.id, effect.object, str(error))
        except ValueError as error:
            return FetchFailed(effect.id, effect.object, f"the object is malformed: {error}")
        return ObjectFetched(effect.id, effect.object, fetched.size)

    async def _dial(self, effect: Dial) -> Event:
        async with self._dials:
            if await self._links.dial(effect.node, effect.addresses):
                return Dialled(effect.id, effect.node)
        return DialFailed(effect.id, effect.node, "nobody answered at these addresses")


def _failed(effect: Effect, why: str) -> Event | None:
    match effect:
        case LaunchReplica(id=request, replica=replica):
            return LaunchFailed(request, replica, why)
        case StopReplica(id=request, replica=replica):
            return StopFailed(request, replica, why)
        case SurveyReplicas(id=request):
            return SurveyFailed(request, why)
        case FetchObject(id=request, object=object_id):
            return FetchFailed(request, object_id, why)
        case Dial(id=request, node=node):
            return DialFailed(request, node, why)
        case _:
            return None
