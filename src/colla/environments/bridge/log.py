"""The program's output: cut into lines, numbered and dated, in two files of bounded size."""

from __future__ import annotations

import contextlib
import os
import time

CHUNK_BYTES = 64 << 10
LINE_BYTES_MAX = 8192
"""Longer lines are cut into several."""


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
