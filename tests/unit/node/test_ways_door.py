"""The door behind the ways: who may go where."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from colla.access.interface import TunnelError
from colla.access.streams import SocketStream
from colla.model.contribution import Contribution
from colla.model.ids import MemberId, ObjectId, ReplicaId, ServiceId
from colla.model.service import OUTGOING_USE, Specification
from colla.model.willing import refuses
from colla.node.ways_door import WaysDoor

OWNER = MemberId(b"m" * 32)


def specification(*uses: str) -> Specification:
    return Specification("front", OWNER, 1, ObjectId(b"o" * 32), 1, "process", uses=uses)


class Node(SimpleNamespace):
    """What the door asks of a node: one replica, whose token is `right`, and a service `back` that shouts."""

    def __init__(self, uses: tuple[str, ...], contribution: Contribution) -> None:
        known = SimpleNamespace(specification=specification(*uses))
        super().__init__(
            replicas=SimpleNamespace(
                of_token=lambda token: (ReplicaId(b"r"), ServiceId(b"s")) if token == "right" else None
            ),
            core=SimpleNamespace(
                catalogue=SimpleNamespace(service=lambda service: known), contribution=contribution
            ),
            forwards=SimpleNamespace(reach=self.reach),
        )

    async def reach(self, name: str) -> SocketStream:
        if name != "back":
            raise TunnelError("unreachable")

        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        self.back = await asyncio.start_server(shout, "127.0.0.1", 0)
        return SocketStream(*await asyncio.open_connection(*self.back.sockets[0].getsockname()))


@pytest.fixture
async def door_of() -> AsyncIterator[Any]:
    doors = []
    # A socket's path may be no longer than about a hundred bytes, and folders of tests are deep.
    folder = Path(tempfile.mkdtemp(prefix="colla-test-", dir="/tmp"))

    async def make(*uses: str, contribution: Contribution | None = None) -> Path:
        made: Any = Node(uses, contribution or Contribution())
        door = WaysDoor(made)
        doors.append(door)
        await door.open(folder / "group" / "ways.sock")
        return folder / "group" / "ways.sock"

    yield make
    for door in doors:
        await door.close()
    shutil.rmtree(folder)


async def ask(socket: Path, first: str, then: bytes = b"hello\n") -> bytes:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(first.encode() + b"\n" + then)
    try:
        return await reader.read(1000)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_way_leads_to_a_service_that_is_named(door_of: Any) -> None:
    socket = await door_of("back", "gone", "secret:word")
    assert await ask(socket, "right back") == b"HELLO\n"
    for refused in (
        "wrong back",
        "right gone",
        "right other",
        "right",
        "",
        "right secret:word",
        "right " + OUTGOING_USE,
    ):
        assert await ask(socket, refused) == b"", refused


async def test_the_internet_is_for_those_who_ask_where_the_owner_allows_it(door_of: Any) -> None:
    request = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n"
    lets_out = Contribution(outgoing=True)
    assert await ask(await door_of(OUTGOING_USE), "right " + OUTGOING_USE, request) == b""
    assert await ask(await door_of("back", contribution=lets_out), "right " + OUTGOING_USE, request) == b""
    answer = await ask(await door_of(OUTGOING_USE, contribution=lets_out), "right " + OUTGOING_USE, request)
    assert b"403 Forbidden" in answer


def test_an_owner_who_allows_no_internet_refuses_what_asks_for_it() -> None:
    wants = specification(OUTGOING_USE)
    refused = refuses(Contribution(), OWNER, wants, "ana", None)
    assert refused is not None and refused.code == "outgoing"
    assert refuses(Contribution(outgoing=True), OWNER, wants, "ana", None) is None
    assert refuses(Contribution(), OWNER, specification("back"), "ana", None) is None


def test_who_says_nothing_is_encoded_as_before() -> None:
    assert b"outgoing" not in msgspec.msgpack.encode(Contribution())
    assert not msgspec.msgpack.decode(msgspec.msgpack.encode(Contribution()), type=Contribution).lets_out
    assert msgspec.toml.decode(msgspec.toml.encode(Contribution(outgoing=True)), type=Contribution).lets_out


def test_what_cannot_be_a_name_is_no_way() -> None:
    uses = ("back", "back--ana", "a b", "x\ny", "A", "secret:word", OUTGOING_USE)
    assert specification(*uses).services_used == ("back", "back--ana")
