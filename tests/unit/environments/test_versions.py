"""An agent and an environment that speak no common version of the protocol."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from colla.environments.client import EnvironmentClient
from colla.environments.folders import RuntimeFolder
from colla.environments.protocol import EnvironmentFault, EnvironmentInfo

LATER = """
import json, os, sys
print(json.dumps({"colla_environment": 2, "kind": "later", "socket": "/nowhere", "pid": os.getpid()}), flush=True)
sys.stdin.read()
"""
INFO = EnvironmentInfo(
    protocol_versions=(2, 3),
    kind="later",
    version="9",
    instance="1" * 32,
    artifact_kinds=("folder",),
    config_schema={},
    isolation="none",
    network_modes=("shared",),
    limits_enforced=(),
    capabilities=(),
)


async def test_a_program_of_another_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    program = tmp_path / "later.py"
    program.write_text(LATER)
    with pytest.raises(EnvironmentFault, match="version 2 of the protocol, this colla version 1") as caught:
        await EnvironmentClient.launch(
            "later", tmp_path / "run", program=(sys.executable, str(program)), attempts=1
        )
    assert caught.value.code == "environment_gone"


async def test_what_another_version_left_running_is_ended_before_a_new_one_starts(tmp_path: Path) -> None:
    """It may speak later versions only: it is asked to end, in the words of the first, and nothing else."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=msgspec.json.encode(INFO if request.path == "/v1/info" else {}))

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    folder = RuntimeFolder(tmp_path / "run")
    folder.path.mkdir(exist_ok=True)
    socket = str(tmp_path / "s")
    await web.UnixSite(runner, socket).start()
    handshake = {"colla_environment": 1, "kind": "later", "socket": socket, "pid": os.getpid()}
    folder.handshake.write_bytes(msgspec.json.encode(handshake))
    try:
        with pytest.raises(EnvironmentFault, match="does not start"):
            await EnvironmentClient.launch("later", folder.path, program=("/no/such/program",), attempts=1)
    finally:
        await runner.cleanup()
    assert asked == ["/v1/info", "/v1/shut-down"]
