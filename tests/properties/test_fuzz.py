"""Inputs that fuzzing learnt are fed again, and mutations of them. `python -m fuzz` finds new ones (folder `fuzz`)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
MUTATIONS = 200


@pytest.fixture(scope="module")
def targets() -> Any:
    sys.path.insert(0, str(FUZZ))
    try:
        return importlib.import_module("_targets").TARGETS
    finally:
        sys.path.remove(str(FUZZ))


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]


def mutated(data: bytes, other: bytes, rng: Random) -> bytes:
    """A few bytes changed, taken away, or taken from another input."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(3):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case _:
                begin = rng.randrange(len(other) + 1)
                changed[at : at + 4] = other[begin : begin + 8]
    return bytes(changed)


@pytest.mark.parametrize("name", sorted(path.name for path in (FUZZ / "corpus").iterdir()))
def test_no_bytes_break_what_reads_them(name: str, targets: Any) -> None:
    feed = targets[name].make()
    inputs = corpus(name)
    for data in inputs:
        feed(data)
    rng = Random(1)
    for _ in range(MUTATIONS):
        feed(mutated(rng.choice(inputs), rng.choice(inputs), rng))


def test_every_target_has_a_corpus(targets: Any) -> None:
    assert sorted(targets) == sorted(path.name for path in (FUZZ / "corpus").iterdir())
