"""A network in memory under virtual time, for `Presence` alone: loss, delay, stalls, crashes, partitions, sleep.

Links are dialled and closed as `Presence` asks; admission is played by this network. Everything passes the codec. A lost
message is gone, streams included, which is worse than QUIC. A stalled node handles what piled up afterwards,
in order, its timers with the lateness that they really have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec

from colla.kernel.codec import Codec
from colla.kernel.config import PresenceConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import CloseLink, Dial, KeepLinks, NoteAddresses, Notify, Persist, Send, WakeAt
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.contribution import ALL_AGENTS, AgentKind, Contribution
from colla.model.ids import GroupId, MemberId, NodeId
from colla.model.keys import SecretKey
from colla.protocol.presence.messages import PRESENCE_MESSAGES, Heartbeat, Probe
from colla.protocol.presence.presence import Presence
from colla.protocol.presence.reconnect import CELL_PREFIX
from colla.protocol.views import Election, Identity, NodeInfo, PresenceChange, PresencePhase

GROUP = GroupId(bytes([7]) * 32)
WALL_S = 1_800_000_000.0
IDLE_CLOSE_S = 15.0
DEAD_CLOSE_S = 30.0
SWEEP_S = 5.0


class Members:
    """The membership: everybody in it, growing and shrinking as a test says."""

    group_name = "club"
    election = Election.HASHING

    def __init__(self) -> None:
        self.infos: dict[NodeId, NodeInfo] = {}

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(self.infos[node] for node in sorted(self.infos))

    def node(self, node: NodeId) -> NodeInfo | None:
        return self.infos.get(node)

    def members(self) -> tuple[Any, ...]:
        return ()

    def member(self, member: MemberId) -> None:
        return None

    def owner_of(self, node: NodeId) -> MemberId | None:
        info = self.infos.get(node)
        return info.member if info else None


class Own:
    """What a node gives."""

    def __init__(self, agents: tuple[AgentKind, ...]) -> None:
        self.contribution = Contribution(agents=agents)
        self.environments: tuple[str, ...] = ("static",)
        self.reachable = False


class Node:
    """One node over all its lives."""

    def __init__(self, network: Network, number: int, agents: tuple[AgentKind, ...]) -> None:
        self.network = network
        self.number = number
        self.identity = Identity(GROUP, SecretKey((number + 1).to_bytes(32)))
        self.id = self.identity.node
        self.own = Own(agents)
        self.durable = Durable()
        self.start_number = 0
        self.alive = False
        self.stalled_until_s = 0.0
        self.backlog: list[tuple[float, Callable[[float], None]]] = []
        self.kept: tuple[NodeId, ...] = ()
        self.log: list[tuple[float, PresenceChange]] = []
        self.datagrams = self.messages = self.bytes = 0
        self.presence: Presence
        self.outbox: Outbox

    def boot(self) -> None:
        """Start it, for the first time or again."""
        self.start_number += 1
        self.alive = True
        self.stalled_until_s = 0.0
        self.outbox = Outbox(self.start_number)
        self.presence = Presence(
            self.identity,
            self.network.config,
            Random(self.number * 1000 + self.start_number),
            self.outbox,
            self.network.members,
            self.spread,
            self.own,
            self.start_number,
            dict(self.durable.cells),
        )
        self.call(self.presence.addresses_changed, (f"10.0.0.{self.number}:7000",))
        self.call(self.presence.start)

    def spread(self, message: Message, recipients: Sequence[NodeId], now: Instant) -> None:
        for recipient in recipients:
            self.outbox.send(recipient, message, unbarriered=True)

    def call(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Call the presence and perform what it asks for."""
        now = self.network.now
        for change in method(*arguments, now) or ():
            self.log.append((now.boot_s, change))
        self.network.perform(self)

    def sees(self, other: Node) -> bool:
        return self.presence.is_present(other.id)

    def when(self, other: Node, phase: PresencePhase, after_s: float = 0.0) -> float | None:
        """When this node first concluded that about the other."""
        return next(
            (at for at, one in self.log if at >= after_s and one.node == other.id and one.phase == phase),
            None,
        )


