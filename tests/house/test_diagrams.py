"""Tables of transitions are read as they stand, and a line that is none is named."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

TABLE = """What it does.

Transitions of one thing:

    -          it begins, with care   -> early, late  by chance
    early      `Tick`                 -> late
    early      `Tock`: twice          -> late
    late       over                   -> -

Invariants: none.
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    return importlib.import_module("diagrams")


def test_a_table_is_read(tool: ModuleType) -> None:
    (machine,) = tool.machines_of("part/thing", TABLE)
    assert machine.what == "one thing" and machine.states == ("early", "late")
    assert [(one.before, one.after, one.remark) for one in machine.transitions] == [
        ("-", "early", "by chance"),
        ("-", "late", "by chance"),
        ("early", "late", ""),
        ("early", "late", ""),
        ("late", "-", ""),
    ]
    assert tool.mermaid(machine).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> early: it begins, with care",
        "    [*] --> late: it begins, with care",
        "    early --> late: Tick / Tock – twice",
        "    late --> [*]: over",
    ]


@pytest.mark.parametrize(
    "line", ["    early  Tick", "    Early bird  Tick  -> late", "    early  Tick  -> the other one"]
)
def test_what_is_no_transition_is_named(tool: ModuleType, line: str) -> None:
    with pytest.raises(tool.BadTable, match="part/thing"):
        tool.machines_of("part/thing", f"It.\n\nTransitions of one thing:\n\n{line}\n")


def test_every_mechanism_with_transitions_has_a_diagram(tool: ModuleType) -> None:
    protocol = tool.PROTOCOL
    told = [
        str(path.relative_to(protocol).with_suffix(""))
        for path in sorted(protocol.rglob("*.py"))
        if "ransitions of " in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    ]
    assert [machine.module for machine in tool.machines()] == told
    assert "running/replicas" in told and "election/candidacy" in told
