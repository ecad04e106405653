"""What is written so that the node starts with the computer. Nothing of it is run."""

from __future__ import annotations

import plistlib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from colla.cli.autostart import plan_autostart

FOLDER = Path("/home/ana/my data/club")


def test_a_systemd_unit() -> None:
    plan = plan_autostart("linux", Path("/home/ana"), FOLDER, "/opt/50%/python")
    assert plan is not None
    ((path, content),) = plan.files.items()
    assert path == "/home/ana/.config/systemd/user/colla-club.service"
    lines = content.decode().splitlines()
    assert 'ExecStart=/opt/50%%/python -m colla up --home "/home/ana/my data" --group club' in lines
    assert "Restart=on-failure" in lines and "WantedBy=default.target" in lines
    assert plan.links == {"/home/ana/.config/systemd/user/default.target.wants/colla-club.service": path}


def test_a_launchd_agent() -> None:
    plan = plan_autostart("darwin", Path("/Users/ana"), FOLDER, "/usr/bin/python3")
    assert plan is not None
    ((path, content),) = plan.files.items()
    assert path == "/Users/ana/Library/LaunchAgents/org.colla.club.plist"
    read = plistlib.loads(content)
    assert (
        read["ProgramArguments"][-4:] == ["--home", "/home/ana/my data", "--group", "club"]
        and read["RunAtLoad"]
    )


def test_another_system_is_told_what_to_run() -> None:
    assert plan_autostart("win32", Path("C:/"), FOLDER, "python") is None


def test_files_are_written_and_removed(
    colla: Callable[..., Result], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    unit = tmp_path / ".config/systemd/user/colla-club.service"
    link = tmp_path / ".config/systemd/user/default.target.wants/colla-club.service"
    for _ in range(2):
        assert colla("autostart").exit_code == 0
    assert str(home) in unit.read_text() and link.resolve() == unit
    assert colla("autostart", "--remove").exit_code == 0
    assert not unit.exists() and not link.is_symlink()
    assert colla("autostart", "--remove").exit_code == 0


def test_on_another_system_the_command_says_so(
    colla: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    result = colla("autostart")
    assert result.exit_code == 1 and "-m colla up" in result.stderr


def test_in_several_groups_all_start_unless_one_is_named(
    colla: Callable[..., Result], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    (home / "choir").mkdir()
    (home / "choir" / "settings.toml").write_text("")
    units = tmp_path / ".config/systemd/user"
    assert colla("autostart", "--group", "choir").exit_code == 0
    assert [path.name for path in units.glob("*.service")] == ["colla-choir.service"]
    assert colla("autostart").exit_code == 0
    assert sorted(path.name for path in units.glob("*.service")) == [
        "colla-choir.service",
        "colla-club.service",
    ]
    assert colla("autostart", "--remove").exit_code == 0
    assert not list(units.glob("*.service"))
