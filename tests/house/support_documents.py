"""Reads the shell blocks of a Markdown page and runs them as its reader would: in order, in one shell.

A block is fenced with three backticks and `sh`, `bash` or `console`; in a `console` block the lines after `$ ` are the
commands and all others are what they print. The shell begins in an empty home folder with the project's
programs on its PATH, and stops at the first command that fails. `<!-- not run: reason -->` on the line before a block
keeps it from being run.

Invariant: when a session is closed, nothing that its blocks started is running any more, daemons included.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

SHELLS = ("sh", "bash", "console")
BLOCK_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 10.0
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>(?:(?!-->).)+?)\s*-->\s*\Z", re.DOTALL)
SESSION_MARK = "COLLA_DOCUMENT_SESSION"


@dataclass(frozen=True)
class Block:
    """One shell block: the page's path, the line it begins on, its commands, and why it is not run, or ""."""

    document: str
    line: int
    commands: str
    not_run: str = ""


class BlockFailed(AssertionError):
    """A block's command failed, took too long, or follows one that did."""


def read_blocks(document: str, text: str) -> Iterator[Block]:
    """The shell blocks of a page, in order. Blocks inside HTML comments are no blocks."""
    for found in FENCE.finditer(text):
        if found["language"] not in SHELLS:
            continue
        before = text[: found.start()]
        if before.rfind("<!--") > before.rfind("-->"):
            continue
        indent = len(found["indent"])
        lines = [line[indent:] for line in found["body"].splitlines()]
        if found["language"] == "console":
            lines = list(console_commands(lines))
        reason = NOT_RUN.search(before)
        yield Block(document, before.count("\n") + 1, "\n".join(lines), reason["reason"] if reason else "")


def console_commands(lines: list[str]) -> Iterator[str]:
    """What a reader typed in a `console` block: after `$ `, and after `> ` where a command goes on."""
    typing = False
    for line in lines:
        if line.startswith("$ "):
            typing = True
            yield line[2:]
        elif typing and line.startswith("> "):
            yield line[2:]
        else:
            typing = False


class Session:
    """The shell of one document. Use as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="colla-document-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name, "home")
        self.home.mkdir()
        self._mark = uuid.uuid4().hex
        self._failed = ""
        self._blocks = 0
        read, self._write = os.pipe()
        self._done = os.fdopen(read)
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment(),
            cwd=self.home,
            text=True,
            pass_fds=[self._write],
            start_new_session=True,
        )
        os.close(self._write)

    def _environment(self) -> dict[str, str]:
        programs = [
            str(Path(sys.executable).parent),
            "/usr/local/bin",
            "/usr/bin",
            "/bin",
            "/usr/sbin",
            "/sbin",
        ]
        return {
            "HOME": str(self.home),
            "PATH": ":".join(programs),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            SESSION_MARK: self._mark,
        }

    def run(self, block: Block, timeout_s: float = BLOCK_TIMEOUT_S) -> str:
        """Run one block and return what it printed. Raises `BlockFailed`."""
        where = f"{block.document}:{block.line}"
        if self._failed:
            raise BlockFailed(f"{where} was not reached: {self._failed} failed")
        self._blocks += 1
        script = Path(self._folder.name, f"block-{self._blocks}.sh")
        printed = script.with_suffix(".out")
        script.write_text(block.commands + "\n", "utf-8")
        # The pipe to us is closed for what the block starts, or a daemon would keep it open for ever.
        run = f". {shlex.quote(str(script))} </dev/null >{shlex.quote(str(printed))} 2>&1 {self._write}>&-"
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"set -eo pipefail; {run}; set +eo pipefail; echo done >&{self._write}\n")
        self._shell.stdin.flush()
        finished = self._wait(timeout_s)
        output = printed.read_text("utf-8", errors="replace") if printed.exists() else ""
        if finished != "done\n":
            self._failed = where
            why = f"took over {timeout_s:g} s" if finished is None else "failed"
            raise BlockFailed(f"{where} {why}:\n{block.commands}\n--- printed:\n{output}")
        return output

    def _wait(self, timeout_s: float) -> str | None:
        """The line that ends a block, "" when the shell ended instead, None after `timeout_s`."""
        ready, _, _ = select.select([self._done], [], [], timeout_s)
        return self._done.readline() if ready else None

    def close(self) -> None:
        """End the shell and everything that was started in it, however it tried to get away."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        left = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in left:
            send(process, signal.SIGTERM)
        _, alive = psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
        for process in alive:
            send(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
        self._shell.wait(STOP_TIMEOUT_S)
        self._done.close()
        self._folder.cleanup()

    def _is_ours(self, process: psutil.Process) -> bool:
        """Children inherit the mark; who cleared its environment is known by the folder it is in."""
        try:
            if process.environ().get(SESSION_MARK) == self._mark:
                return True
            return Path(process.cwd()).is_relative_to(self._folder.name)
        except (psutil.Error, OSError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send(process: psutil.Process, what: signal.Signals) -> None:
    try:
        process.send_signal(what)
    except psutil.NoSuchProcess:
        return
