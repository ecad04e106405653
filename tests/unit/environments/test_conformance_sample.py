"""The service that an author gives `colla environment check`: wrong ones are told before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from colla.environments.conformance.__main__ import EX_USAGE, BadSample, main, sample_of


def test_a_sample(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, '{"command": ["./app"], "env": {"A": "b"}}')
    assert sample is not None
    assert (sample.folder, sample.config) == (tmp_path, {"command": ["./app"], "env": {"A": "b"}})
    assert sample_of(None, "") is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "not right"),
        ("[1]", "not right"),
        ('{"command": 3}', "command"),
        ('{"comand": ["./app"]}', "'comand' is nothing"),
        ('{"replica": "00"}', "'replica' is nothing"),
    ],
)
def test_a_config_that_is_not_right(tmp_path: Path, config: str, why: str) -> None:
    with pytest.raises(BadSample, match=why):
        sample_of(tmp_path, config)


def test_nothing_is_started_then(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = tmp_path / "started"
    assert main(["--artifact", str(tmp_path / "none"), "touch", str(started)]) == EX_USAGE
    assert main(["--config", "{}", "touch", str(started)]) == EX_USAGE
    assert not started.exists()
    assert "there is no folder" in capfd.readouterr().err
