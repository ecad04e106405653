"""Gives tests the mini group of `support_group`, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SUPPORT = Path(__file__).with_name("support_group.py")


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """The module `support_group`."""
    if "support_group" not in sys.modules:
        spec = importlib.util.spec_from_file_location("support_group", SUPPORT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["support_group"] = module
        spec.loader.exec_module(module)
    return sys.modules["support_group"]
