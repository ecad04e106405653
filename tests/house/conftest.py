"""What the tests of the house share: where the project is, and its source as syntax trees."""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One Python file of the project: its path from the project's folder, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module


def read_sources(*folders: str) -> list[Source]:
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    texts = [(file, file.read_text("utf-8")) for file in files]
    return [Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text)) for file, text in texts]


def load(name: str) -> ModuleType:
    """A module of this folder that is no test; tests are no packages, so it cannot be imported by name."""
    spec = importlib.util.spec_from_file_location(f"house_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def purity() -> ModuleType:
    return load("support_purity")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def core_sources() -> list[Source]:
    """The pure core, from model to agents."""
    return read_sources(*(f"src/colla/{package}" for package in ("model", "kernel", "protocol", "agents")))


@pytest.fixture(scope="session")
def product_sources() -> list[Source]:
    """All that is shipped."""
    return read_sources("src")


@pytest.fixture(scope="session")
def all_sources() -> list[Source]:
    """All Python of the project."""
    return read_sources("src", "tests", "benchmarks", "tools")
