"""One run of a node's process: the agents, their queue of events, their timers and the barriers of their effects.

It does in virtual time what `node/runner.py` does in asyncio, and keeps the same invariants:

* effects leave in the order in which the steps put them; those after a `Persist` wait until it is durable, except
  timers and sends marked `unbarriered`;
* a `PersistFailed` drops at once all that waited behind it, and the agents are restarted from the disk, after a pause
  that grows while the disk goes on refusing;
* timers follow the boot clock; a process that stood still for longer than `RESUMED_AFTER_S` is told `Resumed` first.

And what a real process fears: it can stand still (a busy loop, SIGSTOP, suspend), and it can die between any two
effects: `trap` is asked before each one is carried out. A dead process does nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

from colla.kernel.codec import MessageCodec
from colla.kernel.effects import Effect, Persist, Send, WakeAt
from colla.kernel.events import Event, Persisted, PersistFailed, Resumed, TimerDue
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.sim.clock import Clock
from colla.sim.world import World

RESUMED_AFTER_S = 6.0
"""As in the node's runner: its threshold plus one turn of its loop."""
RESTART_PAUSE_FIRST_S = 1.0
RESTART_PAUSE_MAX_S = 30.0
RESTART_CALM_S = 60.0
"""As in the node's runner: the pause before the agents begin again, doubled unless it was calm for so long."""
TURN_S = 0.002
"""Timers come up to so late, as in a loop that has other things to do."""

Outcome = Persisted | PersistFailed


class Core(Protocol):
    """The agents of a node, as they are driven."""

    @property
    def codec(self) -> MessageCodec: ...
    def start(self, now: Instant) -> list[Effect]: ...
    def step(self, event: Event, now: Instant) -> list[Effect]: ...


class Surroundings(Protocol):
    """What the process asks of its computer."""

    def make_core(self) -> Core:
        """The agents, made from what is durable."""
        ...

    def perform(self, effect: Effect) -> None:
        """Carry out any effect but timers and persists; outcomes come back by `post`."""
        ...

    def persist(self, effect: Persist, done: Callable[[Outcome], None]) -> None:
        """Make it durable and call `done`, in the order of the calls."""
        ...

    def will_step(self, event: Event) -> None:
        """The agents are about to hear of this."""
        ...

    def stepped(self, event: Event, effects: list[Effect]) -> None:
        """The agents took the event and asked for this."""
        ...

    def restarted(self, why: str) -> None:
        """The disk refused, and other agents will begin in a while."""
        ...


