"""What a module must not reach or use up. Each attempt is a real one, by a module made for it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wasmtime", reason="wasmtime is not installed")

import aiohttp
from wasmtime import wat2wasm

from colla.environments import wasm_runner
from colla.environments.folders import Place, Record, RuntimeFolder
from colla.environments.protocol import EnvironmentFault, GroupAccess, Limits, ReplicaSpec
from colla.environments.wasm import WasmDriver
from colla.environments.wasm_runner import Instances, RunnerConfig

MEMORY_BYTES = 32 << 20
SECRET = b"nobody else's business"
NOT_CAPABLE, NO_ENTRY, BAD_DESCRIPTOR, NOT_PERMITTED = 76, 44, 8, 63
WASI = {
    "fd_write": "i32 i32 i32 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_fdstat_get": "i32 i32",
    "environ_sizes_get": "i32 i32",
    "environ_get": "i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_unlink_file": "i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "sock_accept": "i32 i32 i32",
    "sock_recv": "i32 i32 i32 i32 i32 i32",
}
IMPORTS = "\n".join(
    f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {kinds}) (result i32)))'
    for name, kinds in WASI.items()
)
# What comes on stdin lies at 4096, its length at 40. $say writes what begins at $at; $number one number, in 4 bytes.
BEGIN = f"""{IMPORTS}
 (memory (export "memory") 4)
 (func $say (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
 (func $number (param $value i32)
  (i32.store (i32.const 16) (local.get $value)) (call $say (i32.const 16) (i32.const 4)))
 (func $hear
  (i32.store (i32.const 32) (i32.const 4096)) (i32.store (i32.const 36) (i32.const 4096))
  (drop (call $fd_read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40))))
"""
HEARD = "(i32.const 4096) (i32.load (i32.const 40))"
MODULES = {
    # Opens the path that it hears, following links, and says the error or what is in it.
    "opens": f"""(local $error i32) (call $hear)
      (local.set $error (call $path_open (i32.const 3) (i32.const 1) {HEARD} (i32.const 0)
        (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64)))
      (call $number (local.get $error))
      (if (i32.eqz (local.get $error)) (then
        (i32.store (i32.const 48) (i32.const 65536)) (i32.store (i32.const 52) (i32.const 4096))
        (drop (call $fd_read (i32.load (i32.const 64)) (i32.const 48) (i32.const 1) (i32.const 56)))
        (call $say (i32.const 65536) (i32.load (i32.const 56)))))""",
    # How many of the first thousand descriptors are open.
    "descriptors": """(local $fd i32) (local $open i32)
      (loop $on
        (local.set $open (i32.add (local.get $open)
          (i32.eqz (call $fd_fdstat_get (local.get $fd) (i32.const 64)))))
        (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $fd) (i32.const 1000))))
      (call $number (local.get $open))""",
    # Everything that would change the bundle, with the name that it hears.
    "changes": f"""(call $hear)
      (call $number (call $path_open (i32.const 3) (i32.const 0) {HEARD} (i32.const 1)
        (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 64)))
      (call $number (call $path_open (i32.const 3) (i32.const 0) {HEARD} (i32.const 8)
        (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 64)))
      (call $number (call $path_unlink_file (i32.const 3) {HEARD}))
      (call $number (call $path_create_directory (i32.const 3) (i32.const 4096) (i32.const 2)))
      (call $number (call $path_rename (i32.const 3) {HEARD} (i32.const 3) (i32.const 4096) (i32.const 2)))
      (call $number (call $path_link (i32.const 3) (i32.const 0) {HEARD} (i32.const 3) (i32.const 4096) (i32.const 2)))
      (call $number (call $path_symlink {HEARD} (i32.const 3) (i32.const 4096) (i32.const 2)))""",
    "sockets": """
      (call $number (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 64)))
      (call $number (call $sock_recv (i32.const 3) (i32.const 32) (i32.const 1) (i32.const 0) (i32.const 64) (i32.const 68)))
      (call $number (call $sock_recv (i32.const 9) (i32.const 32) (i32.const 1) (i32.const 0) (i32.const 64) (i32.const 68)))""",
    "variables": """(call $say (i32.const 128) (i32.const 26))
      (drop (call $environ_sizes_get (i32.const 64) (i32.const 68)))
      (drop (call $environ_get (i32.const 4096) (i32.const 65536)))
      (call $say (i32.const 65536) (i32.load (i32.const 68)))""",
    "grows": """
      (loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      (call $number (memory.size))""",
    "tables": """
      (loop $on (br_if $on (i32.ne (table.grow $table (ref.null func) (i32.const 65536)) (i32.const -1))))
      (call $number (table.size $table))""",
    "recurses": "(call $deeper (i64.const 0))",
    "computes": "(loop $on (br $on))",
    # Two hundred times 64 KiB on stderr.
    "shouts": """(local $count i32)
      (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65536))
      (loop $on
        (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $count) (i32.const 200))))
      (memory.fill (i32.const 65536) (i32.const 10) (i32.const 65536))
      (call $say (i32.const 128) (i32.const 26))""",
}
HEAD = '(data (i32.const 128) "Content-Type: text/plain\\0a\\0a")'
MORE = {
    "tables": "(table $table 1 funcref)",
    "recurses": """(func $deeper (param $n i64) (call $deeper (i64.add (local.get $n) (i64.const 1)))
      (drop (i64.const 1)))""",
    "variables": HEAD,
    "shouts": HEAD,
}


def module(name: str) -> bytes:
    more = MORE.get(name, "")
    return bytes(wat2wasm(f'(module {BEGIN} {more} (func (export "_start") {MODULES[name]}))'))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RuntimeFolder:
    return RuntimeFolder(tmp_path_factory.mktemp("wasm") / "run")


@pytest.fixture(scope="module")
def driver(folder: RuntimeFolder) -> WasmDriver:
    return WasmDriver("instance", folder)


CGI = ("HTTP_", "SERVER_", "REQUEST_", "GATEWAY_", "SCRIPT_", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR")
Answered = tuple[bytes, list[str]]
Call = Callable[..., Awaitable[tuple[bytes, str]]]


@pytest.fixture
def call(driver: WasmDriver, tmp_path: Path) -> Call:
    """Run a module once, as the runner does, with its bundle beside a secret."""
    (tmp_path / "secret").write_bytes(SECRET)
    bundle = tmp_path / "bundle"
    bundle.mkdir()

    async def run(data: bytes, body: bytes = b"", request_s: float = 30.0) -> tuple[bytes, str]:
        path = bundle / "app.wasm"
        path.write_bytes(data)
        config = RunnerConfig(
            module=str(await driver._cache.compiled(path)),
            name="app.wasm",
            folder=str(bundle),
            arguments=(),
            env={},
            memory_bytes=MEMORY_BYTES,
            processes=1,
            request_s=request_s,
        )
        instances = Instances(config)
        instances.keep_time()
        return await asyncio.to_thread(instances.call, {}, body)

    return run


def numbers(output: bytes) -> list[int]:
    return [int.from_bytes(output[at : at + 4], "little") for at in range(0, len(output), 4)]


async def test_it_opens_no_file_but_the_bundle_s(call: Call, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "page").write_bytes(b"public")
    (bundle / "folder").mkdir()
    links = {
        "link": tmp_path / "secret",
        "climbing": Path("../secret"),
        "up": Path(".."),
        "computer": Path("/"),
        "folder/deep": Path("../../secret"),
        "chain": Path("link"),
        "inside": Path("page"),
    }
    for name, target in links.items():
        (bundle / name).symlink_to(target)
    opener = module("opens")
    for path in ("page", "./folder/../page", "inside"):
        output, _ = await call(opener, path.encode())
        assert output[4:] == b"public", path
    outside = ["../secret", "folder/../../secret", str(tmp_path / "secret"), "/etc/passwd", *links]
    outside += ["up/secret", "computer/etc/passwd", "computer/proc/self/environ", "//etc/passwd", ".."]
    for path in outside:
        if path == "inside":
            continue
        output, problem = await call(opener, path.encode())
        assert numbers(output)[0] in (NOT_CAPABLE, NO_ENTRY, NOT_PERMITTED) and not output[4:], path
        assert not problem


async def test_nothing_else_is_open(call: Call) -> None:
    """Its three streams and the bundle."""
    output, _ = await call(module("descriptors"))
    assert numbers(output) == [4]


async def test_it_changes_nothing(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "bundle" / "page"
    page.write_bytes(b"public")
    for name in (b"page", b"new", b"../secret"):
        output, _ = await call(module("changes"), name)
        assert len(numbers(output)) == 7 and 0 not in numbers(output)
    assert page.read_bytes() == b"public"
    assert sorted(path.name for path in page.parent.iterdir()) == ["app.wasm", "page"]
    assert (tmp_path / "secret").read_bytes() == SECRET


async def test_it_has_no_sockets(call: Call) -> None:
    output, _ = await call(module("sockets"))
    assert len(numbers(output)) == 3 and 0 not in numbers(output)
    foreign = '(module (import "env" "socket" (func (param i32) (result i32))) (func (export "_start")))'
    with pytest.raises(EnvironmentFault, match=r"it imports env\.socket"):
        await call(bytes(wat2wasm(foreign)))


@pytest.mark.parametrize("wish", [{"uses": ("our-api",)}, {"outgoing": True}])
def test_ways_out_are_refused_rather_than_forgotten(
    driver: WasmDriver, tmp_path: Path, wish: dict[str, Any]
) -> None:
    (tmp_path / "app.wasm").write_bytes(module("descriptors"))
    spec = ReplicaSpec(replica=secrets.token_hex(16), service="garden", artifact=str(tmp_path), **wish)
    with pytest.raises(EnvironmentFault, match="a module has no sockets"):
        driver.check(spec, allow_unsandboxed=False)


async def test_memory_and_tables_are_bounded(call: Call) -> None:
    """Also what memory does not count: a table of four thousand million elements would take 32 GiB."""
    output, _ = await call(module("grows"))
    assert 0 < numbers(output)[0] * 65536 <= MEMORY_BYTES
    output, _ = await call(module("tables"))
    assert 0 < numbers(output)[0] <= wasm_runner.TABLE_ELEMENTS_MAX // wasm_runner.TABLES_MAX
    for greedy in ('(memory (export "memory") 65536)', "(table 4000000000 funcref)", "(table 0 funcref)" * 9):
        began_s = time.monotonic()
        _, problem = await call(bytes(wat2wasm(f'(module {greedy} (func (export "_start")))')))
        assert "exceed" in problem, (greedy, problem, time.monotonic() - began_s)


async def test_time_and_depth_are_bounded(call: Call) -> None:
    _, problem = await call(module("recurses"))
    assert "stack" in problem
    _, problem = await call(module("computes"), request_s=0.2)
    assert "interrupt" in problem


@pytest.fixture
def answered(driver: WasmDriver, folder: RuntimeFolder, tmp_path: Path) -> Callable[..., Awaitable[Answered]]:
    """What a whole replica of the module answers, and what its log holds."""

    async def run(data: bytes, **more: Any) -> Answered:
        (tmp_path / "app.wasm").write_bytes(data)
        limits = Limits(memory_bytes=64 << 20, cpus=1.0)
        spec = ReplicaSpec(
            replica=secrets.token_hex(16), service="garden", artifact=str(tmp_path), limits=limits, **more
        )
        driver.check(spec, allow_unsandboxed=False)
        place = folder.place(spec.replica_id)
        place.create(Record(spec=spec, started_at=time.time()))
        replica = await driver.launch(spec, place)
        try:
            async with asyncio.timeout(60.0):
                await replica.until_listening()
                body = await asked(place)
        finally:
            await replica.stop("SIGTERM", 0.2)
            await replica.until_exit()
        # What it wrote may come to the log after its answer, but not after its end.
        return body, [line.text for line in driver.logs(place, 0)]

    return run


async def asked(place: Place) -> bytes:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.endpoint))) as session,
        session.get("http://garden/") as answer,
    ):
        assert answer.status == 200
        return await answer.read()


async def test_it_gets_neither_the_computer_s_variables_nor_a_door(
    answered: Callable[..., Awaitable[Answered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """WASI opens no sockets: so a module is not told of the group's either."""
    monkeypatch.setenv("OWNERS_SECRET", SECRET.decode())
    group = GroupAccess(socket="/run/nobody.sock", token="a-token")
    body, _ = await answered(module("variables"), env={"COLOUR": "green"}, group=group)
    names = {line.partition(b"=")[0].decode() for line in body.split(b"\0") if line}
    own = {"COLOUR", "COLLA_SERVICE", "COLLA_REPLICA"}
    assert own <= names and all(name.startswith(CGI) for name in names - own)
    assert b"a-token" not in body and SECRET not in body


async def test_what_it_shouts_reaches_the_log_in_part(
    answered: Callable[..., Awaitable[Answered]],
) -> None:
    body, lines = await answered(module("shouts"))
    assert body == b"" and 0 < sum(map(len, lines)) <= wasm_runner.SAID_BYTES_MAX


async def test_what_it_contains_is_said(driver: WasmDriver) -> None:
    info = driver.info
    assert (info.isolation, info.network_modes, info.needs_consent) == ("webassembly", ("isolated",), "")
    assert info.not_contained == ()
    assert not {"check_command", "exec"} & set(info.capabilities), "they would run beside the runner, outside"
    assert "memory_bytes" in info.limits_enforced
    assert not {"pids", "open_files"} & set(info.limits_enforced), "it has none: nothing is claimed"
