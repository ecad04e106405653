"""What every environment has to do, whatever it runs."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import EnvironmentFault, HealthCheck, Limits, ReplicaStarted
from colla.model.ids import ReplicaId

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_info_says_what_it_is(bench):
    info = bench.client.info
    assert info.kind == bench.kind.partition("-")[0]
    assert info.protocol_versions == (1,) and info.artifact_kinds == ("folder",)
    expected = {"static": "nothing-executed", "process-bubblewrap": "bubblewrap", "process-none": "none"}
    assert info.isolation == expected[bench.kind]
    assert bool(info.needs_consent) == (bench.kind == "process-none")
    assert (await bench.client.health()).healthy


async def test_a_replica_starts_answers_and_stops(bench, get):
    spec = bench.spec()
    socket = await bench.ready(spec)
    status, body = await get(socket)
    assert status == 200
    assert body == (b"<h1>home</h1>" if bench.kind == "static" else f"garden {spec.replica}".encode())
    seen = await bench.status(spec)
    assert (seen.phase, seen.service) == ("ready", "garden") and seen.ready_at >= seen.started_at
    stopped = await bench.client.stop(spec.replica_id, 5.0)
    assert stopped.phase == "exited" and stopped.exit.reason == "stopped"
    assert (await bench.exited(spec)).exit == stopped.exit
    assert not Path(socket).exists()
    with pytest.raises(OSError):
        await get(socket)


async def test_starting_again_gives_the_same_replica(bench):
    spec = bench.spec()
    first, second = await asyncio.gather(bench.client.start(spec), bench.client.start(spec))
    assert first == second == await bench.client.start(spec)
    await bench.client.stop(spec.replica_id, 0.1)
    assert sum(isinstance(e, ReplicaStarted) and e.replica == spec.replica for e in bench.events) == 1
    # Also when it has ended: whoever repeats a start learns the end by its status, not by a second program.
    assert await bench.client.start(spec) == first


async def test_the_same_id_with_another_specification_is_refused(bench):
    spec = bench.spec()
    await bench.ready(spec)
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.start(bench.spec(replica=spec.replica))
    assert refused.value.code == "replica_differs" and not refused.value.retryable
    await bench.client.delete(spec.replica_id)


async def test_recover_by_handle(bench):
    spec = bench.spec()
    started = await bench.client.start(spec)
    assert await bench.client.recover(spec.replica_id, started.handle) == started
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.recover(ReplicaId(secrets.token_bytes(16)), started.handle)
    assert refused.value.code == "replica_unknown"
    await bench.client.delete(spec.replica_id)


async def test_delete_kills_and_forgets(bench):
    spec = bench.spec()
    socket = await bench.ready(spec)
    assert spec.replica in [status.replica for status in await bench.client.list()]
    await bench.client.delete(spec.replica_id)
    assert spec.replica not in [status.replica for status in await bench.client.list()]
    assert not Path(socket).exists()
    assert not list((bench.folder / "runtime" / "replicas").glob(spec.replica))
    await bench.client.delete(spec.replica_id)
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.inspect(spec.replica_id)
    assert refused.value.code == "replica_unknown"


async def test_two_replicas_do_not_meet(bench, get):
    specs = [bench.spec(bench.artifact(index_html=name)) for name in ("one", "two")]
    sockets = [await bench.ready(spec) for spec in specs]
    bodies = [(await get(socket))[1] for socket in sockets]
    if bench.kind == "static":
        assert bodies == [b"one", b"two"]
    else:
        assert bodies == [f"garden {spec.replica}".encode() for spec in specs]
    await bench.client.stop(specs[0].replica_id, 5.0)
    assert (await get(sockets[1]))[1] == bodies[1]
    await bench.client.delete(specs[1].replica_id)


async def test_wait_returns_at_the_end_or_in_time(bench):
    spec = bench.spec()
    await bench.ready(spec)
    assert (await bench.client.wait(spec.replica_id, 0.01)).phase == "ready"
    waiting = asyncio.create_task(bench.client.wait(spec.replica_id, 30.0))
    await bench.client.stop(spec.replica_id, 5.0)
    assert (await waiting).phase == "exited"


async def test_a_health_check_decides_when_it_is_ready(bench):
    if bench.kind == "static":
        spec = bench.spec(health=HealthCheck(path="/nowhere", start_period_s=0.3, timeout_s=0.2))
    else:
        spec = bench.spec(health=HealthCheck(path="/missing", start_period_s=1.5, timeout_s=0.5))
    await bench.client.start(spec)
    exit = (await bench.exited(spec)).exit
    assert exit.reason == "never_listened" and "404" in exit.message
    assert (await bench.status(spec)).ready_at is None


@pytest.mark.parametrize(
    ("artifact", "code"),
    [
        ("missing", "artifact_missing"),
        ("file", "artifact_missing"),
        ("empty", "artifact_empty"),
        ("relative", "artifact_relative"),
    ],
)
async def test_a_bad_artifact_is_refused(bench, artifact, code):
    paths = {
        "missing": bench.folder / "nothing-there",
        "file": bench.folder / "a-file",
        "empty": bench.folder / "empty",
    }
    (bench.folder / "a-file").touch()
    paths["empty"].mkdir(exist_ok=True)
    paths["relative"] = Path("somewhere")
    spec = bench.spec().__class__(
        replica=secrets.token_hex(16), service="x", artifact=str(paths[artifact]), command=("true",)
    )
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.start(spec)
    assert refused.value.code == code and refused.value.hint
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.prepare(paths[artifact])
    assert refused.value.code == code
    assert spec.replica not in [status.replica for status in await bench.client.list()]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"replica": "xyz"}, "replica_malformed"),
        ({"replica": "A" * 32}, "replica_malformed"),
        ({"replica": "../" * 10 + "ab"}, "replica_malformed"),
        ({"health": HealthCheck(path="/ HTTP/1.1\r\nX: y")}, "health_path_malformed"),
        ({"health": HealthCheck(timeout_s=0)}, "health_check_malformed"),
        ({"limits": Limits(memory_bytes=-1)}, "limits_malformed"),
    ],
)
async def test_a_malformed_specification_is_refused(bench, change, code):
    with pytest.raises(EnvironmentFault) as refused:
        await bench.client.start(bench.spec(**change))
    assert refused.value.code == code


async def test_prepare_counts_the_files(bench):
    done = await bench.client.prepare(bench.artifact(index_html="12345", app_py="123"))
    assert (done.done, done.files, done.size_bytes) == (True, 2, 8)


async def test_a_second_client_attaches_to_the_same_program(bench):
    other = await EnvironmentClient.launch(bench.client.info.kind, bench.folder / "runtime")
    assert other.info == bench.client.info
    spec = bench.spec()
    await bench.ready(spec)
    assert spec.replica in [status.replica for status in await other.list()]
    await other.detach()
    assert (await bench.status(spec)).phase == "ready"
    await bench.client.delete(spec.replica_id)
    with pytest.raises(EnvironmentFault) as refused:
        await other.list()
    assert refused.value.code == "detached"


async def test_nothing_is_open_to_others(bench):
    runtime = bench.folder / "runtime"
    spec = bench.spec()
    socket = Path(await bench.ready(spec))
    for path in (runtime, runtime / "replicas", socket.parent):
        assert path.stat().st_mode & 0o077 == 0
    assert socket.stat().st_mode & 0o077 == 0
    await bench.client.delete(spec.replica_id)