class Process:
    """See the module's docstring."""

    def __init__(self, world: World, clock: Clock, rng: Random, surroundings: Surroundings) -> None:
        self.alive = True
        self.steps = 0
        self.performed = 0
        self.trap: Callable[[Effect], bool] | None = None
        """Asked before each effect but timers: True kills the process there (the trap's owner sees to that)."""
        self._world = world
        self._clock = clock
        self._rng = rng
        self._surroundings = surroundings
        self.core = surroundings.make_core()
        self._inbox: deque[Event] = deque()
        self._overdue: list[tuple[float, int, Timer]] = []
        self._waiting: deque[Effect] = deque()
        self._outcomes: dict[int, Outcome | None] = {}
        self._generation = 0
        self._turning = False
        self._resting = False
        self._pause_s = 0.0
        self._failed_s = float("-inf")
        self._still_since_s: float | None = None
        self._still = 0

    def start(self) -> None:
        """Begin to live."""
        self._begin(self._generation)

    def _begin(self, generation: int) -> None:
        """The agents begin, for the first time or again."""
        if not self.alive or generation != self._generation:
            return
        if self._still:
            self._world.after(RESTART_PAUSE_FIRST_S, self._begin, generation)
            return
        self._resting = False
        self._turning = True
        self._take(self.core.start(self._clock.now()))
        self._turning = False
        self._turn()

    def post(self, event: Event) -> None:
        """Something happened."""
        if self.alive:
            self._inbox.append(event)
            self._turn()

    def die(self) -> None:
        """SIGKILL, or the power is gone."""
        self.alive = False

    # -- standing still -------------------------------------------------------------------------------------

    @property
    def still(self) -> bool:
        """Whether it stands still now."""
        return self._still > 0

    def stand_still(self) -> None:
        """Do nothing until `go_on`; what happens meanwhile waits. Calls nest."""
        self._still += 1
        if self._still == 1:
            self._still_since_s = self._clock.boot_s()

    def go_on(self) -> None:
        """Take up everything that waited: first the gap, then timers, then events, as the runner does."""
        self._still -= 1
        assert self._still >= 0, "it did not stand still"
        if self._still or not self.alive or self._still_since_s is None:
            return
        gap_s = self._clock.boot_s() - self._still_since_s
        if gap_s > RESUMED_AFTER_S and not self._resting:
            self._step(Resumed(gap_s))
        overdue, self._overdue = sorted(self._overdue, key=lambda item: item[:2]), []
        for at_s, generation, timer in overdue:
            if generation == self._generation:
                self._step(TimerDue(timer, self._clock.boot_s() - at_s))
        self._release()

    # -- events ---------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take what waits in the queue, unless that is going on already further down the stack."""
        if self._turning:
            return
        self._turning = True
        while self._inbox and self.alive and not self._still and not self._resting:
            self._step_now(self._inbox.popleft())
        self._turning = False

    def _step(self, event: Event) -> None:
        self._turning = True
        self._step_now(event)
        self._turning = False

    def _step_now(self, event: Event) -> None:
        if not self.alive:
            return
        self.steps += 1
        self._surroundings.will_step(event)
        effects = self.core.step(event, self._clock.now())
        self._surroundings.stepped(event, effects)
        self._take(effects)

    def _timer_due(self, at_s: float, generation: int, timer: Timer) -> None:
        if not self.alive or generation != self._generation:
            return
        if self._still:
            self._overdue.append((at_s, generation, timer))
            return
        late_s = self._clock.boot_s() - at_s
        if late_s < 0.0:
            # The oscillator slowed down since the timer was set.
            self._set_timer(at_s, timer)
            return
        self._step(TimerDue(timer, late_s))
        self._turn()

    def _set_timer(self, at_s: float, timer: Timer) -> None:
        true_s = self._clock.true_at(at_s) + self._rng.random() * TURN_S + 1e-6
        self._world.at(true_s, self._timer_due, at_s, self._generation, timer)

    # -- effects --------------------------------------------------------------------------------------------

    def _take(self, effects: list[Effect]) -> None:
        perform = self._surroundings.perform
        for effect in effects:
            if not self.alive:
                return
            if isinstance(effect, WakeAt):
                self._set_timer(effect.at_s, effect.timer)
            elif isinstance(effect, Persist):
                if self._may_perform(effect):
                    self._waiting.append(effect)
                    self._outcomes[effect.id] = None
                    self._surroundings.persist(effect, partial(self._durable, self._generation))
            elif self._waiting and not (isinstance(effect, Send) and effect.unbarriered):
                self._waiting.append(effect)
            elif self.trap is None:
                self.performed += 1
                perform(effect)
            else:
                self._perform(effect)

    def _may_perform(self, effect: Effect) -> bool:
        if self.trap is not None and self.trap(effect):
            return False
        self.performed += 1
        return self.alive

    def _perform(self, effect: Effect) -> None:
        if self._may_perform(effect):
            self._surroundings.perform(effect)

    def _durable(self, generation: int, outcome: Outcome) -> None:
        """The disk has carried out a persist, or could not."""
        if self.alive and generation == self._generation:
            self._outcomes[outcome.id] = outcome
            if not self._still:
                self._release()

    def _release(self) -> None:
        """Let everything leave that no longer waits for an earlier persist."""
        self._turning, before = True, self._turning
        while self._waiting and self.alive:
            effect = self._waiting[0]
            if not isinstance(effect, Persist):
                self._waiting.popleft()
                self._perform(effect)
                continue
            outcome = self._outcomes[effect.id]
            if outcome is None:
                break
            self._waiting.popleft()
            del self._outcomes[effect.id]
            if isinstance(outcome, PersistFailed):
                self._restart(outcome.why)
                break
            self._inbox.append(outcome)
        self._turning = before
        self._turn()

    def _restart(self, why: str) -> None:
        """The disk refused: forget what waited, start again from what is durable."""
        self._generation += 1
        self._waiting.clear()
        self._outcomes.clear()
        self._inbox.clear()
        self._overdue.clear()
        now_s = self._clock.boot_s()
        calm = now_s - self._failed_s > RESTART_CALM_S
        self._pause_s = RESTART_PAUSE_FIRST_S if calm else min(2 * self._pause_s, RESTART_PAUSE_MAX_S)
        self._failed_s, self._resting = now_s, True
        self.core = self._surroundings.make_core()
        self._surroundings.restarted(why)
        self._world.after(self._pause_s, self._begin, self._generation)
