"""Does a replica answer: one HTTP request over its Unix socket, as little of HTTP as that takes (RFC 9112)."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from colla.environments.driver import fault
from colla.environments.protocol import HealthCheck

RETRY_S: Final = 0.02
"""Between two attempts to be answered at all."""
HEALTHY_BELOW: Final = 400
KEPT_S: Final = 0.1
"""A connection that is open for so long is kept."""
_PATH = re.compile(r"/[!-~]{0,2000}")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


def check_health_check(health: HealthCheck) -> None:
    """Raise `EnvironmentFault` when the check makes no sense."""
    if health.path is not None and not _PATH.fullmatch(health.path):
        raise fault(
            "health_path_malformed", f"{health.path!r} is no path to ask for.", "It begins with a slash."
        )
    if sum((health.path is not None, health.tcp, bool(health.command))) > 1:
        raise fault(
            "health_check_malformed", "A health check is one of path, tcp and command.", "Choose one."
        )
    if min(health.interval_s, health.timeout_s, health.start_period_s, health.failures_max) <= 0:
        raise fault("health_check_malformed", "The numbers of a health check are above zero.")


async def _ask(socket: Path, path: str) -> bytes:
    """The first line of the answer. Raises `OSError`, `ValueError` when it is too long."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: colla-health\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode("ascii"))
        await writer.drain()
        return await reader.readline()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def problem_of(socket: Path, path: str, timeout_s: float) -> str:
    """Empty when the replica is healthy, otherwise what is wrong with it."""
    try:
        async with asyncio.timeout(timeout_s):
            line = await _ask(socket, path)
    except TimeoutError:
        return f"no answer to GET {path} within {timeout_s:g} s"
    except (OSError, ValueError) as error:
        return f"GET {path} failed: {error}"
    status = _STATUS.match(line)
    if status is None:
        return f"GET {path} was not answered in HTTP"
    return "" if int(status[1]) < HEALTHY_BELOW else f"GET {path} was answered with {int(status[1])}"


async def problem_of_connecting(socket: Path, timeout_s: float) -> str:
    """Empty when a connection is taken and kept for a moment, otherwise what is wrong.

    What stands before a program takes every connection, and drops it when the program does not listen.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
    except TimeoutError:
        return f"no connection within {timeout_s:g} s"
    except OSError as error:
        return f"no connection: {error}"
    try:
        async with asyncio.timeout(KEPT_S):
            return "" if await reader.read(1) else "connections are closed at once"
    except TimeoutError:
        return ""
    except OSError as error:
        return f"the connection broke at once: {error}"
    finally:
        writer.close()


async def until_answered(socket: Path, path: str) -> None:
    """Return once anybody answers on the socket. A request waits in the listener's queue until then."""
    while True:
        with suppress(OSError, ValueError):
            if await _ask(socket, path):
                return
        await asyncio.sleep(RETRY_S)
