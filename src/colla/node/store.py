"""The record store of a node: `kernel.durable.Durable` on SQLite, the only memory of the agents.

Owns one database file and one thread. Writes are queued; the thread commits all that wait as one transaction
(WAL, `synchronous=FULL`), so that many small `Persist`s share an fsync and none of them is on the loop.

Invariants: the outcomes come in the order of the `Persist`s, and are those that carrying them out one by one
would give; after one failed, all that follow fail too, until `load` is called, because the agents that asked for
them are started again from what `load` finds. Every row carries a hash of itself. A database that is damaged
anywhere is moved aside (`*.corrupt-N`) and an empty one begun, which the group refills: a frontier that claims
records which are gone would make the node wrong for ever. One process at a time, held by a lock on a file.

Source: DESIGN sections 3 and 4. The node's keys live elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeAlias, assert_never

from colla.kernel.durable import Durable
from colla.kernel.effects import (
    DropCell,
    DropRecord,
    Notice,
    Persist,
    StoreCell,
    StoreRecord,
    Write,
)
from colla.kernel.events import Persisted, PersistFailed
from colla.model.errors import CollaError
from colla.model.ids import digest
from colla.model.record import SignedRecord
from colla.node.disk import disk_errors

try:
    import fcntl
except ImportError:  # Windows: SQLite's own exclusive lock has to do, see `_connect`.
    fcntl = None  # type: ignore[assignment]

SCHEMA_VERSION = 1
PERSISTS_WAITING_MAX = 4096
"""More than the agents can ask for while a disk works at all; beyond, the disk counts as failed."""
PERSISTS_PER_COMMIT_MAX = 512
BYTES_PER_COMMIT_MAX = 4 * 1024 * 1024
WAL_BYTES_MAX = 16 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""
CORRUPT_KEPT_MAX = 3
"""Damaged databases kept for whoever wants to look into them; the oldest go first."""
_HASH_BYTES = 16
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    topic TEXT NOT NULL, slot BLOB NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (topic, slot)
);
CREATE TABLE IF NOT EXISTS cells (
    name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, hash BLOB NOT NULL
);
"""

Outcome: TypeAlias = Persisted | PersistFailed
_Asked: TypeAlias = tuple[Persist, "asyncio.Future[Outcome]", int]


class _Damaged(Exception):
    """The database is not what was written."""