class Network:
    """All nodes and what is between them."""

    def __init__(
        self,
        size: int,
        *,
        seed: int = 1,
        loss: float = 0.0,
        delay_s: tuple[float, float] = (0.01, 0.05),
        config: PresenceConfig | None = None,
        agents: Callable[[int], tuple[AgentKind, ...]] = lambda number: ALL_AGENTS,
    ) -> None:
        self.config = config or PresenceConfig()
        self.rng = Random(seed)
        self.loss = loss
        self.delay_s = delay_s
        self.now = Instant(1000.0, WALL_S)
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0
        self.members = Members()
        self.links: dict[tuple[NodeId, NodeId], float] = {}
        self.blocked: Callable[[Node, Node], bool] = lambda sender, receiver: False
        self.codec = Codec(PRESENCE_MESSAGES, 256 * 1024)
        self.nodes = [Node(self, number, agents(number)) for number in range(size)]
        self.by_id = {node.id: node for node in self.nodes}
        for node in self.nodes:
            member = MemberId(bytes([node.number % 250]) * 32)
            self.members.infos[node.id] = NodeInfo(node.id, member, f"n{node.number}")
        self.later(SWEEP_S, self.sweep)

    def start(self, *nodes: Node, settle_s: float = 5.0) -> None:
        """Boot nodes that all know each other's addresses, as after a restart of them all."""
        chosen = nodes or tuple(self.nodes)
        for node in chosen:
            for other in self.nodes:
                if other is not node:
                    address = msgspec.msgpack.encode((f"10.0.0.{other.number}:7000",))
                    node.durable.cells.setdefault(CELL_PREFIX + other.id.hex(), address)
            node.boot()
        self.run(settle_s)

    # Time.

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.heap, (self.now.boot_s + seconds, self.serial, action))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stops early when `until` holds, and says whether it did."""
        end_s = self.now.boot_s + seconds
        while self.heap and self.heap[0][0] <= end_s:
            at_s, _, action = heapq.heappop(self.heap)
            if at_s > self.now.boot_s:
                self.now = Instant(at_s, WALL_S + at_s)
            action()
            if until is not None and until():
                return True
        self.now = Instant(end_s, WALL_S + end_s)
        return until is not None and until()

    # Effects.

    def perform(self, node: Node) -> None:
        for effect in node.outbox.drain():
            match effect:
                case Send():
                    self.send(node, effect)
                case WakeAt(at_s=at_s, timer=timer):
                    self.wake(node, at_s, timer)
                case Dial(node=to):
                    if to in self.by_id:
                        self.dial(node, self.by_id[to])
                case CloseLink(peer=peer, reason=reason):
                    self.later(0.0, partial(self.disconnect, node, self.by_id[peer], reason))
                case KeepLinks(nodes=nodes):
                    node.kept = nodes
                case Persist(writes=writes):
                    node.durable.apply(writes)
                case NoteAddresses() | Notify():
                    pass
                case _:
                    raise AssertionError(effect)

    def wake(self, node: Node, at_s: float, timer: Timer) -> None:
        start = node.start_number

        def due(now: Instant) -> list[PresenceChange]:
            return node.presence.timer(timer, max(0.0, now.boot_s - at_s), now)

        wait_s = max(0.0, at_s - self.now.boot_s)
        self.later(wait_s, lambda: self.give(node, start, lambda: node.call(due)))

    def give(self, node: Node, start: int, action: Callable[[], None]) -> None:
        """Let the node handle something, once it is not stalled; nothing reaches an earlier or ended life."""
        if not node.alive or node.start_number != start:
            return
        if node.stalled_until_s > self.now.boot_s:
            self.later(node.stalled_until_s - self.now.boot_s, lambda: self.give(node, start, action))
            return
        action()

    def transit(self) -> float:
        return self.rng.uniform(*self.delay_s)

    def send(self, node: Node, effect: Send) -> None:
        frame = self.codec.encode(effect.message)
        node.messages += 1
        node.datagrams += isinstance(effect.message, Heartbeat | Probe)
        node.bytes += len(frame)
        receiver = self.by_id[effect.to]
        if (node.id, receiver.id) not in self.links or self.blocked(node, receiver):
            return
        if not isinstance(effect.message, Heartbeat | Probe):
            self.links[node.id, receiver.id] = self.links[receiver.id, node.id] = self.now.boot_s
        if self.rng.random() < self.loss:
            return
        message = self.codec.decode(frame)
        start = receiver.start_number
        self.later(
            self.transit(),
            lambda: self.give(receiver, start, lambda: self.receive(node, receiver, message)),
        )

    def receive(self, sender: Node, receiver: Node, message: Message) -> None:
        if (receiver.id, sender.id) in self.links:
            receiver.call(receiver.presence.message, sender.id, message)

    # Links.

    def dial(self, node: Node, other: Node) -> None:
        start = node.start_number
        self.later(3 * self.transit(), lambda: self.connect(node, start, other))

    def connect(self, node: Node, start: int, other: Node) -> None:
        """A handshake: three messages that may get lost, both ways open."""
        cut = self.blocked(node, other) or self.blocked(other, node)
        gone = not node.alive or not other.alive or node.start_number != start
        stalled = max(node.stalled_until_s, other.stalled_until_s) > self.now.boot_s
        if cut or gone or stalled or (node.id, other.id) in self.links:
            return
        if any(self.rng.random() < self.loss for _ in range(3)):
            # The transport repeats what was lost of a handshake.
            self.later(0.5, lambda: self.connect(node, start, other))
            return
        for one, peer in ((node, other), (other, node)):
            self.links[one.id, peer.id] = self.now.boot_s
        for one, peer in ((node, other), (other, node)):
            one.call(one.presence.link_opened, peer.id, (f"10.0.0.{peer.number}:7000",))
            one.call(one.presence.peer_accepted, peer.id)

    def disconnect(self, node: Node, other: Node, why: str) -> None:
        for one, peer in ((node, other), (other, node)):
            if self.links.pop((one.id, peer.id), None) is not None and one.alive:
                one.call(one.presence.link_closed, peer.id, why)

    def sweep(self) -> None:
        """Close links that nobody wants, and those whose other end is gone for long."""
        for first, second in list(self.links):
            if first > second or (first, second) not in self.links:
                continue
            one, other = self.by_id[first], self.by_id[second]
            idle_s = self.now.boot_s - self.links[first, second]
            unwanted = second not in one.kept and first not in other.kept
            broken = not one.alive or not other.alive or self.blocked(one, other) or self.blocked(other, one)
            if (unwanted and idle_s > IDLE_CLOSE_S) or (broken and idle_s > DEAD_CLOSE_S):
                self.disconnect(one, other, "idle")
        self.later(SWEEP_S, self.sweep)

    # Faults.

    def crash(self, node: Node) -> None:
        """Gone without a word; the others' links seem open for a while."""
        node.alive = False

    def restart(self, node: Node) -> None:
        """The same disk, the next start; old links are gone."""
        for other in self.nodes:
            if (node.id, other.id) in self.links:
                self.disconnect(node, other, "restarted")
        node.boot()

    def stall(self, node: Node, seconds: float) -> None:
        node.stalled_until_s = self.now.boot_s + seconds

    def partition(self, *sides: Sequence[Node]) -> None:
        place = {node.id: number for number, side in enumerate(sides) for node in side}
        self.blocked = lambda sender, receiver: place.get(sender.id) != place.get(receiver.id)

    def heal(self) -> None:
        self.blocked = lambda sender, receiver: False

    # What tests ask.

    def all_see_all(self) -> bool:
        alive = [node for node in self.nodes if node.alive]
        ids = tuple(sorted(node.id for node in alive))
        return all(node.presence.present() == ids for node in alive)

    def absences(self, after_s: float = 0.0) -> list[tuple[float, int, int]]:
        """Every conclusion that a node is absent: (when, who concluded, about whom)."""
        return [
            (at_s, node.number, self.by_id[change.node].number)
            for node in self.nodes
            for at_s, change in node.log
            if change.phase is PresencePhase.ABSENT and at_s >= after_s
        ]
