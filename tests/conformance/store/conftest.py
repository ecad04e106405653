"""Fixtures for what every record store must do. Each provider is one parameter of `store`."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from colla.kernel.durable import Durable
from colla.kernel.effects import Persist
from colla.kernel.events import Persisted, PersistFailed
from colla.node.store import RecordStore
from colla.sim.disk import Disk
from colla.sim.world import World

NAME = "records.db"


class SqliteDisk:
    """The store of a real node. A crash leaves the files as they are at that moment, and no process."""

    def __init__(self, folder: Path) -> None:
        self._folders = (folder / f"life-{number}" for number in itertools.count(1))
        self._loop = asyncio.new_event_loop()
        self._abandoned: list[RecordStore] = []
        self._pages_max = 0
        self._open(next(self._folders))

    def _open(self, folder: Path) -> None:
        self._folder = folder
        self._store = RecordStore.open(folder / NAME, lambda notice: None)

    def load(self) -> Durable:
        durable = self._store.load()
        self._limit()
        return durable

    def persist(self, *effects: Persist) -> list[Persisted | PersistFailed]:
        outcomes: list[Persisted | PersistFailed] = []

        async def ask() -> None:
            asked = [self._store.persist(effect) for effect in effects]
            for future in asked:
                future.add_done_callback(lambda done: outcomes.append(done.result()))
            await asyncio.gather(*asked)
            await asyncio.sleep(0)  # The callbacks of the last run after it.

        self._loop.run_until_complete(ask())
        return outcomes

    def crash(self) -> None:
        folder = next(self._folders)
        folder.mkdir()
        for path in self._folder.iterdir():
            if not path.name.endswith(".lock"):
                shutil.copy(path, folder)
        self._abandoned.append(self._store)
        self._open(folder)

    def restart(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._open(self._folder)

    def fill(self) -> None:
        self._pages_max = 1  # Fewer than there are: then SQLite adds none.
        self._limit()

    def free(self) -> None:
        self._pages_max = 1 << 30
        self._limit()

    def _limit(self) -> None:
        if self._pages_max and self._store._connection is not None:
            self._store._connection.execute(f"PRAGMA max_page_count={self._pages_max}")

    def close(self) -> None:
        for store in [*self._abandoned, self._store]:
            self._loop.run_until_complete(store.close())
        self._loop.close()


class SimulatedDisk:
    """The simulator's twin, in virtual time."""

    def __init__(self, folder: Path) -> None:
        self._world = World(1)
        self._disk = Disk(self._world, Random(1))

    def load(self) -> Durable:
        return self._disk.load()

    def persist(self, *effects: Persist) -> list[Persisted | PersistFailed]:
        outcomes: list[Persisted | PersistFailed] = []
        for effect in effects:
            self._disk.persist(effect, outcomes.append)
        self._world.run_until(lambda: len(outcomes) == len(effects), within_s=60.0)
        return outcomes

    def crash(self) -> None:
        self._disk.crash()

    def restart(self) -> None:
        self._disk.crash()  # Everything that was asked for had its outcome: an end in order loses no more.

    def fill(self) -> None:
        self._disk.fill()

    def free(self) -> None:
        self._disk.free()

    def close(self) -> None:
        pass


PROVIDERS: dict[str, Callable[[Path], Any]] = {"simulated": SimulatedDisk, "sqlite": SqliteDisk}


@pytest.fixture(params=sorted(PROVIDERS))
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """`new_store()` gives an empty disk with a `StoreUnderTest` on it; all are closed at the end."""
    made: list[Any] = []
    numbers = itertools.count()

    def new() -> Any:
        made.append(PROVIDERS[request.param](tmp_path / f"disk-{next(numbers)}"))
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: Callable[[], Any]) -> Any:
    return new_store()
