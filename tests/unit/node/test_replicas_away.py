"""A replica whose environment's program is away is not called stopped: it may run on. And one that an environment does not claim
to run as it should is not started.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colla.kernel.effects import LaunchReplica, StopReplica
from colla.kernel.events import Event, LaunchFailed, ReplicaStopped, StopFailed
from colla.model.ids import MemberId, ObjectId, ReplicaId, ServiceId
from colla.model.secret import Hidden
from colla.model.service import HealthCheck, Specification
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


@pytest.mark.parametrize(
    ("secrets", "command", "why"),
    [
        ((("KEY", Hidden("x")),), (), "takes no secrets"),
        ((), ("check",), "runs no commands that check health"),
    ],
)
async def test_what_an_environment_does_not_claim_is_not_asked_of_it(
    replicas: Replicas, secrets: tuple[tuple[str, Hidden], ...], command: tuple[str, ...], why: str
) -> None:
    # A program that is asked all the same would fail: it has nothing but what it says of itself.
    cast(Any, replicas)._clients["x-mine"] = SimpleNamespace(info=SimpleNamespace(capabilities=("logs",)))
    member, folder, service = MemberId(b"m" * 32), ObjectId(b"o" * 32), ServiceId(b"s" * 16)
    specification = Specification("web", member, 1, folder, 1, "x-mine", health=HealthCheck(command=command))
    outcome = await replicas.launch(LaunchReplica(1, REPLICA, service, specification, secrets))
    assert outcome == LaunchFailed(1, REPLICA, f"the environment 'x-mine' {why}")
