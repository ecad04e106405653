"""Putting files into the group and getting them back: the order of the steps, and what each failure means.

A put stores the files on this computer, lets copies be made, and names the object once as many copies are durable as
there can be; interrupted at any point, the same put goes on there. A get brings the object here from whoever holds
it, verifies all of it and writes it where the person wants it, whole or not at all; damage that is found on the way
is mended from the other holders first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from colla.agents.requests import (
    CopiesFound,
    CountCopies,
    NameObject,
    ObjectNamed,
    ObjectPlaced,
    PlaceObject,
    RemoveName,
    Request,
)
from colla.agents.router import Router
from colla.kernel.events import Event, ObjectStored, RemnantLeft
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.node.asking import ANSWER_TIMEOUT_S, Asking
from colla.node.files.keys import Keys
from colla.node.files.transfers import CHECKING, COPYING, FETCHING, STORING, WRITING, Transfer, Transfers
from colla.node.objects import ChunkNotHeld, CorruptChunk, ObjectIncomplete, ObjectStore, Progress, Stored
from colla.node.objects.fetching import Fetches
from colla.node.objects.scrubbing import Checked, Scrubber
from colla.node.objects.sealed import not_for_you
from colla.node.objects.sources import Exclude
from colla.protocol.naming.bodies import Named, Sealing, clean_path
from colla.protocol.naming.names import NOTHING, Entry, Version, no_such_object

LEFT_OUT = (".git", ".hg", ".svn", ".venv", "__pycache__", ".DS_Store")
PLACE_TIMEOUT_S = 24 * 3600.0
HOLDERS_MAX = 64
"""Computers that are asked for an object, one after the other."""
MENDS_MAX = 3
"""So often a get fetches again what turned out damaged on this disk while it was written out."""


class PutOrder(msgspec.Struct, frozen=True):
    """What to put where. `name` empty: only stored, for a service. `sealed_for` None: not sealed; empty: for the group.

    `expected`: as in `NameObject`. `exclude` leaves files of a folder out.
    """

    path: Path
    name: str = ""
    sealed_for: tuple[str, ...] | None = None
    replace: bool = False
    expected: ObjectId | None = None
    exclude: Exclude | None = None
    transfer: str = ""


class PutDone(msgspec.Struct, frozen=True):
    """The object and on how many computers it is; `records`: on how many its name is written."""

    stored: Stored
    placed: ObjectPlaced
    records: int = 0


class GetOrder(msgspec.Struct, frozen=True):
    """What to get and where to write it. `object`: that version of the name; empty: the current one."""

    name: str
    target: Path
    object: ObjectId = NOTHING
    replace: bool = False
    transfer: str = ""


class Files:
    """See the module."""

    def __init__(
        self,
        core: Callable[[], Router],
        objects: ObjectStore,
        fetches: Fetches,
        scrubber: Scrubber,
        asking: Asking,
        post: Callable[[Event], None],
    ) -> None:
        self.transfers = Transfers()
        self._core = core
        self._objects = objects
        self._fetches = fetches
        self._scrubber = scrubber
        self._asking = asking
        self._post = post
        self._keys = Keys(core().identity)

    async def close(self) -> None:
        """Stop what is under way; it can go on after the next start."""
        await self.transfers.close()

    # -- putting --------------------------------------------------------------------------------------------

    async def put(self, order: PutOrder) -> PutDone:
        """Store, copy and name. Raises `CollaError`: as `ObjectStore.put_resumably`, `Names.name`, and `no_room`."""
        if order.name:
            self._core().foundation.names.check(order.name, self._me(), order.expected, replace=order.replace)
        if order.sealed_for is not None:
            self._members(order.sealed_for)
        what = ("put", order.path, order.name, order.sealed_for)
        transfer = Transfer(order.transfer, "put", order.name or order.path.name, STORING)
        done: PutDone = await self.transfers.run(what, transfer, lambda running: self._put(order, running))
        return done

    async def _put(self, order: PutOrder, transfer: Transfer) -> PutDone:
        is_folder = await asyncio.to_thread(order.path.is_dir)
        sealed = order.sealed_for is not None
        stored = await self._objects.put_resumably(
            order.path,
            lambda progress: transfer.progressed(progress.done_bytes, progress.total_bytes),
            sealed=sealed,
            exclude=order.exclude if is_folder else None,
        )
        with self._objects.pinned(stored.object):
            transfer.object = stored.object
            transfer.enter(COPYING, stored.size)
            self._post(ObjectStored(stored.object, stored.size))
            placed: ObjectPlaced = await self._ask(PlaceObject(stored.object, stored.size), PLACE_TIMEOUT_S)
            if not order.name:
                return PutDone(stored, placed)
            if not placed.copies:
                raise no_room(placed)
            sealing = self._sealing(stored, order.sealed_for)
            named = Named(
                clean_path(order.name),
                stored.object,
                stored.size,
                stored.content_bytes,
                stored.files,
                is_folder,
                sealing,
            )
            written: ObjectNamed = await self._ask(NameObject(named, order.expected, order.replace))
        return PutDone(stored, placed, written.copies)

    def _sealing(self, stored: Stored, sealed_for: tuple[str, ...] | None) -> Sealing | None:
        if sealed_for is None:
            return None
        members = self._members(sealed_for)
        return self._keys.seal_for(self._core().membership, stored.object, stored.key, members)

    def _members(self, names: tuple[str, ...]) -> tuple[MemberId, ...] | None:
        return self._keys.recipients(self._core().membership, names, self._me()) if names else None

    # -- getting --------------------------------------------------------------------------------------------

    async def get(self, order: GetOrder) -> Version:
        """Bring the object here and write it to `target`; returns what was got.

        Raises `CollaError`: `not_found`, `not_recipient`, `target_exists`, `fetch_failed`, `quota_exceeded`, `disk_full`.
        """
        version = self.version(order.name, order.object)
        key = self._content_key(order.name, version)
        transfer = Transfer(
            order.transfer, "get", order.name, FETCHING, total_bytes=_named(version).stored_bytes
        )
        what = ("get", version.object, order.target)
        await self.transfers.run(what, transfer, lambda running: self._get(order, version, key, running))
        return version

    async def _get(self, order: GetOrder, version: Version, key: bytes, transfer: Transfer) -> None:
        def wrote(count: int) -> None:
            transfer.done_bytes += count

        with self._objects.pinned(version.object):
            for attempt in range(MENDS_MAX):
                await self._bring(version, transfer)
                transfer.enter(WRITING, _named(version).size_bytes)
                try:
                    await self._objects.give(
                        version.object, order.target, replace=order.replace, key=key, on_bytes=wrote
                    )
                except (ChunkNotHeld, CorruptChunk, ObjectIncomplete):
                    if attempt + 1 == MENDS_MAX:
                        raise
                    transfer.enter(FETCHING, _named(version).stored_bytes)
                else:
                    return

    async def read(self, name: str, object_id: ObjectId) -> AsyncIterator[bytes]:
        """The content of a named single file, opened if it is sealed. Raises as `get`, and `not_a_file`."""
        version = self.version(name, object_id)
        key = self._content_key(name, version)
        if _named(version).folder:
            raise CollaError("not_a_file", f"{name!r} is a folder.", "Get it into a folder: `colla get`.")
        with self._objects.pinned(version.object):
            await self._bring(version, Transfer("", "get", name, FETCHING))
            pieces = (
                self._objects.read_sealed(version.object, key) if key else self._objects.read(version.object)
            )
            async for piece in pieces:
                yield piece

    async def _bring(self, version: Version, transfer: Transfer) -> None:
        """Fetch what is missing of the object here."""
        if self._objects.has(version.object):
            return
        found: CopiesFound = await self._ask(CountCopies((version.object,)))
        core = self._core()
        likely = (*found.holders.get(version.object, ()), *core.foundation.repositories_for(version.object))
        holders = list(dict.fromkeys((*likely, version.node, *core.presence.present())))[:HOLDERS_MAX]

        def progressed(progress: Progress) -> None:
            transfer.progressed(progress.done_bytes, progress.total_bytes)

        try:
            fetched = await self._fetches.fetch(version.object, holders, progressed)
        except BaseException:
            self._post(RemnantLeft(version.object))
            raise
        self._post(ObjectStored(version.object, fetched.size))

    def version(self, name: str, object_id: ObjectId = NOTHING) -> Version:
        """What the name leads to, or the version of it that led to `object_id`. Raises `CollaError("not_found")`."""
        entry = self.entry(name)
        versions = (entry.current, *entry.conflicts, *entry.earlier)
        for version in versions if object_id else (entry.current,):
            if version.named is not None and object_id in (version.object, b""):
                return version
        raise no_such_object(name)

    def entry(self, name: str) -> Entry:
        """All versions of a name. Raises `CollaError("not_found")`."""
        path = clean_path(name)
        entry = self._core().foundation.names.find(path)
        if entry is None:
            raise no_such_object(path)
        return entry

    def readable(self, version: Version) -> bool:
        """Whether this computer can open it."""
        sealing = version.named.sealing if version.named is not None else None
        return sealing is None or self._keys.open(sealing, version.object) is not None

    def _content_key(self, name: str, version: Version) -> bytes:
        sealing = _named(version).sealing
        if sealing is None:
            return b""
        key = self._keys.open(sealing, version.object)
        if key is None:
            raise not_for_you(name)
        return key

    # -- names ----------------------------------------------------------------------------------------------

    async def remove(
        self, name: str, *, replace: bool = False, expected: ObjectId | None = None
    ) -> ObjectNamed:
        """Let the name lead nowhere; what it led to is forgotten in time. Raises as `Names.remove`."""
        done: ObjectNamed = await self._ask(RemoveName(name, expected, replace))
        return done

    async def count(self, objects: list[ObjectId]) -> dict[ObjectId, tuple[NodeId, ...]]:
        """Who of the present computers holds these objects."""
        if not objects:
            return {}
        found: CopiesFound = await self._ask(CountCopies(tuple(dict.fromkeys(objects))))
        return found.holders

    async def share(self, name: str, members: tuple[str, ...]) -> ObjectNamed:
        """Let further members (none named: the whole group) open a sealed object. Raises `CollaError`."""
        version = self.version(name)
        named = _named(version)
        if named.sealing is None:
            raise CollaError("not_sealed", f"{name!r} is not sealed: every member can get it.")
        key = self._content_key(name, version)
        to: tuple[MemberId, ...] | None = None
        if members and not named.sealing.to_group:
            to = tuple(sorted({*named.sealing.members, *(self._members(members) or ())}))
        return await self._reseal(version, key, to, replace=True)

    async def reseal_for_newcomers(self) -> int:
        """Give the keys of this member's sealed objects to recipients' computers that came later; how many objects.

        Of several present computers of one member the first by its id does it.
        """
        core = self._core()
        me = self._me()
        mine = [node for node in core.presence.present() if core.membership.owner_of(node) == me]
        if mine[:1] != [core.identity.node]:
            return 0
        done = 0
        for entry in list(core.foundation.names.entries()):
            named = entry.current.named
            if named is None or named.sealing is None or entry.current.member != me or entry.conflicts:
                continue
            key = self._keys.open(named.sealing, named.object)
            if key is not None and self._keys.lacking(core.membership, named.sealing):
                to = None if named.sealing.to_group else named.sealing.members
                await self._reseal(entry.current, key, to)
                done += 1
        return done

    async def _reseal(
        self, version: Version, key: bytes, members: tuple[MemberId, ...] | None, *, replace: bool = False
    ) -> ObjectNamed:
        named = _named(version)
        sealing = self._keys.seal_for(self._core().membership, named.object, key, members)
        order = NameObject(msgspec.structs.replace(named, sealing=sealing), named.object, replace)
        done: ObjectNamed = await self._ask(order)
        return done

    # -- checking -------------------------------------------------------------------------------------------

    async def check(self, transfer_id: str = "") -> Checked:
        """Read every stored chunk of this computer now; what is damaged is fetched again from others."""
        transfer = Transfer(transfer_id, "check", "", CHECKING, total_bytes=self._objects.total_bytes())

        async def work(running: Transfer) -> Checked:
            checked = await self._scrubber.check_all(running.progressed)
            await self._objects.sweep()
            return checked

        done: Checked = await self.transfers.run("check", transfer, work)
        return done

    # -- inside ---------------------------------------------------------------------------------------------

    def _me(self) -> MemberId:
        core = self._core()
        me = core.membership.owner_of(core.identity.node)
        if me is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        return me

    async def _ask(self, request: Request, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        return await self._asking.ask(request, timeout_s)


def no_room(placed: ObjectPlaced) -> CollaError:
    """Nobody keeps a copy (`no_room`)."""
    why = "; ".join(dict.fromkeys(placed.reasons)) or "no computer that is here keeps objects"
    return CollaError(
        "no_room",
        f"Nobody in the group could keep it: {why}.",
        "Let a computer give more of its disk: `colla contribute --disk`.",
    )


def _named(version: Version) -> Named:
    if version.named is None:
        raise no_such_object("")
    return version.named


def is_left_out(path: str) -> bool:
    """Whether a file of a deployed folder stays at home: histories, environments and caches are no part of a service."""
    return any(part in LEFT_OUT for part in path.split("/"))
