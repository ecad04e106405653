"""What a node finds on its disk when it starts: the only thing that survives a crash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec

from colla.kernel.effects import DropCell, DropRecord, StoreCell, StoreRecord, Write
from colla.model.record import SignedRecord


class Durable(msgspec.Struct):
    """Records by (topic, slot) and cells by name. The naive twin of every store: `apply` is their contract."""

    records: dict[tuple[str, bytes], SignedRecord] = {}
    cells: dict[str, bytes] = {}

    def apply(self, writes: Iterable[Write]) -> None:
        """Carry out the writes in order."""
        for write in writes:
            match write:
                case StoreRecord(topic=topic, slot=slot, record=record):
                    self.records[topic, slot] = record
                case DropRecord(topic=topic, slot=slot):
                    self.records.pop((topic, slot), None)
                case StoreCell(name=name, value=value):
                    self.cells[name] = value
                case DropCell(name=name):
                    self.cells.pop(name, None)
                case _:
                    assert_never(write)
