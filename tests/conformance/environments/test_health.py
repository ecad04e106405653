"""Health by connecting and by a command, beside the check by HTTP that all kinds have."""

from __future__ import annotations

import asyncio

import pytest

from colla.environments.protocol import (
    EnvironmentFault,
    HealthCheck,
    ReplicaExited,
    ReplicaReady,
    ReplicaUnhealthy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTENS_BY_TURNS = """
    import os, pathlib, socket, time
    flag, home = pathlib.Path("/tmp/deaf"), pathlib.Path.home()
    while True:
        listener = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
        listener.settimeout(0.01)
        kept = []
        while not (home / "deaf").exists():
            try:
                kept.append(listener.accept())
            except TimeoutError:
                pass
        listener.close()
        for connection, _ in kept:
            connection.close()
        while (home / "deaf").exists():
            time.sleep(0.01)
"""
CHECK = ("/bin/sh", "-c", "test ! -e $HOME/sick")


async def turns(programs, spec, flag):
    """Ready, unhealthy while the flag is there, and ready again."""
    place = programs.folder / "runtime" / "replicas" / spec.replica / "scratch" / "home"
    await programs.ready(spec)
    (place / flag).touch()
    told = await programs.event(spec.replica, ReplicaUnhealthy)
    assert (await programs.status(spec)).phase == "unhealthy"
    (place / flag).unlink()
    await programs.until(lambda: count(programs, spec, ReplicaReady) == 2)
    assert (await programs.client.stop(spec.replica_id, 0.5)).exit.reason == "stopped"
    return told.message


def count(programs, spec, kind):
    return sum(isinstance(event, kind) and event.replica == spec.replica for event in programs.events)


async def test_a_command_checks_beside_the_program(programs):
    health = HealthCheck(command=CHECK, interval_s=0.1, failures_max=1)
    message = await turns(programs, programs.spec(health=health), "sick")
    assert message == "the command that checks it ended with 1"


async def test_connections_that_are_dropped_are_no_health(programs):
    health = HealthCheck(tcp=True, interval_s=0.1, failures_max=1)
    spec = programs.spec(programs.artifact(app_py=LISTENS_BY_TURNS), health=health)
    assert "at once" in await turns(programs, spec, "deaf")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/bin/false",), "ended with 1"),
        (("/no/such/check",), "ended with 127"),
        (("/bin/sleep", "60"), "longer than 0.2 s"),
    ],
)
async def test_a_command_that_never_succeeds_ends_it(programs, command, why):
    health = HealthCheck(command=command, start_period_s=1.0, timeout_s=0.2, interval_s=0.1)
    spec = programs.spec(health=health)
    await programs.client.start(spec)
    exit = (await programs.event(spec.replica, ReplicaExited)).exit
    assert exit.reason == "never_listened" and why in exit.message


async def test_one_way_at_a_time(programs):
    for health in (HealthCheck(path="/", tcp=True), HealthCheck(tcp=True, command=CHECK)):
        with pytest.raises(EnvironmentFault) as refused:
            await programs.client.start(programs.spec(health=health))
        assert refused.value.code == "health_check_malformed"


async def test_where_no_command_can_run_it_is_refused(launcher, bench_of, tmp_path):
    client = await launcher("static", tmp_path / "runtime")
    made = bench_of(client, "static", tmp_path)
    with pytest.raises(EnvironmentFault) as refused:
        await client.start(made.spec(health=HealthCheck(command=CHECK)))
    assert refused.value.code == "not_supported"
    async with asyncio.timeout(10.0):
        await client.shut_down()
