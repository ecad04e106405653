"""Fixtures for tests of links as iroh provides them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest

from colla.model.keys import SecretKey
from colla.node.links.iroh_links import IrohLinks

CONFORMANCE = Path(__file__).parents[3] / "conformance" / "transport"


def _support() -> ModuleType:
    name = "support_recorder"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CONFORMANCE / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
async def bind() -> AsyncIterator:
    """`await bind(seed, port=0, host="127.0.0.1", alpn=…)` gives (links, recorder); all are closed at the end."""
    bound: list[IrohLinks] = []

    async def make(seed: int, port: int = 0, host: str = "127.0.0.1", alpn: bytes = b"colla/test"):
        heard = _support().Recorder()
        links = await IrohLinks.bind(SecretKey(bytes([seed]) * 32), port, alpn, heard, bind_host=host)
        bound.append(links)
        return links, heard

    yield make
    for links in bound:
        await links.close()
