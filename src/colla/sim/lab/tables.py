"""Tables of what was measured: as CSV for spreadsheets, as JSON for programs, as plain lines for people and documents."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

Cell = str | int | float | None


class Table(msgspec.Struct, frozen=True):
    """Rows under columns. Units stand in the names of the columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def cells(self) -> list[list[str]]:
        """All rows as a person reads them."""
        return [[cell_text(cell) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """As a table of Markdown, for documents."""
        lines = [self.columns, ("---",) * len(self.columns), *self.cells()]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """As CSV, with the numbers as they are; nothing stands where there is no number."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if _missing(cell) else cell for cell in row] for row in self.rows)
        return out.getvalue()

    def builtins(self) -> list[dict[str, Cell]]:
        """One object per row, for JSON."""
        return [
            {name: None if _missing(cell) else cell for name, cell in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]


def cell_text(cell: Cell) -> str:
    """Three significant digits are what measurements are good for; counts are exact."""
    if _missing(cell):
        return "–"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return str(cell)


def _missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def write_csv(path: Path, table: Table) -> None:
    """Write a table; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.csv(), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write any struct or builtin, for programs; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def joined(tables: Sequence[Table]) -> str:
    """Several tables as one document."""
    return "\n".join(f"### {table.title}\n\n{table.markdown()}" for table in tables)
