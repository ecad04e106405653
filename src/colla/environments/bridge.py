"""The bridge: runs beside one program, inside its sandbox, and joins it to the world. Standard library only.

It is started as `python -I -S bridge.py CONFIG_FD REPLICA`, starts the program as its child, and owns what must
outlive the environment's own program: the listener, the log and the notes about what happened. So a replica
goes on, and its end is known, whatever happens to the environment or the agent. It

- accepts on the inherited Unix listener and copies bytes to 127.0.0.1:$PORT or to the program's own Unix socket,
  since inside a network namespace nobody else reaches those (a program that takes LISTEN_FDS accepts itself);
- writes the program's lines to two log segments of bounded size, numbered and dated;
- passes signals on to the program's process group: as first process of a PID namespace it can be signalled
  where the program, without a handler of its own, could not;
- reaps orphans and leaves no process behind when the program ends.

Notes are JSON lines in the status file: {"program": pid, "port": n}, {"listening": "unix"|"port"},
{"failed": text}, {"exited": code|null, "signal": n|null}.
"""

# Importing pathlib would add a fifth to the time until the program starts.
# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from typing import Any, NoReturn

CHUNK_BYTES = 64 << 10
CONNECTIONS_MAX = 512
"""Beyond it, connections wait in the listener's queue."""
LINE_BYTES_MAX = 8192
"""Longer lines are cut into several."""
POLL_FIRST_S, POLL_GROWTH, POLL_MAX_S = 0.004, 1.2, 0.1
KILL_PASSES_MAX = 100
CHECK_CHANGES_MAX = 401  # Notes about health; an odd number, so that what changes for ever ends as unhealthy.
DRAIN_BYTES_MAX = 1 << 20
"""What is still read of a program's output once it has ended."""
FORWARDED = tuple(getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"))
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class LogSegments:
    """Two files written in turn: when one is full the other is emptied. Their sum is the bound."""

    def __init__(self, fds: list[int], bytes_max: int) -> None:
        self.fds, self.bytes_max = fds, bytes_max
        self.current, self.written, self.number = 0, 0, 0

    def write(self, stream: str, text: bytes) -> None:
        self.number += 1
        line = b"%d %.3f %s %s\n" % (self.number, time.time(), stream.encode(), text)
        if self.written + len(line) > self.bytes_max:
            self.current, self.written = 1 - self.current, 0
            os.ftruncate(self.fds[self.current], 0)
            os.lseek(self.fds[self.current], 0, os.SEEK_SET)
        # A full disk loses log lines, never the service.
        with contextlib.suppress(OSError):
            self.written += os.write(self.fds[self.current], line)


class Output:
    """One of the program's two output pipes, cut into lines."""

    def __init__(self, fd: int, stream: str, log: LogSegments) -> None:
        self.fd, self.stream, self.log, self.rest = fd, stream, log, b""
        os.set_blocking(fd, False)

    def read(self) -> int | None:
        """Take what is there; the number of bytes, 0 at the end, None when nothing waits."""
        try:
            data = os.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) >= LINE_BYTES_MAX or (not data and self.rest):
            lines.append(self.rest)
            self.rest = b""
        for line in lines:
            for at in range(0, max(len(line), 1), LINE_BYTES_MAX):
                self.log.write(self.stream, line[at : at + LINE_BYTES_MAX])
        return len(data)


