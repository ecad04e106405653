"""Carries a request to whichever replica answers first and whole: retries, hedges, asks the group again.

Owns the attempts under way. Source: DESIGN.md section 8. Invariants:

- A request that is not replayable is given to a second replica only when the first saw no byte of it.
- A replayable request has at most `IN_FLIGHT_MAX` attempts at once and `ATTEMPTS_MAX` in all; the first answer that
  is whole, or has to be streamed, wins; all others are aborted.
- When `Patience.total_s` is over, no further replica is tried unless one has accepted the request: then a slow
  program is given `Patience.answer_s`, while its node is still known to be there, and new replicas may overtake it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

import msgspec

from colla.access.attempt import Attempt, Parcel, Phase, UploadFailed
from colla.access.health import HealthMemory
from colla.access.http1 import BrokenAnswer
from colla.access.interface import Located, ReplicaLocation, Resolver, TunnelError, Tunnels
from colla.access.pool import ConnectionPool
from colla.model.ids import ReplicaId

IN_FLIGHT_MAX = 4
ATTEMPTS_MAX = 10
PAUSE_FIRST_S = 0.1
"""Before everything that failed is tried again; doubles each time."""
RECHECK_S = 0.3
"""How often a slow answer is weighed against what the node knows by now."""

UndeliveredKind = Literal["no_replica", "all_failed", "timed_out", "interrupted"]


class Patience(msgspec.Struct, frozen=True):
    """How long a request may take, in seconds."""

    total_s: float = 2.0
    """Until a replica must have accepted it, whatever fails meanwhile."""
    answer_s: float = 30.0
    """Until a replica that has accepted it must begin to answer, counted from its last sign of progress."""


class Undelivered(Exception):
    """No replica answered. `kind` says in what way, `reasons` what each attempt met (for the owner's log and page)."""

    def __init__(self, kind: UndeliveredKind, located: Located, reasons: list[str]) -> None:
        super().__init__(f"{located.name}: {kind}: {'; '.join(reasons)}")
        self.kind: UndeliveredKind = kind
        self.located = located
        self.reasons = reasons


class Courier:
    """Gives requests to replicas; one for a whole gateway."""

    def __init__(
        self, resolver: Resolver, tunnels: Tunnels, health: HealthMemory, patience: Patience | None = None
    ) -> None:
        self.resolver = resolver
        self.pool = ConnectionPool(tunnels)
        self.health = health
        self.patience = patience or Patience()

    async def carry(self, parcel: Parcel, located: Located) -> Attempt:
        """The winning attempt, `WHOLE` or `STREAMING`; its owner must call `end` when done with it.

        Raises `Undelivered`.
        """
        trip = _Trip(self, parcel, located)
        try:
            return await trip.run()
        finally:
            trip.abandon_losers()

    async def close(self) -> None:
        """Abort the idle connections."""
        await self.pool.close()


class _Trip:
    """One request on its way."""

    def __init__(self, courier: Courier, parcel: Parcel, located: Located) -> None:
        self._courier, self._parcel, self._located = courier, parcel, located
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._deadline = self._started_at + courier.patience.total_s
        self._hedge_s = courier.health.hedge_s(located.service)
        self._attempts: list[Attempt] = []
        self._failed: set[Attempt] = set()
        self._winner: Attempt | None = None
        self._candidates = deque(courier.health.ordered(located.locations, self._started_at))
        self._asked: dict[ReplicaId, int] = {}
        self._refresh: asyncio.Task[None] | None = None
        self._asked_group = False
        self._pause_s = PAUSE_FIRST_S
        self._bell: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------ the loop

    async def run(self) -> Attempt:
        self._launch()
        while True:
            in_flight = self._sort_out()
            if self._winner is not None:
                return self._winner
            now = self._loop.time()
            if now >= self._deadline:
                self._after_deadline(in_flight, now)
                if self._winner is not None:
                    continue
            elif not in_flight:
                if self._launch():
                    continue
                self._start_refresh(now)
            await self._wait(self._next_look(in_flight, now))
            self._hedge()

    def _sort_out(self) -> list[Attempt]:
        """Find the winner, book the newly failed, return those still in flight."""
        if self._refresh is not None and self._refresh.done():
            self._refresh.result()
            self._refresh = None
        in_flight = []
        for attempt in self._attempts:
            if attempt.in_flight:
                in_flight.append(attempt)
            elif attempt.phase is Phase.FAILED:
                if attempt not in self._failed:
                    self._book_failure(attempt)
            elif self._winner is None:
                self._winner = attempt
        return in_flight

    def _book_failure(self, attempt: Attempt) -> None:
        self._failed.add(attempt)
        attempt.end()
        failure = attempt.failure
        if failure is not None and not isinstance(failure, OSError):
            raise failure
        if isinstance(failure, UploadFailed):
            raise failure
        self._blame(attempt)
        if attempt.sent and not self._parcel.replayable:
            raise self._undelivered("interrupted")

    def _after_deadline(self, in_flight: list[Attempt], now: float) -> None:
        """The two seconds are over: stream what has begun, wait for who has accepted, else give up."""
        courier = self._courier
        for attempt in in_flight:
            if attempt.phase is Phase.ANSWERING:
                attempt.commit()
                self._winner = attempt
                return
        located = courier.resolver.locate(self._parcel.name) or self._located
        present = {location.replica for location in located.locations}
        patient = [
            attempt
            for attempt in in_flight
            if attempt.phase is Phase.ASKED
            and attempt.location.replica in present
            and now - attempt.progressed_at < courier.patience.answer_s
        ]
        if not patient:
            for attempt in in_flight:
                self._blame_silent(attempt)
            raise self._undelivered("timed_out" if in_flight else "all_failed")
        if self._parcel.replayable:
            new = [one for one in located.locations if one.replica not in self._asked]
            self._candidates = deque(courier.health.ordered(new, now))

    def _next_look(self, in_flight: list[Attempt], now: float) -> float:
        """When to act although nothing rang."""
        if now >= self._deadline:
            return now + RECHECK_S
        hedge_at = max((one.progressed_at for one in in_flight), default=now) + self._hedge_s
        return min(self._deadline, hedge_at if hedge_at > now else now + RECHECK_S)

    def _hedge(self) -> None:
        """Ask one more replica when those in flight have been silent for long enough."""
        now = self._loop.time()
        in_flight = [one for one in self._attempts if one.in_flight]
        if not in_flight or now < max(one.progressed_at for one in in_flight) + self._hedge_s:
            return
        if any(not one.in_flight and one.phase is not Phase.FAILED for one in self._attempts):
            return
        if not self._parcel.replayable:
            # Only one at a time may have it, so one that is still being dialled is given up for the next.
            for attempt in in_flight:
                if not attempt.sent and self._candidates:
                    self._failed.add(attempt)
                    attempt.end()
                    self._blame_silent(attempt)
                    self._attempts.remove(attempt)
            return
        health = self._courier.health
        if len(in_flight) >= IN_FLIGHT_MAX:
            return
        known = {location.replica for location in self._located.locations}
        lost = not any(attempt.location.replica in known for attempt in in_flight)
        if not lost and not health.may_hedge():
            # To ask the group burdens no replica, and may show that those in flight are lost.
            self._start_refresh(now)
        elif self._launch() or self._launch_afresh(in_flight):
            if not lost:
                health.hedged()
        else:
            self._start_refresh(now)

    # ------------------------------------------------------------------ attempts

    def _launch(self) -> bool:
        """Start an attempt with the next candidate; False when there is none."""
        if not self._candidates or sum(self._asked.values()) >= ATTEMPTS_MAX:
            return False
        self._start(self._candidates.popleft(), fresh=not self._parcel.replayable or self._parcel.upgrade)
        return True

    def _launch_afresh(self, in_flight: list[Attempt]) -> bool:
        """Where nobody else is left, ask the same replica again if the silent connection had been idling."""
        for attempt in in_flight:
            if attempt.reused and self._asked.get(attempt.location.replica) == 1:
                self._start(attempt.location, fresh=True)
                return True
        return False

    def _start(self, location: ReplicaLocation, fresh: bool) -> None:
        self._asked[location.replica] = self._asked.get(location.replica, 0) + 1
        courier = self._courier
        attempt = Attempt(
            self._parcel, self._located.service, location, courier.pool, courier.health, self._ring, fresh
        )
        self._attempts.append(attempt)

    def abandon_losers(self) -> None:
        """Abort everything but the winner. Who was silent all along while another answered at once is blamed.

        Where the winner was slow too, it may be this computer that is: then silence proves nothing.
        """
        if self._refresh is not None:
            self._refresh.cancel()
        winner = self._winner
        quick = winner is not None and self._loop.time() - winner.started_at < self._hedge_s
        for attempt in self._attempts:
            if attempt is winner or attempt in self._failed:
                continue
            earlier = winner is not None and attempt.started_at + self._hedge_s <= winner.started_at
            if attempt.head is None and earlier and quick:
                self._blame_silent(attempt)
            attempt.end()
        if winner is not None:
            self._praise(winner)

    def _praise(self, winner: Attempt) -> None:
        health, replica, now = self._courier.health, winner.location.replica, self._loop.time()
        if winner.phase is Phase.WHOLE:
            health.answered(self._located.service, replica, now - winner.started_at, now)
        else:
            health.proved_alive(replica, now)

    def _blame_silent(self, attempt: Attempt) -> None:
        """Nothing came from it; unless others got answers meanwhile, it may be dead."""
        if not self._courier.health.alive_since(attempt.location.replica, attempt.started_at):
            self._blame(attempt)

    def _blame(self, attempt: Attempt) -> None:
        courier, replica = self._courier, attempt.location.replica
        courier.health.failed(replica, self._loop.time())
        courier.pool.forget(replica)
        courier.resolver.report_failed(self._located.service, replica)

    # ------------------------------------------------------------------ asking the group again

    def _start_refresh(self, now: float) -> None:
        if self._refresh is None and now < self._deadline and sum(self._asked.values()) < ATTEMPTS_MAX:
            self._refresh = self._loop.create_task(self._find_more())
            self._refresh.add_done_callback(lambda _: self._ring())

    async def _find_more(self) -> None:
        """Locate the service again, through the group the first time, and refill the candidates."""
        resolver, name = self._courier.resolver, self._parcel.name
        if self._asked_group:
            await asyncio.sleep(self._pause_s)
            self._pause_s *= 2
            located = resolver.locate(name)
        else:
            self._asked_group = True
            located = await resolver.locate_fresh(name, self._deadline - self._loop.time())
        if located is not None and located.service == self._located.service:
            self._located = located
            busy = {one.location.replica for one in self._attempts if one.in_flight}
            unasked = [one for one in located.locations if one.replica not in self._asked]
            again = unasked or [one for one in located.locations if one.replica not in busy]
            self._candidates = deque(self._courier.health.ordered(again, self._loop.time()))

    # ------------------------------------------------------------------ waiting

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _wait(self, until: float) -> None:
        """Until something rings, or the time has come."""
        self._bell = self._loop.create_future()
        alarm = self._loop.call_at(until, self._ring)
        try:
            await self._bell
        finally:
            alarm.cancel()
            self._bell = None

    def _undelivered(self, kind: UndeliveredKind) -> Undelivered:
        if not self._asked and not self._located.locations:
            kind = "no_replica"
        return Undelivered(kind, self._located, [_reason(one) for one in self._attempts])


def _reason(attempt: Attempt) -> str:
    where = attempt.location.node_name
    match attempt.failure:
        case None:
            return f"{where}: no answer in time"
        case TunnelError() | BrokenAnswer() as error:
            return f"{where}: {error}"
        case error:
            return f"{where}: the connection broke ({type(error).__name__})"
