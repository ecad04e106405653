"""One computer of the simulation: clocks, disk, environments, line, and a node's process that may live on it.

It is the twin of `node/app.py`: it starts the agents with what is on the disk, performs their effects, and posts what
the app would post. What happens *to* it (killed, switched off, put to sleep, wiped) are its public methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from colla.agents.requests import Contribute, JoinGroup, Request
from colla.agents.router import Router
from colla.kernel.config import Config
from colla.kernel.durable import Durable
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
    Notice,
    Notify,
    Persist,
    Refusal,
    Send,
    StopReplica,
    SurveyReplicas,
)
from colla.kernel.events import (
    ContributionChanged,
    DialFailed,
    Dialled,
    DialSlow,
    EnvironmentsChanged,
    Event,
    LinkClosed,
    LinkOpened,
    MessageReceived,
    ObjectForgotten,
    ObjectStored,
    PeerFound,
    Requested,
    StopRequested,
)
from colla.model.contribution import Contribution
from colla.model.ids import NodeId, ObjectId, ServiceId
from colla.protocol.membership.joining import PASSING_CODES
from colla.protocol.views import Identity
from colla.sim.clock import Clock
from colla.sim.disk import Disk, Outcome
from colla.sim.environment import Environment
from colla.sim.homes import Home
from colla.sim.links import SimLinks
from colla.sim.network import HOME, Line, Network
from colla.sim.objects import Objects
from colla.sim.process import Process
from colla.sim.whereabouts import Whereabouts
from colla.sim.world import World

PRODUCT = Config()
"""What ships."""
NOTICES_MAX = 256
ENVIRONMENTS_ATTACH_S = 0.1
"""Environment programs need so long to be attached after a start."""
JOIN_AGAIN_S = 5.0
CONTACT_S = 10.0
"""As in the app: the pauses before a joiner whom nobody could let in asks again, and before contacts are tried again."""
VERSION = "sim"


class Observer(Protocol):
    """Whoever watches computers: checkers, measurements."""

    def will_step(self, computer: Computer, event: Event) -> None: ...
    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None: ...
    def performed(self, computer: Computer, effect: Effect) -> None: ...


class Settings(msgspec.Struct):
    """What the node keeps in its settings file: survives everything but a wipe."""

    identity: Identity
    contribution: Contribution
    peers: tuple[tuple[NodeId, tuple[str, ...]], ...] = ()
    join: JoinGroup | None = None


class Asked:
    """A request of the API on its way. `result` is set once it is answered; `refusal` when it was refused."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answered = False
        self.result: Any = None

    @property
    def refusal(self) -> Refusal | None:
        return self.result if isinstance(self.result, Refusal) else None


