"""Gives tests the laboratory of `support_records`, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SUPPORT = Path(__file__).parents[1] / "unit/protocol/support_records.py"


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """The module `support_records`."""
    if "support_records" not in sys.modules:
        spec = importlib.util.spec_from_file_location("support_records", SUPPORT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["support_records"] = module
        spec.loader.exec_module(module)
    return sys.modules["support_records"]
