"""Random scenarios, composed from a seed: which computers, which services, and acts of every kind upon them.

Each scenario draws from a few kinds of acts only, a different few each time (swarm testing: Groce et al., ISSTA 2012), because
faults of all kinds at once hide each other. The bounds keep the promises that are checked within reason: one disk
at most is lost, since what two of two disks held is gone; one computer at most leaves, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from colla.model.contribution import AgentKind
from colla.protocol.views import Election, Role
from colla.sim.network import HOME, LAN, Line
from colla.sim.scenario.act import Act
from colla.sim.scenario.acts import computers as computer_acts
from colla.sim.scenario.acts import environments, group_life, network, people
from colla.sim.scenario.patterns import PresencePattern
from colla.sim.scenario.scenario import FirstService, NodeGives, Scenario, SharedHome

NODES = (2, 3, 4, 5, 6, 7, 8)
NODES_WEIGHTS = (2, 6, 6, 4, 2, 1, 1)
ENDS_S_MIN, ENDS_S_MAX = 8.0, 40.0
STAYS_S = 3.0
KINDS_MIN, KINDS_MAX = 2, 9
ACTS_MIN, ACTS_MAX = 3, 18
SERVICES_WEIGHTS = (3, 2, 1)
REPLICAS_MAX = 4
CROWD_MAX = 3
"""People who come at about the same time."""
NODES_IN_ALL_MAX = 8
PATTERN_SHARE = 0.12
"""Scenarios in which computers come and go by the hours of the day."""
HOMES_SHARE = 0.12

LINES = (HOME, HOME, HOME, LAN, Line(loss=0.01), Line(delay_s=0.06, jitter_s=0.02, loss=0.02))
PERIODS: tuple[tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]], ...] = (
    (((18.0, 23.0),), ((10.0, 24.0),)),
    (((8.0, 17.0),), ()),
    (((7.0, 8.5), (17.0, 23.5)), ((9.0, 13.0), (15.0, 23.0))),
)


class Composer:
    """Draws one scenario."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(f"chaos/{seed}")
        self._election = list(Election)[seed % 2]
        self._ends_s = round(self._rng.uniform(ENDS_S_MIN, ENDS_S_MAX), 1)
        self._count = self._rng.choices(NODES, NODES_WEIGHTS)[0]
        self._nodes = [f"n{number}" for number in range(self._count)]
        self._services: list[str] = []
        self._joiners: list[str] = []
        self._disks_lost = 0
        self._mover = self._node()
        self._homes = self._draw_homes()
        self._draws: dict[str, tuple[int, Callable[[float], list[Act]]]] = {
            "power-off": (4, self._power_off),
            "kill": (4, self._kill),
            "crash-at-effect": (5, self._crash_at_effect),
            "stop": (2, self._stop),
            "blackout": (1, self._blackout),
            "suspend": (3, self._suspend),
            "stall": (3, self._stall),
            "slow": (2, self._slow),
            "lost disk": (2, self._lost_disk),
            "full-disk": (2, self._full_disk),
            "slow-disk": (2, self._slow_disk),
            "damage-objects": (1, self._damage),
            "clocks": (2, self._clock),
            "move": (1, self._move),
            "cut-in-two": (4, self._cut),
            "bridge": (3, self._bridge),
            "one-way": (3, self._one_way),
            "disturb": (2, self._disturb),
            "bad-line": (3, self._bad_line),
            "break-links": (2, self._break_links),
            "replicas": (3, self._replicas),
            "bad-environment": (3, self._bad_environment),
            "create": (3, self._create),
            "change": (6, self._change),
            "contribute": (3, self._contribute),
            "leave": (1, self._leave),
            "join": (3, self._join),
            "communicate": (3, self._communicate),
            "administer": (2, self._administer),
        }

    def compose(self) -> Scenario:
        """The scenario of this seed."""
        rng = self._rng
        services = tuple(
            self._first_service(number) for number in range(rng.choices((1, 2, 3), SERVICES_WEIGHTS)[0])
        )
        names = list(self._draws)
        chosen = {name: self._draws[name][0] for name in rng.sample(names, rng.randint(KINDS_MIN, KINDS_MAX))}
        acts: list[Act] = []
        times = sorted(
            round(rng.uniform(0.0, self._ends_s), 2) for _ in range(rng.randint(ACTS_MIN, ACTS_MAX))
        )
        for at_s in times:
            kind = rng.choices(list(chosen), list(chosen.values()))[0]
            acts += self._draws[kind][1](at_s)
        return Scenario(
            nodes=self._count,
            election=self._election,
            line=rng.choice(LINES),
            homes=self._homes,
            contributions=self._contributions(),
            services=services,
            presence=self._patterns(),
            acts=tuple(sorted(acts, key=lambda act: act.at_s)),  # type: ignore[arg-type]
            ends_s=self._ends_s,
            stays_s=STAYS_S,
        )

    # -- the beginning --------------------------------------------------------------------------------------

    def _first_service(self, number: int) -> FirstService:
        name = f"s{number}"
        self._services.append(name)
        return FirstService(name=name, replicas=self._rng.randint(1, REPLICAS_MAX), node=self._node())

    def _draw_homes(self) -> tuple[SharedHome, ...]:
        """Now and then some live behind routers that let computers meet; the founder's is always reachable."""
        if self._rng.random() >= HOMES_SHARE or self._count < 3:
            return ()
        inside = self._some(self._nodes[1:])
        cut = self._rng.randint(1, len(inside))
        return tuple(SharedHome(nodes=tuple(names)) for names in (inside[:cut], inside[cut:]) if names)

    def _contributions(self) -> tuple[NodeGives, ...]:
        """Now and then somebody gives less than everything; the first computer always gives all."""
        return tuple(
            NodeGives(node=name, gives=self._gives_less())
            for name in self._nodes[1:]
            if self._rng.random() < 0.15
        )

    def _gives_less(self) -> people.Gives:
        agents = [
            (AgentKind.USER,),
            (AgentKind.USER, AgentKind.EXECUTOR),
            (AgentKind.USER, AgentKind.REPOSITORY, AgentKind.GROUP),
            (AgentKind.USER, AgentKind.GROUP, AgentKind.DISPATCHER),
            (AgentKind.EXECUTOR, AgentKind.REPOSITORY),
        ]
        if self._rng.random() < 0.7:
            return people.Gives(agents=self._rng.choice(agents))
        return people.Gives(replicas_max=1, own_only=self._rng.random() < 0.3)

    def _patterns(self) -> tuple[PresencePattern, ...]:
        if self._rng.random() >= PATTERN_SHARE:
            return ()
        weekdays, weekend = self._rng.choice(PERIODS)
        return (
            PresencePattern(
                nodes=tuple(self._some(self._nodes[1:] or self._nodes)),
                weekdays=weekdays,
                weekend=weekend,
                day_s=float(self._rng.randint(8, 24)),
                away=self._rng.choice(("suspend", "stop", "power-off")),
            ),
        )

    # -- choosing -------------------------------------------------------------------------------------------

    def _node(self) -> str:
        return self._rng.choice(self._nodes)

    def _any_node(self) -> str:
        return self._rng.choice(self._nodes + self._joiners)

    def _some(self, names: list[str]) -> list[str]:
        """At least one of them, in their order."""
        chosen = self._rng.sample(names, self._rng.randint(1, len(names)))
        return [name for name in names if name in chosen]

    def _lasts_s(self, mean_s: float = 8.0) -> float | None:
        """How long a fault lasts: mostly a while, sometimes until the end."""
        if self._rng.random() < 0.12:
            return None
        return round(self._rng.expovariate(1 / mean_s) + 0.05, 2)

    # -- computers ------------------------------------------------------------------------------------------

    def _power_off(self, at_s: float) -> list[Act]:
        return [computer_acts.PowerOff(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s())]

    def _kill(self, at_s: float) -> list[Act]:
        return [computer_acts.Kill(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s(4.0))]

    def _crash_at_effect(self, at_s: float) -> list[Act]:
        effects: tuple[computer_acts.EffectKind, ...] = ("any", "any", "persist", "persist", "launch", "send")
        effect = self._rng.choice(effects)
        number = 0 if effect == "launch" else int(self._rng.expovariate(1 / 12.0))
        crash = computer_acts.CrashAtEffect(
            at_s=at_s,
            node=self._any_node(),
            number=number,
            effect=effect,
            power=self._rng.random() < 0.5,
            lasts_s=self._lasts_s(3.0),
        )
        return [crash]

    def _stop(self, at_s: float) -> list[Act]:
        keep = self._rng.random() < 0.3
        return [
            computer_acts.Stop(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s(), keep_replicas=keep)
        ]

    def _blackout(self, at_s: float) -> list[Act]:
        """The power fails for many computers at once, and they come back one after the other."""
        return [
            computer_acts.PowerOff(at_s=at_s, node=name, lasts_s=round(self._rng.uniform(1.0, 15.0), 2))
            for name in self._some(self._nodes)
        ]

    def _suspend(self, at_s: float) -> list[Act]:
        return [computer_acts.Suspend(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s())]

    def _stall(self, at_s: float) -> list[Act]:
        seconds = round(min(self._rng.expovariate(1 / 2.5) + 0.1, 15.0), 2)
        return [computer_acts.Stall(at_s=at_s, node=self._any_node(), seconds=seconds)]

    def _slow(self, at_s: float) -> list[Act]:
        return [
            computer_acts.Slow(
                at_s=at_s,
                node=self._any_node(),
                stall_s=round(self._rng.uniform(0.1, 2.0), 2),
                between_s=round(self._rng.uniform(0.1, 1.0), 2),
                lasts_s=self._lasts_s(),
            )
        ]

    def _lost_disk(self, at_s: float) -> list[Act]:
        if self._disks_lost:
            return self._kill(at_s)
        self._disks_lost += 1
        if self._rng.random() < 0.3:
            node, lies_s = self._node(), round(self._rng.uniform(0.2, 8.0), 1)
            crash = computer_acts.PowerOff(
                at_s=min(round(at_s + self._rng.uniform(0.5, 8.0), 2), self._ends_s), node=node, lasts_s=2.0
            )
            return [computer_acts.LyingDisk(at_s=at_s, node=node, lies_s=lies_s), crash]
        if self._rng.random() < 0.5:
            return [computer_acts.Wipe(at_s=at_s, node=self._node(), lasts_s=self._lasts_s())]
        returns_s = round(self._rng.uniform(0.5, max(1.0, self._ends_s - at_s)), 2)
        return [computer_acts.OldDisk(at_s=at_s, node=self._node(), returns_s=returns_s)]

    def _full_disk(self, at_s: float) -> list[Act]:
        return [computer_acts.FullDisk(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s())]

    def _slow_disk(self, at_s: float) -> list[Act]:
        flush_s = round(self._rng.uniform(0.02, 1.5), 2)
        return [
            computer_acts.SlowDisk(
                at_s=at_s, node=self._any_node(), flush_s=flush_s, lasts_s=self._lasts_s(12.0)
            )
        ]

    def _damage(self, at_s: float) -> list[Act]:
        return [computer_acts.DamageObjects(at_s=at_s, node=self._node())]

    def _clock(self, at_s: float) -> list[Act]:
        node = self._any_node()
        if self._rng.random() < 0.5:
            return [computer_acts.Drift(at_s=at_s, node=node, ppm=round(self._rng.uniform(-500.0, 500.0), 1))]
        seconds = round(self._rng.choice((1.0, -1.0)) * 10 ** self._rng.uniform(-1.0, 7.0), 2)
        return [computer_acts.Jump(at_s=at_s, node=node, seconds=seconds)]

    def _move(self, at_s: float) -> list[Act]:
        """Always the same one: when two move while neither is on, no message can tell them where the other is."""
        if self._homes:
            return self._break_links(
                at_s
            )  # Who is behind a router may be able to reach nobody but the one that moves.
        address = f"10.9.{self._rng.randint(0, 255)}.{self._rng.randint(1, 254)}:4000"
        return [computer_acts.Move(at_s=at_s, node=self._mover, address=address)]

    # -- wires ----------------------------------------------------------------------------------------------

    def _cut(self, at_s: float) -> list[Act]:
        side = tuple(self._some(self._nodes + self._joiners))
        return [network.CutInTwo(at_s=at_s, side=side, lasts_s=self._lasts_s(10.0))]

    def _bridge(self, at_s: float) -> list[Act]:
        names = self._rng.sample(self._nodes, len(self._nodes))
        if len(names) < 3:
            return self._cut(at_s)
        middle = self._rng.randint(1, len(names) - 2)
        cut = self._rng.randint(1, len(names) - middle - 1)
        one, other = names[middle : middle + cut], names[middle + cut :]
        return [network.Bridge(at_s=at_s, one=tuple(one), other=tuple(other), lasts_s=self._lasts_s(10.0))]

    def _one_way(self, at_s: float) -> list[Act]:
        if self._rng.random() < 0.4:
            return [network.Deaf(at_s=at_s, node=self._any_node(), lasts_s=self._lasts_s(10.0))]
        sources = self._some(self._nodes)
        others = [name for name in self._nodes if name not in sources]
        targets = tuple(self._some(others)) if others and self._rng.random() < 0.6 else ()
        return [
            network.OneWay(at_s=at_s, sources=tuple(sources), targets=targets, lasts_s=self._lasts_s(10.0))
        ]

    def _disturb(self, at_s: float) -> list[Act]:
        return [
            network.Disturb(
                at_s=at_s,
                repeated=round(self._rng.uniform(0.0, 0.3), 2),
                late=round(self._rng.uniform(0.0, 0.4), 2),
                late_s=round(self._rng.uniform(0.05, 3.0), 2),
                in_order=self._rng.random() < 0.5,
                lasts_s=self._lasts_s(15.0),
            )
        ]

    def _bad_line(self, at_s: float) -> list[Act]:
        rng = self._rng
        return [
            network.BadLine(
                at_s=at_s,
                node=self._any_node(),
                loss=round(rng.uniform(0.02, 0.3), 2) if rng.random() < 0.7 else None,
                delay_s=round(rng.uniform(0.05, 1.0), 3) if rng.random() < 0.4 else None,
                jitter_s=round(rng.uniform(0.01, 0.5), 3) if rng.random() < 0.4 else None,
                upload_bytes_s=round(10 ** rng.uniform(3.5, 6.0), 0) if rng.random() < 0.3 else None,
                lasts_s=self._lasts_s(12.0),
            )
        ]

    def _break_links(self, at_s: float) -> list[Act]:
        return [network.BreakLinks(at_s=at_s, node=self._any_node())]

    # -- environments ---------------------------------------------------------------------------------------

    def _replicas(self, at_s: float) -> list[Act]:
        service = self._rng.choice(self._services)
        node = self._any_node() if self._rng.random() < 0.4 else None
        if self._rng.random() < 0.5:
            return [environments.CrashReplicas(at_s=at_s, service=service, node=node)]
        return [environments.HangReplicas(at_s=at_s, service=service, node=node, lasts_s=self._lasts_s(12.0))]

    def _bad_environment(self, at_s: float) -> list[Act]:
        rng, bad = self._rng, environments.BadEnvironment
        when: dict[str, Any] = {"at_s": at_s, "node": self._any_node(), "lasts_s": self._lasts_s(12.0)}
        match rng.randrange(8):
            case 0:
                ready_s, prepare_s = round(rng.uniform(0.5, 20.0), 1), round(rng.expovariate(0.3), 1)
                return [bad(**when, prepare_s=prepare_s, ready_s=ready_s)]
            case 1:
                return [bad(**when, crash_after_s=round(rng.uniform(0.0, 6.0), 2))]
            case 2:
                return [bad(**when, never_listens=True)]
            case 3:
                return [bad(**when, ignores_stop=True)]
            case 4:
                return [bad(**when, hang_after_s=round(rng.uniform(0.0, 6.0), 2))]
            case 5:
                return [
                    bad(**when, flap_s=(round(rng.uniform(1.0, 20.0), 1), round(rng.uniform(1.0, 20.0), 1)))
                ]
            case 6:
                share = round(rng.uniform(0.3, 1.0), 1)
                return [bad(**when, fails_to_launch="there is no such program", fails_share=share)]
            case _:
                seconds = round(rng.uniform(0.1, 8.0), 1)
                return [environments.DetachEnvironments(at_s=at_s, node=when["node"], seconds=seconds)]

    # -- people ---------------------------------------------------------------------------------------------

    def _create(self, at_s: float) -> list[Act]:
        name = f"s{len(self._services)}"
        self._services.append(name)
        return [
            people.Create(
                at_s=at_s,
                node=self._any_node(),
                service=name,
                replicas=self._rng.randint(1, REPLICAS_MAX),
                active=self._rng.random() < 0.85,
            )
        ]

    def _change(self, at_s: float) -> list[Act]:
        service, node = self._rng.choice(self._services), None
        if self._rng.random() < 0.3:
            node = self._any_node()
        match self._rng.choices(range(5), (3, 3, 3, 2, 1))[0]:
            case 0:
                return [people.Modify(at_s=at_s, service=service, node=node)]
            case 1:
                replicas = self._rng.randint(0, REPLICAS_MAX)
                return [people.Scale(at_s=at_s, service=service, node=node, replicas=replicas)]
            case 2:
                return [people.Deactivate(at_s=at_s, service=service, node=node)]
            case 3:
                return [people.Activate(at_s=at_s, service=service, node=node)]
            case _:
                return [people.Eliminate(at_s=at_s, service=service, node=node)]

    def _contribute(self, at_s: float) -> list[Act]:
        kind = self._rng.randrange(4)
        gives = (people.Gives(paused=True), people.Gives(draining=True), people.Gives(environments=()))
        chosen = gives[kind] if kind < len(gives) else self._gives_less()
        return [
            people.Contribute(at_s=at_s, node=self._any_node(), gives=chosen, lasts_s=self._lasts_s(10.0))
        ]

    def _leave(self, at_s: float) -> list[Act]:
        if self._disks_lost or len(self._nodes) < 3:
            return self._stop(at_s)
        self._disks_lost += 1
        drain_s = round(self._rng.uniform(0.0, 8.0), 1)
        return [people.Leave(at_s=at_s, node=self._rng.choice(self._nodes[1:]), drain_s=drain_s)]

    def _join(self, at_s: float) -> list[Act]:
        """One person, or a crowd within a second."""
        room = NODES_IN_ALL_MAX - len(self._nodes) - len(self._joiners)
        acts: list[Act] = []
        for _ in range(min(room, self._rng.randint(1, CROWD_MAX))):
            name = f"x{len(self._joiners)}"
            self._joiners.append(name)
            later_s = min(round(at_s + self._rng.random(), 2), self._ends_s)
            gives = self._gives_less() if self._rng.random() < 0.2 else people.Gives()
            own = self._rng.random() < 0.2
            # A ticket names the inviter's address: it is no way in when the inviter is elsewhere by then.
            via = self._rng.choice([node for node in self._nodes if node != self._mover])
            acts.append(people.Join(at_s=later_s, node=name, via=via, own=own, gives=gives))
        return acts

    def _communicate(self, at_s: float) -> list[Act]:
        node = self._any_node()
        match self._rng.randrange(3):
            case 0:
                to = tuple(self._some(self._nodes)) if self._rng.random() < 0.5 else ()
                return [group_life.Say(at_s=at_s, node=node, to=to)]
            case 1:
                return [group_life.Publish(at_s=at_s, node=node)]
            case _:
                return [group_life.NameAnObject(at_s=at_s, node=node, path=f"f{self._rng.randrange(4)}")]

    def _administer(self, at_s: float) -> list[Act]:
        """One computer or member at most is taken out, for the same reason for which one disk at most is lost."""
        node, by, kind = self._any_node(), self._node(), self._rng.randrange(5)
        out = kind >= 3 and not self._disks_lost and len(self._nodes) > 2 and node != "n0"
        match kind:
            case 0 | 1:
                return [group_life.Rename(at_s=at_s, node=node, by=by, name=f"c{self._rng.randrange(3)}")]
            case 3 if out:
                self._disks_lost += 1
                return [group_life.Retire(at_s=at_s, node=node, by=by)]
            case 4 if out:
                self._disks_lost += 1
                return [group_life.Remove(at_s=at_s, node=node, by=by)]
            case _:
                return [group_life.Appoint(at_s=at_s, node=node, by=by, role=self._rng.choice(list(Role)))]


def compose(seed: int) -> Scenario:
    """The random scenario of a seed. Even seeds have the hashing election, odd ones contention."""
    return Composer(seed).compose()
