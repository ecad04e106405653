"""Commands that the environment lets run beside the program: as isolated as that, with the same variables and limits.

The environment connects to the inherited control socket and sends one line of JSON, {"command": [...], "timeout_s": n}. What
the command writes is what comes back; last come a zero byte, its exit code and a line's end. Who hangs up ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from typing import Any, Protocol

from .check import Noting
from .program import become_program, fd_above_3

COMMANDS_MAX = 4
"""At the same time; further ones are hung up on."""
LINE_BYTES_MAX = 128 << 10
TIMEOUT_S_MAX = 3600.0


class Commanding(Noting, Protocol):
    """What a command needs of the bridge."""

    selector: selectors.BaseSelector


class Commands:
    """All that run now. Nothing is inherited where the environment runs no commands."""

    def __init__(self, bridge: Commanding) -> None:
        self.bridge = bridge
        self.running: list[Command] = []
        fd = bridge.config.get("control")
        if fd is not None:
            os.set_inheritable(fd, False)
            self.listener = socket.socket(fileno=fd)
            self.listener.setblocking(False)
            bridge.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def accept(self, _listener: Any, _mask: int) -> None:
        """Somebody wants a command to run."""
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            if len(self.running) >= COMMANDS_MAX:
                connection.close()
                return
            # It blocks for the command, whose output it becomes; we ourselves never wait for it.
            connection.setblocking(True)
            self.running.append(Command(self, connection))

    def ended(self, pid: int, status: int) -> None:
        """A child has ended, one of ours perhaps."""
        for command in self.running:
            if command.pid == pid:
                command.ended(status)

    def step(self) -> float | None:
        """End what takes too long; when to be called again (seconds from now)."""
        now = time.monotonic()
        for command in self.running:
            if now >= command.until:
                command.kill()
        left = [command.until - now for command in self.running if command.pid and now < command.until]
        return min(left, default=None)


class Command:
    """One of them, from its request to its exit code."""

    def __init__(self, commands: Commands, connection: socket.socket) -> None:
        self.commands, self.connection = commands, connection
        self.asked, self.pid, self.until = b"", 0, time.monotonic() + TIMEOUT_S_MAX
        self.trailer = b""
        commands.bridge.selector.register(connection, selectors.EVENT_READ, self.on_ready)

    def on_ready(self, _connection: Any, mask: int) -> None:
        """Its request comes, or its end can be told, or the other side has hung up."""
        try:
            if mask & selectors.EVENT_WRITE:
                self.connection.send(self.trailer, socket.MSG_DONTWAIT)
                self.close()
                return
            data = self.connection.recv(LINE_BYTES_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.asked += b"" if self.pid else data
        if not data or len(self.asked) > LINE_BYTES_MAX:
            self.kill()
            self.close()
        elif not self.pid and self.asked.endswith(b"\n"):
            self.launch()

    def launch(self) -> None:
        """Start what was asked for."""
        bridge = self.commands.bridge
        try:
            wanted = json.loads(self.asked)
            command, timeout_s = [str(word) for word in wanted["command"]], float(wanted["timeout_s"])
        except (ValueError, KeyError, TypeError):
            self.close()
            return
        self.until = time.monotonic() + min(timeout_s, TIMEOUT_S_MAX)
        self.pid = os.fork()
        if not self.pid:
            output = fd_above_3(os.dup(self.connection.fileno()))
            become_program(bridge.config | {"command": command, "listen": "port"}, bridge.env, [output] * 3)

    def ended(self, status: int) -> None:
        """What it has left in its process group ends with it; then its code is told."""
        self.kill()
        self.pid = 0
        self.trailer = b"\0%d\n" % os.waitstatus_to_exitcode(status)
        self.until = time.monotonic() + TIMEOUT_S_MAX
        selector = self.commands.bridge.selector
        if self in self.commands.running:
            selector.modify(self.connection, selectors.EVENT_WRITE, self.on_ready)

    def kill(self) -> None:
        """End it and its process group."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Hang up, also on what still holds the connection as its output."""
        self.commands.bridge.selector.unregister(self.connection)
        self.commands.running.remove(self)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
