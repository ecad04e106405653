"""The runner: one queue of events, one step after the other, effects performed in their order.

Invariants:

* effects leave in the order in which the steps put them; those after a `Persist` wait until it is durable,
  except timers and sends marked `unbarriered`, so that an fsync never causes a false death;
* a `PersistFailed` drops at once all that waited behind it, and the agents are restarted from the disk, after a pause
  that grows while the disk goes on refusing: what happens meanwhile waits for them;
* a fault of the agents (any exception out of a step) does the same: what is durable is sound, the rest is made anew.
  An effect that cannot be carried out is logged and lost, as a message may be; it ends nothing else;
* timers follow the boot clock; a gap longer than `RESUMED_AFTER_S` (suspend, SIGSTOP) is told as `Resumed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from colla.kernel.effects import Effect, Persist, Send, WakeAt
from colla.kernel.events import Event, Persisted, PersistFailed, Resumed, TimerDue
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.node import clock

log = logging.getLogger(__name__)

RESUMED_AFTER_S = 5.0
"""A loop that stood still for longer treats all soft knowledge as stale; shorter stalls are local ill health."""
TICK_S = 1.0
RESTART_PAUSE_FIRST_S = 1.0
RESTART_PAUSE_MAX_S = 30.0
RESTART_CALM_S = 60.0
"""A disk that stays full must not let the node come and go several times a second; calm for so long, it may again."""
EVENTS_PER_TURN = 64
"""After so many events the loop gets a turn, so that a burst cannot starve links and timers."""
EVENTS_RESTING_MAX = 4096
"""What happens while the agents rest and waits for them: the oldest is lost first, as if they had not been here."""


class Core(Protocol):
    """The agents of a node, as the runner drives them."""

    def start(self, now: Instant) -> list[Effect]: ...
    def step(self, event: Event, now: Instant) -> list[Effect]: ...


class Performer(Protocol):
    """Carries out effects other than timers. Outcomes come back through the runner's `post`."""

    def perform(self, effect: Effect) -> None: ...
    async def persist(self, effect: Persist) -> Persisted | PersistFailed: ...


