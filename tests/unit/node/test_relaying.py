"""Relays that members contribute: a port that is taken, an owner who changes their mind, relays that never answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from colla.model.contribution import Contribution
from colla.model.errors import CollaError
from colla.node import relaying
from colla.node.relaying import Relaying


class Group:
    """The group as one node sees it: which relays its present nodes offer."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.presence = SimpleNamespace(present=lambda: range(len(self.offered)), entry=self._entry)
        self.membership = SimpleNamespace(node=lambda node: None)

    def _entry(self, number: int) -> Any:
        contribution = Contribution(relay=self.offered[number])
        return SimpleNamespace(announcement=SimpleNamespace(contribution=contribution))


class Links:
    """Uses relays; none of them ever answers."""

    def __init__(self) -> None:
        self.used: list[str] = []

    async def use_relay(self, url: str) -> bool:
        self.used.append(url)
        return False

    async def drop_relay(self, url: str) -> None:
        self.used.remove(url)


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Relaying, Group, Links]]:
    monkeypatch.setattr(relaying, "LOOK_S", 0.01)
    group, links = Group(), Links()
    made = Relaying(lambda: group, links)  # type: ignore[arg-type,return-value]
    yield made, group, links
    await made.close()


def taken() -> tuple[socket.socket, int]:
    """A TCP port that another program has."""
    other = socket.socket()
    other.bind(("0.0.0.0", 0))
    other.listen()
    return other, other.getsockname()[1]


def free() -> int:
    other, port = taken()
    other.close()
    return port


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within 5 s")


async def test_a_relay_whose_port_is_taken_runs_as_soon_as_it_is_free(made: Any) -> None:
    relays, _, _ = made
    other, port = taken()
    with other:
        await relays.start(f"http://127.0.0.1:{port}")
        assert str(port) in relays.problem
    await until(lambda: not relays.problem)
    assert await listens(port)


async def test_the_owner_moves_and_ends_the_relay(made: Any) -> None:
    relays, _, _ = made
    first, second = free(), free()
    await relays.start(f"http://127.0.0.1:{first}")
    assert await listens(first)
    await relays.contribute(f"http://127.0.0.1:{second}")
    assert await listens(second) and not await listens(first)
    await relays.contribute("")
    assert not await listens(second)


async def test_a_relay_that_cannot_run_is_refused_and_the_old_one_goes_on(made: Any) -> None:
    relays, _, _ = made
    first = free()
    await relays.start(f"http://127.0.0.1:{first}")
    other, port = taken()
    with other, pytest.raises(CollaError) as error:
        await relays.contribute(f"http://127.0.0.1:{port}")
    assert error.value.code == "port_in_use"
    with pytest.raises(CollaError) as error:
        await relays.contribute("nonsense")
    assert error.value.code == "bad_relay"
    assert await listens(first) and not relays.problem


async def test_a_relay_that_never_answered_is_dropped_with_its_member(made: Any) -> None:
    relays, group, links = made
    group.offered = ["http://192.0.2.1:3340"]
    await relays.start("")
    await until(lambda: links.used == group.offered)
    group.offered = []
    await until(lambda: not links.used)
