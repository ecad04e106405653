"""The life of one replica inside an environment program, and what is told about it.

starting → ready ⇄ unhealthy → exited, with stopping before the end where somebody asked for it. Nothing is ever
restarted here: whether and when is the executor's decision. The record on disk is written before each event is
told, so that a program that comes back tells the same story.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from colla.environments import health
from colla.environments.complaints import complain
from colla.environments.driver import Driver, Running
from colla.environments.folders import Place, Record
from colla.environments.protocol import (
    EVENTS_KEPT_MAX,
    EXIT_LINES_MAX,
    EnvironmentEvent,
    Exit,
    HealthCheck,
    Phase,
    ReplicaExited,
    ReplicaReady,
    ReplicaStarted,
    ReplicaStatus,
    ReplicaUnhealthy,
    StopSignal,
    UnixEndpoint,
)

NEVER_LISTENED_GRACE_S: Final = 2.0
"""What a program gets to end itself when it did not answer within its start period."""
FIRST_CHECKS_S: Final = 0.02
"""Between health checks until the first one succeeds."""
EXIT_LINE_CHARS_MAX: Final = 1000


class EventLog:
    """The newest events, numbered within this program's life; listeners get them from any number on."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._events: deque[EnvironmentEvent] = deque(maxlen=EVENTS_KEPT_MAX)
        self._number = 0
        self._news = asyncio.Event()

    def tell(self, make: Callable[..., EnvironmentEvent]) -> None:
        """Append the event that `make` builds from `instance`, `number` and `at`."""
        self._number += 1
        self._events.append(make(instance=self.instance, number=self._number, at=time.time()))
        self._news.set()
        self._news = asyncio.Event()

    def after(self, number: int) -> list[EnvironmentEvent]:
        """Those with a higher number that are still kept."""
        return [event for event in self._events if event.number > number]

    async def follow(self, number: int, quiet_s: float) -> AsyncIterator[EnvironmentEvent | None]:
        """All after `number`, for ever; None whenever nothing happened for `quiet_s`."""
        while True:
            news = self._news
            for event in self.after(number):
                number = event.number
                yield event
            try:
                async with asyncio.timeout(quiet_s):
                    await news.wait()
            except TimeoutError:
                yield None


