"""The wasm environment: modules as their authors write them, and as nobody should."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("wasmtime", reason="wasmtime is not installed")

from wasmtime import wat2wasm

from colla.environments import wasm_runner
from colla.environments.folders import Place, Record, RuntimeFolder
from colla.environments.process import ProcessReplica
from colla.environments.protocol import EnvironmentFault, Limits, ReplicaSpec
from colla.environments.wasm import WasmDriver
from colla.environments.wasm_runner import Instances, RunnerConfig, instances_at_once

IMPORTS = """
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "path_open"
  (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
 (memory (export "memory") 2)
 (data (i32.const 1024) "Content-Type: text/plain\\n\\n")
 (func $say (param $fd i32) (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
"""
HEAD = "(call $say (i32.const 1) (i32.const 1024) (i32.const 26))"
MODULES = {
    # Writes its variables, as they lie in memory: NUL-separated.
    "variables": f"""{HEAD}
      (drop (call $sizes (i32.const 16) (i32.const 20)))
      (drop (call $environ (i32.const 2048) (i32.const 8192)))
      (call $say (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))""",
    # Writes back what it is sent.
    "echo": f"""{HEAD}
      (i32.store (i32.const 32) (i32.const 8192)) (i32.store (i32.const 36) (i32.const 4096))
      (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)))
      (call $say (i32.const 1) (i32.const 8192) (i32.load (i32.const 40)))""",
    "silent": "",
    "loops": "(loop $on (br $on))",
    "traps": f"{HEAD} (unreachable)",
    "fails": f"{HEAD} (call $exit (i32.const 3))",
    "complains": f"{HEAD} (call $say (i32.const 2) (i32.const 1024) (i32.const 12))",
    # Takes memory until there is no more, and says how many pages of 64 KiB it has.
    "greedy": f"""{HEAD}
      (loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      (i32.store (i32.const 64) (memory.size)) (call $say (i32.const 1) (i32.const 64) (i32.const 4))""",
    "talkative": f"{HEAD} (loop $on (call $say (i32.const 1) (i32.const 0) (i32.const 65536)) (br $on))",
    # Creates a file in the bundle, and says the error number as one digit (0 would be success).
    "writes": f"""{HEAD}
      (i32.store8 (i32.const 96) (i32.const 120))
      (i32.store (i32.const 64) (call $open (i32.const 3) (i32.const 0) (i32.const 96) (i32.const 1) (i32.const 9)
        (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 80)))
      (call $say (i32.const 1) (i32.const 64) (i32.const 4))""",
}


def module(body: str) -> bytes:
    return bytes(wat2wasm(f'(module {IMPORTS} (func (export "_start") {body}))'))


@pytest.fixture
def folder(tmp_path: Path) -> RuntimeFolder:
    return RuntimeFolder(tmp_path / "run")


@pytest.fixture
def driver(folder: RuntimeFolder) -> WasmDriver:
    return WasmDriver("instance", folder)


def spec_of(tmp_path: Path, data: bytes, **more: Any) -> ReplicaSpec:
    artifact = tmp_path / f"bundle-{secrets.token_hex(4)}"
    artifact.mkdir()
    (artifact / "app.wasm").write_bytes(data)
    return ReplicaSpec(replica=secrets.token_hex(16), service="garden", artifact=str(artifact), **more)


Call = Callable[[str], Awaitable[tuple[int, bytes]]]


@pytest.fixture
async def start(driver: WasmDriver, folder: RuntimeFolder, tmp_path: Path) -> AsyncIterator[Any]:
    started: list[ProcessReplica] = []

    async def launch(data: bytes, **more: Any) -> tuple[ProcessReplica, Place]:
        spec = spec_of(tmp_path, data, **more)
        driver.check(spec, allow_unsandboxed=False)
        place = folder.place(spec.replica_id)
        place.create(Record(spec=spec, started_at=time.time()))
        replica = await driver.launch(spec, place)
        started.append(replica)
        await replica.until_listening()
        return replica, place

    yield launch
    for replica in started:
        await replica.stop("SIGTERM", 2.0)
        await replica.until_exit()


async def asked(place: Place, path: str = "/", **more: Any) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.endpoint))) as session,
        session.request(more.pop("method", "GET"), f"http://garden{path}", **more) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_request_reaches_the_module(start: Any) -> None:
    _, place = await start(module(MODULES["variables"]), env={"COLOUR": "green"}, secrets={"TASTE": "sour"})
    status, body = await asked(place, "/some%20path?q=1", headers={"X-A": "b"})
    assert status == 200
    env = dict(line.split("=", 1) for line in body.decode().split("\0") if "=" in line)
    assert env["PATH_INFO"] == "/some path"
    assert env["QUERY_STRING"] == "q=1"
    assert env["HTTP_X_A"] == "b"
    assert env["COLOUR"] == "green" and env["TASTE"] == "sour"
    assert env["COLLA_SERVICE"] == "garden"
    assert "PATH" not in env and "HOME" not in env, "nothing of the computer's own environment"
    assert await asked(place, method="HEAD") == (200, b"")


async def test_bodies_go_in_and_out(start: Any) -> None:
    _, place = await start(module(MODULES["echo"]))
    assert await asked(place, method="POST", data=b"hello") == (200, b"hello")
    status, _ = await asked(place, method="POST", data=bytes(wasm_runner.REQUEST_BYTES_MAX + 1))
    assert status == 413


async def test_a_module_that_fails_answers_for_itself_only(start: Any) -> None:
    replica, place = await start(module(MODULES["traps"]))
    assert (await asked(place))[0] == 500
    assert (await asked(place))[0] == 500
    assert replica.stats().processes


async def test_what_it_says_is_in_the_log(start: Any, driver: WasmDriver) -> None:
    _, place = await start(module(MODULES["complains"]))
    assert (await asked(place))[0] == 200
    async with asyncio.timeout(10.0):
        while not any("Content-Type" in line.text for line in driver.logs(place, 0)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_it_is_found_again(start: Any, driver: WasmDriver) -> None:
    replica, place = await start(module(MODULES["echo"]))
    record = place.read()
    assert record is not None
    found = await driver.adopt(record.spec, place, replica.handle)
    assert found is not None
    assert await asked(place, method="POST", data=b"again") == (200, b"again")


@pytest.fixture
def instances(driver: WasmDriver, tmp_path: Path) -> Callable[..., Awaitable[Instances]]:
    """The runner's part without its processes: one instance per call."""

    async def load(data: bytes, memory_bytes: int | None = 64 << 20, request_s: float = 30.0) -> Instances:
        artifact = tmp_path / secrets.token_hex(4)
        artifact.mkdir()
        path = artifact / "app.wasm"
        path.write_bytes(data)
        compiled = await driver._cache.compiled(path)
        made = Instances(
            RunnerConfig(
                module=str(compiled),
                name="app.wasm",
                folder=str(artifact),
                arguments=(),
                env={},
                memory_bytes=memory_bytes,
                processes=1,
                request_s=request_s,
            )
        )
        made.keep_time()
        return made

    return load


async def test_memory_is_bounded_exactly(instances: Any) -> None:
    made = await instances(module(MODULES["greedy"]), 64 << 20)
    output, problem = made.call({}, b"")
    assert not problem
    pages = int.from_bytes(output[-4:], "little")
    # Two instances at once share 64 MiB; it grew by sixteen pages at a time.
    assert instances_at_once(64 << 20, 1) == 2
    assert (32 << 20) - 16 * 65536 < pages * 65536 <= 32 << 20


async def test_time_is_bounded(instances: Any) -> None:
    made = await instances(module(MODULES["loops"]), request_s=0.3)
    began_s = time.monotonic()
    _, problem = await asyncio.to_thread(made.call, {}, b"")
    assert "interrupt" in problem
    assert time.monotonic() - began_s < 5.0


async def test_the_bundle_cannot_be_written_to(instances: Any, tmp_path: Path) -> None:
    made = await instances(module(MODULES["writes"]))
    output, _ = made.call({}, b"")
    assert int.from_bytes(output[-4:], "little") != 0
    assert [path.name for path in tmp_path.rglob("x")] == []  # noqa: ASYNC240


async def test_an_answer_is_bounded(driver: WasmDriver, tmp_path: Path) -> None:
    """In a process of its own: the bound is on the size of all files that it writes."""
    path = tmp_path / "app.wasm"
    path.write_bytes(module(MODULES["talkative"]))
    compiled = await driver._cache.compiled(path)
    config = RunnerConfig(
        module=str(compiled),
        name="app.wasm",
        folder=str(tmp_path),
        arguments=(),
        env={},
        memory_bytes=64 << 20,
        processes=1,
        request_s=0.5,
    )
    program = """
import resource, sys, colla.environments.wasm_runner as runner, msgspec, base64
resource.setrlimit(resource.RLIMIT_FSIZE, (runner.ANSWER_BYTES_MAX, runner.ANSWER_BYTES_MAX))
config = msgspec.json.decode(base64.urlsafe_b64decode(sys.argv[1]), type=runner.RunnerConfig)
instances = runner.Instances(config)
instances.keep_time()
output, problem = instances.call({}, b"")
print(len(output), problem)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, config.encode(), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    size, _, problem = said.decode().partition(" ")
    assert int(size) == wasm_runner.ANSWER_BYTES_MAX
    assert "interrupt" in problem


async def test_exit_codes(instances: Any) -> None:
    made = await instances(module(MODULES["fails"]))
    output, problem = made.call({}, b"")
    assert (output, problem) == (b"Content-Type: text/plain\n\n", "it ended with code 3")
    assert (await instances(module(MODULES["silent"]))).call({}, b"") == (b"", "")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"hello", "module_malformed"),
        (b"\0asm\x0d\0\1\0", "module_is_component"),
        (b"\0asm\1\0\0\0broken", "module_not_compiled"),
        (bytes(wat2wasm('(module (func (export "run")))')), "module_not_compiled"),
        (
            bytes(wat2wasm('(module (import "env" "f" (func)) (func (export "_start")))')),
            "module_not_compiled",
        ),
    ],
)
async def test_what_cannot_be_run_says_why(
    driver: WasmDriver, folder: RuntimeFolder, tmp_path: Path, data: bytes, code: str
) -> None:
    spec = spec_of(tmp_path, data)
    with pytest.raises(EnvironmentFault) as failed:
        driver.check(spec, allow_unsandboxed=False)
        await driver.launch(spec, folder.place(spec.replica_id))
    assert failed.value.code == code
    assert not list((folder.path / "compiled").iterdir())


async def test_a_module_is_compiled_once(driver: WasmDriver, tmp_path: Path) -> None:
    artifact = tmp_path / "bundle"
    artifact.mkdir()
    path = artifact / "app.wasm"
    path.write_bytes(module(MODULES["echo"]))
    first, second = await asyncio.gather(driver._cache.compiled(path), driver._cache.compiled(path))
    assert first == second
    made_ns = first.stat().st_ino
    assert (await driver._cache.compiled(path)).stat().st_ino == made_ns


def test_which_module_is_meant(driver: WasmDriver, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, module(""))
    (Path(spec.artifact) / "other.wasm").write_bytes(module(""))
    with pytest.raises(EnvironmentFault, match="2 modules"):
        driver.check(spec, allow_unsandboxed=False)
    for command, fits in ((("other.wasm",), True), (("../app.wasm",), False), (("none.wasm",), False)):
        named = ReplicaSpec(replica=spec.replica, service="s", artifact=spec.artifact, command=command)
        if fits:
            driver.check(named, allow_unsandboxed=False)
        else:
            with pytest.raises(EnvironmentFault, match="no module"):
                driver.check(named, allow_unsandboxed=False)


def test_limits_are_those_that_hold(driver: WasmDriver) -> None:
    assert driver.info.isolation == "webassembly"
    assert "memory_bytes" in driver.info.limits_enforced
    assert not driver.info.needs_consent
    assert Limits().memory_bytes is None
