"""The record store on SQLite: commits together, off the loop, and damage never goes unnoticed."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from colla.kernel.durable import Durable
from colla.kernel.effects import Notice, Persist, StoreCell, StoreRecord
from colla.kernel.events import Persisted, PersistFailed
from colla.model.errors import CollaError
from colla.model.record import SignedRecord
from colla.node import store as store_module
from colla.node.store import RecordStore

RECORD = SignedRecord(b"payload of the record" * 20, bytes(64))


def cell(number: int, name: str = "name") -> Persist:
    return Persist(number, (StoreCell(name, b"%d" % number),))


class Opener:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "records.db"
        self.notices: list[Notice] = []
        self.stores: list[RecordStore] = []

    def __call__(self) -> RecordStore:
        self.stores.append(RecordStore.open(self.path, self.notices.append))
        return self.stores[-1]

    async def filled(self) -> None:
        """A closed database with a record and many cells."""
        store = self()
        store.load()
        writes = (
            StoreRecord("catalogue", b"slot", RECORD),
            *(StoreCell(f"cell {n}", b"v" * 100) for n in range(500)),
        )
        assert await store.persist(Persist(1, writes)) == Persisted(1)
        await store.close()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())


@pytest.fixture
async def opener(tmp_path: Path) -> AsyncIterator[Opener]:
    made = Opener(tmp_path / "node")
    yield made
    for store in made.stores:
        await store.close()


class Gate:
    """Stands before every commit of a store: `entered` when one waits, `open` to let all go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        really = RecordStore._commit

        def commit(store: RecordStore, batch: Any) -> Any:
            self.entered.set()
            assert self.opened.wait(20)
            return really(store, batch)

        monkeypatch.setattr(RecordStore, "_commit", commit)


