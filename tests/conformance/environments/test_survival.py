"""Deaths: of the agent, of the environment's program, of a bridge. Each test kills what it started itself."""

# ruff: noqa: ASYNC110, ASYNC220
from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from colla.environments.client import EnvironmentClient
from colla.environments.protocol import (
    EnvironmentFault,
    Handshake,
    ReplicaExited,
    ReplicaReady,
    ReplicaStarted,
)


def program_of(runtime: Path) -> psutil.Process:
    """The living environment program of the folder."""
    return psutil.Process(msgspec.json.decode((runtime / "program.json").read_bytes(), type=Handshake).pid)


def gone(pid: int) -> bool:
    """Whether nothing runs with this id; what waits to be reaped does not run."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.asynccontextmanager
async def bench(bench_of, launcher, kind, folder):
    """A bench whose program may die; ends with nothing left running."""
    made = bench_of(await launcher(kind, folder / "runtime"), kind, folder)
    collecting = asyncio.create_task(made.collect())
    try:
        yield made
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        await (await launcher(kind, folder / "runtime")).shut_down(grace_s=0.2)
        await made.client.detach()


async def test_replicas_go_on_when_the_agent_is_killed(kind, launcher, bench_of, tmp_path, get):
    agent = """
import asyncio, pathlib, sys
from colla.environments.client import EnvironmentClient
from colla.environments.protocol import ReplicaSpec
async def main(kind, runtime, artifact):
    name, _, isolation = kind.partition("-")
    client = await EnvironmentClient.launch(
        name, pathlib.Path(runtime), isolation=isolation or "auto", allow_unsandboxed=True)
    await client.start(ReplicaSpec(replica="ab" * 16, service="garden", artifact=artifact, command=("python3", "app.py")))
    async for event in client.events():
        if type(event).__name__ == "ReplicaReady":
            print(client.info.instance, flush=True)
            await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""
    artifact = bench_of(None, kind, tmp_path).artifact()
    command = [sys.executable, "-c", agent, kind, str(tmp_path / "runtime"), str(artifact)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    instance = await asyncio.to_thread(process.stdout.readline)
    assert instance.strip()
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    process.stdout.close()
    client = await launcher(kind, tmp_path / "runtime")
    try:
        assert client.info.instance == instance.strip()
        (status,) = await client.list()
        assert status.phase == "ready" and status.replica == "ab" * 16
        assert (await get(status.endpoint.path))[0] == 200
        recovered = await client.recover(status.replica_id, status.handle)
        assert recovered.endpoint == status.endpoint
        # What happened while nobody listened is still told.
        events = client.events()
        assert [type(await anext(events)) for _ in range(2)] == [ReplicaStarted, ReplicaReady]
    finally:
        await client.shut_down(grace_s=0.2)


async def test_a_killed_environment_program_comes_back_with_its_replicas(
    kind, launcher, bench_of, tmp_path, get
):
    async with bench(bench_of, launcher, kind, tmp_path) as made:
        spec, gone = made.spec(), made.spec()
        socket = await made.ready(spec)
        await made.ready(gone)
        before = await made.status(spec)
        await made.client.stop(gone.replica_id, 5.0)
        first = made.client.info.instance
        program_of(tmp_path / "runtime").kill()
        if kind != "static":
            # Nobody has brought the program back yet, and the replica answers all the same.
            assert (await get(socket))[0] == 200
        after = await made.status(spec)
        assert made.client.info.instance != first
        assert (after.phase, after.handle, after.endpoint) == ("ready", before.handle, before.endpoint)
        assert after.started_at == before.started_at
        assert (await get(socket))[0] == 200
        assert (await made.status(gone)).exit.reason == "stopped"
        recovered = await made.until(
            lambda: [event for event in made.events if isinstance(event, ReplicaStarted) and event.recovered]
        )
        assert [event.replica for event in recovered] == [spec.replica]
        stopped = await made.client.stop(spec.replica_id, 10.0)
        assert stopped.exit.reason == "stopped"
        with pytest.raises(OSError):
            await get(socket)


async def test_what_ended_while_the_program_was_dead_is_told(program_kind, launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, program_kind, tmp_path) as made:
        ending = """
            import os, pathlib, time
            flag = pathlib.Path.home() / "end"
            while not flag.exists():
                time.sleep(0.01)
            print("the last word")
            os._exit(9)
        """
        spec = made.spec(made.artifact(app_py=ending), listen="fds")
        await made.ready(spec)
        handle = msgspec.json.decode((await made.status(spec)).handle)
        await made.client.detach()
        program_of(tmp_path / "runtime").kill()
        (tmp_path / "runtime" / "replicas" / spec.replica / "scratch" / "home" / "end").touch()
        bridge = handle["bridge"][0]
        while not gone(bridge):
            await asyncio.sleep(0.01)
        client = await launcher(program_kind, tmp_path / "runtime")
        status = await client.wait(spec.replica_id, 10.0)
        assert (status.exit.reason, status.exit.code, status.exit.last_lines) == (
            "exited",
            9,
            ("the last word",),
        )
        await client.detach()


async def test_a_reused_process_id_is_not_taken_for_the_replica(program_kind, launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, program_kind, tmp_path) as made:
        spec = made.spec()
        await made.ready(spec)
        handle = msgspec.json.decode((await made.status(spec)).handle)
        await made.client.detach()
        program_of(tmp_path / "runtime").kill()
        psutil.Process(handle["bridge"][0]).kill()
        # As after a restart of the computer: the same id, another process.
        record = tmp_path / "runtime" / "replicas" / spec.replica / "record.json"
        content = msgspec.json.decode(record.read_bytes())
        innocent = subprocess.Popen(["sleep", "600"])
        handle["outer"][0] = handle["bridge"][0] = innocent.pid
        record.write_bytes(msgspec.json.encode(content | {"handle": msgspec.json.encode(handle).decode()}))
        try:
            client = await launcher(program_kind, tmp_path / "runtime")
            status = await client.wait(spec.replica_id, 10.0)
            assert status.phase == "exited" and status.exit.reason == "lost"
            assert innocent.poll() is None
            await client.detach()
        finally:
            innocent.kill()
            innocent.wait()


async def test_a_launch_that_was_cut_off_leaves_nothing(program_kind, launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, program_kind, tmp_path) as made:
        spec = made.spec()
        await made.ready(spec)
        handle = msgspec.json.decode((await made.status(spec)).handle)
        await made.client.detach()
        program_of(tmp_path / "runtime").kill()
        record = tmp_path / "runtime" / "replicas" / spec.replica / "record.json"
        content = msgspec.json.decode(record.read_bytes())
        del content["handle"], content["ready_at"]
        record.write_bytes(msgspec.json.encode(content))
        client = await launcher(program_kind, tmp_path / "runtime")
        assert await client.list() == ()
        assert gone(handle["bridge"][0])
        await client.detach()


async def test_a_killed_bridge_ends_its_replica_wholly(program_kind, launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, program_kind, tmp_path) as made:
        spec = made.spec()
        await made.ready(spec)
        bridge = psutil.Process(msgspec.json.decode((await made.status(spec)).handle)["bridge"][0])
        below = bridge.children(recursive=True)
        assert below
        bridge.kill()
        assert (await made.exited(spec)).exit.reason == "killed"
        _, alive = psutil.wait_procs(below, timeout=5)
        assert not alive


async def test_a_terminated_program_lets_programs_go_on(launcher, bench_of, tmp_path, get, program_kind):
    async with bench(bench_of, launcher, program_kind, tmp_path) as made:
        spec = made.spec()
        socket = await made.ready(spec)
        program = program_of(tmp_path / "runtime")
        await made.client.detach()
        program.terminate()
        await asyncio.to_thread(program.wait, 10)
        assert (await get(socket))[0] == 200


async def test_shut_down_leaves_nothing(kind, launcher, bench_of, tmp_path):
    client = await launcher(kind, tmp_path / "runtime")
    made = bench_of(client, kind, tmp_path)
    specs = [made.spec() for _ in range(3)]
    await asyncio.gather(*(client.start(spec) for spec in specs))
    program = program_of(tmp_path / "runtime")
    below = program.children(recursive=True)
    sockets = Path((await client.list())[0].endpoint.path).parent
    await client.shut_down(grace_s=5.0)
    _, alive = await asyncio.to_thread(psutil.wait_procs, [program, *below], 10)
    assert not alive
    assert not sockets.exists()
    # And once more, with nobody there: no fault.
    again = await launcher(kind, tmp_path / "runtime")
    assert {status.phase for status in await again.list()} == {"exited"}
    await again.shut_down()
    await again.shut_down()


async def test_two_agents_that_launch_at_once_share_one_program(launcher, tmp_path):
    clients = await asyncio.gather(*(launcher("static", tmp_path / "runtime") for _ in range(3)))
    assert len({client.info.instance for client in clients}) == 1
    await clients[0].shut_down()
    for client in clients[1:]:
        await client.detach()


@pytest.mark.parametrize("kind", ["static", "process-none"])
async def test_a_long_runtime_folder(launcher, bench_of, tmp_path, get, kind):
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    async with bench(bench_of, launcher, kind, deep) as made:
        socket = await made.ready(made.spec())
        assert len(os.fsencode(socket)) <= 100 and (await get(socket))[0] == 200
    assert not Path(socket).parent.exists()


@pytest.mark.parametrize(
    "program",
    [
        (sys.executable, "-c", "import sys; sys.exit('out of order')"),
        (sys.executable, "-c", "print('hello, I am no environment')"),
        ("/no/such/program",),
        (sys.executable, "-c", 'print(\'{"colla_environment": 99, "kind": "x", "socket": "/x", "pid": 1}\')'),
    ],
)
async def test_a_program_that_is_no_environment(program, tmp_path, monkeypatch):
    monkeypatch.setattr("colla.environments.client.LAUNCH_ATTEMPTS_MAX", 1)
    with pytest.raises(EnvironmentFault) as failed:
        await EnvironmentClient.launch("strange", tmp_path, program=program)
    assert failed.value.code == "environment_gone" and "program.log" in failed.value.hint


async def test_events_are_told_again_in_order_to_who_comes_back(launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, "static", tmp_path) as made:
        for _ in range(3):
            spec = made.spec()
            await made.ready(spec)
            await made.client.stop(spec.replica_id, 1.0)
            await made.event(spec.replica, ReplicaExited)
        other = await launcher("static", tmp_path / "runtime")
        events = other.events()
        seen = [await anext(events) for _ in range(9)]
        assert [event.number for event in seen] == list(range(1, 10)) and seen == made.events
        await other.detach()


async def test_letting_go_ends_the_streams(launcher, bench_of, tmp_path):
    async with bench(bench_of, launcher, "process-none", tmp_path) as made:
        spec = made.spec()
        await made.ready(spec)
        lines: list[str] = []
        seen = asyncio.Event()

        async def follow() -> None:
            async for line in made.client.logs(spec.replica_id, follow=True):
                lines.append(line.text)
                seen.set()

        following = asyncio.create_task(follow())
        watching = asyncio.create_task(made.collect())
        await asyncio.wait_for(seen.wait(), 10)
        await made.client.detach()
        with pytest.raises(EnvironmentFault) as ended:
            await asyncio.wait_for(following, 10)
        assert ended.value.code == "environment_gone" and lines == ["listening soon"]
        await asyncio.wait_for(watching, 10)
