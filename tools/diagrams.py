"""State diagrams of the mechanisms, from the tables of transitions that their modules begin with.

A table stands in a module's docstring under `Transitions of …:`, one transition a line, columns set apart by two
spaces or more: the states it leads from, what happens, `->`, the states it leads to, a remark. `-` means that the thing
does not exist. `tests/scenarios/test_state_machines.py` holds the running code to these tables; `reference.py` puts
the diagrams onto docs/reference/state-machines.md.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = ROOT / "src" / "colla" / "protocol"
TITLE = re.compile(r"^(?:.*: )?[Tt]ransitions of (?P<what>.+):$")
ROW = re.compile(
    r"^ {4}(?P<before>\S.*?) {2,}(?P<event>\S.*?) *-> (?P<after>\S.*?)(?: {2,}(?P<remark>\S.*))?$"
)
NOTHING = "-"


class BadTable(Exception):
    """A table of transitions cannot be read; the text says where."""


@dataclass(frozen=True)
class Transition:
    """One line of a table, for one pair of states."""

    before: str
    event: str
    after: str
    remark: str


@dataclass(frozen=True)
class Machine:
    """One table. `module` is its file below `src/colla/protocol`, without the ending."""

    module: str
    what: str
    summary: str
    transitions: tuple[Transition, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """All named states, in the order of the table."""
        named = [state for one in self.transitions for state in (one.before, one.after)]
        return tuple(dict.fromkeys(state for state in named if state != NOTHING))


def machines() -> list[Machine]:
    """All tables, sorted by module. Raises `BadTable`."""
    found: list[Machine] = []
    for path in sorted(PROTOCOL.rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        found += machines_of(str(path.relative_to(PROTOCOL).with_suffix("")), doc)
    return found


def machines_of(module: str, doc: str) -> list[Machine]:
    """The tables of one docstring. Raises `BadTable`."""
    found: list[Machine] = []
    lines = iter(doc.splitlines())
    for line in lines:
        title = TITLE.match(line)
        if title is None:
            continue
        next(lines, None)
        transitions: list[Transition] = []
        for row in lines:
            if not row.strip():
                break
            transitions += _transitions(module, row)
        found.append(Machine(module, title["what"], doc.splitlines()[0], tuple(transitions)))
    return found


def _transitions(module: str, row: str) -> list[Transition]:
    parts = ROW.match(row)
    if parts is None:
        raise BadTable(f"{module}: not a transition: {row.strip()!r}")
    states = []
    for column in ("before", "after"):
        names = [name.strip() for name in parts[column].split(",")]
        if not all(re.fullmatch(r"-|[a-z]+", name) for name in names):
            raise BadTable(f"{module}: {parts[column]!r} are no states, in {row.strip()!r}")
        states.append(names)
    return [
        Transition(before, parts["event"], after, parts["remark"] or "")
        for before in states[0]
        for after in states[1]
    ]


# -- Mermaid --------------------------------------------------------------------------------------------------


def mermaid(machine: Machine) -> str:
    """The machine as a Mermaid state diagram; what happens between the same two states shares an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for one in machine.transitions:
        if one.before == one.after == NOTHING:
            continue
        events = arrows.setdefault((one.before, one.after), [])
        if one.event not in events:
            events.append(one.event)
    lines = ["stateDiagram-v2"]
    for (before, after), events in arrows.items():
        text = "; ".join(events).replace("`", "").replace(":", " –")
        # Mermaid ends a statement at a semicolon.
        lines.append(f"    {_node(before)} --> {_node(after)}: {text.replace('; ', ' / ')}")
    return "\n".join(lines)


def _node(state: str) -> str:
    return "[*]" if state == NOTHING else state


def state_machines() -> str:
    """All diagrams, with the remarks of their tables."""
    parts: list[str] = []
    for machine in machines():
        parts.append(f"## {machine.what[0].upper()}{machine.what[1:]}\n")
        parts.append(f"{machine.summary} In `protocol/{machine.module}.py`.\n")
        parts.append(f"```mermaid\n{mermaid(machine)}\n```\n")
        rows = [
            f"| {one.before} | {one.event} | {one.after} | {one.remark} |".replace("| - |", "| – |")
            for one in machine.transitions
        ]
        parts.append("| from | when | to | |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
