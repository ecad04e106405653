"""A disk that takes nothing, not even complaints: a replica still stops, and its end is still told."""

from __future__ import annotations

import asyncio
import errno
import io
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from colla.environments.driver import Driver
from colla.environments.folders import Place, Record, RuntimeFolder
from colla.environments.protocol import Exit, HealthCheck, LogLine, ReplicaExited, ReplicaSpec
from colla.environments.replicas import EventLog, Replica

SPEC = ReplicaSpec(replica="ab" * 16, service="garden", artifact="/a", health=HealthCheck(path=None))


class FullDisk(io.StringIO):
    """A stderr that leads into a file on it."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Program:
    """A replica that listens at once and ends when it is stopped."""

    handle = "h"
    limits_enforced = ()

    def __init__(self) -> None:
        self.over: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def until_listening(self) -> None:
        return

    async def until_exit(self) -> Exit:
        return await self.over

    async def stop(self, signal: str, grace_s: float) -> None:
        if not self.over.done():
            self.over.set_result(Exit(reason="stopped", code=0))

    def why_not_listening(self) -> str:
        return ""


class Kind:
    def logs(self, place: Place, after: int) -> list[LogLine]:
        return []


async def test_a_replica_stops_though_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = RuntimeFolder(tmp_path / "runtime").place(SPEC.replica_id)
    place.create(record := Record(spec=SPEC, started_at=1.0, handle="h"))
    events = EventLog("ef" * 16)
    replica = Replica(cast(Driver, Kind()), place, record, cast(Any, Program()), events)
    replica.begin(recovered=False)
    monkeypatch.setattr(Place, "write", refuse)
    monkeypatch.setattr(Place, "clear_scratch", refuse)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    async with asyncio.timeout(5):
        await replica.stop("SIGTERM", 1.0)
    assert replica.phase == "exited"
    assert isinstance(events.after(0)[-1], ReplicaExited)
