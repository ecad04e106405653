"""A computer in several groups: which they are, and that a command has to say which one it means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import Result

Colla = Callable[..., Result]


def test_groups_are_listed_whether_their_nodes_run_or_not(colla: Colla, node: Any, home: Path) -> None:
    (home / "choir").mkdir()
    (home / "choir" / "settings.toml").write_text("")
    rows = [line.split("\t") for line in colla("group", "list").stdout.splitlines()]
    assert [row[:2] for row in rows] == [["choir", "stopped"], ["club", "running"]]
    assert rows[1][2] == "nas" and rows[1][4].startswith("http://NAME.localhost:")
    found = json.loads(colla("group", "list", "--json").stdout)
    assert [(each["name"], each["running"]) for each in found] == [("choir", False), ("club", True)]


def test_a_command_says_which_group_it_means(colla: Colla, node: Any, home: Path) -> None:
    (home / "choir").mkdir()
    (home / "choir" / "settings.toml").write_text("")
    result = colla("members")
    assert result.exit_code == 2 and "--group" in result.stderr
    assert colla("nodes", "--group", "club").exit_code == 0
