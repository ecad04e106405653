"""Which objects are on this node's disk. Restored by the shell at the start, kept by the events of objects."""

from __future__ import annotations

from collections.abc import Iterable

from colla.model.ids import ObjectId


class Holdings:
    """Object ids with their sizes in bytes. The one writer is the router; agents read it as `HoldingsView`.

    `remnants` are objects of which a part is here: a fetch did not end, or a chunk was found damaged.
    """

    def __init__(self, held: Iterable[tuple[ObjectId, int]], remnants: Iterable[ObjectId] = ()) -> None:
        self._sizes: dict[ObjectId, int] = dict(held)
        self._remnants: dict[ObjectId, None] = dict.fromkeys(remnants)

    def holds(self, wanted: ObjectId) -> bool:
        return wanted in self._sizes

    def held(self) -> tuple[ObjectId, ...]:
        """All ids, sorted."""
        return tuple(sorted(self._sizes))

    def remnants(self) -> tuple[ObjectId, ...]:
        """Objects that are here in part, sorted."""
        return tuple(sorted(self._remnants))

    def size(self, wanted: ObjectId) -> int:
        """The length of a held object's content in bytes; 0 when it is not held."""
        return self._sizes.get(wanted, 0)

    def bytes_held(self) -> int:
        """The sum of the sizes (shared chunks count once per object: an upper bound)."""
        return sum(self._sizes.values())

    def add(self, object_id: ObjectId, size_bytes: int) -> None:
        self._remnants.pop(object_id, None)
        self._sizes[object_id] = max(size_bytes, self._sizes.get(object_id, 0))

    def remove(self, object_id: ObjectId) -> None:
        """Nothing of it is here any more."""
        self._remnants.pop(object_id, None)
        self._sizes.pop(object_id, None)

    def broke(self, object_id: ObjectId) -> None:
        """Not all of it is here (any more), but something may be."""
        self._sizes.pop(object_id, None)
        self._remnants[object_id] = None
