"""Modules and containers, deployed by a command and asked through the gateway, on real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import oci
import psutil
import pytest
from computers import Computer, everything

pytestmark = pytest.mark.cluster

ANSWERING = """
(module
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 16) "Content-Type: text/plain\\n\\nfrom a module")
 (func (export "_start")
  (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 39))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


def deploy(home: Path, *words: str) -> None:
    """Run the command as a person does."""
    command = [
        sys.executable,
        "-m",
        "colla",
        "deploy",
        *words,
        "--replicas",
        "1",
        "--timeout",
        "200",
        "--home",
        str(home),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


async def page(computer: Computer, service: str) -> tuple[int, str]:
    gateway = (await computer.ask(lambda client: client.node())).gateway
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{gateway}/", headers={"Host": f"{service}.localhost"}) as response,
    ):
        return response.status, await response.text()


@pytest.fixture
async def attic(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Computer]:
    computer = Computer(tmp_path, "attic")
    computer.found("circle", "hashing", everything((request.param,)))
    await computer.up()
    yield computer
    computer.unplug()


@pytest.mark.parametrize("attic", ["wasm"], indirect=True)
async def test_a_module_is_deployed(tmp_path: Path, attic: Computer) -> None:
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    (tmp_path / "hello.wasm").write_bytes(wasmtime.wat2wasm(ANSWERING))
    await asyncio.to_thread(deploy, attic.home, str(tmp_path / "hello.wasm"))
    assert await page(attic, "hello") == (200, "from a module")


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman's storage in a folder of the test's own."""
    for name, text in oci.podman_settings(tmp_path / "podman").items():
        monkeypatch.setenv(name, text)


@pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works")
@pytest.mark.timeout(300)  # An engine that starts for the first time takes its time on a busy computer.
@pytest.mark.parametrize("attic", ["container"], indirect=True)
async def test_an_image_is_deployed(tmp_path: Path, podman: None, attic: Computer) -> None:
    # The first process of a container is ended by SIGTERM only if it says how.
    script = "trap 'exit 0' TERM; /bin/busybox httpd -f -p 8080 -h /www & wait"
    site = ["/bin/sh", "-c", script]
    archive = oci.write_archive(
        tmp_path / "shop.tar", oci.image(site, {"www/index.html": b"from a container"})
    )
    await asyncio.to_thread(deploy, attic.home, str(archive))
    assert await page(attic, "shop") == (200, "from a container")
    await attic.ask(lambda client: client.eliminate("shop"))

    def left() -> list[str]:
        commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return [" ".join(command) for command in commands if command[:2] == ["/bin/busybox", "httpd"]]

    async with asyncio.timeout(30.0):
        while left():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
