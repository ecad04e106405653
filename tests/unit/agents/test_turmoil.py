"""After random faults and changes, and then peace, there is one master, the right number, and nothing else runs.

More histories than these are run by hand before a release: `--run-long` plays a thousand.
"""

from __future__ import annotations

from types import ModuleType

import pytest


def play(turmoil: ModuleType, election: str, seed: int, loss: float) -> None:
    history = turmoil.Turmoil(election, seed, loss)
    complaints = history.play()
    assert not complaints, f"{complaints}\n{history.log}\n{history.group.tell()}"


@pytest.mark.parametrize("election", ["hashing", "contention"])
@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(10))
def test_peace_after_turmoil(turmoil: ModuleType, election: str, seed: int, loss: float) -> None:
    play(turmoil, election, seed, loss)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("election", ["hashing", "contention"])
def test_peace_after_much_turmoil(turmoil: ModuleType, election: str) -> None:
    for seed in range(1000, 1500):
        play(turmoil, election, seed, (seed % 3) * 0.05)


def test_the_same_seed_gives_the_same_history(turmoil: ModuleType) -> None:
    histories = []
    for _ in range(2):
        history = turmoil.Turmoil("contention", 5, 0.05)
        history.play()
        histories.append((history.group.notices, history.group.sent))
    assert histories[0] == histories[1]
