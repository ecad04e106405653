"""What a bridge left on disk: its notes about what happened, and the program's lines.

The files may have been written to by the program itself (it runs beside the bridge with the same rights), so they
are opened without following links and only so much is read as a bridge would write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from colla.environments.folders import LOG_SEGMENT_BYTES_MAX
from colla.environments.protocol import LogLine

NOTES_BYTES_MAX: Final = 64 << 10
SEGMENT_SLACK_BYTES: Final = 16 << 10


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a bridge has noted so far, put together; see `bridge`."""

    program: int | None = None
    """The program's process id as the bridge sees it."""
    port: int | None = None
    listening: str | None = None
    failed: str | None = None
    check: str | None = None
    """What the command that checks the program found last."""
    overfull: str | None = None
    """What was too much for its scratch folder, so that it was ended."""
    ended: bool = False
    exited: int | None = None
    signal: int | None = None


def read_notes(path: Path) -> Notes:
    """The notes in the file; those that are incomplete or make no sense are left out."""
    facts: dict[str, object] = {}
    for line in _read(path, NOTES_BYTES_MAX).split(b"\n")[:-1]:
        try:
            facts |= msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            continue
    facts["ended"] = "exited" in facts
    try:
        return msgspec.convert(facts, Notes)
    except msgspec.ValidationError:
        return Notes()


def read_lines(segments: tuple[Path, Path], after: int) -> list[LogLine]:
    """The lines with a number above `after` that are still kept, in order."""
    lines: dict[int, LogLine] = {}
    for segment in segments:
        for raw in _read(segment, LOG_SEGMENT_BYTES_MAX + SEGMENT_SLACK_BYTES).split(b"\n")[:-1]:
            line = _parse(raw)
            if line is not None and line.number > after:
                lines[line.number] = line
    return [lines[number] for number in sorted(lines)]


def _parse(raw: bytes) -> LogLine | None:
    number, _, rest = raw.partition(b" ")
    at, _, rest = rest.partition(b" ")
    letter, _, text = rest.partition(b" ")
    try:
        stream = {b"o": "stdout", b"e": "stderr"}[letter]
        return LogLine(
            number=int(number),
            at=float(at),
            stream="stdout" if stream == "stdout" else "stderr",
            text=text.decode(errors="replace"),
        )
    except (ValueError, KeyError):
        return None


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, bytes_max)
    finally:
        os.close(fd)
