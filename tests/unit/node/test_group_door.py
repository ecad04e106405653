"""The group's door lists a service's names page by page, each once, and no other service's. It opens in deep folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from colla.model.ids import ReplicaId, ServiceId
from colla.node import group_door

OWN, OTHER = ServiceId(b"\1" * 16), ServiceId(b"\2" * 16)


class Names:
    """What `protocol.naming.Names` shows: paths in their order; c.txt was removed with a conflict left."""

    def entries(self, prefix: str) -> Any:
        for service in (OWN, OTHER):
            for name in ("a.txt", "b/c.txt", "b/d.txt", "c.txt", "e.txt"):
                path = f".services/{service.hex()}/{name}"
                named = SimpleNamespace(object=b"\3" * 32, size_bytes=1) if name != "c.txt" else None
                if path.startswith(prefix):
                    yield SimpleNamespace(path=path, current=SimpleNamespace(named=named, written_s=1.0))


@pytest.mark.parametrize("page", [1, 2, 3, 4, 100])
async def test_pages_hold_every_name_once(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_door, "NAMES_MAX", page)
    node = SimpleNamespace(core=SimpleNamespace(foundation=SimpleNamespace(names=Names())))
    door = group_door.GroupDoor(cast(Any, node))
    found: list[str] = []
    pages = 0
    more = True
    while more:
        request = SimpleNamespace(query={"start_after": found[-1]} if found else {})
        answer = await door._group_names(cast(Any, request), ReplicaId(b"\4" * 16), OWN)
        told = json.loads(cast(bytes, answer.body))
        found += [one["name"] for one in told["names"]]
        more, pages = told.get("more", False), pages + 1
    assert found == ["a.txt", "b/c.txt", "b/d.txt", "e.txt"]
    assert pages == -(-len(found) // page)


@pytest.mark.parametrize("deep", [False, True])
async def test_it_opens_wherever_the_folder_is(deep: bool, tmp_path: Path) -> None:
    """A socket's path may have about 100 bytes; a member's folder may lie deeper than that."""
    folder = tmp_path / "/".join(["a-rather-long-name"] * 8) if deep else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    node = SimpleNamespace(replicas=SimpleNamespace(folder=folder, of_token=lambda token: None))
    door = group_door.GroupDoor(cast(Any, node))
    await door.open()
    try:
        connector = aiohttp.UnixConnector(door.access("token").socket)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://group/v1") as told,
        ):
            assert told.status in (403, 404)
    finally:
        await door.close()
        if deep:
            shutil.rmtree(door.socket.parent)
