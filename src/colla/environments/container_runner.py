"""What a container replica runs beside its container: it starts it, speaks for it, and ends with it.

`python -m colla.environments.container_runner` is started by the process environment's bridge, which owns listener, log and
recovery; what to run is in the variable COLLA_RUNNER, since everybody on a computer may read command lines. It creates the
container, passes on what it writes and the signals that come, and lets a second process, the proxy, accept on the inherited
listener and connect inside the container's network, which has no other way in or out (Linux network namespaces; setns(2)).
Without privileges it first enters the container's user namespace. The same process lets the program ask the group: it accepts on a socket in a folder that the
container sees, and passes on to the agent's own, which only the owner may open, while programs in containers run as whoever
their image says. So do the ways to services that it uses: ports of the container's own loopback.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from colla.environments.container_engine import connect, container_name, creation, remove_container
from colla.environments.folders import private_folder
from colla.environments.images import read_image
from colla.environments.protocol import EnvironmentFault, Limits

if TYPE_CHECKING:
    from docker import DockerClient

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
LISTENER: Final = 3
"""The first inherited socket (systemd's LISTEN_FDS)."""
PASSED_ON: Final = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
WAYS_PORT: Final = 42_001
"""Of the first way out; the container's loopback is its own."""
PID_BYTES_MAX: Final = 32
BLOCK_BYTES: Final = 64 << 10
CONNECTIONS_MAX: Final = 256
EX_UNAVAILABLE: Final = 69
LAST_WORDS_S: Final = 2.0
"""What a program wrote before its end may arrive this much after it."""
END_POLL_S: Final = 0.1
"""Until the engine has noticed the end, too."""
OUT_OF_MEMORY: Final = "out-of-memory"
"""A file with this name in the replica's folder says how it ended."""
CONFIG_VARIABLE: Final = "COLLA_RUNNER"
DOOR_FOLDER: Final = "door"
"""In the replica's folder: what the container sees as /run/colla-group."""
DOOR_SOCKET: Final = "group.sock"
CONNECTED: Final = "connected"
"""A file with this name says that its endpoint leads into the container now."""


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver tells the runner; JSON in base 64 in its environment."""

    engine: str
    image: str
    """The folder with the image."""
    replica: str
    command: tuple[str, ...]
    env: dict[str, str]
    limits: Limits
    port: int
    notes: str
    """The replica's folder."""
    group: str = ""
    """The agent's socket for what the program asks of the group; empty where it may ask nothing."""
    ways: str = ""
    """The agent's socket behind which the ways lie."""
    way_lines: tuple[str, ...] = ()
    """What each way begins with; the first one's port is `WAYS_PORT`."""
    init: bool = False
    """Whether the engine puts a first process before the program."""

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def run(config: RunnerConfig) -> int:
    """Run the container to its end; returns its exit code."""
    from docker.errors import DockerException

    proxy: Waiting | None = None
    try:
        door, knocking = _open_door(Path(config.notes)) if config.group else (None, None)
        proxy = _fork_proxy(config, knocking)
        client = connect(config.engine)
        try:
            return _run_container(client, config, door, proxy)
        finally:
            remove_container(client, config.replica)
    except (DockerException, EnvironmentFault, OSError) as error:
        print(f"the container cannot be run: {error}", file=sys.stderr, flush=True)
        return EX_UNAVAILABLE
    finally:
        if proxy is not None:
            os.kill(proxy.pid, signal.SIGKILL)
            os.waitpid(proxy.pid, 0)


def _run_container(client: DockerClient, config: RunnerConfig, door: Path | None, proxy: Waiting) -> int:
    remove_container(client, config.replica)
    image = read_image(Path(config.image))
    asked = creation(image, config.replica, config.command, config.env, config.limits, door, config.init)
    container = client.containers.create(**asked)
    _pass_signals_on(config)
    output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
    copying = threading.Thread(target=_copy_output, args=(output,), name="output", daemon=True)
    copying.start()
    container.start()
    container.reload()
    pid = int(container.attrs["State"]["Pid"])
    if pid:  # Else it has ended already.
        os.write(proxy.tell, str(pid).encode())
    code = _until_ended(container, pid)
    copying.join(LAST_WORDS_S)
    if container.attrs["State"].get("OOMKilled"):
        (Path(config.notes) / OUT_OF_MEMORY).touch()
    return code


def _until_ended(container: Any, pid: int) -> int:
    """Return its exit code when its process has ended. The engine's own call for this costs a whole processor with Podman 4.3."""
    # Not so where it has ended before, or where kernel (before 5.3) or Python lack this: then the loop below asks now and then.
    with suppress(OSError, AttributeError):
        file = os.pidfd_open(pid)
        try:
            select.select([file], [], [])
        finally:
            os.close(file)
    while True:
        container.reload()
        if not container.attrs["State"]["Running"]:
            return int(container.attrs["State"]["ExitCode"])
        time.sleep(END_POLL_S)


def _pass_signals_on(config: RunnerConfig) -> None:
    """Each signal in a thread with a client of its own: the handler interrupts a call on the other one."""

    def send(number: int) -> None:
        client = connect(config.engine)
        client.containers.get(container_name(config.replica)).kill(signal=number)
        client.close()

    def handler(number: int, _frame: object) -> None:
        threading.Thread(target=send, args=(number,), name="signal", daemon=True).start()

    for name in PASSED_ON:
        signal.signal(signal.Signals[name], handler)


def _copy_output(output: Any) -> None:
    for said, complained in output:
        for file, data in ((1, said), (2, complained)):
            if data:
                os.write(file, data)


def _open_door(notes: Path) -> tuple[Path, socket.socket]:
    """The folder to show, and the listener in it: there before the program is. Raises `OSError`."""
    door = private_folder(notes / DOOR_FOLDER)
    (door / DOOR_SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(door, os.O_PATH | os.O_DIRECTORY)
    try:
        # The whole path may be longer than a socket's can be.
        listener.bind(f"/proc/self/fd/{folder}/{DOOR_SOCKET}")
    finally:
        os.close(folder)
    listener.listen(CONNECTIONS_MAX)
    # Nobody on the computer comes as far as here; in the container it may be anybody.
    (door / DOOR_SOCKET).chmod(0o666)
    door.chmod(0o755)
    return door, listener


class Waiting(NamedTuple):
    """The proxy's process, which waits to be told, on the pipe `tell`, whose network to enter."""

    pid: int
    tell: int


def _fork_proxy(config: RunnerConfig, knocking: socket.socket | None) -> Waiting:
    """Forked, not started anew, for the sake of time and memory; before there is a second thread. Raises `OSError`."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return Waiting(pid, tell)
    code = EX_UNAVAILABLE
    try:
        os.close(tell)
        for name in PASSED_ON:
            # The program may take its time to end, and is asked until then.
            signal.signal(signal.Signals[name], signal.SIG_IGN)
        if number := os.read(told, PID_BYTES_MAX):
            code = proxy(int(number), config, knocking)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


# -- the proxy ----------------------------------------------------------------------------------------------


def enter_network(pid: int) -> None:
    """Move this process into the network of another. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(name: str, kind: int) -> None:
        file = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(file, kind) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"the container's {name} namespace: {os.strerror(number)}")
        finally:
            os.close(file)

    if os.getuid() != 0:
        enter("user", CLONE_NEWUSER)
    enter("net", CLONE_NEWNET)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Connects each connection of the listener with the port inside, and each that comes from inside with the group."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._open = {"in": 0, "out": 0}

    async def serve(self, listener: socket.socket, knocking: socket.socket | None) -> None:
        """Until this process is killed."""
        config = self._config
        if knocking is not None:
            asking = self._to(config.group, b"")
            await asyncio.start_unix_server(asking, sock=knocking, limit=BLOCK_BYTES)
        for port, line in enumerate(config.way_lines, WAYS_PORT):
            going = self._to(config.ways, line.encode())
            await asyncio.start_server(going, "127.0.0.1", port, limit=BLOCK_BYTES)
        serving = await asyncio.start_unix_server(self._asked, sock=listener, limit=BLOCK_BYTES)
        (Path(config.notes) / CONNECTED).touch()
        await serving.serve_forever()

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def connect() -> Coroutine[None, None, Streams]:
            return asyncio.open_connection("127.0.0.1", self._config.port, limit=BLOCK_BYTES)

        await self._join("in", (reader, writer), connect)

    def _to(self, door: str, first: bytes) -> Callable[..., Coroutine[None, None, None]]:
        async def connect() -> Streams:
            reader, writer = await asyncio.open_unix_connection(door, limit=BLOCK_BYTES)
            writer.write(first)
            return reader, writer

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._join("out", (reader, writer), connect)

        return accepted

    async def _join(
        self, way: str, outer: Streams, connect: Callable[[], Coroutine[None, None, Streams]]
    ) -> None:
        reader, writer = outer
        if self._open[way] >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open[way] += 1
        inner: asyncio.StreamWriter | None = None
        try:
            inner_reader, inner = await connect()
            await asyncio.gather(_pump(reader, inner), _pump(inner_reader, writer))
        except OSError:
            # Refused, or broken off by one side: the other learns it by the end of its connection.
            writer.transport.abort()
        finally:
            self._open[way] -= 1
            writer.close()
            if inner is not None:
                inner.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(BLOCK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def proxy(pid: int, config: RunnerConfig, knocking: socket.socket | None) -> int:
    """Serve until killed."""
    listener = socket.socket(fileno=os.dup(LISTENER))
    listener.setblocking(False)
    try:
        enter_network(pid)
    except OSError as error:
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            # Its program has ended already, which is told in its own way.
            return EX_UNAVAILABLE
        print(f"the container cannot be reached: {error}", file=sys.stderr, flush=True)
        return EX_UNAVAILABLE
    asyncio.run(Proxy(config).serve(listener, knocking))
    return 0


def main() -> int:
    """Run what the environment says."""
    encoded = os.environ.pop(CONFIG_VARIABLE)
    return run(msgspec.json.decode(base64.urlsafe_b64decode(encoded), type=RunnerConfig))


if __name__ == "__main__":
    raise SystemExit(main())
