"""Puts that did not end: what they had stored already, kept across crashes until they go on or are given up.

A put of many gigabytes must not begin anew because the node was killed in the middle. While it runs, a journal names
every chunk that it stored (`puts/NAME`, 32 bytes each, appended); the chunks in it are needed, so that neither
the clean-up at a start nor anybody else's deletion takes them. The next put of the same name finds them there. A
sealed put keeps its content key beside the journal, since another key would give other chunks.

Invariants: a journal that nobody wrote to for `KEPT_S` is dropped, with its chunks; at most `JOURNALS_MAX` are kept,
the oldest goes first. A journal may lose its last entries in a power failure: then those chunks are stored again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from colla.model.ids import KEY_BYTES, digest
from colla.model.manifest import ChunkId
from colla.node.disk import disk_errors

KEPT_S = 24 * 3600.0
JOURNALS_MAX = 64
_KEY_SUFFIX = ".key"


class Needs(Protocol):
    """The part of `Shelf` that keeps chunks."""

    def need(self, chunk: ChunkId) -> None: ...
    def release(self, chunk: ChunkId) -> None: ...


class Journal:
    """The chunks of one put under way. Made by `Unfinished.begin`; used by one thread."""

    def __init__(self, path: Path, shelf: Needs, chunks: dict[ChunkId, None]) -> None:
        self.path = path
        self.running = False
        self._shelf = shelf
        self._chunks = chunks
        self._descriptor = -1

    def add(self, chunk: ChunkId) -> None:
        """The chunk is about to be stored: it is needed from now on."""
        if chunk not in self._chunks:
            self._shelf.need(chunk)
            self._chunks[chunk] = None
            with disk_errors(self.path):
                if self._descriptor < 0:
                    self._descriptor = os.open(
                        self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
                    )
                os.write(self._descriptor, chunk)

    def content_key(self, fresh: bytes) -> bytes:
        """The key under which this put seals: the one that it began with, else `fresh`, which is kept."""
        path = self.path.with_name(self.path.name + _KEY_SUFFIX)
        with disk_errors(path):
            if path.exists() and path.stat().st_size == len(fresh):
                return path.read_bytes()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(fresh)
        return fresh

    def pause(self) -> None:
        """The put stopped; it may go on later."""
        self.running = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def drop(self) -> None:
        """The put is over, well or not: its chunks are needed only by whoever else needs them."""
        self.pause()
        with disk_errors(self.path):
            # The journal goes first: a crash in between leaves chunks that the next start removes.
            self.path.unlink(missing_ok=True)
            self.path.with_name(self.path.name + _KEY_SUFFIX).unlink(missing_ok=True)
        for chunk in self._chunks:
            self._shelf.release(chunk)
        self._chunks.clear()


class Unfinished:
    """All journals of a store, in the folder `puts`. Thread-safe."""

    def __init__(self, folder: Path, shelf: Needs) -> None:
        self._folder = folder
        self._shelf = shelf
        self._lock = threading.Lock()
        self._journals: dict[str, Journal] = {}

    def open(self) -> None:
        """Read the journals that a crash left; call once, before chunks that nobody needs are removed."""
        with disk_errors(self._folder):
            self._folder.mkdir(exist_ok=True, mode=0o700)
            for path in sorted(self._folder.iterdir()):
                if path.suffix == _KEY_SUFFIX:
                    if not path.with_suffix("").exists():
                        path.unlink()
                    continue
                chunks = dict.fromkeys(_entries(path.read_bytes()))
                for chunk in chunks:
                    self._shelf.need(chunk)
                self._journals[path.name] = Journal(path, self._shelf, chunks)
        self.expire()

    def begin(self, what: str) -> Journal:
        """The journal of the put that `what` names, new or left by an earlier attempt. One put at a time has it."""
        name = digest(what.encode()).hex()
        with self._lock:
            if name in self._journals and self._journals[name].running:
                # The same put twice at once: the second has a journal of its own.
                name = f"{name}-{time.time_ns()}"
            if name not in self._journals:
                self._journals[name] = Journal(self._folder / name, self._shelf, {})
            journal = self._journals[name]
            journal.running = True
        return journal

    def end(self, journal: Journal) -> None:
        """The put is over: forget the journal."""
        with self._lock:
            if self._journals.get(journal.path.name) is journal:
                del self._journals[journal.path.name]
        journal.drop()

    def expire(self, now_s: float | None = None) -> None:
        """Drop what is too old, or too much."""
        now_s = time.time() if now_s is None else now_s
        with self._lock:
            ages = sorted((_touched_s(one.path, now_s), name) for name, one in self._journals.items())
            idle = [(at_s, name) for at_s, name in ages if not self._journals[name].running]
            excess = max(0, len(idle) - JOURNALS_MAX)
            gone = [
                name for place, (at_s, name) in enumerate(idle) if place < excess or now_s - at_s > KEPT_S
            ]
            dropped = [self._journals.pop(name) for name in gone]
        for journal in dropped:
            journal.drop()


def _entries(data: bytes) -> Iterator[ChunkId]:
    for start in range(0, len(data) - KEY_BYTES + 1, KEY_BYTES):
        yield ChunkId(data[start : start + KEY_BYTES])


def _touched_s(path: Path, now_s: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return now_s
