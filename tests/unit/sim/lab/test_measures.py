"""Statistics, tables and figures of experiments."""

from __future__ import annotations

import builtins
import json
import math
from pathlib import Path
from typing import Any

import pytest

from colla.model.errors import CollaError
from colla.sim.lab import figures, statistics, tables


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # From the binomial distribution: R's binom.test(count, of).
        (0, 10, 0.0, 0.30849710781876),
        (10, 10, 0.69150289218124, 1.0),
        (5, 10, 0.187086028447396, 0.812913971552604),
        (81, 263, 0.2527, 0.3676),
        (1000, 1000, 0.9963179, 1.0),
        (999, 1000, 0.99444, 0.9999747),
    ],
)
def test_the_interval_of_a_share(count: int, of: int, low: float, high: float) -> None:
    found = statistics.share(count, of)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(("count", "of"), [(3, 40), (195, 200), (740, 740), (9_990, 10_000)])
def test_the_bounds_are_where_the_binomial_tails_say(count: int, of: int) -> None:
    found = statistics.share(count, of)

    def at_least(k: int, p: float) -> float:
        return math.fsum(
            math.exp(
                math.lgamma(of + 1)
                - math.lgamma(i + 1)
                - math.lgamma(of - i + 1)
                + i * math.log(p)
                + (of - i) * math.log1p(-p)
            )
            for i in range(k, of + 1)
        )

    assert at_least(count, found.low) == pytest.approx(0.025, rel=1e-6)
    if count < of:
        assert 1 - at_least(count + 1, found.high) == pytest.approx(0.025, rel=1e-6)


def test_of_nothing_nothing_is_known() -> None:
    found = statistics.share(0, 0)
    assert (found.low, found.high, found.text()) == (0.0, 1.0, "–")
    assert math.isnan(found.share)


def test_shares_near_one_are_not_rounded_up() -> None:
    assert statistics.percent(0.99999) == "99.99 %"
    assert statistics.percent(1.0) == "100 %"
    assert statistics.share(999, 1000).text() == "99.90 % (99.44–99.99)"


def test_quantiles() -> None:
    assert [statistics.quantile([4, 1, 3, 2], at) for at in (0.0, 0.25, 0.5, 0.99, 1.0)] == [1, 1, 2, 4, 4]


def test_a_table_in_all_forms(tmp_path: Path) -> None:
    table = tables.Table(
        "Shares", ("nodes", "share", "note"), ((20, 0.98765, "a,b"), (5, float("nan"), None))
    )
    tables.write_csv(tmp_path / "new" / "t.csv", table)
    tables.write_json(tmp_path / "t.json", table.builtins())
    assert (tmp_path / "new" / "t.csv").read_text() == 'nodes,share,note\n20,0.98765,"a,b"\n5,,\n'
    assert json.loads((tmp_path / "t.json").read_text())[1] == {"nodes": 5, "share": None, "note": None}
    assert table.markdown().splitlines()[2:] == ["| 20 | 0.988 | a,b |", "| 5 | – | – |"]


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with figures.figure(tmp_path / name) as (_, axes):
            axes.plot([1, 2, 3], [1, 4, 9], label="squares")
            axes.legend()
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CollaError) as raised, figures.figure(tmp_path / "x"):
        pass
    assert "pip install 'colla[lab]'" in raised.value.hint
