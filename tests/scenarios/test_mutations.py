"""The checkers catch mechanisms that were broken on purpose, and pass the same scenes when nothing is broken.

A mutation that nobody notices would mean that a real fault of its kind could go unnoticed in thousands of runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

SCENES = {(mutation.plays, seed): None for mutation in MUTATIONS for seed in mutation.seeds}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_checkers_catch(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation.breaks(monkeypatch)
    with pytest.raises(AssertionError, match=mutation.caught_by):
        for seed in mutation.seeds:
            mutation.plays(seed)


@pytest.mark.parametrize(("scene", "seed"), SCENES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_nothing_is_caught_when_nothing_is_broken(scene, seed) -> None:
    scene(seed)


def test_the_documentation_lists_them_all() -> None:
    page = Path(__file__).parents[2] / "docs/explanation/validation.md"
    rows = [line.split(" | ") for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    listed = {cells[0].removeprefix("| "): cells for cells in rows if len(cells) == 3}
    for mutation in MUTATIONS:
        cells = listed[mutation.name[0].upper() + mutation.name[1:]]
        how = cells[2].removesuffix(" |")
        assert f"{cells[1]}: {how[0].lower()}{how[1:]}" == mutation.means
