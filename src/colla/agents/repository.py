"""The repository agent: keeps copies of the group's objects on its owner's disk, and looks after their number.

Every repository agent periodically, and soon after presence changes, counts the copies of the referenced objects
that it holds. The first holder by rendezvous is responsible: below `urgent_copies` live ones it places new
copies at once; below the full number only after `remake_after_s`, because a closed laptop must not set off
gigabytes. A copy that turned out damaged is fetched again from the others at once.

Counting goes on at every node that holds a referenced object, whatever its owner gives: one that no repository
agent holds (it was put before any was known, or all of them lost it) is offered to them by whoever still has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.agent import Agent, Context
from colla.kernel.events import Event, FetchFailed, ObjectDamaged, ObjectFetched
from colla.kernel.messages import Message, Timer
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ObjectId, ServiceId
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.keeping import CopyKeeping
from colla.protocol.copies.messages import (
    CopiesHeld,
    CopyCheckDue,
    CopyCountDue,
    CopyQuery,
    KeepCopy,
)
from colla.protocol.copies.placing import CopyPlacing
from colla.protocol.rendezvous import nearest_spread
from colla.protocol.views import PresenceChange


class RepositoryAgent(Agent):
    """See the module's docstring."""

    MESSAGES = (KeepCopy, CopyQuery, CopiesHeld)
    TIMERS = (CopyCheckDue, CopyCountDue)

    def __init__(self, context: Context, holdings: Holdings, placing: CopyPlacing) -> None:
        super().__init__(context)
        self._config = context.config.copies
        self._holdings = holdings
        self._placing = placing
        self._keeping = CopyKeeping(self._config, context.outbox, holdings, self._room_bytes)
        self._epoch = 0
        self._count: tuple[int, dict[ObjectId, list[NodeId]]] | None = None
        self._short_since: dict[ObjectId, float] = {}

    def start(self, now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def resumed(self, gap_s: float, now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case KeepCopy():
                self._keeping.asked(peer, message)
            case CopyQuery():
                held = tuple(o for o in message.objects if self._holdings.holds(o))
                self.context.outbox.send(peer, CopiesHeld(held, message.nonce))
            case CopiesHeld():
                self._held_by(peer, message)
            case _:
                raise TypeError(f"not for a repository agent: {message!r}")

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case CopyCheckDue():
                if timer.epoch == self._epoch:
                    self._check(now)
            case CopyCountDue():
                self._conclude(timer.nonce, now)
            case _:
                raise TypeError(f"not for a repository agent: {timer!r}")

    def event(self, event: Event, now: Instant) -> None:
        match event:
            case ObjectFetched():
                self._keeping.fetched(event)
            case FetchFailed():
                self._keeping.failed(event)
            case ObjectDamaged(object=object_id):
                self._heal(object_id)
            case _:
                pass

    def _room_bytes(self) -> int:
        return self.context.own.contribution.disk_bytes - self._holdings.bytes_held()

    def _check_in(self, seconds: float, now: Instant) -> None:
        self._epoch += 1
        self.context.outbox.wake_in(seconds, CopyCheckDue(self._epoch), now)

    def _referenced(self) -> dict[ObjectId, int]:
        return {
            service.specification.object: service.specification.object_bytes
            for service in self.context.catalogue.services()
        }

    def _check(self, now: Instant) -> None:
        """Begin a count: ask those who should hold what this node holds."""
        jitter = 0.5 + self.context.rng.random()
        self._check_in(self._config.check_interval_s * jitter, now)
        referenced = self._referenced()
        me = self.context.identity.node
        mine = [o for o in sorted(referenced) if self._holdings.holds(o)][: self._config.objects_counted_max]
        nonce = self.context.outbox.new_id()
        self._count = (nonce, {o: [me] for o in mine})
        questions: dict[NodeId, list[ObjectId]] = {}
        for object_id in mine:
            for node in self._ranked(object_id)[: self._config.copies + self._config.extra_asked]:
                if node != me:
                    questions.setdefault(node, []).append(object_id)
        step = self._config.objects_per_query_max
        for node, objects in questions.items():
            for first in range(0, len(objects), step):
                self.context.outbox.send(node, CopyQuery(tuple(objects[first : first + step]), nonce))
        if mine:
            self.context.outbox.wake_in(self._config.query_timeout_s, CopyCountDue(nonce), now)

    def _ranked(self, object_id: ObjectId) -> list[NodeId]:
        present = self.context.presence.carrying(AgentKind.REPOSITORY)
        return nearest_spread(object_id, present, self.context.membership.owner_of)

    def _held_by(self, peer: NodeId, answer: CopiesHeld) -> None:
        if self._count is None or self._count[0] != answer.nonce:
            return
        for object_id in answer.objects:
            holders = self._count[1].get(object_id)
            if holders is not None and peer not in holders:
                holders.append(peer)

    def _conclude(self, nonce: int, now: Instant) -> None:
        """The count is over: remake what this node is responsible for."""
        if self._count is None or self._count[0] != nonce:
            return
        counted = self._count[1]
        self._count = None
        referenced = self._referenced()
        for object_id, holders in counted.items():
            if object_id in referenced and self._holdings.holds(object_id):
                self._remake(object_id, referenced[object_id], holders, now)

    def _remake(self, object_id: ObjectId, size_bytes: int, holders: list[NodeId], now: Instant) -> None:
        ranked = self._ranked(object_id)
        holders = [node for node in ranked if node in holders]
        wanted = min(self._config.copies, len(ranked))
        me = self.context.identity.node
        if len(holders) >= wanted or (holders and holders[0] != me):
            self._short_since.pop(object_id, None)
            return
        since = self._short_since.setdefault(object_id, now.boot_s)
        urgent = len(holders) < min(self._config.urgent_copies, len(ranked))
        if not urgent and now.boot_s - since < self._config.remake_after_s:
            return
        self._short_since.pop(object_id)
        candidates = [node for node in ranked if node not in holders]
        self._placing.begin(object_id, size_bytes, wanted, candidates, holders, tuple(holders) or (me,), now)
        self.context.outbox.notify(
            "copies_remade", f"object {object_id.hex()[:10]} had {len(holders)} of {wanted} copies"
        )

    def _heal(self, object_id: ObjectId) -> None:
        """A copy here is damaged: fetch what is missing of it from the other holders."""
        size_bytes = self._referenced().get(object_id)
        if size_bytes is not None and self.context.own.contribution.carries(AgentKind.REPOSITORY):
            me = self.context.identity.node
            others = tuple(node for node in self._ranked(object_id) if node != me)
            self._keeping.asked(me, KeepCopy(object_id, size_bytes, others, self.context.outbox.new_id()))
