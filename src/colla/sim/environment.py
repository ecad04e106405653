"""The execution environments of one computer, and what their replicas do: the truth about what runs.

Replicas start in their own time and may fail to, crash, hang, flap or never listen, as a `Behaviour` says. They go on
when the agents' process dies, or an environment's program, and are found again by a survey; they die with the power of
the computer. Whoever asks whether a service *is there* asks here, not the agents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from colla.kernel.effects import LaunchReplica, StopReplica, SurveyReplicas
from colla.kernel.events import (
    Event,
    LaunchFailed,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaReady,
    ReplicasSurveyed,
    ReplicaStopped,
    ReplicaUnhealthy,
    StopFailed,
    SurveyedReplica,
)
from colla.model.ids import ReplicaId, ServiceId
from colla.model.service import Specification
from colla.sim.world import World

HEALTH_FAILURES_MAX = 3
"""As many failed checks make a replica unhealthy."""


class Behaviour(msgspec.Struct, frozen=True):
    """What replicas do. Times in seconds; `crash_after_s` and the like count from when one is ready, each time anew."""

    prepare_s: float = 0.05
    ready_s: float = 0.25
    stop_s: float = 0.05
    jitter: float = 0.5
    """Times are longer by up to this share, at random."""
    fails_to_launch: str = ""
    """Why launching fails, if it does."""
    fails_share: float = 1.0
    """Of the launches, if launching fails at all."""
    never_listens: bool = False
    ignores_stop: bool = False
    """Does not end by itself: is killed when the grace is over."""
    crash_after_s: float | None = None
    hang_after_s: float | None = None
    flap_s: tuple[float, float] | None = None
    """Answers for so long, then hangs for so long, again and again."""


WELL_BEHAVED = Behaviour()
SLOW_TO_START = Behaviour(prepare_s=4.0, ready_s=15.0)
CRASHES = Behaviour(crash_after_s=3.0)
"""Each time it is started: a crash loop."""
HANGS = Behaviour(hang_after_s=5.0)
FLAPS = Behaviour(flap_s=(20.0, 40.0))
"""Sick for longer than health checks need to tell, then sound again."""
STUBBORN = Behaviour(ignores_stop=True)


@dataclass(slots=True, eq=False)
class Running:
    """One replica. It serves when it is `listening` and not `hanging`."""

    replica: ReplicaId
    service: ServiceId
    specification: Specification
    secrets: dict[str, str]
    """As its program reads them in its environment."""
    launched: bool = False
    listening: bool = False
    hanging: bool = False
    hangs: int = 0
    """How often it has begun to hang."""
    told_unhealthy: bool = False
    stopping: bool = False

    @property
    def serves(self) -> bool:
        return self.listening and not self.hanging


class Environment:
    """All environments of one computer together. `tell` reaches the agents' process, if one runs."""

    def __init__(self, world: World, rng: Random, tell: Callable[[Event], None]) -> None:
        self.behaviour = WELL_BEHAVED
        self.behaviours: dict[str, Behaviour] = {}
        """Of the replicas of a service, by its name; else `behaviour` holds."""
        self.replicas: dict[ReplicaId, Running] = {}
        self.launches = 0
        self.attached = True
        """Whether the environments' programs are there: without them nothing can be asked, and nothing is told."""
        self._world = world
        self._rng = rng
        self._tell = tell

    # -- effects --------------------------------------------------------------------------------------------

    def launch(self, effect: LaunchReplica, has_object: bool, done: Callable[[Event], None]) -> None:
        """Start a replica; idempotent by its id."""
        if not self.attached:
            done(LaunchFailed(effect.id, effect.replica, "the environment is not available here"))
            return
        existing = self.replicas.get(effect.replica)
        if existing is not None:
            if existing.launched:
                done(ReplicaLaunched(effect.id, effect.replica))
                return
        elif not has_object:
            done(LaunchFailed(effect.id, effect.replica, "the object is not on this computer"))
            return
        else:
            secrets = {name: value.text for name, value in effect.secrets}
            existing = Running(effect.replica, effect.service, effect.specification, secrets)
            self.replicas[effect.replica] = existing
            self.launches += 1
        behaviour = self._behaviour(existing)
        self._world.after(self._time(behaviour.prepare_s), self._launched, effect, existing, done)

    def _launched(self, effect: LaunchReplica, running: Running, done: Callable[[Event], None]) -> None:
        if self.replicas.get(effect.replica) is not running or running.stopping:
            done(LaunchFailed(effect.id, effect.replica, "it was stopped while it started"))
            return
        behaviour = self._behaviour(running)
        if behaviour.fails_to_launch and self._rng.random() < behaviour.fails_share:
            del self.replicas[effect.replica]
            done(LaunchFailed(effect.id, effect.replica, behaviour.fails_to_launch))
            return
        if not running.launched:
            running.launched = True
            if behaviour.never_listens:
                start_period_s = running.specification.health.start_period_s
                self._world.after(start_period_s, self._give_up, running)
            else:
                self._world.after(self._time(behaviour.ready_s), self._listen, running)
        done(ReplicaLaunched(effect.id, effect.replica))

    def stop(self, effect: StopReplica, done: Callable[[Event], None]) -> None:
        """End a replica; unknown ones are stopped already."""
        if not self.attached:
            done(StopFailed(effect.id, effect.replica, "the environment is not available here"))
            return
        running = self.replicas.get(effect.replica)
        if running is None:
            done(ReplicaStopped(effect.id, effect.replica))
            return
        running.stopping = True
        behaviour = self._behaviour(running)
        stubborn = behaviour.ignores_stop or running.hanging
        seconds = effect.grace_s if stubborn else min(effect.grace_s, self._time(behaviour.stop_s))
        self._world.after(seconds, self._stopped, effect, running, done)

    def _stopped(self, effect: StopReplica, running: Running, done: Callable[[Event], None]) -> None:
        if self.replicas.get(effect.replica) is running:
            del self.replicas[effect.replica]
        done(ReplicaStopped(effect.id, effect.replica))

    def survey(self, effect: SurveyReplicas, done: Callable[[Event], None]) -> None:
        """List what runs."""
        found = tuple(
            SurveyedReplica(
                running.replica, running.service, running.specification.version, running.listening
            )
            for running in self.replicas.values()
            if self.attached
        )
        self._world.after(0.01, done, ReplicasSurveyed(effect.id, found))

    # -- the life of a replica ------------------------------------------------------------------------------

    def _behaviour(self, running: Running) -> Behaviour:
        return self.behaviours.get(running.specification.name, self.behaviour)

    def _time(self, seconds: float) -> float:
        return seconds * (1.0 + self._rng.random() * self.behaviour.jitter)

    def _runs(self, running: Running) -> bool:
        return self.replicas.get(running.replica) is running and not running.stopping

    def _listen(self, running: Running) -> None:
        if not self._runs(running):
            return
        running.listening = True
        self._say(ReplicaReady(running.replica))
        behaviour = self._behaviour(running)
        if behaviour.crash_after_s is not None:
            self._world.after(behaviour.crash_after_s, self._exit, running, "exit status 1")
        if behaviour.hang_after_s is not None:
            self._world.after(behaviour.hang_after_s, self._hang, running)
        if behaviour.flap_s is not None:
            self._world.after(behaviour.flap_s[0], self._flap, running, behaviour.flap_s)

    def _flap(self, running: Running, flap_s: tuple[float, float]) -> None:
        """Sound and ill alternately, as long as it runs."""
        if not self._runs(running):
            return
        if running.hanging:
            self._recover(running)
        else:
            self._hang(running)
        self._world.after(flap_s[running.hanging], self._flap, running, flap_s)

    def _say(self, event: Event) -> None:
        if self.attached:
            self._tell(event)

    def _give_up(self, running: Running) -> None:
        if not running.listening:
            self._exit(running, "it was not ready in time")

    def _exit(self, running: Running, why: str) -> None:
        if self._runs(running):
            del self.replicas[running.replica]
            self._say(ReplicaExited(running.replica, why))

    # -- what happens to replicas ---------------------------------------------------------------------------

    def of(self, service: ServiceId) -> list[Running]:
        """The replicas of a service that run here and are not being stopped."""
        return [
            running
            for running in self.replicas.values()
            if running.service == service and not running.stopping
        ]

    def crash(self, service: ServiceId) -> None:
        """The replicas of a service end by themselves."""
        for running in self.of(service):
            self._exit(running, "exit status 1")

    def hang(self, service: ServiceId) -> None:
        """They still run but answer nobody."""
        for running in self.of(service):
            self._hang(running)

    def recover(self, service: ServiceId) -> None:
        """They answer again."""
        for running in self.of(service):
            self._recover(running)

    def _hang(self, running: Running) -> None:
        if not self._runs(running) or running.hanging:
            return
        running.hanging = True
        running.hangs += 1
        health = running.specification.health
        seconds = HEALTH_FAILURES_MAX * (health.interval_s + health.timeout_s)
        self._world.after(seconds, self._unhealthy, running, running.hangs)

    def _recover(self, running: Running) -> None:
        running.hanging = False
        if running.told_unhealthy:
            running.told_unhealthy = False
            self._say(ReplicaReady(running.replica))

    def _unhealthy(self, running: Running, hangs: int) -> None:
        if self._runs(running) and running.hanging and running.hangs == hangs:
            running.told_unhealthy = True
            self._say(ReplicaUnhealthy(running.replica, "no answer to GET / in time"))

    def power_off(self) -> None:
        """Everything is gone."""
        self.replicas.clear()
