"""What a WebAssembly replica runs: HTTP on the inherited listener, one instance of the module per request.

`python -m colla.environments.wasm_runner` is started by the process environment's bridge, which owns listener, log and
limits; what to run is in the variable COLLA_RUNNER, since everybody on a computer may read command lines. It forks as many
processes as the computer gives it processors; each runs a bounded number of instances at once in threads. An instance sees
its variables, its request on stdin, and the bundle read-only at `/`; nothing else is opened for it. Its memory is bounded
exactly, its tables too, its time by epochs, its answer by the size that files may have.

Linux only so far: requests and answers travel in memory files (memfd), since callbacks from foreign threads cost twice as
much as a whole instance.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
from aiohttp import web
from wasmtime import ExitTrap, Linker, Module, Store, Trap, WasiConfig, WasmtimeError

from colla.environments.cgi import Answer, BadOutput, understand, variables
from colla.environments.wasm_modules import make_engine

REQUEST_BYTES_MAX: Final = 8 << 20
ANSWER_BYTES_MAX: Final = 16 << 20
SAID_BYTES_MAX: Final = 16 << 10
"""Of one request's stderr that reaches the log."""
REQUEST_S_MAX: Final = 30.0
EPOCH_S: Final = 0.05
INSTANCE_BYTES_LEAST: Final = 32 << 20
"""No more instances run at once than have this much each (unless the replica has less in all)."""
INSTANCES_AT_ONCE_MAX: Final = 8
TABLES_MAX: Final = 8
TABLE_ELEMENTS_MAX: Final = 1 << 20
"""Of all tables of an instance; 8 bytes each, which its memory does not count."""
WAITING_MAX: Final = 256
"""Requests that wait for an instance; more are told to come back."""
PROCESSES_MAX: Final = 4
EX_SOFTWARE: Final = 70
CONFIG_VARIABLE: Final = "COLLA_RUNNER"
LISTENER: Final = 3
"""The first inherited socket (systemd's LISTEN_FDS)."""


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver tells the runner; JSON in base 64 in its environment."""

    module: str
    """The compiled module."""
    name: str
    folder: str
    arguments: tuple[str, ...]
    env: dict[str, str]
    memory_bytes: int | None
    """Of all instances of this replica together."""
    processes: int
    request_s: float = REQUEST_S_MAX
    """How long one request may take."""

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def instances_at_once(memory_bytes: int | None, processes: int) -> int:
    """How many instances one process runs at once, so that all of them have enough memory."""
    if memory_bytes is None:
        return INSTANCES_AT_ONCE_MAX
    return max(1, min(INSTANCES_AT_ONCE_MAX, memory_bytes // processes // INSTANCE_BYTES_LEAST))


class Instances:
    """Runs the module once per call. Calls may come from several threads."""

    def __init__(self, config: RunnerConfig) -> None:
        """Raises `WasmtimeError` when the compiled module cannot be loaded."""
        self._config = config
        self._engine = make_engine()
        linker = Linker(self._engine)
        linker.define_wasi()
        self._prepared = linker.instantiate_pre(Module.deserialize_file(self._engine, config.module))
        at_once = instances_at_once(config.memory_bytes, config.processes) * config.processes
        self._memory_bytes = -1 if config.memory_bytes is None else config.memory_bytes // at_once

    def keep_time(self) -> None:
        """Let epochs pass for as long as the process lives."""

        def tick() -> None:
            while True:
                time.sleep(EPOCH_S)
                self._engine.increment_epoch()

        threading.Thread(target=tick, name="epochs", daemon=True).start()

    def call(self, env: dict[str, str], body: bytes) -> tuple[bytes, str]:
        """What it wrote on stdout, and why it ended badly (empty when it ended well). Its stderr goes to ours."""
        files = [os.memfd_create(name) for name in ("in", "out", "err")]
        store = Store(self._engine)
        try:
            if body:
                os.write(files[0], body)
                os.lseek(files[0], 0, os.SEEK_SET)
            store.set_wasi(self._wasi(env, files))
            store.set_limits(
                memory_size=self._memory_bytes,
                table_elements=TABLE_ELEMENTS_MAX // TABLES_MAX,
                instances=1,
                memories=1,
                tables=TABLES_MAX,
            )
            store.set_epoch_deadline(int(self._config.request_s / EPOCH_S))
            problem = self._run(store)
            said = os.pread(files[2], SAID_BYTES_MAX, 0)
            if said:
                os.write(2, said if said.endswith(b"\n") else said + b"\n")
            return os.pread(files[1], ANSWER_BYTES_MAX + 1, 0), problem
        finally:
            store.close()
            for file in files:
                os.close(file)

    def _wasi(self, env: dict[str, str], files: list[int]) -> WasiConfig:
        wasi = WasiConfig()
        wasi.argv = [self._config.name, *self._config.arguments]
        wasi.env = list((self._config.env | env).items())
        paths = [f"/proc/self/fd/{file}" for file in files]
        wasi.stdin_file, wasi.stdout_file, wasi.stderr_file = paths
        wasi.preopen_dir(self._config.folder, "/", False)
        return wasi

    def _run(self, store: Store) -> str:
        try:
            instance = self._prepared.instantiate(store)
            start = instance.exports(store)["_start"]
            start(store)  # type: ignore[operator]
        except ExitTrap as end:
            return f"it ended with code {end.code}" if end.code else ""
        except (Trap, WasmtimeError) as error:
            reason = str(error).strip().splitlines()
            return reason[-1][:200] if reason else type(error).__name__
        return ""


class Door:
    """Speaks HTTP in front of the instances of one process."""

    def __init__(self, instances: Instances, at_once: int, request_s: float) -> None:
        self._instances = instances
        self._request_s = request_s
        self._threads = ThreadPoolExecutor(at_once, "instance")
        self._at_once = at_once
        self._waiting = 0
        self._stuck = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        body = b""
        if request.body_exists:
            body = await request.content.read(REQUEST_BYTES_MAX + 1)
            while not request.content.at_eof() and len(body) <= REQUEST_BYTES_MAX:
                body += await request.content.read(REQUEST_BYTES_MAX + 1 - len(body))
            if len(body) > REQUEST_BYTES_MAX:
                return _plain(413, f"413: a request may have {REQUEST_BYTES_MAX >> 20} MiB")
        if self._waiting >= WAITING_MAX:
            return _plain(503, "503: too many requests at once")
        try:
            env = variables(
                request.method,
                request.path,
                request.rel_url.raw_query_string,
                f"HTTP/{request.version.major}.{request.version.minor}",
                request.host,
                request.headers.items(),
                len(body),
            )
        except ValueError as error:
            return _plain(431, f"431: {error}")
        self._waiting += 1
        try:
            return _response(request.method, await self._called(env, body))
        except TimeoutError:
            return _plain(504, f"504: no answer within {self._request_s:g} s")
        except BadOutput as error:
            print(f"{request.method} {request.path}: {error}", file=sys.stderr, flush=True)
            return _plain(500, "500: the program did not answer")
        finally:
            self._waiting -= 1

    async def _called(self, env: dict[str, str], body: bytes) -> Answer:
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._instances.call, env, body)
        # Epochs end a program that computes; one that sleeps in WASI is beyond their reach.
        done, _ = await asyncio.wait([call], timeout=(self._waiting // self._at_once + 2) * self._request_s)
        if not done:
            self._stuck += 1
            if self._stuck >= self._at_once:
                print("every instance hangs; this replica ends", file=sys.stderr, flush=True)
                os._exit(EX_SOFTWARE)
            call.add_done_callback(lambda _: self._freed())
            raise TimeoutError
        output, problem = call.result()
        if len(output) > ANSWER_BYTES_MAX or (problem and len(output) == ANSWER_BYTES_MAX):
            raise BadOutput(f"the program wrote more than {ANSWER_BYTES_MAX >> 20} MiB")
        if "interrupt" in problem:
            raise TimeoutError
        if problem:
            raise BadOutput(problem)
        return understand(output)

    def _freed(self) -> None:
        self._stuck -= 1


def _response(method: str, answer: Answer) -> web.Response:
    body = b"" if method == "HEAD" or answer.status in (204, 304) else answer.body
    response = web.Response(status=answer.status, body=body)
    response.headers.clear()
    for name, value in answer.headers:
        response.headers.add(name, value)
    if method == "HEAD":
        response.headers["Content-Length"] = str(len(answer.body))
    return response


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")


async def _serve(config: RunnerConfig, instances: Instances, listener: socket.socket) -> None:
    """Answer requests until SIGTERM; those that are being answered are answered."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    at_once = instances_at_once(config.memory_bytes, config.processes)
    server = web.Server(Door(instances, at_once, config.request_s).answer, access_log=None)
    serving = await loop.create_unix_server(server, sock=listener)
    await ending.wait()
    serving.close()
    server.pre_shutdown()
    await server.shutdown(config.request_s)


