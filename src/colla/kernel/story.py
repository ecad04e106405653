"""A bounded memory of what a node just went through, told when a promise is broken (after dask's stories)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from colla.kernel.effects import Effect
from colla.kernel.events import Event
from colla.kernel.time import Instant


class Story:
    """The last steps of a node: the event, when it came, and the effects that followed."""

    def __init__(self, entries_max: int) -> None:
        self._entries: deque[tuple[float, Event, tuple[Effect, ...]]] = deque(maxlen=entries_max)

    def add(self, now: Instant, event: Event, effects: Iterable[Effect]) -> None:
        self._entries.append((now.boot_s, event, tuple(effects)))

    def tell(self) -> str:
        """The story as text, oldest step first."""
        lines: list[str] = []
        for at_s, event, effects in self._entries:
            lines.append(f"{at_s:.3f} {event!r}")
            lines.extend(f"      -> {effect!r}" for effect in effects)
        return "\n".join(lines)
