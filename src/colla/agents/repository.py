"""The repository agent: keeps copies of the group's objects on its owner's disk, and looks after their number.

Every node that holds a referenced object or a part of it periodically, and soon after presence changes, counts its
copies; `CopyRepair` says what follows. What is here in part only, because it turned out damaged or a fetch broke off,
is fetched again from the others, at once when damage is found and at every count until it is whole.

Counting goes on whatever the owner gives: an object that no repository agent holds (it was put before any was known,
or all of them lost it) is offered to them by whoever still has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.agent import Agent, Context
from colla.agents.references import References
from colla.kernel.events import Event, FetchFailed, FetchProgressed, ObjectDamaged, ObjectFetched
from colla.kernel.messages import Message, Timer
from colla.kernel.time import Instant
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, ObjectId, ServiceId
from colla.protocol.copies.counting import CopiesCounted, CopyCounting
from colla.protocol.copies.holdings import Holdings
from colla.protocol.copies.keeping import CopyKeeping
from colla.protocol.copies.messages import (
    CopiesHeld,
    CopyAnswer,
    CopyCheckDue,
    CopyQuery,
    KeepCopy,
    KeepingDue,
)
from colla.protocol.copies.placing import CopiesPlaced, CopyPlacing
from colla.protocol.copies.repair import CopyRepair, Counted
from colla.protocol.copies.upkeep import Upkeep
from colla.protocol.views import PresenceChange


class RepositoryAgent(Agent):
    """See the module's docstring."""

    MESSAGES = (KeepCopy, CopyQuery)
    TIMERS = (CopyCheckDue, KeepingDue)

    def __init__(
        self,
        context: Context,
        references: References,
        holdings: Holdings,
        placing: CopyPlacing,
        counting: CopyCounting,
        upkeep: Upkeep,
    ) -> None:
        super().__init__(context)
        self._config = context.config.copies
        self._references = references
        self._holdings = holdings
        self._placing = placing
        self._counting = counting
        self._upkeep = upkeep
        self._keeping = CopyKeeping(self._config, context.outbox, holdings, self._given_bytes)
        self._repair = CopyRepair(
            context.identity.node, self._config, context.outbox, holdings, placing, self._excess_bytes
        )
        self._epoch = 0
        self._count = 0

    def on_their_way(self) -> tuple[ObjectId, ...]:
        """Objects of which a copy is being made here."""
        return self._keeping.wanted()

    def start(self, now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def resumed(self, gap_s: float, now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def presence_changed(self, changes: Sequence[PresenceChange], now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def catalogue_changed(self, services: Sequence[ServiceId], now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def contribution_changed(self, now: Instant) -> None:
        self._check_in(self._config.check_soon_s, now)

    def names_changed(self, now: Instant) -> None:
        """Paths lead elsewhere: what they lead to wants copies."""
        self._check_in(self._config.check_soon_s, now)

    def message(self, peer: NodeId, message: Message, now: Instant) -> None:
        match message:
            case KeepCopy():
                self._upkeep.touch(message.object, now)
                self._keep(peer, message, now)
            case CopyQuery():
                asked = message.objects[: self._config.objects_per_query_max]
                for object_id in asked:
                    self._upkeep.touch(object_id, now)
                held = tuple(one for one in asked if self._holdings.holds(one))
                self.context.outbox.send(peer, CopiesHeld(held, message.nonce))
            case _:
                raise TypeError(f"not for a repository agent: {message!r}")

    def timer(self, timer: Timer, late_s: float, now: Instant) -> None:
        match timer:
            case CopyCheckDue():
                if timer.epoch == self._epoch:
                    self._check(now)
            case KeepingDue():
                self._keeping.due(now)
            case _:
                raise TypeError(f"not for a repository agent: {timer!r}")

    def event(self, event: Event, now: Instant) -> None:
        match event:
            case FetchProgressed():
                self._keeping.progressed(event)
            case ObjectFetched():
                self._keeping.fetched(event)
            case FetchFailed():
                self._keeping.failed(event)
            case ObjectDamaged(object=object_id):
                size_bytes = self._references.objects().get(object_id)
                if size_bytes is not None:
                    self._heal(object_id, size_bytes, now)
            case _:
                pass

    # -- conclusions, told by the router --------------------------------------------------------------------

    def placed(self, placed: CopiesPlaced) -> bool:
        """A placing is over; whether it was a remake."""
        return self._repair.placed(placed)

    def counted(self, counted: CopiesCounted, now: Instant) -> bool:
        """A count is over; whether it was this agent's. One that a newer one overtook is of no use."""
        if counted.nonce != self._count:
            return False
        self._count = 0
        services = self._references.of_services()
        sizes = self._references.objects()
        judged = [
            Counted(one, sizes[one], tuple(self._counting.ranked(one)), holders, one in services)
            for one, holders in counted.holders.items()
            if one in sizes
        ]
        for object_id in self._repair.judge(judged, now):
            self._heal(object_id, sizes[object_id], now)
        return True

    # -- inside ---------------------------------------------------------------------------------------------

    @property
    def _me(self) -> NodeId:
        return self.context.identity.node

    def _keep(self, peer: NodeId, ask: KeepCopy, now: Instant) -> None:
        carries = self.context.own.contribution.carries(AgentKind.REPOSITORY)
        if carries or self._holdings.holds(ask.object):
            self._keeping.asked(peer, ask, now)
        else:
            answer = CopyAnswer(
                ask.object, ask.nonce, False, "this computer's owner keeps no objects for others"
            )
            self.context.outbox.send(peer, answer)

    def _excess_bytes(self) -> int:
        return self._holdings.bytes_given() - self._given_bytes()

    def _given_bytes(self) -> int:
        gives = self.context.own.contribution
        return gives.disk_bytes if gives.carries(AgentKind.REPOSITORY) else 0

    def _check_in(self, seconds: float, now: Instant) -> None:
        self._epoch += 1
        self.context.outbox.wake_in(seconds, CopyCheckDue(self._epoch), now)

    def _check(self, now: Instant) -> None:
        """Begin a count: ask those who should hold what this node holds."""
        jitter = 0.5 + self.context.rng.random()
        self._check_in(self._config.check_interval_s * jitter, now)
        self._placing.remind()
        mine = self._repair.window(tuple(self._references.objects()))
        if not mine:
            return
        self._count, counted = self._counting.begin(mine, now)
        if counted is not None:
            self.counted(counted, now)

    def _heal(self, object_id: ObjectId, size_bytes: int, now: Instant) -> None:
        """A part of a copy is here: fetch what is missing of it from the other holders, who may have parts as well."""
        if self.context.own.contribution.carries(AgentKind.REPOSITORY):
            others = tuple(node for node in self._counting.ranked(object_id) if node != self._me)
            holders = others[: self._config.healers_asked_max]
            nonce = self.context.outbox.new_id()
            self._keeping.asked(self._me, KeepCopy(object_id, size_bytes, holders, nonce), now)