class Joint:
    """Two connected sockets whose bytes are copied both ways; at most one chunk waits in each direction."""

    def __init__(self, bridge: Bridge, near: socket.socket, far: socket.socket) -> None:
        self.bridge, self.near, self.far = bridge, near, far
        self.waiting = {near: b"", far: b""}
        """What is still to be written to each."""
        self.ended = {near: False, far: False}
        self.connecting = True
        self.masks = {near: 0, far: 0}
        self.watch()

    def watch(self) -> None:
        for sock, other in ((self.near, self.far), (self.far, self.near)):
            mask = 0
            if self.connecting:
                mask = selectors.EVENT_WRITE if sock is self.far else 0
            else:
                if not self.ended[sock] and not self.waiting[other]:
                    mask |= selectors.EVENT_READ
                if self.waiting[sock]:
                    mask |= selectors.EVENT_WRITE
            self.bridge.watch(sock, self.masks[sock], mask, self)
            self.masks[sock] = mask

    def on_ready(self, sock: Any, mask: int) -> None:
        other = self.far if sock is self.near else self.near
        try:
            if self.connecting:
                if problem := self.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(problem, os.strerror(problem))
                self.connecting = False
            if mask & selectors.EVENT_WRITE and self.waiting[sock]:
                self.write(sock)
            if mask & selectors.EVENT_READ and not self.waiting[other]:
                data = sock.recv(CHUNK_BYTES)
                self.waiting[other] = data
                if data:
                    self.write(other)
                else:
                    self.ended[sock] = True
                    other.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            # Whichever side broke off, the other learns it by its connection being closed.
            self.close()
            return
        if all(self.ended.values()) and not any(self.waiting.values()):
            self.close()
        else:
            self.watch()

    def write(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            sent = sock.send(self.waiting[sock])
            self.waiting[sock] = self.waiting[sock][sent:]

    def close(self) -> None:
        for sock in (self.near, self.far):
            self.bridge.watch(sock, self.masks[sock], 0, self)
            sock.close()
        self.bridge.joint_closed(self)


class Check:
    """Runs the command that checks the program's health, now and then, one at a time; notes what changes."""

    def __init__(self, bridge: Bridge) -> None:
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
            become_program(self.config | command, self.bridge.port, [nowhere] * 3)
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


class Bridge:
    """The loop. Owns every descriptor that was inherited and the program's process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        for fd in (config["listener"], config["status"], *config["logs"]):
            os.set_inheritable(fd, False)
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(fileno=config["listener"])
        self.log = LogSegments(config["logs"], config["log_bytes_max"])
        self.port: int = config["port"] or free_port()
        self.target: tuple[int, Any] | None = None
        self.joints: dict[int, Joint] = {}
        self.accepting = False
        self.program = 0
        self.program_status: int | None = None
        self.outputs: list[Output] = []
        self.check = Check(self)
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
            become_program(self.config, self.port, writes)
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
            timeout = None if pause is None else max(0.0, due - time.monotonic())
            if (next_check := self.check.step()) is not None:
                timeout = next_check if timeout is None else min(timeout, next_check)
            for key, mask in self.selector.select(timeout):
                # A callback may have closed what a later key of the same batch names.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj, mask)
        self.end(self.program_status)

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


def fd_above_3(fd: int) -> int:
    """The same file under a number that the program's inherited listener (3) does not overwrite."""
    import fcntl

    if fd > 3:
        return fd
    other: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return other


def become_program(config: dict[str, Any], port: int, writes: list[int]) -> NoReturn:
    """In the child: turn into the program, or tell the parent why not."""
    try:
        os.setsid()
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if not config["contained"]:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        env = dict(config["env"], PORT=str(port))
        if config["listen"] in ("auto", "fds"):
            os.dup2(config["listener"], 3, inheritable=True)
            os.set_inheritable(3, True)
            env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "LISTEN_PID": str(os.getpid())}
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(writes[0], 1)
        os.dup2(writes[1], 2)
        for name, value in config["rlimits"].items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (limit, limit))
        os.chdir(config["cwd"])
        command = config["command"]
        os.execvpe(command[0], command, env)
    except OSError as problem:
        os.write(writes[2], f"{config['command'][0]}: {problem.strerror or problem}".encode())
    except BaseException as problem:
        os.write(writes[2], repr(problem).encode())
    os._exit(127)


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the process group is all that can be held together."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


def descendants() -> list[int]:
    """Every process below this one, from /proc; empty where there is none."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    below: list[int] = []
    frontier = [os.getpid()]
    while frontier:
        parent = frontier.pop()
        children = [pid for pid, above in parents.items() if above == parent]
        below += children
        frontier += children
    return below


def kill_descendants(group: int) -> None:
    """Kill what the program left behind; orphans are this process's children, as it is their reaper."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(KILL_PASSES_MAX):
        left = descendants()
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)


def main() -> NoReturn:
    with open(int(sys.argv[1]), "rb") as file:
        config = json.load(file)
    if not config["contained"]:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    Bridge(config).run()


if __name__ == "__main__":
    main()
