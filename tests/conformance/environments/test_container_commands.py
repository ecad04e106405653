"""Commands in containers, on this computer's Podman: what checks health, and what `colla exec` runs, is inside and ends in time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import oci
import pytest
import pytest_asyncio
from container_bench import Bench, own_podman

from colla.environments.folders import Record
from colla.environments.protocol import (
    EnvironmentFault,
    ExecRequest,
    HealthCheck,
    ReplicaReady,
    ReplicaUnhealthy,
)
from colla.environments.replicas import EventLog, Replica

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works"),
    pytest.mark.asyncio(loop_scope="module"),
]

SITE = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]
PATIENT = HealthCheck(start_period_s=60.0)
SECRET = "hush-nobody-else-says-this"
ODD = f"7{os.getpid()}"
"""Seconds to sleep that no other process sleeps."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("podman")
    with own_podman(folder):
        made = Bench(folder)
        yield made
        await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(bench: Bench):
    """A container that serves."""
    files = {"www/index.html": b"hello", "inside.txt": b"from the image"}
    secrets = {"WHISPER": SECRET}
    replica, _ = await bench.launch(
        bench.spec(SITE, files, health=PATIENT, env={"COLOUR": "blue"}, secrets=secrets)
    )
    async with asyncio.timeout(60.0):
        await replica.until_listening()
    return replica


async def run(replica, *command: str, timeout_s: float = 60.0) -> tuple[str, int | None]:
    lines = [line async for line in replica.exec(ExecRequest(command=command, timeout_s=timeout_s))]
    assert all(line.code is None for line in lines[:-1])
    return "".join(line.text for line in lines), lines[-1].code


async def test_commands_run_inside(bench: Bench, site, tmp_path: Path) -> None:
    """They see the container's files and variables and have its rights, and nothing of the computer's."""
    assert {"exec", "check_command"} <= set(bench.driver.info.capabilities)
    beyond = tmp_path / "computer.txt"
    beyond.write_text("of the computer")
    script = f"""
      cat /inside.txt; echo; echo $COLOUR $WHISPER; test -e {beyond} || echo not the computer
      touch /x 2>/dev/null || echo read-only; echo interfaces $(ls /sys/class/net)
      busybox grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | busybox tr '\\t' ' '; echo oh >&2; exit 3
    """
    text, code = await run(site, "/bin/sh", "-c", script)
    assert code == 3
    assert set(text.split("\n")) - {""} == {
        "from the image", f"blue {SECRET}", "not the computer", "read-only", "interfaces lo",
        "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "oh",
    }  # fmt: skip
    assert beyond.read_text() == "of the computer"


async def test_codes_and_long_output(site) -> None:
    assert await run(site, "/bin/sh", "-c", "kill -9 $$") == ("", -9)
    text, code = await run(site, "no-such-command")
    assert code == 127 and "no-such-command" in text
    text, code = await run(site, "/bin/head", "-c", "300000", "/dev/zero")
    assert code == 0 and text == "\0" * 300_000


def sleeping() -> list[str]:
    """Processes of this computer, those in containers too, that sleep for the odd time."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if ODD.encode() in words:
            found.append(entry.parent.name)
    return found


async def test_what_takes_too_long_or_nobody_hears_is_ended(site) -> None:
    script = f"echo on; sleep {ODD} & sleep {ODD}"
    assert await run(site, "/bin/sh", "-c", script, timeout_s=5.0) == ("on\n", -9)
    assert not sleeping(), "what it had started is ended too"
    heard = site.exec(ExecRequest(command=("/bin/sh", "-c", script), timeout_s=600.0))
    async with aclosing(heard):
        assert (await anext(heard)).text == "on\n"
        assert sleeping()
    assert not sleeping()
    assert (await run(site, "true"))[1] == 0, "the container goes on"


async def test_only_so_many_at_once(site) -> None:
    request = ExecRequest(command=("/bin/sh", "-c", "echo on; sleep 600"), timeout_s=600.0)
    running = [site.exec(request) for _ in range(4)]
    try:
        for one in running:
            await anext(one)
        with pytest.raises(EnvironmentFault, match="4 commands"):
            await run(site, "true")
    finally:
        for one in running:
            await one.aclose()
    assert (await run(site, "true"))[1] == 0


async def test_a_failing_command_makes_it_unhealthy(bench: Bench) -> None:
    """The command looks for a file that only the container has; the program in there removes it when it is told to."""
    script = """
      busybox mkdir /tmp/in; touch /tmp/in/healthy; busybox httpd -p 127.0.0.1:8080 -h /www
      trap 'busybox rm /tmp/in/healthy' USR1; while :; do sleep 0.1; done
    """
    check = HealthCheck(
        command=("/bin/busybox", "test", "-e", "/tmp/in/healthy"), interval_s=0.2, timeout_s=30.0, start_period_s=60.0, failures_max=2
    )  # fmt: skip
    spec = bench.spec(["/bin/sh", "-c", script], health=check)
    running, place = await bench.launch(spec)
    events = EventLog("instance")
    replica = Replica(bench.driver, place, Record(spec=spec, started_at=time.time()), running, events)
    replica.begin(recovered=False)
    assert not seen_here("/tmp/in/healthy"), "the computer has no such file"
    try:
        await until(lambda: replica.phase == "ready")
        await running.signal("SIGUSR1")
        await until(lambda: replica.phase == "unhealthy")
        assert replica.status.unhealthy_because == "the command that checks it ended with 1"
        assert (await run(running, "touch", "/tmp/in/healthy"))[1] == 0
        await until(lambda: replica.phase == "ready")
        kinds = [type(event) for event in events.after(0)]
        assert kinds[1:] == [ReplicaReady, ReplicaUnhealthy, ReplicaReady]
    finally:
        await replica.stop("SIGTERM", 0.2)


def seen_here(path: str) -> bool:
    return Path(path).exists()


async def until(holds) -> None:
    async with asyncio.timeout(60.0):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_check_that_hangs_is_ended(bench: Bench) -> None:
    check = HealthCheck(command=("/bin/sleep", ODD), timeout_s=2.0, start_period_s=60.0)
    running, _ = await bench.launch(bench.spec(SITE, {"www/index.html": b"hello"}, health=check))
    async with asyncio.timeout(60.0):
        await running.until_listening()
    assert await running.check_problem() == "the command that checks it took longer than 2 s"
    assert not sleeping()


def holders(folder: Path) -> list[str]:
    """The files below it, by their first folder, that have the secret in them."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes():
            found.append(path.relative_to(folder).parts[0])
    return sorted(set(found))


async def test_who_keeps_secrets_on_the_disk(bench: Bench, site) -> None:
    """The engine does, as is said; nothing of ours does."""
    kept = holders(bench.folder)
    assert "runtime" not in kept
    assert bool(kept) == bool(bench.driver.info.secrets_kept)
    await site.stop("SIGTERM", 0.2)
    await site.until_exit()
    assert "runtime" not in holders(bench.folder)