def _one_process(config: RunnerConfig) -> int:
    instances = Instances(config)
    instances.keep_time()
    listener = socket.socket(fileno=os.dup(LISTENER))
    listener.setblocking(False)
    asyncio.run(_serve(config, instances, listener))
    return 0


def _all_processes(config: RunnerConfig) -> int:
    """Fork the processes; when one ends by itself, all end with it, and the executor decides what follows."""
    children = []
    for _ in range(config.processes):
        child = os.fork()
        if child == 0:
            os._exit(_guarded(config))
        children.append(child)
    asked = False

    def pass_on(number: int, _frame: object) -> None:
        nonlocal asked
        asked = True
        for child in children:
            os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    code = 0
    while children:
        ended, status = os.wait()
        children.remove(ended)
        code = max(code, 0 if asked else abs(os.waitstatus_to_exitcode(status)) or EX_SOFTWARE)
        if not asked:
            pass_on(signal.SIGTERM, None)
    return code


def _guarded(config: RunnerConfig) -> int:
    try:
        return _one_process(config)
    except (WasmtimeError, OSError) as error:
        print(f"it cannot be served: {error}", file=sys.stderr, flush=True)
        return EX_SOFTWARE


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    encoded = os.environ.pop(CONFIG_VARIABLE)
    config = msgspec.json.decode(base64.urlsafe_b64decode(encoded), type=RunnerConfig)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Also a memory file: an instance that writes more gets EFBIG (Python ignores SIGXFSZ).
    resource.setrlimit(resource.RLIMIT_FSIZE, (ANSWER_BYTES_MAX, ANSWER_BYTES_MAX))
    return _all_processes(config) if config.processes > 1 else _guarded(config)


if __name__ == "__main__":
    raise SystemExit(main())
