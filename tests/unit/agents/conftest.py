"""Gives tests the mini group of `support_group`, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(name: str) -> ModuleType:
    """A module of this folder that is no test; tests are no packages, so it cannot be imported by name."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """The module `support_group`."""
    load("support_node")
    return load("support_group")


@pytest.fixture(scope="session")
def turmoil(lab: ModuleType) -> ModuleType:
    """The module `support_turmoil`."""
    return load("support_turmoil")
