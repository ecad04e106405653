"""A simulated group: founded and joined as in reality, with what scenarios do to it in words of their own.

    group = SimGroup(seed=3, election=Election.HASHING)
    group.grow(5)
    web = group.deploy("web", replicas=3)
    group.crash(group.master_of(web))
    group.until(lambda: group.running(web) == 3, within_s=8)

Computers are named `n0`, `n1`, … in the order in which they came. Times are virtual seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import msgspec

from colla.agents.requests import (
    CreateService,
    EliminateService,
    InvitePerson,
    JoinGroup,
    ObjectPlaced,
    PlaceObject,
    Request,
    SetActive,
    SetReplicas,
    TicketIssued,
    Written,
)
from colla.kernel.config import Config
from colla.kernel.effects import Effect
from colla.kernel.events import Event
from colla.model.contribution import AgentKind, Contribution, gives_all
from colla.model.ids import GroupId, MemberId, NodeId, ObjectId, ServiceId, digest
from colla.model.keys import SecretKey
from colla.model.location import NO_BALLOT
from colla.model.service import Specification
from colla.protocol.membership.founding import found
from colla.protocol.membership.tickets import read_ticket
from colla.protocol.views import Election, Identity
from colla.sim.clock import Clock
from colla.sim.computer import PRODUCT, Asked, Computer, Observer, Settings
from colla.sim.homes import Home
from colla.sim.network import HOME, Line, Network, OneWay, Partition, Rule
from colla.sim.world import World

KIND = "static"
"""The environment of all services here."""
OBJECT_BYTES = 200_000
ANSWER_WITHIN_S = 40.0
STORY_LINE_CHARS_MAX = 240
DRIFT_PPM_MAX = 50.0
WALL_ERROR_S_MAX = 2.0
GIVES = gives_all(cpus=4.0, memory_bytes=8 << 30, disk_bytes=10 << 30, environments=(KIND,))


class Failed(AssertionError):
    """A scenario did not go as it must. The text says how to see it again."""


class Person(msgspec.Struct, frozen=True):
    """A member."""

    name: str
    secret: SecretKey

    @property
    def id(self) -> MemberId:
        return MemberId(self.secret.public)


class CrashAtEffect:
    """A crash between two effects: of which computer, is known once it has happened."""

    def __init__(
        self, number: int, power: bool, begin: Callable[[Event], bool], effect: Callable[[Effect], bool]
    ) -> None:
        self.computer: Computer | None = None
        self._chosen: Computer | None = None
        self._left = number
        self._power = power
        self._begin = begin
        self._effect = effect

    def will_step(self, computer: Computer, event: Event) -> None:
        if self._chosen is None and self._begin(event):
            self._choose(computer)

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        if self._chosen is None and any(map(self._effect, effects)):
            self._choose(computer)

    def performed(self, computer: Computer, effect: Effect) -> None:
        pass

    def _choose(self, computer: Computer) -> None:
        if computer.process is not None:
            self._chosen = computer
            computer.process.trap = self._trap

    def _trap(self, effect: Effect) -> bool:
        if self._left:
            self._left -= 1
            return False
        computer, self.computer = self._chosen, self._chosen
        if computer is not None:
            if self._power:
                computer.power_off()
            else:
                computer.kill()
        return True


class SimGroup:
    """See the module's docstring."""

    def __init__(
        self,
        seed: int = 0,
        election: Election = Election.HASHING,
        config: Config = PRODUCT,
        contribution: Contribution = GIVES,
        line: Line = HOME,
        replay: str = "",
    ) -> None:
        """`replay` is the command that runs the same again, for messages of failures."""
        self.world = World(seed)
        self.network = Network(self.world)
        self.config = config
        self.replay = replay
        self.observers: list[Observer] = []
        self.computers: list[Computer] = []
        self.people: list[Person] = []
        self.services: dict[ServiceId, str] = {}
        self._by_node: dict[NodeId, Computer] = {}
        self._owners: dict[str, Person] = {}
        self._line = line
        self._gives = contribution
        self._rng = self.world.random("group")
        self.group = self._found(election)

    # -- growing --------------------------------------------------------------------------------------------

    def _found(self, election: Election) -> GroupId:
        person, node = self._person("m0"), self._key("node/n0")
        clock = self._clock("n0")
        founded = found("friends", election, person.secret, node, person.name, "n0", self._rng, clock.now())
        computer = self._computer("n0", Identity(founded.group, node), self._gives, clock, self._line)
        durable = computer.disk.snapshot()
        durable.apply(founded.writes)
        computer.disk.restore(durable)
        self._owners["n0"] = person
        computer.start()
        self.world.run(1.0)
        return founded.group

    def grow(self, count: int, contributions: Sequence[Contribution] | None = None) -> list[Computer]:
        """Let computers of one new member each join until there are `count`; returns the new ones."""
        new = []
        while len(self.computers) < count:
            number = len(self.computers)
            gives = contributions[number] if contributions is not None else self._gives
            new.append(self.join(gives))
        return new

    def join(
        self,
        contribution: Contribution | None = None,
        inviter: Computer | None = None,
        line: Line | None = None,
        within_s: float = 30.0,
        home: Home | None = None,
    ) -> Computer:
        """Invite a new member and let one computer join (from that home); waits until it belongs."""
        ticket = self.invite(inviter)
        computer = self.prepare_join(ticket, contribution, line)
        if home is not None:
            computer.live_in(home)
        computer.start()
        self.until(lambda: self.joined(computer), within_s, what=f"{computer.name} joined")
        return computer

    def join_own(self, first: Computer, within_s: float = 30.0) -> Computer:
        """Let one more computer of the member who owns `first` join; waits until it belongs."""
        computer = self.prepare_join(self.invite(first, own_computer=True), person=self.owner(first))
        computer.start()
        self.until(lambda: self.joined(computer), within_s, what=f"{computer.name} joined")
        return computer

    def invite(self, inviter: Computer | None = None, *, own_computer: bool = False) -> str:
        """Make a ticket at a node (the first that runs)."""
        issued = self.answer(inviter or self.first_up(), InvitePerson(own_computer))
        assert isinstance(issued, TicketIssued), issued
        return issued.text

    def prepare_join(
        self,
        ticket: str,
        contribution: Contribution | None = None,
        line: Line | None = None,
        person: Person | None = None,
        name: str = "",
    ) -> Computer:
        """A computer of a new member (or of `person`) with a ticket in its settings; joins when it is started."""
        text = read_ticket(ticket)
        number = len(self.computers)
        name = name or f"n{number}"
        if person is None:
            person = self._person(f"m{number}")
        identity = Identity(text.group, self._key(f"node/{name}"))
        gives = self._gives if contribution is None else contribution
        computer = self._computer(name, identity, gives, self._clock(name), line or self._line)
        computer.settings.peers = tuple((contact.node, contact.addresses) for contact in text.contacts)
        computer.settings.join = JoinGroup(ticket, person.secret.seed, person.name, name)
        self._owners[name] = person
        return computer

    def newcomer(self) -> Computer:
        """A computer of a new member, off and without a ticket (`gathering` admits it)."""
        number = len(self.computers)
        name = f"n{number}"
        person = self._person(f"m{number}")
        identity = Identity(self.group, self._key(f"node/{name}"))
        computer = self._computer(name, identity, self._gives, self._clock(name), self._line)
        self._owners[name] = person
        return computer

    def joined(self, computer: Computer) -> bool:
        """Whether the node knows that it belongs."""
        return computer.runs and computer.core.membership.node(computer.node) is not None

    def _person(self, name: str) -> Person:
        person = Person(name, self._key(f"member/{name}"))
        self.people.append(person)
        return person

    def _key(self, name: str) -> SecretKey:
        return SecretKey(self.world.random(f"key/{name}").randbytes(32))

    def _clock(self, name: str) -> Clock:
        rng = self.world.random(f"clock/{name}")
        drift_ppm = rng.uniform(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)
        return Clock(self.world, drift_ppm, rng.uniform(-WALL_ERROR_S_MAX, WALL_ERROR_S_MAX))

    def _computer(
        self, name: str, identity: Identity, gives: Contribution, clock: Clock, line: Line
    ) -> Computer:
        address = f"10.0.{len(self.computers) // 250}.{len(self.computers) % 250 + 1}:4000"
        settings = Settings(identity, gives)
        computer = Computer(
            self.world,
            self.network,
            name,
            address,
            settings,
            self._by_node.get,
            self.observers,
            self.config,
            line,
            clock,
        )
        self.computers.append(computer)
        self._by_node[identity.node] = computer
        return computer

    # -- finding --------------------------------------------------------------------------------------------

    def __getitem__(self, number: int) -> Computer:
        return self.computers[number]

    def of(self, node: NodeId) -> Computer:
        """The computer of a node."""
        return self._by_node[node]

    def up(self) -> list[Computer]:
        """The computers whose nodes run and can do something now."""
        return [computer for computer in self.computers if computer.up]

    def first_up(self) -> Computer:
        """The first computer that is up and belongs to the group."""
        return next(computer for computer in self.up() if self.joined(computer))

    def owner(self, computer: Computer) -> Person:
        return self._owners[computer.name]

    # -- time -----------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)

    def until(self, condition: Callable[[], bool], within_s: float, what: str = "the condition") -> float:
        """Let time pass until the condition holds; how long it took. Raises `Failed` when it takes too long."""
        took_s = self.world.run_until(condition, within_s)
        if took_s is None:
            self.fail(f"not within {within_s:g} s: {what}")
        return took_s

    def fail(self, why: str, computers: Iterable[Computer] | None = None) -> NoReturn:
        """Raise `Failed` with the seed, the command that replays it and the stories of the nodes concerned."""
        raise Failed(self.describe(why, list(self.computers if computers is None else computers)))

    def describe(self, why: str, computers: Sequence[Computer], lines_max: int = 60) -> str:
        """A failure in words."""
        parts = [f"{why}\nat {self.world.now_s:.3f} s, seed {self.world.seed}; replay: {self.replay or '-'}"]
        for computer in computers:
            how = "up" if computer.up else ("asleep" if computer.asleep else "down")
            parts.append(f"--- {computer.name} {computer.node.hex()[:10]}: {how}")
            for at_s, notice in list(computer.notices)[-15:]:
                parts.append(f"    {at_s:9.3f} {notice.kind}: {notice.text}")
        for computer in computers[:3]:
            if computer.runs:
                story = computer.core.story.tell().splitlines()
                parts.append(f"--- story of {computer.name}, its last {lines_max} lines")
                parts += [self._readable(line) for line in story[-lines_max:]]
        return "\n".join(parts)

    def _readable(self, line: str) -> str:
        """A line of a story with names in place of keys."""
        for computer in self.computers:
            line = line.replace(repr(computer.node), computer.name)
        for service, name in self.services.items():
            line = line.replace(repr(service), name)
        return line[:STORY_LINE_CHARS_MAX]

    # -- requests -------------------------------------------------------------------------------------------

    def answer(self, computer: Computer, request: Request, within_s: float = ANSWER_WITHIN_S) -> object:
        """Ask a node and wait for its answer, which may be a `Refusal`."""
        asked = computer.ask(request)
        self.until(lambda: asked.answered, within_s, what=f"{computer.name} answers {type(request).__name__}")
        return asked.result

    def specification(self, name: str, computer: Computer, object_bytes: int = OBJECT_BYTES) -> Specification:
        """A service of the owner of this computer."""
        return Specification(
            name=name,
            owner=self.owner(computer).id,
            version=1,
            object=ObjectId(digest(name.encode())),
            object_bytes=object_bytes,
            environment=KIND,
        )

    def creation(
        self,
        name: str,
        computer: Computer,
        replicas: int = 1,
        object_bytes: int = OBJECT_BYTES,
        active: bool = True,
    ) -> CreateService:
        """The request to create a service."""
        return CreateService(self.specification(name, computer, object_bytes), replicas, active)

    def deploy(
        self,
        name: str,
        replicas: int = 3,
        at: Computer | None = None,
        object_bytes: int = OBJECT_BYTES,
        active: bool = True,
    ) -> ServiceId:
        """Put the object, have it copied, create and activate the service; returns when that is acknowledged."""
        computer = at or self.first_up()
        creation = self.creation(name, computer, replicas, object_bytes, active)
        specification = creation.specification
        computer.put_object(specification.object, object_bytes)
        placed = self.answer(computer, PlaceObject(specification.object, object_bytes))
        assert isinstance(placed, ObjectPlaced), placed
        written = self.answer(computer, creation)
        assert isinstance(written, Written), written
        self.services[written.service] = name
        return written.service

    def set_active(self, service: ServiceId, active: bool, at: Computer | None = None) -> Asked:
        return (at or self.first_up()).ask(SetActive(service, active))

    def scale(self, service: ServiceId, replicas: int, at: Computer | None = None) -> Asked:
        return (at or self.first_up()).ask(SetReplicas(service, replicas))

    def eliminate(self, service: ServiceId, at: Computer | None = None) -> Asked:
        return (at or self.first_up()).ask(EliminateService(service))

    # -- faults ---------------------------------------------------------------------------------------------

    def crash(self, *computers: Computer) -> None:
        """Pull the plugs."""
        for computer in computers:
            computer.power_off()

    def restart(self, *computers: Computer) -> None:
        """Switch on, or start the node again."""
        for computer in computers:
            computer.start()

    def crash_at_effect(
        self,
        number: int,
        *,
        power: bool,
        begin: Callable[[Event], bool] | None = None,
        effect: Callable[[Effect], bool] | None = None,
    ) -> CrashAtEffect:
        """Let the first node that hears of such an event, or is about to carry out such an effect, die before the
        `number`-th effect from there on.
        """
        crash = CrashAtEffect(number, power, begin or (lambda event: False), effect or (lambda effect: False))
        self.observers.append(crash)
        return crash

    def partition(self, *sides: Iterable[Computer]) -> Rule:
        """Cut the sides from each other; computers of no side reach everybody."""
        return self.network.add(Partition(*([computer.name for computer in side] for side in sides)))

    def one_way(self, sources: Iterable[Computer], targets: Iterable[Computer]) -> Rule:
        """Nothing gets from the sources to the targets any more."""
        return self.network.add(OneWay([one.name for one in sources], [one.name for one in targets]))

    def heal(self) -> None:
        """All wires work again."""
        self.network.heal()

    # -- the truth ------------------------------------------------------------------------------------------

    def running_on(self, service: ServiceId) -> list[Computer]:
        """Where a replica of the service answers now."""
        return [computer for computer in self.computers if computer.serves(service)]

    def running(self, service: ServiceId) -> int:
        """How many replicas answer now."""
        return len(self.running_on(service))

    def masters(self, service: ServiceId) -> list[Computer]:
        """Whose dispatchers master the service, by their own account."""
        return [
            computer
            for computer in self.up()
            if AgentKind.DISPATCHER in computer.settings.contribution.agents
            and service in computer.core.dispatcher.masters()
        ]

    def master_of(self, service: ServiceId) -> Computer:
        """The master with the highest ballot. Raises `Failed` when there is none."""
        masters = self.masters(service)
        if not masters:
            self.fail(f"nobody masters {self.services.get(service, service.hex())}")
        return max(masters, key=lambda one: one.core.dispatcher.ballot_of(service) or NO_BALLOT)

    def catalogues(self) -> list[bytes]:
        """The different catalogues that the nodes that are up hold."""
        found = [computer.core.catalogue.fingerprint() for computer in self.up()]
        return list(dict.fromkeys(found))