class Runner:
    """Drives the agents of one node until `stop`."""

    def __init__(
        self,
        core: Core,
        performer: Performer,
        restart: Callable[[], Core],
        failed: Callable[[CollaError], None] = lambda why: None,
    ) -> None:
        """`failed` is told at once why the agents stopped; `restart` makes them anew, and is tried until it can."""
        self._core = core
        self._performer = performer
        self._restart = restart
        self._failed = failed
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._timers: list[tuple[float, int, Timer]] = []
        self._counter = itertools.count()
        self._waiting: deque[Effect] = deque()
        self._persists: dict[int, asyncio.Future[Persisted | PersistFailed]] = {}
        self._background: dict[asyncio.Task[None], None] = {}
        self._last_turn_s = clock.boot_s()
        self._stopping = False
        self._generation = 0
        self._start_at_s: float | None = None
        self._pause_s = 0.0
        self._failed_s = float("-inf")
        self._trouble: CollaError | None = None
        self.steps = 0
        self.restarts = 0

    def post(self, event: Event) -> None:
        """Something happened. To be called on the loop's thread; never blocks."""
        self._events.append(event)
        if self.resting and len(self._events) > EVENTS_RESTING_MAX:
            self._events.popleft()
        self._wake.set()

    def stop(self) -> None:
        """End `run` after the events that are queued now."""
        self._stopping = True
        self._wake.set()

    @property
    def core(self) -> Core:
        return self._core

    @property
    def trouble(self) -> CollaError | None:
        """Why the agents were restarted lately; None when that is long ago."""
        return self._trouble if clock.boot_s() - self._failed_s < RESTART_CALM_S else None

    @property
    def resting(self) -> bool:
        """Whether the agents wait to be started again: nothing is answered meanwhile."""
        return self._start_at_s is not None

    async def run(self) -> None:
        """Start the agents and drive them until `stop`."""
        self._last_turn_s = clock.boot_s()
        self._take(self._core.start(clock.now()))
        while not (self._stopping and not self._events):
            if self._start_at_s is not None:
                await self._rest(self._start_at_s)
                continue
            self._notice_gap()
            self._due_timers()
            for _ in range(EVENTS_PER_TURN):
                if not self._events or self.resting:
                    break
                self._step(self._events.popleft())
            if self._events or self.resting or self._stopping:
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            pause = TICK_S
            if self._timers:
                pause = min(pause, max(0.0, self._timers[0][0] - clock.boot_s()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def flush(self) -> None:
        """Wait until everything asked to be persisted is on disk, and what waited behind it has left."""
        while (self._persists or self._events) and not self.resting:
            while self._events and not self.resting:
                self._step(self._events.popleft())
            if self._persists:
                await asyncio.wait(list(self._background))

    def _notice_gap(self) -> None:
        now_s = clock.boot_s()
        gap_s = now_s - self._last_turn_s
        self._last_turn_s = now_s
        if gap_s > RESUMED_AFTER_S + TICK_S:
            log.warning("this computer stood still for %.1f s", gap_s)
            self._step(Resumed(gap_s))

    def _due_timers(self) -> None:
        now_s = clock.boot_s()
        while self._timers and self._timers[0][0] <= now_s and not self.resting:
            at_s, _, timer = heapq.heappop(self._timers)
            self._step(TimerDue(timer, max(0.0, now_s - at_s)))

    def _step(self, event: Event) -> None:
        self.steps += 1
        try:
            effects = self._core.step(event, clock.now())
        except Exception as error:
            self._fault(error, f"taking {type(event).__name__}")
            return
        self._take(effects)

    def _start(self) -> None:
        """The new agents begin."""
        self._last_turn_s = clock.boot_s()
        try:
            effects = self._core.start(clock.now())
        except Exception as error:
            self._fault(error, "starting")
            return
        self._take(effects)

    def _fault(self, error: Exception, doing: str) -> None:
        """A bug: told with all that helps to find it, and survived as a crash would be."""
        log.error("a fault of colla while %s", doing, exc_info=error)
        self._restart_core(
            CollaError(
                "internal",
                f"This is a fault of colla ({type(error).__name__} while {doing}).",
                "Its agents start again from the disk; `colla log` tells more.",
            )
        )

    def _restart_core(self, why: CollaError) -> None:
        """Forget what waited; the agents are made anew from what is durable when the pause is over."""
        log.error("%s", why.message)
        self._trouble = why
        self.restarts += 1
        self._generation += 1
        self._waiting.clear()
        self._persists.clear()
        self._timers.clear()
        self._events.clear()
        self._pause()
        self._failed(why)
        self._wake.set()

    def _pause(self) -> None:
        now_s = clock.boot_s()
        calm = now_s - self._failed_s > RESTART_CALM_S
        self._pause_s = RESTART_PAUSE_FIRST_S if calm else min(2 * self._pause_s, RESTART_PAUSE_MAX_S)
        self._failed_s, self._start_at_s = now_s, now_s + self._pause_s
        log.info("the agents start again in %.0f s", self._pause_s)

    async def _rest(self, until_s: float) -> None:
        """Make the agents anew when their pause is over, and let them begin; nothing is stepped before."""
        if self._stopping:
            self._events.clear()
            return
        left_s = until_s - clock.boot_s()
        if left_s > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left_s)
            return
        try:
            self._core = self._restart()
        except CollaError as error:
            log.error("the agents cannot start again yet: %s", error)
            self._trouble = error
            self._pause()
            return
        except Exception:
            log.exception("the agents cannot start again yet: a fault of colla")
            self._pause()
            return
        self._start_at_s = None
        self._start()

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, WakeAt):
                heapq.heappush(self._timers, (effect.at_s, next(self._counter), effect.timer))
            elif isinstance(effect, Send) and effect.unbarriered:
                self._perform(effect)
            elif isinstance(effect, Persist):
                self._begin_persist(effect)
                self._waiting.append(effect)
            elif self._waiting:
                self._waiting.append(effect)
            else:
                self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        try:
            self._performer.perform(effect)
        except Exception:
            log.exception("a fault of colla: %s was not carried out", type(effect).__name__)

    def _begin_persist(self, effect: Persist) -> None:
        task = asyncio.get_running_loop().create_task(self._persist(effect, self._generation))
        self._background[task] = None
        task.add_done_callback(lambda done: self._background.pop(done, None))
        self._persists[effect.id] = asyncio.get_running_loop().create_future()

    async def _persist(self, effect: Persist, generation: int) -> None:
        if generation != self._generation:
            # The agents were started again before this ran: what it asks rests on what is not on the disk.
            return
        try:
            outcome = await self._performer.persist(effect)
        except Exception as error:
            # Without an outcome everything behind it would wait for ever.
            log.exception("a fault of colla while writing to the disk")
            outcome = PersistFailed(effect.id, f"{type(error).__name__}: {error}")
        if generation != self._generation:
            return
        future = self._persists.get(effect.id)
        if future is not None and not future.done():
            future.set_result(outcome)
        self._release()

    def _release(self) -> None:
        """Let everything leave that no longer waits for an earlier persist."""
        while self._waiting:
            effect = self._waiting[0]
            if isinstance(effect, Persist):
                future = self._persists[effect.id]
                if not future.done():
                    return
                self._waiting.popleft()
                del self._persists[effect.id]
                outcome = future.result()
                if isinstance(outcome, PersistFailed):
                    # At once: nothing that a step asks from here on may leave, it rests on what is not on the disk.
                    self._restart_core(_disk_failed(outcome.why))
                    return
                self.post(outcome)
            else:
                self._waiting.popleft()
                self._perform(effect)


def _disk_failed(why: str) -> CollaError:
    return CollaError("disk_failed", f"Writing to the disk failed ({why}).", "Make room, then repeat.")
