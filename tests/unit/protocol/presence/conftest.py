"""Gives the tests the network of `support_presence`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUPPORT = Path(__file__).with_name("support_presence.py")


def load_support() -> ModuleType:
    name = "support_presence"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SUPPORT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def network() -> Any:
    """The class `Network`; `network(30, loss=0.05)` makes one."""
    return load_support().Network
