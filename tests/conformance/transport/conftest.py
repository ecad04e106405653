"""Fixtures for what every provider of links must do. Each provider is one parameter of `provider`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from colla.model.keys import SecretKey
from colla.node.links import Links
from colla.node.links.iroh_links import IrohLinks


def _support() -> ModuleType:
    name = "support_recorder"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class Node(NamedTuple):
    """The links of one node under test and what they reported."""

    links: Links
    heard: Any
    address: tuple[str, ...]

    @property
    def id(self) -> Any:
        return self.links.node_id


Bind = Callable[..., Awaitable[Node]]


async def bind_iroh(seed: int, port: int = 0) -> Node:
    heard = _support().Recorder()
    links = await IrohLinks.bind(
        SecretKey(bytes([seed]) * 32), port, b"colla/test", heard, bind_host="127.0.0.1"
    )
    return Node(links, heard, (f"127.0.0.1:{links.port}",))


PROVIDERS: dict[str, Bind] = {"iroh": bind_iroh}


@pytest.fixture(params=sorted(PROVIDERS))
async def bind(request: pytest.FixtureRequest) -> AsyncIterator[Bind]:
    """`await bind(seed, port=0)` makes a node; all are closed at the end."""
    provider = PROVIDERS[request.param]
    nodes: list[Node] = []

    async def make(seed: int, port: int = 0) -> Node:
        nodes.append(await provider(seed, port))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.links.close()


@pytest.fixture
async def pair(bind: Bind) -> tuple[Node, Node]:
    """Two nodes that accept each other and are linked."""
    a, b = await bind(1), await bind(2)
    befriend(a, b)
    assert await a.links.dial(b.id, b.address)
    await b.heard.until(lambda: a.id in b.heard.up)
    return a, b


def befriend(*nodes: Node) -> None:
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.links.set_accepted(other.id, True)


@pytest.fixture(name="befriend")
def befriend_fixture() -> Callable[..., None]:
    return befriend
