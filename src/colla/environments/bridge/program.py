"""Becoming the program: what happens in the child between the fork and the program's own code."""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any, NoReturn

FORWARDED = tuple(getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"))
PR_SET_PDEATHSIG = 1


def fd_above_3(fd: int) -> int:
    """The same file under a number that the program's inherited listener (3) does not overwrite."""
    import fcntl

    if fd > 3:
        return fd
    other: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return other


def become_program(config: dict[str, Any], env: dict[str, str], writes: list[int]) -> NoReturn:
    """In the child: turn into the program, or tell the parent why not."""
    try:
        os.setsid()
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if not config["contained"]:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        env = dict(env)
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
        if config.get("fence"):
            from .fence import fence_in

            fence_in(config["fence"], int(env["PORT"]))
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
