"""A computer of the demo: one process that all others of that computer descend from.

Run as `python -m colla.cli.demo.computer HOME`. It runs commands of `colla` for that home, and it can be unplugged: at
once and with everything on it, daemons and contained programs included. On Linux it adopts orphans, so that nothing can
leave its tree; elsewhere a program that runs on after its parent would have to end by itself. Invariant: when its input ends
without the word to go on (`keep`), the computer is unplugged: a demo that dies leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import msgspec
import psutil

PR_SET_CHILD_SUBREAPER = 36
REAP_S = 0.01
UNPLUG_TIMEOUT_S = 10.0


class Order(msgspec.Struct, frozen=True):
    """`run` a command of colla, be `unplugged`, or `keep` running on one's own."""

    do: str
    id: int = 0
    words: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True):
    """How a command ended."""

    id: int
    code: int
    output: str
    errors: str


def adopt_orphans() -> None:
    """Become the parent of processes of this tree that lose theirs (Linux only)."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run(home: str, order: Order) -> None:
    """Run one command and tell how it ended."""
    line = [sys.executable, "-m", "colla", *order.words, "--home", home]
    ended = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    say(Done(order.id, ended.returncode, ended.stdout, ended.stderr))


def say(done: Done) -> None:
    """One line for the demo."""
    with suppress(BrokenPipeError):  # The demo is gone; this computer is about to be unplugged.
        os.write(sys.stdout.fileno(), msgspec.json.encode(done) + b"\n")


def unplug() -> None:
    """Freeze everything, so that nothing notices anything, then kill it; and once more, until nothing is left."""
    me = psutil.Process()
    deadline = time.monotonic() + UNPLUG_TIMEOUT_S
    while time.monotonic() < deadline:
        frozen: dict[int, psutil.Process] = {}
        while fresh := [each for each in me.children(recursive=True) if each.pid not in frozen]:
            for process in fresh:
                frozen[process.pid] = process
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
        for process in frozen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(REAP_S)  # The killed ones end one after another, and each leaves its children to us.


def main(home: str) -> None:
    """Obey until unplugged."""
    adopt_orphans()
    # Ctrl-C reaches the whole terminal group; the demo alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        match order.do:
            case "run":
                threading.Thread(target=run, args=(home, order), daemon=True).start()
            case "keep":
                os._exit(0)
            case _:
                break
    unplug()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
