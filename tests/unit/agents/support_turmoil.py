"""Random faults and random changes upon a mini group, then peace: does it come to rest where it should?"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from support_group import MiniGroup

FAULTS = ("kill", "kill", "crash", "boot", "boot", "hang", "wake", "split", "heal", "deafen", "leave", "exit")
CHANGES = ("modify", "eliminate", "scale", "drain", "switch")
PAUSES_S = (0.05, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 40.0)
PEACE_S = 75.0


class Turmoil:
    """One random history; `log` tells what happened when."""

    def __init__(self, election: str, seed: int, loss: float) -> None:
        self.rng = Random(seed)
        self.group = MiniGroup(self.rng.randint(3, 7), election, seed=seed, loss=loss)
        self.nodes = list(self.group.nodes.values())
        self.services: list[Any] = []
        self.log: list[tuple[float, str, str]] = []

    def play(self) -> list[str]:
        """Live through it, then make peace. Returns what is wrong at the end."""
        self.group.run(self.rng.uniform(0, 5))
        for number in range(self.rng.randint(1, 3)):
            service = self.group.service(f"site{number}", self.rng.randint(1, 3))
            self.services.append(service)
            self.group.deploy(service, self.rng.choice(self.nodes))
            self.group.run(self.rng.uniform(0, 3))
        for _ in range(self.rng.randint(3, 10)):
            happening, node = self.rng.choice(FAULTS + CHANGES), self.rng.choice(self.nodes)
            self.log.append((round(self.group.t, 2), happening, node.name))
            if happening in FAULTS:
                self._fault(happening, node)
            elif node.up:
                self._change(happening, node)
            self.group.run(self.rng.choice(PAUSES_S))
        self._make_peace()
        return self.complaints()

    def _fault(self, fault: str, node: Any) -> None:
        group = self.group
        if fault == "kill" and node.up:
            group.kill(node)
        elif fault == "crash" and node.up:
            group.crash(node)
        elif fault == "boot" and not node.up:
            group.boot(node)
        elif fault in ("hang", "wake"):
            node.hung = fault == "hang"
        elif fault == "split":
            mixed = self.rng.sample(self.nodes, len(self.nodes))
            border = self.rng.randint(1, len(mixed) - 1)
            group.split(mixed[:border], mixed[border:])
        elif fault == "heal":
            group.heal()
        elif fault == "deafen":
            other = self.rng.choice([item for item in self.nodes if item is not node])
            group.cut(node, other, one_way=True)
        elif fault == "leave" and node.alive:
            group.leave(node)
        elif fault == "exit" and node.up:
            node.exit_replica(self.rng.choice(self.services).id)

    def _change(self, change: str, node: Any) -> None:
        if change == "drain":
            given = node.own.contribution
            self.group.contribute(node, msgspec.structs.replace(given, draining=not given.draining))
            return
        service = self.rng.choice(self.services)
        known = node.catalogue.service(service.id)
        if known is None:
            return
        specification = known.specification
        if change == "eliminate" and len(self.services) > 1:
            self.services.remove(service)
            self.group.write(service, node, gone=True)
        elif change == "modify":
            newer = msgspec.structs.replace(specification, version=specification.version + 1)
            self.group.write(msgspec.structs.replace(known, specification=newer), node)
        elif change == "scale":
            self.group.write(msgspec.structs.replace(known, replicas=self.rng.randint(1, 3)), node)
        elif change == "switch":
            self.group.write(msgspec.structs.replace(known, active=not known.active), node)

    def _make_peace(self) -> None:
        group = self.group
        group.loss = 0.0
        group.heal()
        group.run(0.5)
        for node in self.nodes:
            node.hung = False
            if not node.up:
                group.boot(node)
            if node.own.contribution.draining:
                group.contribute(node, msgspec.structs.replace(node.own.contribution, draining=False))
        group.heal()
        group.run(PEACE_S)

    def complaints(self) -> list[str]:
        """Every way in which the group is not where it should be."""
        found: list[str] = []
        newest: dict[bytes, tuple[int, Any]] = {}
        for node in self.nodes:
            for service, entry in node.catalogue.entries.items():
                if entry[0] > newest.get(service, (0, None))[0]:
                    newest[service] = entry
        for service, (_, content) in newest.items():
            masters = [node for node in self.nodes if service in node.dispatcher.masters()]
            runs = [r for node in self.nodes for r in node.runs.values() if r.service == service]
            name = service.hex()[:6]
            if content is None or not content.active:
                if masters or runs:
                    found.append(f"{name} is not active, but mastered or running")
                continue
            wanted = min(content.replicas, len(self.nodes))
            if len(masters) != 1:
                found.append(f"{name} has {len(masters)} masters")
                continue
            if len(runs) != wanted or not all(replica.ready for replica in runs):
                found.append(f"{name} has {len(runs)} replicas instead of {wanted} ready ones")
            if any(replica.version != content.specification.version for replica in runs):
                found.append(f"{name} runs old versions")
            for node in self.nodes:
                if node.dispatcher.master_of(service, self.group.now) != masters[0].id:
                    found.append(f"{node.name} does not know the master of {name}")
        return found
