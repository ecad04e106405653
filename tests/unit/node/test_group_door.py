"""The group's door lists a service's names page by page, each once, and no other service's."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

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
