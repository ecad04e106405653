"""Quarantine: a record that breaks whoever reads it costs its own matter only, never the node (decision 0021).

Views are made of many small readings: one service, one path, one message, one fact about the membership. Each goes through here. When a
reading raises, which is a fault of colla whatever the record holds, that matter is passed over as if its records were of an unknown
kind: they stay held, are handed on, and are read again when something changes or another version starts. People are
told once. A simulation takes such a notice for a violation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from colla.kernel.outbox import Outbox

T = TypeVar("T")
QUARANTINED = "record_quarantined"
"""The kind of the notice."""
TOLD_MAX = 256
"""Of more matters in quarantine nobody is told any more."""


class Quarantine:
    """See the module. Without an outbox there is nobody to tell: then faults are raised."""

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = outbox
        self._told: dict[tuple[str, bytes], None] = {}

    def read(self, what: str, subject: bytes, reading: Callable[[], T], otherwise: T) -> T:
        """What `reading` returns, or `otherwise` when it raises. `what` names the sort of matter to people."""
        try:
            return reading()
        except Exception as fault:
            if self._outbox is None:
                raise
            self._tell(self._outbox, what, subject, fault)
            return otherwise

    def _tell(self, outbox: Outbox, what: str, subject: bytes, fault: Exception) -> None:
        if (what, subject) in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told[what, subject] = None
        why = f"{type(fault).__name__}: {fault}"[:200]
        text = f"Records about {what} {subject.hex()[:10]} are passed over, since colla fails to read them ({why})."
        outbox.notify("record_quarantined", text)


NO_QUARANTINE = Quarantine()
