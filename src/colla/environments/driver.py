"""What a kind of environment adds to the common program: a `Driver` launches, a `Running` is one replica.

Both know nothing of HTTP, events or records; those belong to `program` and `replicas`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from colla.environments.folders import Place
from colla.environments.protocol import (
    EnvironmentFault,
    EnvironmentInfo,
    ExecOutput,
    ExecRequest,
    Exit,
    LimitName,
    LogLine,
    PrepareProgress,
    ReplicaSignal,
    ReplicaSpec,
    ReplicaStats,
    StopSignal,
)


class Running(Protocol):
    """One replica that was launched, or found again."""

    @property
    def handle(self) -> str:
        """Opaque text that is enough to find it again after a restart of the program."""

    @property
    def limits_enforced(self) -> tuple[LimitName, ...]:
        """The limits that hold for it."""

    async def until_listening(self) -> None:
        """Return once its endpoint accepts connections. Cancelled when its start period is over."""

    async def until_exit(self) -> Exit:
        """Return once nothing of it runs any more, with all that it held given back."""

    async def stop(self, signal: StopSignal, grace_s: float) -> None:
        """Ask it to end, and end it by force after the grace. Returns when nothing of it runs."""

    async def signal(self, signal: ReplicaSignal) -> None:
        """Send its program a signal (capability `signal`)."""

    async def check_problem(self) -> str:
        """What the command that checks its health finds, or found last; empty when healthy (capability `check_command`)."""

    def why_not_listening(self) -> str:
        """What can be said about a program that does not answer; may be empty."""

    def stats(self) -> ReplicaStats:
        """What it uses now."""


@runtime_checkable
class Executing(Protocol):
    """A `Running` beside whose program commands can be run (capability `exec`)."""

    def exec(self, request: ExecRequest) -> AsyncIterator[ExecOutput]:
        """What the command writes, then its code. Closing the iterator ends it. Raises `EnvironmentFault`."""


class Driver(Protocol):
    """One kind of environment."""

    @property
    def info(self) -> EnvironmentInfo:
        """What it is and what really works here."""

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        """Raise `EnvironmentFault` if it would not run this here."""

    def prepare(self, artifact: str) -> AsyncIterator[PrepareProgress]:
        """Make ready what a start needs."""

    async def launch(self, spec: ReplicaSpec, place: Place) -> Running:
        """Start it; its endpoint is `place.endpoint`. Raises `EnvironmentFault` with nothing left behind."""

    async def adopt(self, spec: ReplicaSpec, place: Place, handle: str) -> Running | None:
        """Find what an earlier program launched, also if it has ended meanwhile; None if it cannot."""

    async def abandon(self, place: Place) -> None:
        """Kill whatever an earlier program launched there, if anything."""

    async def close(self) -> None:
        """Nothing runs any more and nothing will: end what ran beside the replicas, if anything."""

    def logs(self, place: Place, after: int) -> list[LogLine]:
        """Its lines with a number above `after` that are still kept, in order."""


def fault(code: str, message: str, hint: str = "", *, retryable: bool = False) -> EnvironmentFault:
    """Short for the exception."""
    return EnvironmentFault(code, message, hint, retryable=retryable)
