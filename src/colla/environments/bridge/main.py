"""The loop, and how it begins."""

# Importing pathlib would add a fifth to the time until the program starts.
# ruff: noqa: PTH123
from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from .check import Check
from .commands import Commands
from .ending import kill_descendants
from .joints import Joint
from .log import LogSegments, Output
from .program import FORWARDED, become_program, fd_above_3, prctl
from .room import Room
from .ways import Way

CONNECTIONS_MAX = 512
"""Beyond it, connections wait in the listener's queue."""
POLL_FIRST_S, POLL_GROWTH, POLL_MAX_S = 0.004, 1.2, 0.1
DRAIN_BYTES_MAX = 1 << 20
"""What is still read of a program's output once it has ended."""
PR_SET_CHILD_SUBREAPER = 36


class Bridge:
    """The loop. Owns every descriptor that was inherited and the program's process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        for fd in (config["listener"], config["status"], *config["logs"]):
            os.set_inheritable(fd, False)
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.listener = socket.socket(fileno=config["listener"])
        self.log = LogSegments(config["logs"], config["log_bytes_max"])
        self.port: int = config["port"] or free_port()
        self.env: dict[str, str] = config["env"] | {"PORT": str(self.port)}
        self.target: tuple[int, Any] | None = None
        self.joints: dict[int, Joint] = {}
        self.accepting = False
        self.overfull = False
        self.program = 0
        self.program_status: int | None = None
        self.outputs: list[Output] = []
        self.check = Check(self)
        self.commands = Commands(self)
        self.room = Room(config)
        self.ways = [Way(self, way) for way in config.get("ways", [])]
        if config.get("fence"):
            config["fence"]["ways"] = [way.port for way in self.ways]
        self.signals, wake = os.pipe()
        for fd in (self.signals, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.signals, selectors.EVENT_READ, self.on_signals)

    def note(self, **facts: object) -> None:
        with contextlib.suppress(OSError):
            os.write(self.config["status"], json.dumps(facts).encode() + b"\n")

    def watch(self, sock: Any, before: int, after: int, joint: Joint) -> None:
        if before == after:
            return
        if not before:
            self.selector.register(sock, after, joint.on_ready)
        elif not after:
            self.selector.unregister(sock)
        else:
            self.selector.modify(sock, after, joint.on_ready)

    # --- the program -------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the program in a session of its own. Notes its pid, or why it could not be started."""
        reads = []
        writes = []
        for _ in ("stdout", "stderr", "problem"):
            read, write = os.pipe()
            reads.append(read)
            writes.append(fd_above_3(write))
        self.program = os.fork()
        if not self.program:
            become_program(self.config, self.env, writes)
        for write in writes:
            os.close(write)
        problem = os.read(reads[2], 4096)
        os.close(reads[2])
        if problem:
            self.note(failed=problem.decode(errors="replace"))
            os.waitpid(self.program, 0)
            sys.exit(127)
        self.note(program=self.program, port=self.port)
        for fd, stream in ((reads[0], "o"), (reads[1], "e")):
            output = Output(fd, stream, self.log)
            self.outputs.append(output)
            self.selector.register(fd, selectors.EVENT_READ, self.on_output)

    def on_output(self, fd: Any, _mask: int) -> None:
        for output in self.outputs:
            if output.fd == fd and output.read() == 0:
                self.selector.unregister(fd)
                os.close(fd)
                self.outputs.remove(output)
                return

    def on_signals(self, _fd: Any, _mask: int) -> None:
        for number in os.read(self.signals, 256):
            if number != signal.SIGCHLD and self.program_status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.program, number)
        self.reap()

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self.program:
                    self.program_status = status
                elif pid == self.check.pid:
                    self.check.ended(status)
                else:
                    self.commands.ended(pid, status)

    # --- the endpoint ------------------------------------------------------------------------------------

    def find_target(self) -> bool:
        """Whether the program listens by now; it is asked by connecting."""
        candidates: list[tuple[str, int, Any]] = []
        if self.config["listen"] in ("auto", "unix"):
            candidates.append(("unix", socket.AF_UNIX, self.config["socket"]))
        if self.config["listen"] in ("auto", "port"):
            candidates.append(("port", socket.AF_INET, ("127.0.0.1", self.port)))
            candidates.append(("port", socket.AF_INET6, ("::1", self.port)))
        for name, family, address in candidates:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(0.2)
                probe.connect(address)
                self.target = (family, address)
                # Not before: a program that takes LISTEN_FDS shares this setting and expects to wait.
                self.listener.setblocking(False)
                self.note(listening=name)
                return True
        return False

    def accept(self, _listener: Any, _mask: int) -> None:
        assert self.target is not None
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        family, address = self.target
        far = socket.socket(family, socket.SOCK_STREAM)
        for sock in (near, far):
            sock.setblocking(False)
        if family != socket.AF_UNIX:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if far.connect_ex(address) not in (0, errno.EINPROGRESS):
            near.close()
            far.close()
            return
        joint = Joint(self, near, far)
        self.joints[id(joint)] = joint
        self.accept_if_room()

    def joint_closed(self, joint: Joint) -> None:
        self.joints.pop(id(joint), None)
        self.accept_if_room()

    def accept_if_room(self) -> None:
        room = self.target is not None and len(self.joints) < CONNECTIONS_MAX
        if room and not self.accepting:
            self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        elif self.accepting and not room:
            self.selector.unregister(self.listener)
        self.accepting = room

    # --- life --------------------------------------------------------------------------------------------

    def run(self) -> NoReturn:
        """Serve until the program has ended; exits as it did."""
        self.launch()
        pause: float | None = None if self.config["listen"] == "fds" else POLL_FIRST_S
        give_up_at = time.monotonic() + self.config["start_period_s"]
        due = time.monotonic()
        while self.program_status is None:
            if pause is not None and time.monotonic() >= due:
                if self.find_target():
                    pause = None
                    self.accept_if_room()
                elif time.monotonic() > give_up_at:
                    pause = None
                else:
                    pause = min(pause * POLL_GROWTH, POLL_MAX_S)
                    due = time.monotonic() + pause
            waits = [max(0.0, due - time.monotonic())] if pause is not None else []
            steps = (self.check.step(), self.measure(), self.commands.step())
            waits += [wait for wait in steps if wait is not None]
            timeout = min(waits, default=None)
            for key, mask in self.selector.select(timeout):
                # A callback may have closed what a later key of the same batch names.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj, mask)
        self.end(self.program_status)

    def measure(self) -> float | None:
        """End the program if it has written too much; when to measure again (seconds from now)."""
        again, too_much = self.room.step()
        if too_much and not self.overfull:
            self.overfull = True
            self.note(overfull=f"it wrote {too_much} into its scratch folder")
        if self.overfull and self.program_status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.program, signal.SIGKILL)  # What it has started ends with it: see `end`.
        return again

    def end(self, status: int) -> NoReturn:
        self.check.kill()
        kill_descendants(self.program)
        for output in self.outputs:
            left = DRAIN_BYTES_MAX
            while left > 0 and (count := output.read()):
                left -= count
            if output.rest:
                self.log.write(output.stream, output.rest)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            self.note(exited=None, signal=-code)
            sys.exit(128 - code)
        self.note(exited=code, signal=None)
        sys.exit(code)


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago; nothing better exists without a namespace."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main() -> NoReturn:
    """Read the configuration from its descriptor and serve."""
    with open(int(sys.argv[1]), "rb") as file:
        config = json.load(file)
    if not config["contained"]:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    Bridge(config).run()
