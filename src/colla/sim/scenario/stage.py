"""What the acts of a scenario work on: a simulated group, its computers and services by name, and taking faults back.

Invariants: `peace` takes back everything that acts did to wires, computers, disks, environments and contributions, except
what the world cannot take back (a wiped disk, a clock that was set, who left, what was asked of services).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from colla.agents.administration_requests import Depart
from colla.agents.requests import ModifyService, PlaceObject, TicketIssued, Written
from colla.model.contribution import Contribution
from colla.model.ids import ObjectId, ServiceId, digest
from colla.model.keys import SecretKey
from colla.protocol.membership.tickets import TicketText, read_ticket
from colla.sim.computer import Asked, Computer
from colla.sim.disk import USUAL
from colla.sim.environment import WELL_BEHAVED
from colla.sim.group import SimGroup
from colla.sim.network import Line, Rule

if TYPE_CHECKING:
    from colla.sim.scenario.act import Act
    from colla.sim.scenario.acts.people import Gives

POLL_S = 0.05
"""How often it is looked whether a request was answered."""


class Stage:
    """See the module's docstring."""

    def __init__(self, group: SimGroup) -> None:
        self.group = group
        self.services: dict[str, ServiceId] = {}
        self.owners: dict[str, str] = {}
        """The computer at which each service was created, by name."""
        self.creating: dict[str, None] = {}
        self.left: dict[str, None] = {}
        """The computers that left for good."""
        self.invited_by: dict[str, str] = {}
        """By whose computer those that joined later were invited."""
        self.tickets: dict[str, TicketText] = {}
        """With which ticket they came."""
        self.out_of_the_group = False
        """Whether somebody asked for a computer or a member to be taken out."""
        self.acts: dict[str, int] = {}
        """How many acts of each kind found something to do."""
        self.log: list[str] = []
        self.over = False
        """Whether peace has come."""
        self._gave: dict[str, Contribution] = {}
        self._lines: dict[str, Line] = {}
        self._rules: list[Rule] = []
        self._versions = 0

    # -- acts -----------------------------------------------------------------------------------------------

    def perform(self, act: Act) -> None:
        """Its time has come."""
        done = act.do(self)
        if done:
            self.acts[act.kind] = self.acts.get(act.kind, 0) + 1
        said = ", ".join(
            f"{name}={value}"
            for name, value in msgspec.to_builtins(act).items()
            if name not in ("at_s", "act") and value is not None
        )
        self.log.append(f"{self.now_s:9.3f} {act.kind} {said}{'' if done else ' (nothing to do)'}")

    @property
    def now_s(self) -> float:
        return self.group.world.now_s

    def after(self, seconds: float | None, call: Callable[..., Any], *arguments: Any) -> None:
        """Do that later, unless peace comes before; with None, peace will see to it."""
        if seconds is not None:
            self.group.world.after(seconds, self._unless_over, call, arguments)

    def _unless_over(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if not self.over:
            call(*arguments)

    def random(self, name: str) -> Random:
        """The randomness of one act."""
        return self.group.world.random(f"act/{name}")

    # -- computers ------------------------------------------------------------------------------------------

    def computer(self, name: str) -> Computer | None:
        """The computer of that name, unless there is none or it left."""
        if name in self.left:
            return None
        return next((one for one in self.group.computers if one.name == name), None)

    def member(self, name: str) -> Computer | None:
        """The computer of that name, if its node is up and belongs to the group."""
        computer = self.computer(name)
        return computer if computer is not None and computer.up and self.group.joined(computer) else None

    def start(self, computer: Computer) -> bool:
        """Start its node, unless it left."""
        if computer.name in self.left:
            return False
        computer.start()
        return True

    def introduce(self, computer: Computer) -> None:
        """Its settings name all others, as after a time in the group."""
        others = [one for one in self.group.computers if one is not computer and one.name not in self.left]
        computer.settings.peers = tuple((one.node, (one.address,)) for one in others)

    def set_line(self, computer: Computer, line: Line) -> None:
        """Its line is such from now on."""
        computer.line = line
        self.group.network.changed()

    def restore_line(self, computer: Computer) -> None:
        self.set_line(computer, self._lines.get(computer.name, computer.line))

    def mend_environment(self, computer: Computer) -> None:
        """What is started from now on behaves. What flaps would do so for ever: it ends."""
        environment = computer.environment
        if environment.behaviour.flap_s is not None:
            for service in self.group.services:
                environment.crash(service)
        environment.behaviour = WELL_BEHAVED

    def gave(self, computer: Computer) -> Contribution:
        """What it gave at first."""
        return self._gave.get(computer.name, computer.settings.contribution)

    def give_again(self, computer: Computer) -> None:
        """The owner gives again what was given at first."""
        if computer.name not in self.left and computer.settings.contribution != self.gave(computer):
            computer.contribute(self.gave(computer))

    def note(self, computer: Computer) -> None:
        """Remember how it was before anything happened to it."""
        self._gave[computer.name] = computer.settings.contribution
        self._lines[computer.name] = computer.line

    # -- wires ----------------------------------------------------------------------------------------------

    def impose(self, rule: Rule, lasts_s: float | None) -> None:
        """The rule holds for so long, or until peace."""
        self._rules.append(self.group.network.add(rule))
        self.after(lasts_s, self._lift, rule)

    def _lift(self, rule: Rule) -> None:
        if rule in self._rules:
            self._rules.remove(rule)
            self.group.network.remove(rule)

    # -- services -------------------------------------------------------------------------------------------

    def with_replicas(self, name: str, node: str | None) -> list[tuple[Computer, ServiceId]]:
        """Where replicas of the service run, or only whether one runs there."""
        service = self.services.get(name)
        if service is None:
            return []
        return [
            (one, service)
            for one in self.group.computers
            if node in (None, one.name) and one.environment.of(service)
        ]

    def created(self, name: str, service: ServiceId, computer: Computer) -> None:
        """The service exists."""
        self.services[name] = self.services.get(name, service)
        self.group.services[service] = name
        self.owners[name] = computer.name

    def create(
        self, name: str, computer: Computer, replicas: int, object_bytes: int, *, active: bool
    ) -> None:
        """Put the object, have it copied, create the service."""
        self.creating[name] = None
        creation = self.group.creation(name, computer, replicas, object_bytes, active)

        def placed(_: Asked) -> None:
            self.when_answered(computer.ask(creation), written)

        def written(asked: Asked) -> None:
            self.creating.pop(name, None)
            if isinstance(asked.result, Written):
                self.created(name, asked.result.service, computer)

        object_id = creation.specification.object
        computer.put_object(object_id, object_bytes)
        self.when_answered(computer.ask(PlaceObject(object_id, object_bytes)), placed)

    def modify(self, name: str, service: ServiceId, computer: Computer) -> None:
        """Put another object and ask for a new version with it."""
        found = computer.core.catalogue.service(service)
        assert found is not None, "the act looked"
        self._versions += 1
        object_id = ObjectId(digest(f"{name}/{self._versions}".encode()))
        object_bytes = found.specification.object_bytes
        changed = msgspec.structs.replace(found.specification, object=object_id)
        computer.put_object(object_id, object_bytes)
        placing = computer.ask(PlaceObject(object_id, object_bytes))
        self.when_answered(placing, lambda _: computer.ask(ModifyService(service, changed)))

    def when_answered(self, asked: Asked, call: Callable[..., Any], *arguments: Any) -> None:
        """Call with what was asked (and the arguments) once it is answered."""
        if asked.answered:
            call(asked, *arguments)
        else:
            self.group.world.after(POLL_S, self.when_answered, asked, call, *arguments)

    # -- people ---------------------------------------------------------------------------------------------

    def let_join(self, asked: Asked, name: str, inviter: Computer, own: bool, gives: Gives) -> None:
        """Somebody got a ticket: the new computer is started with it."""
        if not isinstance(asked.result, TicketIssued) or self.computer(name) is not None:
            return
        person = self.group.owner(inviter) if own else None
        contribution = gives.applied_to(self.gave(inviter))
        joiner = self.group.prepare_join(asked.result.text, contribution, person=person, name=name)
        self.invited_by[name], self.tickets[name] = inviter.name, read_ticket(asked.result.text)
        self.note(joiner)
        joiner.start()

    def is_void(self, name: str, members: Sequence[Computer]) -> bool:
        """Whether nobody can let that joiner in: its inviter left, or lost its disk and with it the only record of the ticket."""
        inviter, ticket = self.invited_by.get(name), self.tickets.get(name)
        if inviter is None or ticket is None:
            return False
        key = SecretKey(ticket.seed).public
        unknown = all(one.core.membership.ticket(ticket.author, key) is None for one in members)
        return inviter in self.left or (unknown and any(one.wiped for one in members if one.name == inviter))

    def leave(self, computer: Computer, drain_s: float) -> None:
        """Drain, depart, say goodbye, delete."""
        computer.contribute(msgspec.structs.replace(computer.settings.contribution, draining=True))
        self.after(drain_s, self._depart, computer)

    def _depart(self, computer: Computer) -> None:
        self.left[computer.name] = None
        self.when_answered(computer.ask(Depart()), self._stop_for_good, computer)

    def _stop_for_good(self, asked: Asked, computer: Computer) -> None:
        computer.stop()
        # Goodbye takes a moment of its own; then the folder is deleted.
        self.group.world.after(computer.config.goodbye_s + POLL_S, computer.wipe)

    # -- peace ----------------------------------------------------------------------------------------------

    def peace(self) -> None:
        """Every fault ends, every computer that did not leave runs, and gives what it gave at first."""
        group = self.group
        self.over = True
        group.heal()
        self._rules.clear()
        for computer in group.computers:
            if computer.name in self.left:
                continue
            self.restore_line(computer)
            computer.disk.speed = USUAL
            computer.disk.lies_s = 0.0
            computer.disk.free()
            self.mend_environment(computer)
            for service in group.services:
                computer.environment.recover(service)
            computer.start()
            if computer.process is not None:
                computer.process.trap = None
            self.give_again(computer)
