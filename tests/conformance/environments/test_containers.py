"""The container environment on this computer's Podman: what runs, what is kept from it, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import oci
import pytest
import pytest_asyncio
from container_bench import Bench, own_podman

from colla.client.images import AddedFile, add_files
from colla.environments.folders import Place
from colla.environments.protocol import EnvironmentFault, HealthCheck

pytestmark = [
    pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works"),
    pytest.mark.asyncio(loop_scope="module"),
]

SITE = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("podman")
    with own_podman(folder):
        made = Bench(folder)
        yield made
        await made.close()


async def asked(place: Place, path: str = "/") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.endpoint))) as session,
        session.get(f"http://garden{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_an_image_serves(bench: Bench) -> None:
    spec = bench.spec(SITE, {"www/index.html": b"from a container"}, health=HealthCheck(start_period_s=60.0))
    added = AddedFile("/www/sub/note.html", b"from a config", 0o444)
    add_files(Path(spec.artifact), [added])
    progress = [line async for line in bench.driver.prepare(spec.artifact)]
    assert progress[-1].done
    replica, place = await bench.launch(spec)
    async with asyncio.timeout(60.0):
        await replica.until_listening()
    assert await asked(place) == (200, "from a container")
    assert await asked(place, "/sub/note.html") == (200, "from a config")
    assert replica.stats().memory_bytes
    record = place.read()
    assert record is not None
    again = await bench.driver.adopt(record.spec, place, replica.handle)
    assert again is not None
    assert await asked(place) == (200, "from a container")
    await replica.stop("SIGTERM", 0.2)
    assert (await replica.until_exit()).reason == "stopped"
    with pytest.raises(OSError):
        await asked(place)


async def test_what_a_container_is_kept_from(bench: Bench) -> None:
    """It writes nowhere but to /tmp, has no capability, and no network but itself."""
    script = """
      touch /x 2>/dev/null || echo root is read-only
      touch /tmp/x && echo tmp is writable
      echo capabilities $(cat /proc/self/status | busybox grep CapEff)
      echo privileges $(cat /proc/self/status | busybox grep NoNewPrivs)
      echo interfaces $(ls /sys/class/net)
      wget -T 2 -q -O- http://169.254.169.254/ || echo no network
      ls /proc/1/root/home 2>/dev/null; echo variable $COLLA_SERVICE $GREETING $WHISPER
      echo finished; sleep 60
    """
    variables = {"env": {"GREETING": "hello"}, "secrets": {"WHISPER": "hush"}}
    _, place = await bench.launch(bench.spec(["/bin/sh", "-c", script], **variables))
    await bench.said(place, "finished")
    lines = [line.text for line in bench.driver.logs(place, 0)]
    assert "root is read-only" in lines
    assert "tmp is writable" in lines
    assert "capabilities CapEff: 0000000000000000" in lines
    assert "privileges NoNewPrivs: 1" in lines
    assert "interfaces lo" in lines
    assert "no network" in lines
    assert "variable garden hello hush" in lines


async def test_memory_is_bounded(bench: Bench) -> None:
    if "memory_bytes" not in bench.driver.info.limits_enforced:
        pytest.skip("this engine does not bound memory here, and says so")
    replica, _ = await bench.launch(bench.spec(["/bin/tail", "-c", "200000000", "/dev/zero"]))
    async with asyncio.timeout(60.0):
        exit = await replica.until_exit()
    assert exit.reason == "out_of_memory" or (exit.reason, exit.signal) == ("killed", 9), exit
    assert "memory" in exit.message


async def test_how_it_ended_is_told(bench: Bench) -> None:
    replica, place = await bench.launch(bench.spec(["/bin/sh", "-c", "echo bye >&2; exit 7"]))
    async with asyncio.timeout(60.0):
        exit = await replica.until_exit()
    assert (exit.reason, exit.code) == ("exited", 7)
    assert [(line.stream, line.text) for line in bench.driver.logs(place, 0)] == [("stderr", "bye")]


async def test_a_container_whose_runner_was_killed_is_not_left_behind(bench: Bench) -> None:
    from colla.environments.container_engine import connect, container_name

    spec = bench.spec(["/bin/sleep", "600"])
    _, place = await bench.launch(spec)
    client = connect(bench.driver._engine.url)
    async with asyncio.timeout(60.0):
        while not (place.path / "connected").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert client.containers.get(container_name(spec.replica)).status == "running"
    await bench.driver.abandon(place)
    names = [each.name for each in client.containers.list(all=True)]
    assert container_name(spec.replica) not in names
    client.close()


async def test_images_that_cannot_be_run(bench: Bench) -> None:
    spec = bench.spec(SITE, image={"architecture": "s390x"})
    with pytest.raises(EnvironmentFault, match="is for s390x"):
        await bench.launch(spec)
    with pytest.raises(EnvironmentFault, match="is no port"):
        await bench.launch(bench.spec(SITE, env={"PORT": "http"}))


async def test_whoever_comes_second_finds_it_gone(bench: Bench) -> None:
    """The runner and the environment both remove what has ended."""
    spec = bench.spec(["/bin/sleep", "600"])
    _, place = await bench.launch(spec)
    async with asyncio.timeout(60.0):
        while not (place.path / "connected").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    engine = bench.driver._engine
    await asyncio.gather(*(asyncio.to_thread(engine.remove, spec.replica) for _ in range(4)))
    assert engine.usage(spec.replica) == (None, None, None)


async def test_an_engine_that_is_away_when_a_container_ends(tmp_path: Path) -> None:
    """It is removed, and its end told, when the engine is back; before, nobody ever heard of its end."""
    from colla.environments import container_engine
    from colla.environments.container_engine import container_name

    with own_podman(tmp_path):
        bench = Bench(tmp_path)
        engine = bench.driver._engine
        spec = bench.spec(["/bin/sleep", "600"])
        replica, place = await bench.launch(spec)
        try:
            async with asyncio.timeout(60.0):
                while not (place.path / "connected").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            program = engine.first_process(spec.replica)
            container_engine.end_service(bench.runtime)
            try:
                with pytest.raises(EnvironmentFault, match="engine failed"):
                    await asyncio.to_thread(engine.remove, spec.replica)
                assert engine.usage(spec.replica) == (None, None, None)
                os.kill(program, signal.SIGKILL)
                ended = asyncio.create_task(replica.until_exit())
                async with asyncio.timeout(60.0):
                    await replica._inner.until_exit()
                done, _ = await asyncio.wait([ended], timeout=1.0)
                assert not done, "nobody knows yet that nothing is left"
            finally:
                url = await asyncio.to_thread(container_engine._serve_podman, bench.runtime)
            async with asyncio.timeout(60.0):
                assert (await ended).reason == "exited"
            client = container_engine.connect(url)
            assert container_name(spec.replica) not in [
                each.name for each in client.containers.list(all=True)
            ]
            client.close()
        finally:
            await bench.close()
