"""Objects on disks, without their bytes: who has which, how long it takes to fetch one, what damage does.

A fetch asks several holders at once, over the links' wires, as `node/objects/transfer.py` does: the first that answers
gives, piece by piece, and what else leaves its line waits for a piece and not for all; when nobody does, that costs a
dial's time. If a holder breaks off, another goes on, and what came before is not lost, even if the process dies. An
object that is damaged is noticed when it is read, and reported to the agents of that node; then a chunk of it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from colla.kernel.effects import FetchObject
from colla.kernel.events import Event, FetchFailed, FetchProgressed, ObjectDamaged, ObjectFetched
from colla.model.ids import NodeId, ObjectId
from colla.sim.disk import Disk
from colla.sim.links import DIAL_TIMEOUT_S
from colla.sim.network import Network, Relay, Station
from colla.sim.world import World

HOLDERS_AT_ONCE = 4
HEDGE_AFTER_S = 1.0
"""When another holder is asked for what one that broke off still owes."""
STALL_TIMEOUT_S = 15.0
"""How long such a one is waited for when there is no other."""
PIECE_S = 0.05
"""A transfer hands the line so much at a time, in seconds of its rate, and looks whether both ends are still there."""


CHUNK_BYTES = 1024 * 1024
"""What is missing of an object once damage was found."""
PROGRESS_EVERY_S = 1.0


class Holder(Station, Protocol):
    """A computer that may have objects."""

    @property
    def objects(self) -> Objects: ...


@dataclass(slots=True)
class Transfer:
    """A fetch under way. `left`: holders not tried yet; `bytes_left` of the object are missing still."""

    effect: FetchObject
    left: list[NodeId]
    done: Callable[[Event], None]
    life: int
    told_s: float
    bytes_left: float = -1.0
    size_bytes: int = 0
    why: str = "there is no holder"


class Objects:
    """The objects of one computer."""

    def __init__(
        self,
        world: World,
        network: Network,
        disk: Disk,
        station: Holder,
        find: Callable[[NodeId], Holder | None],
        tell: Callable[[Event], None],
    ) -> None:
        """`find` gives the computer of a node; `tell` reaches the agents here, if they run."""
        self.sizes: dict[ObjectId, int] = {}
        self.damaged: dict[ObjectId, None] = {}
        self.missing: dict[ObjectId, float] = {}
        """Objects that are here in part, and how many bytes of each are not."""
        self.fetched = 0
        self._world = world
        self._network = network
        self._disk = disk
        self._station = station
        self._find = find
        self._tell = tell
        self._life = 0

    def held(self) -> list[tuple[ObjectId, int]]:
        """What a node finds on its disk when it starts."""
        return sorted(self.sizes.items())

    def remnants(self) -> list[ObjectId]:
        """Of what it finds only a part."""
        return sorted(self.missing)

    def put(self, object_id: ObjectId, size_bytes: int) -> None:
        """The object is on this disk."""
        self.sizes[object_id] = size_bytes
        self.missing.pop(object_id, None)

    def forget(self, object_id: ObjectId) -> None:
        """The object is removed."""
        self.sizes.pop(object_id, None)
        self.damaged.pop(object_id, None)
        self.missing.pop(object_id, None)

    def damage(self, object_id: ObjectId) -> None:
        """Bits rot; nobody knows until somebody reads them."""
        if object_id in self.sizes:
            self.damaged[object_id] = None

    def crash(self) -> None:
        """The process died: transfers end, whole objects stay."""
        self._life += 1

    def wipe(self) -> None:
        """The disk is empty."""
        self._life += 1
        self.sizes.clear()
        self.damaged.clear()
        self.missing.clear()

    def read(self, object_id: ObjectId) -> bool:
        """Whether the object is here and sound; damage is reported, and the bad bytes go."""
        if object_id in self.damaged:
            size_bytes = self.sizes[object_id]
            self.forget(object_id)
            self.missing[object_id] = float(min(CHUNK_BYTES, size_bytes))
            self._tell(ObjectDamaged(object_id, "a chunk has another hash than its name"))
            return False
        return object_id in self.sizes

    # -- fetching -------------------------------------------------------------------------------------------

    def fetch(self, effect: FetchObject, done: Callable[[Event], None]) -> None:
        """Bring the object here; `done` gets the outcome, unless the process dies before."""
        if effect.object in self.sizes and effect.object not in self.damaged:
            done(ObjectFetched(effect.id, effect.object, self.sizes[effect.object]))
            return
        holders = [node for node in effect.holders if node != self._own_node()]
        left = self.missing.get(effect.object, -1.0)
        self._next(Transfer(effect, holders, done, self._life, self._world.now_s, left))

    def _own_node(self) -> NodeId | None:
        links = self._station.links
        return links.node if links is not None else None

    def _next(self, transfer: Transfer) -> None:
        if not transfer.left:
            failed = FetchFailed(transfer.effect.id, transfer.effect.object, transfer.why)
            self._world.after(0.0, self._end, transfer, failed)
            return
        answering = [found for node in transfer.left[:HOLDERS_AT_ONCE] if (found := self._reachable(node))]
        if not answering:
            del transfer.left[:HOLDERS_AT_ONCE]
            transfer.why = "a holder cannot be reached"
            self._world.after(DIAL_TIMEOUT_S, self._again, transfer)
            return
        there_and_back_s = [
            self._network.delay_s(self._station, one) + self._network.delay_s(one, self._station)
            for one in answering
        ]
        first = there_and_back_s.index(min(there_and_back_s))
        holder = answering[first]
        if holder.links is not None:
            transfer.left.remove(holder.links.node)
        self._world.after(2 * there_and_back_s[first], self._opened, transfer, holder)

    def _reachable(self, node: NodeId) -> Holder | None:
        holder = self._find(node)
        if holder is None or holder.links is None or holder.links.node != node:
            return None
        return holder if self._gets_through(holder) else None

    def _gets_through(self, holder: Holder) -> bool:
        """Whether packets pass both ways, over the link that there is, or one that can be made."""
        own, there, network = self._station.links, holder.links, self._network
        if own is None or there is None:
            return False
        via = self._via(holder)
        if own.link_to(there.node) is None and (network.home_of(holder) or network.home_of(self._station)):
            # Routers stand between: only a dial can tell, and the holder counts as away meanwhile.
            own.dial(there.node, (), lambda up: None)
            return False
        here = self._station
        return network.is_open(here, holder, via) and network.is_open(holder, here, via)

    def _via(self, holder: Holder) -> Relay | None:
        if self._station.links is None or holder.links is None:
            return None
        link = self._station.links.link_to(holder.links.node)
        return None if link is None else link.via

    def _again(self, transfer: Transfer) -> None:
        if transfer.life == self._life:
            self._next(transfer)

    def _opened(self, transfer: Transfer, holder: Holder) -> None:
        object_id = transfer.effect.object
        if transfer.life != self._life:
            return
        if holder.links is None or not holder.objects.read(object_id):
            transfer.why = "a holder does not have it (any more)"
            self._next(transfer)
            return
        transfer.size_bytes = holder.objects.sizes[object_id]
        if transfer.bytes_left < 0:
            transfer.bytes_left = float(transfer.size_bytes)
        self._transfer(transfer, holder, holder.links.node)

    def _transfer(self, transfer: Transfer, holder: Holder, node: NodeId) -> None:
        """Move as much as goes through until the next look."""
        if transfer.life != self._life:
            return
        links = holder.links
        if links is None or links.node != node or not self._gets_through(holder):
            transfer.why = "a holder broke off"
            pause_s = HEDGE_AFTER_S if transfer.left else STALL_TIMEOUT_S
            self._world.after(pause_s, self._again, transfer)
            return
        if transfer.bytes_left <= 0:
            self._arrived(transfer)
            return
        rate = self._network.path(holder, self._station).bytes_s
        piece = min(transfer.bytes_left, rate * PIECE_S)
        left_s = self._network.upload_s(holder, self._station, int(piece), self._via(holder))
        transfer.bytes_left -= piece
        if transfer.bytes_left < 1:
            transfer.bytes_left = 0.0
        self.missing[transfer.effect.object] = transfer.bytes_left
        self._progressed(transfer)
        seconds = max(left_s, piece / rate)
        self._world.after(seconds, self._transfer, transfer, holder, node)

    def _progressed(self, transfer: Transfer) -> None:
        if self._world.now_s - transfer.told_s >= PROGRESS_EVERY_S:
            transfer.told_s = self._world.now_s
            done_bytes = transfer.size_bytes - int(transfer.bytes_left)
            transfer.done(FetchProgressed(transfer.effect.id, transfer.effect.object, done_bytes))

    def _arrived(self, transfer: Transfer) -> None:
        object_id, size_bytes = transfer.effect.object, transfer.size_bytes
        room = self._disk.room_bytes
        if room is not None and room < size_bytes:
            self._end(transfer, FetchFailed(transfer.effect.id, object_id, "the disk is full"))
            return
        self.put(object_id, size_bytes)
        self.fetched += 1
        self._end(transfer, ObjectFetched(transfer.effect.id, object_id, size_bytes))

    def _end(self, transfer: Transfer, outcome: Event) -> None:
        if transfer.life == self._life:
            transfer.done(outcome)