class RecordStore:
    """Made by `RecordStore.open`; `load` first, then `persist`, at last `close`. Use from one loop."""

    def __init__(self, path: Path, notify: Callable[[Notice], None], lock: IO[str]) -> None:
        """Private: use `open`."""
        self._path = path
        self._notify = notify
        self._lock_file = lock
        self._connection: sqlite3.Connection | None = None
        # Held by whoever uses the connection: the thread while it commits, `load`.
        self._using = threading.Lock()
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._waiting = 0
        self._generation = 0
        self._failed = "the store was not loaded"
        self._closed = False
        self._thread = threading.Thread(target=self._commit_for_ever, name="colla-records", daemon=True)
        self.commits = 0

    @classmethod
    def open(cls, path: Path, notify: Callable[[Notice], None]) -> RecordStore:
        """Take the database at `path` for this process; it is created by `load`. Blocking.

        `notify` is called by `load` when a damaged database was moved aside. Raises `CollaError`:
        `already_running`, `disk_full`, `unreadable`, `disk_failed`.
        """
        store = cls(path, notify, _lock(path))
        store._thread.start()
        return store

    def load(self) -> Durable:
        """Everything that is durable, checked. Blocking; also the way back after a `PersistFailed`.

        Whatever was asked for before and has no outcome yet fails. Raises `CollaError`: `disk_full`,
        `unreadable`, `disk_failed`, `store_too_new`, `already_running`.
        """
        self._generation += 1
        with self._using, _sqlite_errors(self._path):
            try:
                durable = self._read()
            except (_Damaged, sqlite3.DatabaseError) as error:
                if not _is_damage(error):
                    raise
                self._move_aside(str(error))
                durable = self._read()
            self._failed = ""
        return durable

    def persist(self, effect: Persist) -> asyncio.Future[Outcome]:
        """Queue the writes at once; the future gets the outcome when they are on the disk, or cannot be."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(PersistFailed(effect.id, "the store is closed"))
            return future
        if self._waiting >= PERSISTS_WAITING_MAX:
            self._failed = self._failed or "too many writes wait for the disk"
        self._waiting += 1
        self._asked.put((effect, future, self._generation))
        return future

    async def close(self) -> None:
        """Commit what is queued, close the database and give the lock back."""
        self._closed = True
        self._asked.put(None)
        await asyncio.to_thread(self._thread.join)
        with self._using:
            self._disconnect()
        self._lock_file.close()

    # The thread

    def _commit_for_ever(self) -> None:
        while True:
            batch, is_last = self._next_batch()
            if batch:
                with self._using:
                    outcomes = self._commit(batch)
                loop = batch[0][1].get_loop()
                loop.call_soon_threadsafe(self._tell, batch, outcomes)
            if is_last:
                return

    def _next_batch(self) -> tuple[list[_Asked], bool]:
        """Everything that waits, up to the bounds; waits for the first. Whether nothing comes after it."""
        batch: list[_Asked] = []
        size = 0
        asked = self._asked.get()
        while asked is not None:
            batch.append(asked)
            size += sum(_size(write) for write in asked[0].writes)
            if len(batch) >= PERSISTS_PER_COMMIT_MAX or size >= BYTES_PER_COMMIT_MAX:
                return batch, False
            try:
                asked = self._asked.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _tell(self, batch: Sequence[_Asked], outcomes: Sequence[Outcome]) -> None:
        for (_, future, _), outcome in zip(batch, outcomes, strict=True):
            self._waiting -= 1
            if not future.done():  # Whoever waited may have been cancelled.
                future.set_result(outcome)

    def _commit(self, batch: Sequence[_Asked]) -> list[Outcome]:
        current = [effect for effect, _, generation in batch if generation == self._generation]
        together = [write for effect in current for write in effect.writes]
        if not self._failed and len(current) == len(batch) and not self._try_commit(together):
            return [Persisted(effect.id) for effect in current]
        # One by one: those before the one that fails are durable, as if each had been alone.
        outcomes: list[Outcome] = []
        for effect, _, generation in batch:
            if generation != self._generation:
                outcomes.append(PersistFailed(effect.id, "the agents were started again meanwhile"))
                continue
            if not self._failed:
                self._failed = self._try_commit(effect.writes)
            outcomes.append(PersistFailed(effect.id, self._failed) if self._failed else Persisted(effect.id))
        return outcomes

    def _try_commit(self, writes: Sequence[Write]) -> str:
        """Make the writes durable, all or none. Why it failed, or empty."""
        connection = self._connection
        if connection is None:
            return "the database is not open"
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in writes:
                _execute(connection, write)
            connection.execute("COMMIT")
        except Exception as error:  # Whatever it was: the writes are not durable, and the outcome says why.
            # A failed COMMIT may have ended the transaction already; then there is nothing to roll back.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return _explain(error)
        self.commits += 1
        return ""

    # The database

    def _read(self) -> Durable:
        self._disconnect()
        if self._path.is_file() and self._path.stat().st_size == 0:
            raise _Damaged("the file is empty")
        connection = self._connection = _connect(self._path)
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            hint = "Update colla on this computer."
            raise CollaError("store_too_new", f"{self._path} was written by a newer colla.", hint)
        # Not `quick_check`: it does not compare the indices with the tables, and a wrong index makes duplicates.
        faults = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if faults != b"ok":
            raise _Damaged(faults.decode(errors="replace"))
        if found < SCHEMA_VERSION:
            # Only now: what is there already can be read on a disk that is full.
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        durable = Durable()
        rows = connection.execute("SELECT topic, slot, payload, signature, hash FROM records")
        for topic, slot, payload, signature in _sound(rows):
            durable.records[topic.decode(), slot] = SignedRecord(payload, signature)
        for name, value in _sound(connection.execute("SELECT name, value, hash FROM cells")):
            durable.cells[name.decode()] = value
        return durable

    def _move_aside(self, why: str) -> None:
        self._disconnect()
        number = 1 + max((_number(path) for path in _corrupt_ones(self._path)), default=0)
        aside = self._path.with_name(f"{self._path.name}.corrupt-{number}")
        with disk_errors(self._path):
            # The database first: SQLite throws away a log of writes that is left without one.
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).replace(f"{aside}{suffix}")
            for path in _corrupt_ones(self._path):
                if _number(path) <= number - CORRUPT_KEPT_MAX:
                    path.unlink()
        text = f"The database {self._path} was damaged ({why}). It was moved to {aside.name}, and an empty one begun;"
        self._notify(Notice("database_corrupt", f"{text} the group fills it again."))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # A database that cannot be closed in order is as after a crash: the next start mends it.
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _lock(path: Path) -> IO[str]:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.with_name(path.name + ".lock").open("a+", encoding="ascii")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20)
            file.close()
            raise _already_running(path, holder) from None
        except OSError:
            file.close()
            raise
    return file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    # Text as bytes: damaged text must be found by its hash, not fail to decode.
    connection.text_factory = bytes
    try:
        # Exclusive: a second process gets an error, and no memory is shared through a file.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
    except BaseException:
        connection.close()
        raise
    return connection


def _execute(connection: sqlite3.Connection, write: Write) -> None:
    match write:
        case StoreRecord(topic=topic, slot=slot, record=record):
            row_hash = _hash(topic.encode(), slot, record.payload, record.signature)
            row = (topic, slot, record.payload, record.signature, row_hash)
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", row)
        case DropRecord(topic=topic, slot=slot):
            connection.execute("DELETE FROM records WHERE topic = ? AND slot = ?", (topic, slot))
        case StoreCell(name=name, value=value):
            cell = (name, value, _hash(name.encode(), value))
            connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?)", cell)
        case DropCell(name=name):
            connection.execute("DELETE FROM cells WHERE name = ?", (name,))
        case _:
            assert_never(write)


def _size(write: Write) -> int:
    match write:
        case StoreRecord(record=record):
            return len(record.payload)
        case StoreCell(value=value):
            return len(value)
        case DropRecord() | DropCell():
            return 0
        case _:
            assert_never(write)


def _sound(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[bytes, ...]]:
    """The rows without their last field, which is the hash of the others. Raises `_Damaged`."""
    for row in rows:
        fields = tuple(field for field in row if isinstance(field, bytes))
        if len(fields) != len(row) or _hash(*fields[:-1]) != fields[-1]:
            raise _Damaged("an entry is not what was written")
        yield fields[:-1]


def _hash(*fields: bytes) -> bytes:
    return digest(b"".join(len(field).to_bytes(4, "big") + field for field in fields))[:_HASH_BYTES]


def _corrupt_ones(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.corrupt-*"))


def _number(path: Path) -> int:
    digits = path.name.rpartition(".corrupt-")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


# Errors


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _store_error(path, error) from error


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_damage(error: BaseException) -> bool:
    # A plain error while reading what is always there means that a table is not.
    return isinstance(error, _Damaged) or _code(error) in _DAMAGE


def _explain(error: BaseException) -> str:
    return "the disk is full" if _code(error) == sqlite3.SQLITE_FULL else str(error) or type(error).__name__


def _store_error(path: Path, error: sqlite3.Error) -> CollaError:
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return CollaError("disk_full", f"The disk of {path} is full.", "Free some space.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _already_running(path, "")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return CollaError("unreadable", f"{path} cannot be opened: {error}.", "Check its permissions.")
        case _:
            return CollaError("disk_failed", f"{path} cannot be used: {error}.", "Check the disk.")


def _already_running(path: Path, holder: str) -> CollaError:
    who = f" (process {holder})" if holder.isdecimal() else ""
    hint = "Use the one that runs, or end it first."
    return CollaError("already_running", f"Another colla{who} already runs with {path.parent}.", hint)
