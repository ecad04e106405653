"""Finding others by multicast DNS, on the loopback interface; and no harm where there is none."""

from __future__ import annotations

import asyncio

import pytest
from zeroconf.asyncio import AsyncServiceInfo

from colla.model.ids import GroupId, NodeId
from colla.node.links import discovery as discovery_module
from colla.node.links.discovery import Discovery, group_hash

GROUP, OTHER_GROUP = GroupId(b"g" * 32), GroupId(b"h" * 32)
A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


class Found:
    def __init__(self) -> None:
        self.nodes: asyncio.Queue[tuple[NodeId, tuple[str, ...]]] = asyncio.Queue()

    def __call__(self, node_id: NodeId, addresses: tuple[str, ...]) -> None:
        self.nodes.put_nowait((node_id, addresses))


async def test_two_nodes_of_one_group_find_each_other_and_no_others() -> None:
    founds = Found(), Found(), Found()
    a = Discovery(GROUP, A, 4101, founds[0], only_ip="127.0.0.1")
    b = Discovery(GROUP, B, 4102, founds[1], only_ip="127.0.0.1")
    c = Discovery(OTHER_GROUP, C, 4103, founds[2], only_ip="127.0.0.1")
    try:
        assert all(await asyncio.gather(c.start(), a.start(), b.start()))
        async with asyncio.timeout(20):
            assert await founds[0].nodes.get() == (B, ("127.0.0.1:4102",))
            assert await founds[1].nodes.get() == (A, ("127.0.0.1:4101",))
        assert await a.refresh()
        assert all(found.nodes.empty() or found.nodes.get_nowait()[0] != C for found in founds)
        assert founds[2].nodes.empty()
    finally:
        await asyncio.gather(a.close(), b.close(), c.close())


async def test_a_network_without_multicast_is_no_error(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(discovery_module, "AsyncZeroconf", refuse)
    alone = Discovery(GROUP, A, 4104, Found())
    assert not await alone.start()
    assert not await alone.refresh()
    await alone.close()
    await alone.close()


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"group": group_hash(OTHER_GROUP), "node": B.hex()},
        {"group": group_hash(GROUP)},
        {"group": group_hash(GROUP), "node": "zz"},
        {"group": group_hash(GROUP), "node": b"\xff\xfe"},
        {"group": group_hash(GROUP), "node": "00ff"},
        {"group": group_hash(GROUP), "node": A.hex()},
    ],
    ids=["empty", "other-group", "no-node", "no-hex", "no-text", "short", "oneself"],
)
def test_strange_announcements_are_ignored(properties) -> None:
    info = AsyncServiceInfo(
        discovery_module.SERVICE_TYPE,
        f"x.{discovery_module.SERVICE_TYPE}",
        port=1,
        addresses=[bytes(4)],
        properties=properties,
    )
    assert Discovery(GROUP, A, 4105, Found())._node_of(info) is None


def test_a_groups_hash_does_not_give_its_id_away() -> None:
    assert group_hash(GROUP) != group_hash(OTHER_GROUP)
    assert GROUP.hex()[:16] not in group_hash(GROUP)