class Replica:
    """One replica from its launch to its deletion. Made by `launch` or `adopt`."""

    def __init__(
        self, driver: Driver, place: Place, record: Record, running: Running | None, events: EventLog
    ) -> None:
        self.place = place
        self.record = record
        self._driver = driver
        self._running = running
        self._events = events
        self._unhealthy_because = ""
        self._ended = asyncio.Event()
        self._stopping = False
        self._exit_because: Exit | None = None
        """Why this program itself ended the replica, where it did."""
        self._life: asyncio.Task[None] | None = None
        self._giving_up: asyncio.Task[None] | None = None

    def begin(self, recovered: bool) -> None:
        """Watch over it from now on; a replica that has ended already is only remembered."""
        if self._running is None:
            self._ended.set()
            return
        self._tell(ReplicaStarted, recovered=recovered)
        self._life = asyncio.create_task(self._live(self._running))

    # --- what is known -----------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        if self.record.exit is not None:
            return "exited"
        if self._stopping:
            return "stopping"
        if self.record.ready_at is None:
            return "starting"
        return "unhealthy" if self._unhealthy_because else "ready"

    @property
    def running(self) -> Running | None:
        """The driver's side of it, until it has ended."""
        return None if self.record.exit is not None else self._running

    @property
    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            replica=self.record.spec.replica,
            service=self.record.spec.service,
            phase=self.phase,
            handle=self.record.handle,
            endpoint=UnixEndpoint(path=str(self.place.endpoint)),
            started_at=self.record.started_at,
            ready_at=self.record.ready_at,
            unhealthy_because=self._unhealthy_because,
            limits_enforced=self._running.limits_enforced if self._running else (),
            exit=self.record.exit,
        )

    async def until_ended(self, timeout_s: float | None) -> None:
        """Return when it has ended or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()

    # --- what happens ------------------------------------------------------------------------------------

    async def _live(self, running: Running) -> None:
        watch = asyncio.create_task(self._watch_health(running))
        try:
            exit = await running.until_exit()
        finally:
            watch.cancel()
            (problem,) = await asyncio.gather(watch, return_exceptions=True)
            if isinstance(problem, Exception):
                complain(f"checking {self.record.spec.replica} failed: {problem!r}")
        await self._end(exit)

    async def _end(self, exit: Exit) -> None:
        because = self._exit_because
        if because is not None and exit.reason in ("stopped", "exited", "killed"):
            exit = msgspec.structs.replace(because, code=exit.code, signal=exit.signal)
        lines = self._driver.logs(self.place, 0)[-EXIT_LINES_MAX:]
        exit = msgspec.structs.replace(
            exit, last_lines=tuple(line.text[:EXIT_LINE_CHARS_MAX] for line in lines)
        )
        # First the promise that nothing is left, then the news. A disk that fails must not keep the news back.
        try:
            await asyncio.to_thread(self.place.clear_scratch)
        except OSError as error:
            complain(f"cannot remove what {self.record.spec.replica} left: {error}")
        self._remember(exit=exit)
        self._tell(ReplicaExited, exit=exit)
        self._ended.set()

    async def _watch_health(self, running: Running) -> None:
        check = self.record.spec.health
        if self.record.ready_at is None:
            try:
                async with asyncio.timeout(check.start_period_s):
                    await running.until_listening()
                    while problem := await self._problem(running, check):
                        self._unhealthy_because = problem
                        await asyncio.sleep(FIRST_CHECKS_S)
            except TimeoutError:
                reason = self._unhealthy_because or running.why_not_listening()
                message = f"It was not ready within {check.start_period_s:g} s: {reason}."
                self._exit_because = Exit(reason="never_listened", message=message)
                # A task of its own, since this one is cancelled as soon as the program has ended.
                self._giving_up = asyncio.create_task(running.stop("SIGTERM", NEVER_LISTENED_GRACE_S))
                return
            self._unhealthy_because = ""
            self._remember(ready_at=time.time())
            self._tell_ready()
        while check.path or check.tcp or check.command:
            await self._keep_checking(running, check)

    async def _keep_checking(self, running: Running, check: HealthCheck) -> None:
        """Until its health has changed once."""
        failures = 0
        while True:
            await asyncio.sleep(check.interval_s)
            problem = await self._problem(running, check)
            failures = failures + 1 if problem else 0
            if problem and failures == check.failures_max and not self._unhealthy_because:
                self._unhealthy_because = problem
                self._tell(ReplicaUnhealthy, message=problem)
                return
            if not problem and self._unhealthy_because:
                self._unhealthy_because = ""
                self._tell_ready()
                return

    async def _problem(self, running: Running, check: HealthCheck) -> str:
        if check.path is not None:
            return await health.problem_of(self.place.endpoint, check.path, check.timeout_s)
        if check.tcp:
            return await health.problem_of_connecting(self.place.endpoint, check.timeout_s)
        return await running.check_problem() if check.command else ""

    def _tell_ready(self) -> None:
        assert self.record.ready_at is not None
        self._tell(ReplicaReady, start_to_ready_s=round(self.record.ready_at - self.record.started_at, 4))

    def _tell(self, kind: type[EnvironmentEvent], **facts: Any) -> None:
        replica = self.record.spec.replica
        self._events.tell(partial(kind, replica=replica, **facts))

    def _remember(self, **facts: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **facts)
        try:
            self.place.write(self.record)
        except OSError as error:
            # A full disk must not keep the news back; after a restart they are found out once more.
            complain(f"cannot write the record of {self.record.spec.replica}: {error}")

    # --- what is asked of it -----------------------------------------------------------------------------

    async def stop(self, signal: StopSignal, grace_s: float) -> None:
        """Return when nothing of it runs. A second call with a shorter grace shortens the first one's."""
        if self._running is None or self._ended.is_set():
            return
        if not self._stopping:
            self._stopping = True
            self._exit_because = self._exit_because or Exit(reason="stopped")
        await self._running.stop(signal, grace_s)
        await self._ended.wait()

    async def delete(self) -> None:
        """Kill what runs and forget everything."""
        await self.stop("SIGTERM", 0)
        await asyncio.to_thread(self.place.delete)

    async def detach(self) -> None:
        """Stop watching; the replica goes on if its kind can."""
        if self._life is not None:
            self._life.cancel()
            with suppress(asyncio.CancelledError):
                await self._life
