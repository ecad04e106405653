"""Absences and arrivals that wait for the next periodic look, where nothing is done at once (`ElectionConfig.on_events`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colla.model.ids import NodeId


class Unseen:
    """Who came and went since the last look, where presence is not acted upon at once."""

    def __init__(self) -> None:
        self._appeared: dict[NodeId, None] = {}
        self._gone: dict[NodeId, None] = {}

    def note(self, appeared: Sequence[NodeId], gone: Sequence[NodeId]) -> None:
        self._appeared.update(dict.fromkeys(appeared))
        self._gone.update(dict.fromkeys(gone))

    def take(self, present: Callable[[NodeId], bool]) -> tuple[list[NodeId], list[NodeId]]:
        """Who came and is here, and who went (a node may have done both); none of it is told again."""
        appeared = [node for node in self._appeared if present(node)]
        gone = list(self._gone)
        self._appeared.clear()
        self._gone.clear()
        return appeared, gone
