"""Random faults and random people upon a group: what a simulation does when nobody wrote a scenario.

`Turmoil` draws acts from the world's randomness, one after the other, and keeps a log of them; `peace` takes every fault
back, starts every computer and lets every owner give again what was given at first. Afterwards a group must become consistent.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from colla.agents.requests import Written
from colla.model.ids import ServiceId
from colla.sim.computer import Asked, Computer
from colla.sim.group import SimGroup

PAUSE_S_MAX = 6.0
"""Between two acts."""
STALL_S_MAX = 12.0
SERVICES_MAX = 8
REPLICAS_MAX = 4
DRIFT_PPM_MAX = 300.0
JUMP_S_MAX = 4000.0
WIPES_MAX = 1
"""A write acknowledged on two disks survives one of them being replaced."""
FREE_AFTER_S = 13.0
"""Peace begins so long after the wires healed, and nodes are started then: links know that they are broken or not."""


class Turmoil:
    """See the module's docstring."""

    def __init__(self, group: SimGroup) -> None:
        self.group = group
        self.log: list[str] = []
        self._rng = group.world.random("turmoil")
        self._gave = {computer.name: computer.settings.contribution for computer in group.computers}
        self._owners: dict[ServiceId, Computer] = {}
        self._creating: list[tuple[Computer, Asked, str]] = []
        self._wipes = 0
        self._acts: dict[str, tuple[int, Callable[[Computer], None]]] = {
            "power off": (3, lambda one: one.power_off()),
            "kill": (2, lambda one: one.kill()),
            "stop": (1, lambda one: one.stop()),
            "start some": (6, self._start_some),
            "cut in two": (2, self._cut),
            "mute": (1, lambda one: self._one_way(one, deaf=False)),
            "deafen": (1, lambda one: self._one_way(one, deaf=True)),
            "heal": (4, lambda one: group.heal()),
            "stall": (2, lambda one: one.stall(self._rng.uniform(0.1, STALL_S_MAX))),
            "suspend": (1, lambda one: one.suspend()),
            "resume all": (2, self._resume),
            "create": (2, self._create),
            "eliminate": (1, lambda one: self._change(group.eliminate)),
            "scale": (2, lambda one: self._change(self._scale)),
            "switch": (2, lambda one: self._change(self._switch)),
            "contribute": (2, self._contribute),
            "crash replicas": (1, lambda one: self._replicas(one.environment.crash)),
            "hang replicas": (1, lambda one: self._replicas(one.environment.hang)),
            "drift": (1, lambda one: one.clock.drift(self._rng.uniform(-DRIFT_PPM_MAX, DRIFT_PPM_MAX))),
            "jump": (1, lambda one: one.clock.jump(self._rng.uniform(-JUMP_S_MAX, JUMP_S_MAX))),
            "fill disk": (1, lambda one: one.disk.fill()),
            "free disk": (1, lambda one: one.disk.free()),
            "damage objects": (1, self._damage),
            "wipe": (1, self._wipe),
        }

    def run(self, acts: int) -> None:
        """So many random acts, with pauses between them."""
        names, weights = list(self._acts), [weight for weight, _ in self._acts.values()]
        for _ in range(acts):
            name = self._rng.choices(names, weights)[0]
            computer = self._rng.choice(self.group.computers)
            self.log.append(f"{self.group.world.now_s:8.2f} {name} {computer.name}")
            self._acts[name][1](computer)
            self.group.run(self._rng.uniform(0.05, PAUSE_S_MAX))
            self._note_created()

    def peace(self) -> None:
        """Every fault ends."""
        group = self.group
        group.heal()
        self._resume(group[0])
        for computer in group.computers:
            computer.disk.free()
            for service in self._owners:
                computer.environment.recover(service)
        group.run(FREE_AFTER_S)
        self._note_created()
        for computer in group.computers:
            computer.start()
            computer.contribute(self._gave[computer.name])

    # -- acts -----------------------------------------------------------------------------------------------

    def _start_some(self, computer: Computer) -> None:
        for one in self.group.computers:
            if not one.runs and self._rng.random() < 0.6:
                one.start()

    def _cut(self, computer: Computer) -> None:
        side = [one for one in self.group.computers if self._rng.random() < 0.5]
        self.group.partition(side, [one for one in self.group.computers if one not in side])

    def _one_way(self, computer: Computer, *, deaf: bool) -> None:
        others = [one for one in self.group.computers if one is not computer]
        if deaf:
            self.group.one_way(others, [computer])
        else:
            self.group.one_way([computer], others)

    def _resume(self, computer: Computer) -> None:
        for one in self.group.computers:
            one.resume()

    def _create(self, computer: Computer) -> None:
        group = self.group
        if not computer.up or not group.joined(computer) or len(self._owners) >= SERVICES_MAX:
            return
        name = f"t{len(self.log)}"
        creation = group.creation(name, computer, self._rng.randint(1, REPLICAS_MAX))
        computer.put_object(creation.specification.object, creation.specification.object_bytes)
        self._creating.append((computer, computer.ask(creation), name))

    def _note_created(self) -> None:
        for computer, asked, name in list(self._creating):
            if asked.answered:
                self._creating.remove((computer, asked, name))
                if isinstance(asked.result, Written):
                    self.group.services[asked.result.service] = name
                    self._owners[asked.result.service] = computer

    def _change(self, change: Callable[[ServiceId, Computer], Asked]) -> None:
        if self._owners:
            service = self._rng.choice(list(self._owners))
            if self._owners[service].up:
                change(service, self._owners[service])

    def _scale(self, service: ServiceId, at: Computer) -> Asked:
        return self.group.scale(service, self._rng.randint(1, REPLICAS_MAX), at)

    def _switch(self, service: ServiceId, at: Computer) -> Asked:
        return self.group.set_active(service, self._rng.random() < 0.6, at)

    def _contribute(self, computer: Computer) -> None:
        if computer.up:
            paused, draining = self._rng.random() < 0.2, self._rng.random() < 0.2
            gives = self._gave[computer.name]
            computer.contribute(msgspec.structs.replace(gives, paused=paused, draining=draining))

    def _replicas(self, what: Callable[[ServiceId], None]) -> None:
        for service in self._owners:
            what(service)

    def _damage(self, computer: Computer) -> None:
        for object_id in list(computer.objects.sizes):
            if self._rng.random() < 0.3:
                computer.objects.damage(object_id)

    def _wipe(self, computer: Computer) -> None:
        """The disk breaks; with an empty one and the node's key the computer finds the others by their addresses."""
        if self._wipes < WIPES_MAX:
            self._wipes += 1
            computer.settings.peers = tuple(
                (one.node, (one.address,)) for one in self.group.computers if one is not computer
            )
            computer.wipe()
