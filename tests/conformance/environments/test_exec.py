"""Commands beside a replica's program: as isolated as that, and ended with whoever asked."""

from __future__ import annotations

import asyncio
import os

import pytest

from colla.environments.protocol import EnvironmentFault, ExecRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD = f"6{os.getpid()}"
"""Seconds to sleep that no other process sleeps."""
LOOK = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"


async def run(bench, spec, *command, timeout_s=30.0):
    """What it wrote, and its code."""
    request = ExecRequest(command=command, timeout_s=timeout_s)
    lines = [line async for line in bench.client.exec(spec.replica_id, request)]
    assert all(line.code is None for line in lines[:-1])
    return "".join(line.text for line in lines), lines[-1].code


async def test_commands_run_beside_the_program(programs):
    assert "exec" in programs.client.info.capabilities
    spec = programs.spec(env={"COLOUR": "blue"})
    await programs.ready(spec)
    script = "echo $COLOUR $COLLA_REPLICA; ls; echo problem >&2; exit 3"
    text, code = await run(programs, spec, "/bin/sh", "-c", script)
    assert code == 3 and {"blue", spec.replica, "app.py", "problem"} <= set(text.split())
    assert await run(programs, spec, "/bin/sh", "-c", "kill -9 $$") == ("", -9)
    text, code = await run(programs, spec, "no-such-command")
    assert code == 127 and "no-such-command" in text
    text, code = await run(programs, spec, "python3", "-c", "print('ü' * 100000 + '\\0' + '7')")
    assert code == 0 and text == "ü" * 100000 + "\0" + "7\n"
    if programs.kind == "process-bubblewrap":
        assert (await run(programs, spec, "/bin/sh", "-c", "test -e /etc/shadow"))[1] == 1


async def test_what_takes_too_long_or_nobody_hears_is_ended(programs):
    spec = programs.spec()
    await programs.ready(spec)
    assert await run(programs, spec, "sleep", "600", timeout_s=0.3) == ("", -9)
    request = ExecRequest(command=("/bin/sh", "-c", f"echo on; sleep {ODD}"), timeout_s=600.0)
    heard = programs.client.exec(spec.replica_id, request)
    assert (await anext(heard)).text == "on\n"
    await heard.aclose()

    # It sees what runs where it runs itself: all that is there in the sandbox, and more without one.
    async with asyncio.timeout(30):
        while f"sleep {ODD}" in (await run(programs, spec, "/bin/sh", "-c", LOOK))[0]:
            pass


async def test_who_does_not_run_takes_no_commands(programs):
    spec = programs.spec()
    with pytest.raises(EnvironmentFault) as raised:
        await run(programs, spec, "true")
    assert raised.value.code == "replica_unknown"
    await programs.ready(spec)
    with pytest.raises(EnvironmentFault) as raised:
        await run(programs, spec)
    assert raised.value.code == "command_missing"
    await programs.client.stop(spec.replica_id, 1.0)
    with pytest.raises(EnvironmentFault) as raised:
        await run(programs, spec, "true")
    assert raised.value.code == "not_running"
