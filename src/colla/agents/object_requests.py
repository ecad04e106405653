"""What the API asks about objects: placing copies, naming, removing names, counting copies.

A part of every node, whatever agents it carries: it answers each request once. Names are written as records and
acknowledged like every write; copies are placed by `CopyPlacing` and counted by `CopyCounting`, which belong to the
whole node, so that their conclusions come from the router.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from colla.agents.agent import Agent, Context
from colla.agents.requests import (
    CopiesFound,
    CountCopies,
    NameObject,
    ObjectNamed,
    ObjectPlaced,
    PlaceObject,
    RemoveName,
)
from colla.kernel.effects import Answer, Refusal
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.errors import CollaError
from colla.model.ids import MemberId, ObjectId
from colla.model.record import TOPIC_OBJECTS, Key
from colla.protocol.copies.counting import CopiesCounted, CopyCounting
from colla.protocol.copies.placing import CopiesPlaced, CopyPlacing, PlacingProgress
from colla.protocol.naming.names import Names
from colla.protocol.views import PresenceChange

Submit = Callable[[int, str, Sequence[tuple[Key, bytes]], Instant], None]


class PlaceDue(Timer, frozen=True):
    """An object has waited long enough for somebody who could keep it."""

    request: int


class ObjectRequests(Agent):
    """See the module's docstring."""

    TIMERS = (PlaceDue,)
    REQUESTS = (PlaceObject, NameObject, RemoveName, CountCopies)

    def __init__(
        self, context: Context, names: Names, placing: CopyPlacing, counting: CopyCounting, submit: Submit
    ) -> None:
        super().__init__(context)
        self._config = context.config.copies
        self._names = names
        self._placing = placing
        self._counting = counting
        self._submit = submit
        self._writing: dict[int, str] = {}
        self._placings: dict[int, tuple[int, ObjectId]] = {}
        self._counts: dict[int, int] = {}
        self._unplaced: dict[int, PlaceObject] = {}

    def progress(self, object_id: ObjectId) -> PlacingProgress | None:
        """How far the placing of this object that somebody here waits for is."""
        for nonce, (_, placed) in self._placings.items():
            if placed == object_id:
                return self._placing.progress(nonce)
        return None

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        try:
            self._carry_out(request_id, request, now)
        except CollaError as error:
            self._answer(request_id, Refusal(error.code, error.message, error.hint))

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case PlaceDue(request=request_id):
                if request_id in self._unplaced:
                    self._place(request_id, self._unplaced.pop(request_id), now)
            case _:
                raise TypeError(f"not about objects: {timer!r}")

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        if self._unplaced and not self._knows_nobody():
            for request_id, request in self._unplaced.items():
                self._place(request_id, request, now)
            self._unplaced.clear()

    # -- conclusions, told by the router --------------------------------------------------------------------

    def placed(self, placed: CopiesPlaced) -> bool:
        """A placing is over; whether it was one of these."""
        found = self._placings.pop(placed.nonce, None)
        if found is not None:
            holders = placed.holders
            me = self.context.identity.node
            if len(holders) < placed.wanted and me not in holders and self._keeps_here(placed.object):
                # Others were nearer but could not: the copy from which all came is one as well.
                holders = (*holders, me)
            self._answer(found[0], ObjectPlaced(len(holders), placed.wanted, placed.reasons, holders))
        return found is not None

    def counted(self, counted: CopiesCounted) -> bool:
        """A count is over; whether it was one of these."""
        request_id = self._counts.pop(counted.nonce, None)
        if request_id is not None:
            self._answer(request_id, CopiesFound(counted.holders))
        return request_id is not None

    def written(self, request_id: int, copies: int) -> None:
        """The write of this request is durable on so many nodes."""
        path = self._writing.pop(request_id, None)
        if path is not None:
            self._answer(request_id, ObjectNamed(path, copies))

    # -- requests -------------------------------------------------------------------------------------------

    def _carry_out(self, request_id: int, request: Any, now: Instant) -> None:
        match request:
            case PlaceObject():
                self._place_or_wait(request_id, request, now)
            case NameObject(named=named, expected=expected, replace=replace):
                items = self._names.name(named, self._me(), expected, replace=replace)
                self._write(request_id, named.path, items, now)
            case RemoveName(path=path, expected=expected, replace=replace):
                items = self._names.remove(path, self._me(), expected, replace=replace)
                self._write(request_id, path, items, now)
            case CountCopies(objects=objects):
                if len(objects) > self._config.counted_per_request_max:
                    raise CollaError("too_many", f"At most {self._config.counted_per_request_max} at a time.")
                nonce, counted = self._counting.begin(objects, now)
                self._counts[nonce] = request_id
                if counted is not None:
                    self.counted(counted)
            case _:
                raise TypeError(f"not about objects: {request!r}")

    def _keeps_here(self, object_id: ObjectId) -> bool:
        """Whether the group may count on the copy here: if it does not fit what the owner gives, it is on its way only."""
        gives = self.context.own.contribution
        return gives.carries(AgentKind.REPOSITORY) and self.context.holdings.claim(
            object_id, gives.disk_bytes
        )

    def _me(self) -> MemberId:
        owner = self.context.membership.owner_of(self.context.identity.node)
        if owner is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        return owner

    def _write(self, request_id: int, path: str, items: Sequence[tuple[Key, bytes]], now: Instant) -> None:
        self._submit(request_id, TOPIC_OBJECTS, items, now)
        self._writing[request_id] = path

    def _knows_nobody(self) -> bool:
        """Whether there are other nodes and not one of them is known to be here: so it is just after a start."""
        others = len(self.context.membership.nodes()) > 1
        return others and len(self.context.presence.present()) <= 1

    def _place_or_wait(self, request_id: int, request: PlaceObject, now: Instant) -> None:
        """A node that just joined or started learns within a moment who is here: before that it would place nothing."""
        if not self._knows_nobody() or len(self._unplaced) >= self.context.config.requests_pending_max:
            self._place(request_id, request, now)
            return
        self._unplaced[request_id] = request
        self.context.outbox.wake_in(self._config.place_patience_s, PlaceDue(request_id), now)

    def _place(self, request_id: int, request: PlaceObject, now: Instant) -> None:
        me = self.context.identity.node
        ranked = self._counting.ranked(request.object)
        wanted = min(self._config.copies, len(ranked))
        kept = [me] if me in ranked[:wanted] and self._keeps_here(request.object) else []
        candidates = [node for node in ranked if node not in kept and node != me]
        nonce, placed = self._placing.begin(
            request.object, request.size_bytes, wanted, candidates, kept, (me,), now
        )
        self._placings[nonce] = (request_id, request.object)
        if placed is not None:
            self.placed(placed)

    def _answer(self, request_id: int, result: Any) -> None:
        self.context.outbox.put(Answer(request_id, result))
