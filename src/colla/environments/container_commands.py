"""Commands inside a running container, by the engine's own exec: what checks its health, and `colla exec`.

The engine makes the command a process of the container: its files, variables, user, limits and network, none of this computer's.
Invariant: nothing of the command is ever run beside the container; where the engine refuses, the command fails. The engine's API has
no call that ends a command, so that its session is killed from outside, once it is known to be one of the container's
processes. The output comes over a connection of our own to the engine (Docker Engine API, POST /exec/{id}/start: frames of a byte that names
the stream, three zero bytes, and a length), since the library may lose what arrives together with the answer's head.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from colla.environments.driver import fault

if TYPE_CHECKING:
    from colla.environments.container_engine import Engine

UNIX: Final = "unix://"
TIMEOUT_S_MAX: Final = 3600.0
PIECE_BYTES_MAX: Final = 16 << 10
HEAD_BYTES_MAX: Final = 16 << 10
REFUSAL_BYTES_MAX: Final = 4 << 10
FRAME_HEAD_BYTES: Final = 8
CODE_WAIT_S: Final = 10.0
"""How long the engine may take to know the code of a command that has ended."""
CODE_POLL_S: Final = 0.02
KILLED: Final = -int(signal.SIGKILL)
NOT_FOUND: Final = 127
"""The code of a command that there is not, as shells have it."""
SIGNALS: Final = range(129, 128 + 65)
"""Codes by which engines and shells tell of a signal."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_MISSING = re.compile(r"executable file not found|no such file or directory", re.IGNORECASE)


class Found(NamedTuple):
    """What the engine says of a command."""

    running: bool
    code: int | None
    pid: int
    """On this computer; 0 where it does not run, or not yet."""


async def run_command(
    engine: Engine, replica: str, command: tuple[str, ...], timeout_s: float
) -> AsyncGenerator[bytes | int, None]:
    """What it writes, stdout and stderr as they come, and last its code (below 0: a signal). Closing the iterator ends it.

    After `timeout_s` it is killed. Raises `EnvironmentFault` where it cannot be run.
    """
    until_s = time.monotonic() + min(timeout_s, TIMEOUT_S_MAX)
    number = await asyncio.to_thread(engine.create_command, replica, command)
    ended = False
    try:
        async with aclosing(_output(engine.url, number, until_s)) as output:
            async for piece in output:
                yield piece
                ended = isinstance(piece, int)
        if not ended:
            code = await _code(engine, number)
            ended = True
            yield code
    except TimeoutError:
        await _end(engine, replica, number)
        ended = True
        yield KILLED
    finally:
        if not ended:
            await _end(engine, replica, number)


async def _output(url: str, number: str, until_s: float) -> AsyncGenerator[bytes | int, None]:
    """Until its end, and a code where it could not even begin. Raises `TimeoutError` when the time (monotonic) is over, `EnvironmentFault`."""
    try:
        async with _timeout(until_s):
            reader, writer = await asyncio.open_unix_connection(url.removeprefix(UNIX), limit=HEAD_BYTES_MAX)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise _failed(f"the engine does not answer ({error})") from None
    try:
        async with _timeout(until_s):
            refusal = await _begin(reader, writer, number)
        if refusal:
            if not _MISSING.search(refusal):
                raise _failed(refusal)
            yield refusal.encode()
            yield NOT_FOUND
            return
        left = 0
        while True:
            async with _timeout(until_s):
                if not left:
                    head = await reader.readexactly(FRAME_HEAD_BYTES)
                    left = int.from_bytes(head[4:], "big")
                    continue
                piece = await reader.read(min(left, PIECE_BYTES_MAX))
            if not piece:
                return
            left -= len(piece)
            yield piece
    except asyncio.IncompleteReadError:
        return
    except (asyncio.LimitOverrunError, ConnectionError) as error:
        raise _failed(f"the engine broke off ({error})") from None
    finally:
        writer.close()


def _timeout(until_s: float) -> asyncio.Timeout:
    return asyncio.timeout(max(0.0, until_s - time.monotonic()))


async def _begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: str) -> str:
    """Have it started; why the engine refused, or nothing."""
    body = b'{"Detach":false,"Tty":false}'
    head = (
        f"POST /exec/{number}/start HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode("ascii") + body)
    await writer.drain()
    status = _STATUS.match(await reader.readuntil(b"\r\n\r\n"))
    if status is not None and status[1] == b"101":
        return ""
    said = (await reader.read(REFUSAL_BYTES_MAX)).decode(errors="replace")
    return " ".join(said.split()) or "the engine does not say why"


async def _code(engine: Engine, number: str) -> int:
    """Of a command whose output has ended. Raises `EnvironmentFault`."""
    until_s = time.monotonic() + CODE_WAIT_S
    while time.monotonic() < until_s:
        found = await asyncio.to_thread(engine.find_command, number)
        if not found.running and found.code is not None:
            return 128 - found.code if found.code in SIGNALS else found.code
        await asyncio.sleep(CODE_POLL_S)
    raise _failed("the engine does not say how it ended")


async def _end(engine: Engine, replica: str, number: str) -> None:
    """Kill what runs of it. Where the container is gone, so is the command."""
    until_s = time.monotonic() + CODE_WAIT_S
    while time.monotonic() < until_s:
        found = await asyncio.to_thread(engine.find_command, number)
        if not found.running:
            return
        if found.pid:
            await asyncio.to_thread(_kill_session, found.pid, engine.first_process(replica))
        await asyncio.sleep(CODE_POLL_S)


def _kill_session(leader: int, first: int) -> None:
    """Kill the session of this process, and nothing that is not in the container whose first process that is."""
    container = _process_namespace(first)
    if not container or container == _process_namespace(os.getpid()):
        return
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(ProcessLookupError, PermissionError):
            pid = int(entry.name)
            if os.getsid(pid) == leader and _process_namespace(pid) == container:
                os.kill(pid, signal.SIGKILL)


def _process_namespace(pid: int) -> str:
    """Which one it is in; empty where that cannot be told."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _failed(why: str) -> Exception:
    return fault("exec_failed", f"The command could not be run in the container: {why.rstrip('.')}.")


def found_of(said: dict[str, Any]) -> Found:
    """What matters of the engine's answer about a command."""
    code = said.get("ExitCode")
    return Found(
        bool(said.get("Running")), code if isinstance(code, int) else None, int(said.get("Pid") or 0)
    )
