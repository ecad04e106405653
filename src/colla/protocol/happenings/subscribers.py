"""Durable cursors: up to which place of the journal each subscriber of this node has taken the events.

A subscriber is a name that a program chooses. It begins at the end (or, if it asks, with all that is still kept), and
goes on where it was for as long as it is not forgotten. A cursor moves only when the program says that it has taken
what it got: a program that crashes before gets it again.
"""

from __future__ import annotations

from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell
from colla.kernel.outbox import Outbox
from colla.model.errors import CollaError

CELL_PREFIX = "subscriber/"
PLACE_BYTES = 8
NAME_CHARS_MAX = 64


class Subscribers:
    """The cursors of all subscribers."""

    def __init__(self, subscribers_max: int, outbox: Outbox, durable: Durable) -> None:
        self._subscribers_max = subscribers_max
        self._outbox = outbox
        self._places: dict[str, int] = {
            name.removeprefix(CELL_PREFIX): int.from_bytes(durable.cells[name])
            for name in sorted(durable.cells)
            if name.startswith(CELL_PREFIX)
        }

    def all(self) -> dict[str, int]:
        """Every subscriber and its place."""
        return dict(self._places)

    @property
    def greatest(self) -> int:
        """The greatest place of any cursor; 0 when there is none."""
        return max(self._places.values(), default=0)

    def place(self, name: str, first: int) -> int:
        """Where the subscriber goes on; a new one begins behind `first`.

        Raises `CollaError`: `bad_subscriber` for a name that cannot be, `busy` when there are too many.
        """
        known = self._places.get(name)
        if known is not None:
            return known
        if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise CollaError(
                "bad_subscriber",
                "The name of a subscriber has 1 to 64 printable characters.",
                "Choose one that stays the same whenever your program runs.",
            )
        if len(self._places) >= self._subscribers_max:
            raise CollaError(
                "busy",
                "This computer has too many subscribers.",
                "Forget those that no program uses any more.",
            )
        self._put(name, first)
        return first

    def taken(self, name: str, place: int, last: int) -> int:
        """The subscriber has taken everything up to that place; returns where it stands. A cursor never goes back.

        Raises `CollaError("not_found")`.
        """
        known = self._known(name)
        if known < place <= last:
            self._put(name, place)
        return self._places[name]

    def forget(self, name: str) -> None:
        """Drop the cursor. Raises `CollaError("not_found")`."""
        self._known(name)
        del self._places[name]
        self._outbox.persist(DropCell(CELL_PREFIX + name))

    def _known(self, name: str) -> int:
        if name not in self._places:
            raise CollaError("not_found", f"There is no subscriber called {name!r} on this computer.")
        return self._places[name]

    def _put(self, name: str, place: int) -> None:
        self._places[name] = place
        self._outbox.persist(StoreCell(CELL_PREFIX + name, place.to_bytes(PLACE_BYTES)))
