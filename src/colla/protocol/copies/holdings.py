"""Which objects are on this node's disk. Restored by the shell at the start, kept by the events of objects."""

from __future__ import annotations

from collections.abc import Iterable

from colla.model.ids import ObjectId


class Holdings:
    """Object ids with their sizes in bytes. The one writer is the router; agents read it as `HoldingsView`."""

    def __init__(self, held: Iterable[tuple[ObjectId, int]]) -> None:
        self._sizes: dict[ObjectId, int] = dict(held)

    def holds(self, wanted: ObjectId) -> bool:
        return wanted in self._sizes

    def held(self) -> tuple[ObjectId, ...]:
        """All ids, sorted."""
        return tuple(sorted(self._sizes))

    def bytes_held(self) -> int:
        """The sum of the sizes (shared chunks count once per object: an upper bound)."""
        return sum(self._sizes.values())

    def add(self, object_id: ObjectId, size_bytes: int) -> None:
        self._sizes[object_id] = max(size_bytes, self._sizes.get(object_id, 0))

    def remove(self, object_id: ObjectId) -> None:
        self._sizes.pop(object_id, None)
