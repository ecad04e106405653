"""Phase 1: people create, activate, use, deactivate and eliminate services; computers fail, lose their line and return.

Once per tick every computer draws what happens to it; each act comes at a random moment within the tick. Who is
disconnected is half of the time switched off (it loses what was not on its disk), else cut off while it runs on.
The probabilities of disconnecting, reconnecting, creating and deleting are those that the authors' group published in
later teaching code; the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from colla.agents.requests import CreateService, LocateService, ObjectPlaced, PlaceObject, Written
from colla.model.ids import ServiceId
from colla.sim.computer import Asked, Computer
from colla.sim.group import SimGroup
from colla.sim.network import Rule

OBJECT_BYTES = 20_000
LOOK_EVERY_S = 0.2
"""How often people look whether their request was answered."""
PATIENCE_S = 60.0


class Activity(msgspec.Struct, frozen=True):
    """The parameters of both phases; probabilities are per tick and computer."""

    tick_s: float = 20.0
    active_s: float = 360.0
    quiet_s: float = 180.0
    disconnect: float = 0.05
    reconnect: float = 0.2
    create: float = 0.25
    delete: float = 0.1
    activate: float = 0.1
    deactivate: float = 0.05
    use: float = 0.25
    failing: float = 0.5
    """Of those that disconnect, how many fail; the others are cut off."""
    replicas_max: int = 3


class Isolated(Rule):
    """These computers reach nobody and nobody reaches them."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def cuts(self, source: str, target: str) -> bool:
        return source in self.names or target in self.names


class People:
    """What happens in phase 1. The truth about who is connected is here and nowhere in the agents."""

    def __init__(self, group: SimGroup, activity: Activity) -> None:
        self.group = group
        self._activity = activity
        self._rng = group.world.random("activity")
        self._isolated = Isolated()
        self._owned: dict[str, list[ServiceId]] = {one.name: [] for one in group.computers}
        self._created = 0
        group.network.add(self._isolated)

    # -- the truth ------------------------------------------------------------------------------------------

    def is_connected(self, computer: Computer) -> bool:
        """Whether it runs and reaches others."""
        return computer.up and computer.name not in self._isolated.names

    def connected(self) -> list[Computer]:
        return [one for one in self.group.computers if self.is_connected(one)]

    # -- time -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Draw what happens until the next tick, and let that time pass."""
        world, activity, rng = self.group.world, self._activity, self._rng
        acts: Sequence[tuple[float, Callable[[Computer], None]]] = (
            (activity.disconnect, self._disconnect),
            (activity.reconnect, self._reconnect),
            (activity.create, self._create),
            (activity.delete, self._delete),
            (activity.activate, partial(self._switch, active=True)),
            (activity.deactivate, partial(self._switch, active=False)),
            (activity.use, self._use),
        )
        for computer in self.group.computers:
            for probability, act in acts:
                happens, at_s = rng.random() < probability, rng.random() * activity.tick_s
                if happens:
                    world.after(at_s, act, computer)
        world.run(activity.tick_s)

    # -- computers ------------------------------------------------------------------------------------------

    def _disconnect(self, computer: Computer) -> None:
        # Somebody stays: a group without anybody has nothing to be consistent.
        if not self.is_connected(computer) or len(self.connected()) <= 1:
            return
        if self._rng.random() < self._activity.failing:
            computer.power_off()
        else:
            self._isolated.names[computer.name] = None
            self.group.network.changed()

    def _reconnect(self, computer: Computer) -> None:
        if not computer.runs:
            computer.start()
        elif computer.name in self._isolated.names:
            del self._isolated.names[computer.name]
            self.group.network.changed()

    def reconnect_all(self) -> None:
        """Whoever was disconnected returns."""
        for computer in self.group.computers:
            self._reconnect(computer)

    # -- services -------------------------------------------------------------------------------------------

    def _acts(self, computer: Computer) -> bool:
        return self.is_connected(computer) and self.group.joined(computer)

    def _create(self, computer: Computer) -> None:
        if not self._acts(computer):
            return
        self._created += 1
        name, replicas = f"s{self._created}", self._rng.randint(1, self._activity.replicas_max)
        request = self.group.creation(name, computer, replicas, OBJECT_BYTES, active=False)
        object_id = request.specification.object
        computer.put_object(object_id, OBJECT_BYTES)
        placing = computer.ask(PlaceObject(object_id, OBJECT_BYTES))
        self._then(placing, PATIENCE_S, self._placed, computer, request)

    def _placed(self, result: Any, computer: Computer, request: CreateService) -> None:
        if isinstance(result, ObjectPlaced):
            self._then(computer.ask(request), PATIENCE_S, self._written, computer, request)

    def _written(self, result: Any, computer: Computer, request: CreateService) -> None:
        if isinstance(result, Written):
            self.group.services[result.service] = request.specification.name
            self._owned[computer.name].append(result.service)

    def _then(self, asked: Asked, left_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Once it is answered, go on."""
        if asked.answered:
            call(asked.result, *arguments)
        elif left_s > 0.0:
            left_s -= LOOK_EVERY_S
            self.group.world.after(LOOK_EVERY_S, self._then, asked, left_s, call, *arguments)

    def _delete(self, computer: Computer) -> None:
        owned = self._owned[computer.name]
        if owned and self._acts(computer):
            self.group.eliminate(owned.pop(self._rng.randrange(len(owned))), computer)

    def _switch(self, computer: Computer, *, active: bool) -> None:
        if not self._acts(computer):
            return
        known = computer.core.catalogue.service
        choices = [
            service
            for service in self._owned[computer.name]
            if (found := known(service)) is not None and found.active is not active
        ]
        if choices:
            self.group.set_active(self._rng.choice(choices), active, computer)

    def _use(self, computer: Computer) -> None:
        if not self._acts(computer):
            return
        active = [service.id for service in computer.core.catalogue.services() if service.active]
        if active:
            computer.ask(LocateService(self._rng.choice(active)))
