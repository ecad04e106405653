"""`colla simulate chaos` and `run`: results that can be gone on with, stories, reducing, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colla.cli.app import app
from colla.sim.scenario.compose import compose
from colla.sim.scenario.scenario import load_scenario

RUNNER = CliRunner()
HASTY = """
nodes = 2
services = [{ name = "web", replicas = 2 }]
ends_s = 8.0
consistent_within_s = 0.0
acts = [
    { act = "power-off", at_s = 1.0, node = "n1" },
    { act = "kill", at_s = 2.0, node = "n0", lasts_s = 0.5 },
]
"""


def test_many_seeds_once_and_again(tmp_path: Path) -> None:
    asked = ["simulate", "chaos", "--seed", "9000", "--out", str(tmp_path), "-j", "1", "--json"]
    first = RUNNER.invoke(app, [*asked, "--count", "1"])
    assert first.exit_code == 0, first.output
    again = RUNNER.invoke(app, [*asked, "--count", "2"])
    assert again.exit_code == 0, again.output
    rows = json.loads(again.stdout)["chaos"]
    assert [(row["election"], row["seeds"], row["violations"]) for row in rows] == [
        ("hashing", 1, 0),
        ("contention", 1, 0),
        ("both", 2, 0),
    ]
    assert json.loads(first.stdout)["chaos"][0] == rows[0], "the first seed was not run again"
    kept = (tmp_path / "chaos.jsonl").read_text().splitlines()
    assert len(kept) == 3 and json.loads(kept[1])["key"] == "9000"
    assert (tmp_path / "summary.csv").read_text().startswith("election,seeds,")


def test_one_scenario_and_its_story(tmp_path: Path) -> None:
    saved = tmp_path / "9001.toml"
    wrote = RUNNER.invoke(app, ["simulate", "run", "--seed", "9001", "--save", str(saved)])
    assert wrote.exit_code == 0, wrote.output
    assert load_scenario(saved) == compose(9001)
    by_seed = RUNNER.invoke(app, ["simulate", "run", "--seed", "9001"])
    by_file = RUNNER.invoke(app, ["simulate", "run", str(saved), "--seed", "9001"])
    assert by_seed.exit_code == by_file.exit_code == 0
    assert by_seed.stdout == by_file.stdout
    assert "Consistent " in by_seed.stdout and "Trace " in by_seed.stdout


def test_a_failure_is_told_and_reduced(tmp_path: Path) -> None:
    file, small = tmp_path / "hasty.toml", tmp_path / "small.toml"
    file.write_text(HASTY)
    failed = RUNNER.invoke(app, ["simulate", "run", str(file), "--seed", "3", "--shrink", str(small)])
    assert failed.exit_code == 1
    for part in (f"replay: colla simulate run {file} --seed 3", "--- what happened", "power-off node=n1"):
        assert part in failed.stdout
    assert len(load_scenario(small).acts) < 2
    assert "It fails with: colla simulate run" in failed.stderr


@pytest.mark.parametrize("election", ["hashing", "contention"])
def test_another_election_than_the_scenarios(tmp_path: Path, election: str) -> None:
    file = tmp_path / "hasty.toml"
    file.write_text(HASTY)
    failed = RUNNER.invoke(app, ["simulate", "run", str(file), "--seed", "3", "--election", election])
    assert failed.exit_code == 1
    assert f"replay: colla simulate run {file} --seed 3 --election {election}" in failed.stdout
    assert ('election = "contention"' in failed.stdout) == (election == "contention"), (
        "hashing is the default"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [("acts = [{ act = 'kil', at_s = 1 }]", "Invalid value 'kil'"), ("nodes = = 2", "line 1")],
)
def test_errors_name_the_file_and_the_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    refused = RUNNER.invoke(app, ["simulate", "run", str(file)])
    assert refused.exit_code == 1
    assert str(file) in refused.stderr.replace("\n", "") and said in refused.stderr


def test_a_file_that_is_not_there() -> None:
    assert RUNNER.invoke(app, ["simulate", "run", "no-such-file.toml"]).exit_code == 4
