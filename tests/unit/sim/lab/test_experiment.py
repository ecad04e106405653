"""Experiments: resumed where they stopped, refused when they are others, in order whoever was faster."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from colla.model.errors import CollaError
from colla.sim.lab import experiment
from colla.sim.lab.experiment import Heading, Outcome, conduct


class Square(msgspec.Struct, frozen=True):
    number: int

    @property
    def key(self) -> str:
        return f"square/{self.number}"


class Product(msgspec.Struct, frozen=True):
    value: int


HEADING = Heading("squares", "1", {"base": 10})
RAN: list[int] = []
UNLUCKY = 999


def square(case: Square) -> Product:
    RAN.append(case.number)
    time.sleep(0.003 * (5 - case.number % 5))  # The later ones are ready sooner.
    if case.number == UNLUCKY:
        raise ArithmeticError("unlucky")
    return Product(case.number**2)


def cases(count: int) -> list[Square]:
    return [Square(number) for number in range(count)]


def run(count: int, path: Path | None = None, heading: Heading = HEADING, **options: object) -> Outcome:
    RAN.clear()
    with ThreadPoolExecutor(4) as pool:
        return conduct(cases(count), square, Product, heading, path=path, executor=pool, **options)


def test_results_come_in_the_order_of_the_cases() -> None:
    shown = []
    outcome = run(12, progress=lambda done, total: shown.append((done, total)))
    assert [result.value for _, result in outcome.results] == [number**2 for number in range(12)]
    assert outcome.complete
    assert shown == [(done, 12) for done in range(13)]


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert run(5, path).resumed == 0
    outcome = run(9, path)
    assert sorted(RAN) == [5, 6, 7, 8]
    assert outcome.resumed == 5
    assert outcome.results == run(9).results


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    run(5, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert run(5, path).resumed == 4
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        (Heading("squares", "2", {"base": 10}), "program 1 (now 2)"),
        (Heading("squares", "1", {"base": 12}), "base 10 (now 12)"),
        (Heading("cubes", "1", {"base": 10}), "experiment squares (now cubes)"),
        (Heading("squares", "1", {"base": 10, "more": True}), "more None (now True)"),
    ],
)
def test_results_of_another_experiment_are_refused(tmp_path: Path, heading: Heading, said: str) -> None:
    path = tmp_path / "results.jsonl"
    run(3, path)
    before = path.read_bytes()
    with pytest.raises(CollaError) as raised:
        run(3, path, heading)
    assert raised.value.code == "results_differ"
    assert said in raised.value.message
    assert path.read_bytes() == before


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear friend,\nhow are you?\n")
    with pytest.raises(CollaError) as raised:
        run(3, path)
    assert raised.value.code == "results_unreadable"
    assert path.read_text() == "Dear friend,\nhow are you?\n"


def test_nothing_begins_after_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    outcome = run(400, path, budget_s=0.05)
    assert outcome.missing > 0
    assert outcome.missing + len(outcome.results) == 400
    assert run(20, path).complete


def test_stopping_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    seen: list[int] = []
    outcome = run(
        400, path, on_result=lambda case, result: seen.append(case.number), stop=lambda: len(seen) >= 3
    )
    assert 3 <= len(outcome.results) < 400
    assert len(path.read_bytes().splitlines()) == 1 + len(outcome.results)


def test_a_case_that_fails_is_named() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(CollaError) as raised:
        conduct([Square(1), Square(UNLUCKY)], square, Product, HEADING, executor=pool)
    assert "square/999 failed: ArithmeticError: unlucky" in raised.value.message


def test_the_program_is_known_by_its_sources() -> None:
    version = experiment.program_version()
    assert version == experiment.program_version()
    assert version.startswith(f"{experiment.colla.__version__}+")
