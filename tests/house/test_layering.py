"""The layers of ARCHITECTURE.md hold, and the core is pure: it sees its arguments and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def test_imports_point_one_way(root: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    linted = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_core_does_not_look_at_the_world(core_sources: list[Any], purity: ModuleType) -> None:
    assert core_sources
    found = [f"{s.path}:{line}: {what}" for s in core_sources for line, what in purity.ambient_use(s.tree)]
    assert not found, "\n".join(found)


def test_the_core_iterates_over_no_set(core_sources: list[Any], purity: ModuleType) -> None:
    attributes = purity.set_attributes(source.tree for source in core_sources)
    found = [
        f"{source.path}:{line}: {what}"
        for source in core_sources
        for line, what in purity.set_iteration(source.tree, attributes)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio",
        "import os.path",
        "from time import monotonic",
        "from random import choice",
        "import random\nrandom.shuffle(x)",
        "rng = Random()",
        "from datetime import datetime\ndatetime.now()",
        "print(1)",
        "def f():\n    import socket",
    ],
)
def test_an_impure_line_is_found(purity: ModuleType, code: str) -> None:
    assert list(purity.ambient_use(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from random import Random",
        "rng.shuffle(x)",
        "Random(3)",
        "from urllib.parse import quote",
        "from colla.kernel.time import Instant",
    ],
)
def test_a_pure_line_is_left_alone(purity: ModuleType, code: str) -> None:
    assert not list(purity.ambient_use(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "for x in {1, 2}: pass",
        "s = set(y)\nz = [x for x in s]",
        "def f(s: frozenset[int]):\n    return list(s)",
        "def f(s: set[bytes]):\n    for x in s: pass",
        "for x in a.keys() & b.keys(): pass",
        "z = ','.join({x for x in y})",
        "s = set(y) - {1}\nf(*s)",
        "s: set[int] = g()\ns.pop()",
        "class C:\n    live: set[int]\n    def f(self):\n        return {x: 1 for x in self.live}",
    ],
)
def test_iteration_over_a_set_is_found(purity: ModuleType, code: str) -> None:
    tree = ast.parse(code)
    assert list(purity.set_iteration(tree, purity.set_attributes([tree])))


@pytest.mark.parametrize(
    "code",
    [
        "s = set(y)\nfor x in sorted(s): pass",
        "s = {1}\nz = any(x > 0 for x in s)",
        "s = {1}\nz = 1 in s",
        "for x in {'a': 1}: pass",
        "def f(d: dict[int, int]):\n    return list(d)",
        "s = {x for x in {1, 2}}",
    ],
)
def test_a_set_used_without_its_order_is_left_alone(purity: ModuleType, code: str) -> None:
    tree = ast.parse(code)
    assert not list(purity.set_iteration(tree, purity.set_attributes([tree])))
