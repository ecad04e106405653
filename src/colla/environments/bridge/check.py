"""The command that checks the program's health."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Protocol

from .program import become_program, fd_above_3

CHECK_CHANGES_MAX = 401  # Notes about health; an odd number, so that what changes for ever ends as unhealthy.


class Noting(Protocol):
    """What a check needs of the bridge."""

    config: dict[str, Any]
    port: int
    env: dict[str, str]

    def note(self, **facts: object) -> None: ...


class Check:
    """Runs the command that checks the program's health, now and then, one at a time; notes what changes."""

    def __init__(self, bridge: Noting) -> None:
        self.bridge, self.config = bridge, bridge.config
        self.pid = 0
        self.due = time.monotonic()
        self.found: str | None = None
        self.changes = 0

    def step(self) -> float | None:
        """Start, or end, what is due; when to be called again (seconds from now)."""
        if not self.config.get("check"):
            return None
        if time.monotonic() >= self.due:
            if self.pid:
                self.told(f"the command that checks it took longer than {self.config['check_timeout_s']:g} s")
                self.kill()
            else:
                self.launch()
            self.due = time.monotonic() + self.config["check_timeout_s"]
        return max(0.0, self.due - time.monotonic())

    def launch(self) -> None:
        nowhere = fd_above_3(os.open(os.devnull, os.O_RDWR))
        self.pid = os.fork()
        if not self.pid:
            command = {"command": self.config["check"], "listen": "port"}
            become_program(self.config | command, self.bridge.env, [nowhere] * 3)
        os.close(nowhere)

    def ended(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:  # Otherwise it took too long.
            self.told("" if code == 0 else f"the command that checks it ended with {code}")
        self.pid = 0
        # What is not healthy yet, or any more, is looked at sooner.
        self.due = time.monotonic() + min(self.config["check_interval_s"], 0.2 if self.found else 3600.0)

    def told(self, found: str) -> None:
        if found != self.found and self.changes < CHECK_CHANGES_MAX:
            self.found, self.changes = found, self.changes + 1
            self.bridge.note(check=found)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid:
                os.killpg(self.pid, signal.SIGKILL)