async def test_persists_that_wait_are_committed_together(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opener()
    store.load()
    gate = Gate(monkeypatch)
    asked = [store.persist(cell(0))]
    await asyncio.to_thread(gate.entered.wait)
    asked += [store.persist(cell(number)) for number in range(1, 300)]
    # The loop went on all the time; nothing is told before it is durable.
    assert not any(future.done() for future in asked)
    gate.opened.set()
    assert await asyncio.gather(*asked) == [Persisted(number) for number in range(300)]
    assert store.commits == 2


async def test_a_commit_is_bounded(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BYTES_PER_COMMIT_MAX", 1000)
    store = opener()
    store.load()
    gate = Gate(monkeypatch)
    asked = [store.persist(Persist(number, (StoreCell("a", bytes(600)),))) for number in range(10)]
    gate.opened.set()
    await asyncio.gather(*asked)
    assert store.commits >= 5


async def test_too_many_that_wait_count_as_a_failed_disk(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PERSISTS_WAITING_MAX", 3)
    store = opener()
    store.load()
    gate = Gate(monkeypatch)
    asked = [store.persist(cell(number)) for number in range(5)]
    gate.opened.set()
    outcomes = await asyncio.gather(*asked)
    assert isinstance(outcomes[-1], PersistFailed)
    assert "too many" in outcomes[-1].why


async def test_what_was_asked_before_a_load_does_not_happen_after_it(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opener()
    store.load()
    gate = Gate(monkeypatch)
    stale = store.persist(cell(1))
    await asyncio.to_thread(gate.entered.wait)
    really = store._using

    class OpeningTheGate:
        """`load` has begun and waits for the thread, which goes on now."""

        def __enter__(self) -> None:
            gate.opened.set()
            really.acquire()

        def __exit__(self, *error: object) -> None:
            really.release()

    monkeypatch.setattr(store, "_using", OpeningTheGate())
    durable = store.load()
    assert isinstance(await stale, PersistFailed)
    assert durable.cells == {}
    assert await store.persist(cell(2)) == Persisted(2)


async def test_one_that_cannot_be_stored_fails_alone_in_its_commit(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opener()
    store.load()
    gate = Gate(monkeypatch)
    impossible = Persist(2, (StoreCell("good", b""), StoreCell("\udcff", b"")))
    asked = [store.persist(cell(1)), store.persist(impossible), store.persist(cell(3))]
    gate.opened.set()
    outcomes = await asyncio.gather(*asked)
    assert [type(outcome) for outcome in outcomes] == [Persisted, PersistFailed, PersistFailed]
    assert store.load().cells == {"name": b"1"}


async def test_closing_commits_what_waits(opener: Opener) -> None:
    store = opener()
    store.load()
    asked = [store.persist(cell(number)) for number in range(20)]
    await store.close()
    assert await asyncio.gather(*asked) == [Persisted(number) for number in range(20)]
    assert isinstance(await store.persist(cell(21)), PersistFailed)
    assert opener().load().cells == {"name": b"19"}


async def test_writes_are_synchronised(opener: Opener) -> None:
    store = opener()
    store.load()
    connection = store._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)


# One process


async def test_a_second_process_is_told_who_runs(opener: Opener) -> None:
    opener().load()
    with pytest.raises(CollaError) as caught:
        opener()
    assert caught.value.code == "already_running"
    assert str(os.getpid()) in caught.value.message
    assert str(os.getpid()) in await asyncio.to_thread(open_elsewhere, opener.path)
    await opener.stores[0].close()
    assert opener().load() == Durable({}, {})


def open_elsewhere(path: Path) -> str:
    """What another process gets to see."""
    code = "import sys; from pathlib import Path; from colla.node.store import RecordStore;"
    code += "RecordStore.open(Path(sys.argv[1]), print)"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    return ended.stderr


async def test_even_without_the_lock_sqlite_keeps_a_second_one_out(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener().load()
    monkeypatch.setattr(store_module, "fcntl", None)
    second = opener()
    with pytest.raises(CollaError) as caught:
        second.load()
    assert caught.value.code == "already_running"
    assert opener.names() == ["records.db", "records.db-wal", "records.db.lock"]


KILLED = """
import asyncio, sys
from pathlib import Path
from colla.kernel.effects import Persist, StoreCell
from colla.node.store import RecordStore
async def main():
    store = RecordStore.open(Path(sys.argv[1]), print)
    store.load()
    for number in range(1_000_000):
        await asyncio.gather(*(
            store.persist(Persist(0, (StoreCell(name, b"%d" % number), StoreCell(name + "2", b"%d" % number))))
            for name in ("a", "b")))
        print(number, flush=True)
asyncio.run(main())
"""


def persist_until_killed(path: Path) -> int:
    """The last number that a process said was durable before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(50))
        process.kill()
        said += process.stdout.read()
        return int(said[: said.rindex("\n")].split("\n")[-1])


async def test_a_killed_process_loses_nothing_it_was_told_is_durable(opener: Opener) -> None:
    opener.path.parent.mkdir()
    last = await asyncio.to_thread(persist_until_killed, opener.path)
    cells = opener().load().cells
    assert int(cells["a"]) in (last, last + 1)
    assert int(cells["b"]) in (last, last + 1)
    assert (cells["a"], cells["b"]) == (cells["a2"], cells["b2"])
    assert opener.notices == []


# Damage


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 100)


def scramble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(4096, len(data), 512):
        data[position] ^= 0xFF
    path.write_bytes(data)


def flip_in_record(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"payload of the record") >= 20
    path.write_bytes(data.replace(b"payload of the record", b"payload of the reCord", 1))


def flip_in_text(path: Path) -> None:
    data = path.read_bytes()
    position = data.index(b"cell 77")
    path.write_bytes(data[:position] + b"\xff" + data[position + 1 :])


def flip_in_index(path: Path) -> None:
    """Change the copy of a name in the index only: the table itself still says what was written."""
    data = bytearray(path.read_bytes())
    index_leaf = 0x0A
    positions = [found.start() for found in re.finditer(b"cell 77", data)]
    changed = [position for position in positions if data[position // 4096 * 4096] == index_leaf]
    assert len(changed) == 1 < len(positions)
    data[changed[0]] ^= 0x20
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def drop_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE cells")
    connection.close()


@pytest.mark.parametrize(
    "harm", [cut, empty, overwrite, scramble, flip_in_record, flip_in_text, flip_in_index, drop_table]
)
async def test_a_damaged_database_is_moved_aside_and_an_empty_one_begun(
    opener: Opener, harm: Callable[[Path], None]
) -> None:
    await opener.filled()
    harm(opener.path)
    damaged = opener.path.read_bytes()
    store = opener()
    assert store.load() == Durable({}, {})
    assert [notice.kind for notice in opener.notices] == ["database_corrupt"]
    assert "records.db.corrupt-1" in opener.notices[0].text
    assert opener.path.with_name("records.db.corrupt-1").read_bytes() == damaged
    assert await store.persist(cell(1)) == Persisted(1)
    await store.close()
    assert opener().load().cells == {"name": b"1"}
    assert len(opener.notices) == 1


async def test_damage_is_never_mistaken_for_what_was_written(opener: Opener) -> None:
    # Any single byte changed anywhere: all is as it was, or the database is moved aside. Never something else.
    await opener.filled()
    whole = opener.path.read_bytes()
    expected = opener().load()
    await opener.stores.pop().close()
    undamaged = 0
    for position in range(100, len(whole), len(whole) // 60):
        data = bytearray(whole)
        data[position] ^= 0x55
        opener.path.write_bytes(data)
        loaded = opener().load()
        await opener.stores.pop().close()
        undamaged += loaded == expected
        assert loaded in (expected, Durable({}, {})), position
        assert (loaded == expected) == (not opener.notices)
        opener.notices.clear()
    assert undamaged < 30


async def test_damaged_databases_do_not_pile_up(opener: Opener) -> None:
    for _ in range(5):
        await opener.filled()
        overwrite(opener.path)
        opener().load()
        await opener.stores.pop().close()
        opener.path.unlink()
    kept = [name for name in opener.names() if ".corrupt-" in name]
    assert kept == ["records.db.corrupt-3", "records.db.corrupt-4", "records.db.corrupt-5"]


async def test_damage_while_running_fails_and_the_next_load_begins_anew(opener: Opener) -> None:
    await opener.filled()
    store = opener()
    store.load()
    overwrite(opener.path)
    outcome = await store.persist(Persist(1, tuple(StoreCell(f"cell {n}", b"new") for n in range(500))))
    durable = store.load()
    assert isinstance(outcome, Persisted) or durable == Durable({}, {})
    assert await store.persist(cell(2)) == Persisted(2)


async def test_a_database_of_a_newer_version_is_left_alone(opener: Opener) -> None:
    await opener.filled()
    with sqlite3.connect(opener.path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = opener.path.read_bytes()
    with pytest.raises(CollaError) as caught:
        opener().load()
    assert caught.value.code == "store_too_new"
    assert opener.path.read_bytes() == before


async def test_a_place_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CollaError) as caught:
        RecordStore.open(tmp_path / "file" / "records.db", lambda notice: None)
    assert caught.value.code == "disk_failed"
    (tmp_path / "records.db").mkdir()
    store = RecordStore.open(tmp_path / "records.db", lambda notice: None)
    with pytest.raises(CollaError) as caught:
        store.load()
    assert caught.value.code == "unreadable"
    await store.close()
