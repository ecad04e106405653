"""What the environments that are built in do beyond the rules of the suite (test_suite), whatever they run."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from colla.environments.protocol import EnvironmentFault

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


async def test_prepare_counts_the_files(bench):
    done = await bench.client.prepare(bench.artifact(index_html="12345", app_py="123"))
    assert (done.done, done.files, done.size_bytes) == (True, 2, 8)


async def test_nothing_is_open_to_others(bench):
    runtime = bench.folder / "runtime"
    spec = bench.spec()
    socket = Path(await bench.ready(spec))
    for path in (runtime, runtime / "replicas", socket.parent):
        assert path.stat().st_mode & 0o077 == 0
    assert socket.stat().st_mode & 0o077 == 0
    await bench.client.delete(spec.replica_id)