class Computer:
    """See the module's docstring."""

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        address: str,
        settings: Settings,
        find: Callable[[NodeId], Computer | None],
        observers: list[Observer],
        config: Config = PRODUCT,
        line: Line = HOME,
        clock: Clock | None = None,
    ) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.address = address
        self.settings = settings
        self._node = settings.identity.node
        self.config = config
        self._line = line
        self.clock = clock if clock is not None else Clock(world)
        self.powered = True
        self.asleep = False
        self.starts = 0
        self.wiped = 0
        self.process: Process | None = None
        self.links: SimLinks | None = None
        self.notices: deque[tuple[float, Notice]] = deque(maxlen=NOTICES_MAX)
        self.disk = Disk(world, world.random(f"disk/{name}"))
        self.environment = Environment(world, world.random(f"environment/{name}"), self.post)
        self.objects = Objects(world, network, self.disk, self, find, self.post)
        self.whereabouts = Whereabouts(self)
        self._observers = observers
        self._asked: dict[int, Asked] = {}
        self._requests = 0
        network.plug_in(address, self)

    # -- looking --------------------------------------------------------------------------------------------

    @property
    def node(self) -> NodeId:
        return self._node

    @property
    def line(self) -> Line:
        """Its line to the others; that of its home counts while it is in one."""
        return self._line

    @line.setter
    def line(self, line: Line) -> None:
        self._line = line
        self.network.changed()

    @property
    def awake(self) -> bool:
        return self.powered and not self.asleep

    @property
    def runs(self) -> bool:
        """Whether a node's process lives here (it may stand still)."""
        return self.process is not None

    @property
    def up(self) -> bool:
        """Whether the node runs and can do something now."""
        return self.process is not None and not self.process.still and self.awake

    @property
    def core(self) -> Router:
        """The agents that run here. Raises `LookupError` when none do."""
        if self.process is None or not isinstance(self.process.core, Router):
            raise LookupError(f"no node runs on {self.name}")
        return self.process.core

    def serves(self, service: ServiceId) -> bool:
        """Whether a replica answers here now."""
        return self.awake and any(replica.serves for replica in self.environment.of(service))

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node's process, as `colla up` does, switching the computer on if it was off, or waking it."""
        self.resume()
        if self.process is not None:
            return
        if not self.powered:
            self.powered = True
            self.clock.reboot()
        self.starts += 1
        self.links = SimLinks(self.world, self.network, self.node, self, self)
        self.links.seen_at = self.whereabouts.seen_at
        rng = self.world.random(f"process/{self.name}/{self.starts}")
        process = self.process = Process(self.world, self.clock, rng, self)
        self.network.changed()
        process.start()
        self._told_after_start(process)

    def _told_after_start(self, process: Process) -> None:
        """What the app tells the agents when they begin."""
        self._meet_contacts(process)
        self.whereabouts.began(process)
        self.world.after(ENVIRONMENTS_ATTACH_S, self._tell_environments)
        if self.settings.join is not None:
            self.ask(self.settings.join)

    def _meet_contacts(self, process: Process) -> None:
        """While no record says that this node belongs, its settings are all that it knows of others."""
        for node, addresses in self.settings.peers:
            process.post(PeerFound(node, addresses))
        core = process.core
        belongs = isinstance(core, Router) and core.membership.node(self.node) is not None
        if self.process is process and self.settings.peers and not belongs:
            self.world.after(CONTACT_S, self._meet_contacts, process)

    def kill(self) -> None:
        """SIGKILL the node's process: replicas go on, unflushed writes are lost."""
        if self.process is None or self.links is None:
            return
        self.process.die()
        self.links.die()
        self.disk.crash()
        self.objects.crash()
        self.process = self.links = None
        self.whereabouts.ended()
        for asked in list(self._asked.values()):
            asked.answered, asked.result = True, Refusal("killed", "The node died.")
        self._asked.clear()
        self.network.changed()

    def power_off(self) -> None:
        """Pull the plug: everything that runs is gone, and nobody is told."""
        self.kill()
        if self.disk.crash(power=True):
            # To everybody else this is another, older disk.
            self.wiped += 1
        self.environment.power_off()
        self.powered = self.asleep = False
        self.network.changed()

    def stop(self, keep_replicas: bool = False) -> None:
        """End the node's process in order: it says goodbye. Takes `goodbye_s`."""
        if self.process is not None:
            process = self.process
            process.post(StopRequested())
            self.world.after(self.config.goodbye_s, self._stopped, process, keep_replicas)

    def _stopped(self, process: Process, keep_replicas: bool) -> None:
        if self.process is process and self.links is not None:
            self.links.close_all("the node has stopped")
            self.kill()
            if not keep_replicas:
                self.environment.power_off()

    def stall(self, seconds: float) -> None:
        """The process has no time for its loop (a starved computer); packets still reach it."""
        if self.process is not None:
            self.process.stand_still()
            self.world.after(seconds, self.process.go_on)

    def suspend(self) -> None:
        """The lid closes: nothing runs, no packet arrives, the boot clock goes on."""
        if not self.asleep:
            self.asleep = True
            if self.process is not None:
                self.process.stand_still()
            self.network.changed()

    def resume(self) -> None:
        """The lid opens."""
        if self.asleep:
            self.asleep = False
            self.network.changed()
            if self.process is not None:
                self.process.go_on()

    def wipe(self) -> None:
        """The disk is replaced by an empty one; the settings with the node's key are kept. Kills the node."""
        self.power_off()
        self.wiped += 1
        self.disk.restore(Durable({}, {}))
        self.objects.wipe()

    def restore_disk(self, durable: Durable, objects: dict[ObjectId, int]) -> None:
        """An old copy of the disk comes back. Kills the node."""
        self.wipe()
        self.disk.restore(durable)
        for object_id, size_bytes in objects.items():
            self.objects.put(object_id, size_bytes)

    def live_in(self, home: Home) -> None:
        """The computer is in that home from now on, behind its router. Links stand: QUIC moves with it."""
        self.whereabouts.live_in(home)

    def move(self, address: str) -> None:
        """The computer is at another address from now on, in no home."""
        self.whereabouts.move(address)

    # -- what the owner and programs do ---------------------------------------------------------------------

    def ask(self, request: Request) -> Asked:
        """Ask the agents; look at the result later."""
        asked = Asked(request)
        if self.process is None:
            asked.answered, asked.result = True, Refusal("not_running", "No node runs here.")
            return asked
        self._requests += 1
        self._asked[self._requests] = asked
        self.post(Requested(self._requests, request))
        return asked

    def contribute(self, contribution: Contribution) -> Asked:
        """The owner decides anew: settings, agents and environments."""
        self.settings.contribution = contribution
        self.whereabouts.contributes()
        asked = self.ask(Contribute(contribution))
        self.world.after(ENVIRONMENTS_ATTACH_S, self._tell_environments)
        return asked

    def edit_contribution(self, contribution: Contribution) -> None:
        """As `contribute`, but by editing the settings file: the agents are told by an event."""
        self.settings.contribution = contribution
        self.whereabouts.contributes()
        self.post(ContributionChanged(contribution))

    def put_object(self, object_id: ObjectId, size_bytes: int) -> None:
        """A member of this node puts an object."""
        self.objects.put(object_id, size_bytes)
        self.post(ObjectStored(object_id, size_bytes))

    def post(self, event: Event) -> None:
        """Tell the agents, if they run."""
        if self.process is not None:
            self.process.post(event)

    def detach_environments(self, seconds: float) -> None:
        """The environments' programs die and are attached again after a while; replicas go on meanwhile."""
        self.environment.attached = False
        self._tell_environments()
        self.world.after(seconds, self._attach_environments)

    def _attach_environments(self) -> None:
        self.environment.attached = True
        self._tell_environments()

    def _tell_environments(self) -> None:
        self.post(EnvironmentsChanged(self._kinds()))

    def _kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self.settings.contribution.environments)) if self.environment.attached else ()

    # -- process.Surroundings -------------------------------------------------------------------------------

    def make_core(self) -> Router:
        rng = Random(f"{self.world.seed}/agents/{self.name}/{self.starts}/{self.world.now_s}")
        core = Router(
            self.settings.identity,
            self.config,
            rng,
            self.disk.load(),
            self.objects.held(),
            self.settings.contribution,
            (),
            VERSION,
            self.objects.remnants(),
        )
        # What one node resolved, another one that holds the same need not resolve again.
        core.membership.rosters = self.world.rosters
        return core

    def persist(self, effect: Persist, done: Callable[[Outcome], None]) -> None:
        for observer in self._observers:
            observer.performed(self, effect)
        names = b",".join(str(type(write).__name__).encode() for write in effect.writes)
        self.world.trace.record(self.world.now_s, b"p", self.node, names)
        self.disk.persist(effect, done)

    def will_step(self, event: Event) -> None:
        for observer in self._observers:
            observer.will_step(self, event)

    def stepped(self, event: Event, effects: list[Effect]) -> None:
        for observer in self._observers:
            observer.stepped(self, event, effects)

    def restarted(self, why: str) -> None:
        """As the app does: requests are refused, links closed, and the new agents told what the old ones knew."""
        for asked in list(self._asked.values()):
            asked.answered, asked.result = True, Refusal("disk_failed", why)
        self._asked.clear()
        if self.links is not None:
            self.links.close_all("the node starts again")
        self.post(self.whereabouts.event())
        self.post(EnvironmentsChanged(self._kinds()))

    def perform(self, effect: Effect) -> None:
        for observer in self._observers:
            observer.performed(self, effect)
        links, process = self.links, self.process
        if links is None or process is None:
            return
        match effect:
            case Send(to=to, message=message, datagram=datagram):
                frame = process.core.codec.encode(message)
                self.world.trace.record(self.world.now_s, b"s", self.node, to, frame)
                links.send(to, frame, message, datagram=datagram)
            case AcceptPeer(peer=peer):
                links.accept(peer)
            case CloseLink(peer=peer, reason=reason):
                links.close_link(peer, reason)
            case NoteAddresses(node=node, addresses=addresses):
                links.note_addresses(node, addresses)
            case KeepLinks(nodes=nodes):
                links.close_idle(nodes)
            case Answer(id=request, result=result):
                self._answered(request, result)
            case Notify(notice=notice):
                self.world.trace.record(self.world.now_s, b"n", self.node, notice.kind.encode())
                self.notices.append((self.world.now_s, notice))
            case Dial(id=request, node=node, addresses=addresses):
                self._dial(process, request, node, addresses)
            case _:
                self._long(process, effect)

    def _long(self, process: Process, effect: Effect) -> None:
        self.world.trace.record(self.world.now_s, b"l", self.node, type(effect).__name__.encode())
        match effect:
            case LaunchReplica():
                has_object = self.objects.read(effect.specification.object)
                self.environment.launch(effect, has_object, process.post)
            case StopReplica():
                self.environment.stop(effect, process.post)
            case SurveyReplicas():
                self.environment.survey(effect, process.post)
            case FetchObject():
                self.objects.fetch(effect, process.post)
            case ForgetObject(id=request, object=object_id):
                self.objects.forget(object_id)
                process.post(ObjectForgotten(request, object_id))
            case _:
                raise TypeError(f"no performer for {effect!r}")

    def _dial(self, process: Process, request: int, node: NodeId, addresses: tuple[str, ...]) -> None:
        def done(up: bool) -> None:
            outcome = Dialled(request, node) if up else DialFailed(request, node, "nobody answered in time")
            process.post(outcome)

        if self.links is not None:
            self.links.dial(node, addresses, done)

    def _answered(self, request: int, result: Any) -> None:
        asked = self._asked.pop(request, None)
        if asked is not None:
            asked.answered, asked.result = True, result
            if asked.request is self.settings.join:
                self._join_answered(asked)

    def _join_answered(self, asked: Asked) -> None:
        """As the app does: whoever could not be let in yet asks again."""
        if asked.refusal is None:
            self.settings.join = None
        elif asked.refusal.code in PASSING_CODES:
            self.world.after(JOIN_AGAIN_S, self._join_again, self.process)

    def _join_again(self, process: Process | None) -> None:
        if process is not None and self.process is process and self.settings.join is not None:
            self.ask(self.settings.join)

    # -- links.LinkListener ---------------------------------------------------------------------------------

    def link_opened(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self.post(LinkOpened(peer, addresses))

    def link_closed(self, peer: NodeId, reason: str) -> None:
        self.post(LinkClosed(peer, reason))

    def dial_slow(self, peer: NodeId) -> None:
        self.post(DialSlow(peer))

    def peer_found(self, peer: NodeId, address: str) -> None:
        self.post(PeerFound(peer, (address,)))

    def frame_received(self, peer: NodeId, frame: bytes) -> None:
        # All nodes here run one version: a frame that cannot be read is a bug, and the simulation shall end with it.
        if self.process is not None:
            self.process.post(MessageReceived(peer, self.process.core.codec.decode(frame)))
