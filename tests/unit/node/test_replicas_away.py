"""A replica whose environment's program is away is not called stopped: it may run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from colla.kernel.effects import StopReplica
from colla.kernel.events import Event, ReplicaStopped, StopFailed
from colla.model.ids import ReplicaId
from colla.node.objects.store import ObjectStore
from colla.node.replicas import Note, Replicas

REPLICA = ReplicaId(b"r" * 16)
STOP = StopReplica(1, REPLICA, 5.0)


@pytest.fixture
def replicas(tmp_path: Path) -> Replicas:
    told: list[Event] = []
    return Replicas(tmp_path, cast(ObjectStore, None), told.append, lambda: False)


async def test_a_replica_of_an_environment_that_is_away(replicas: Replicas) -> None:
    cast(Any, replicas)._notes[REPLICA] = Note(REPLICA.hex(), "5e" * 16, "web", 1, "process", "0b" * 32)
    outcome = await replicas.stop(STOP)
    assert isinstance(outcome, StopFailed) and "'process' is not available" in outcome.why


async def test_a_replica_that_nobody_knows(replicas: Replicas) -> None:
    assert await replicas.stop(STOP) == ReplicaStopped(1, REPLICA)
