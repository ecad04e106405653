"""A program's ways: ports of its own loopback that lead to the agent's door, and to nothing else."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from colla.environments.bridge.fence import ABI_LEAST, landlock_abi
from colla.environments.folders import private_folder
from colla.environments.protocol import GroupAccess

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = """
    import json, os, urllib.request
    told = {}
    for name in ("COLLA_USES_OUR_API", "COLLA_USES_BACK__ANA", "COLLA_GROUP_URL"):
        if name in os.environ:
            told[name] = urllib.request.urlopen(os.environ[name] + "/x", timeout=10).read().decode()
    told["proxy"] = urllib.request.urlopen("http://example.org/y", timeout=10).read().decode()
    print(json.dumps(told))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[GroupAccess]:
    """Answers every request with what came first: the bridge's line, if any, and the line of the request."""
    # A socket's path may be no longer than about a hundred bytes, and folders of tests are deep.
    base = Path(tempfile.mkdtemp(prefix="colla-test-", dir="/tmp"))
    folder = private_folder(base / "group")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [
            line.strip()
            for line in head.splitlines()[:2]
            if ":" not in line or "://" in line or line.startswith("tok ")
        ]
        body = " | ".join(lines).encode()
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    ways = await asyncio.start_unix_server(answer, folder / "ways.sock")
    group = await asyncio.start_unix_server(answer, folder / "group.sock")
    async with ways, group:
        yield GroupAccess(socket=str(folder / "group.sock"), token="tok", ways=str(folder / "ways.sock"))
    shutil.rmtree(base)


@pytest.mark.parametrize("kind", ["process-bubblewrap", "process-landlock", "process-none"])
async def test_each_way_leads_where_it_shall(tmp_path, kind, door, launcher_of_module, bench_of_module):
    if kind == "process-bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    if kind == "process-landlock" and landlock_abi() < ABI_LEAST:
        pytest.skip("the kernel's Landlock is too old")
    benches = bench_of_module(await launcher_of_module(kind, tmp_path / "runtime"), kind, tmp_path)
    async for bench in benches:
        spec = bench.spec(
            bench.artifact(app_py=PROGRAM),
            listen="port",
            group=door,
            uses=("our-api", "back--ana"),
            outgoing=True,
        )
        await bench.client.start(spec)
        exit = (await bench.exited(spec)).exit
        assert exit.code == 0, exit
        told = json.loads(exit.last_lines[-1])
        assert told.pop("proxy") == "tok network:internet | GET http://example.org/y HTTP/1.1"
        assert told.pop("COLLA_USES_OUR_API") == "tok our-api | GET /x HTTP/1.1"
        assert told.pop("COLLA_USES_BACK__ANA") == "tok back--ana | GET /x HTTP/1.1"
        # Where there are no Unix sockets, the group's own door has a way, too.
        assert told == ({"COLLA_GROUP_URL": "GET /x HTTP/1.1"} if kind == "process-landlock" else {})
