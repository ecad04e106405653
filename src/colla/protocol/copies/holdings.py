"""Which objects are on this node's disk. Restored by the shell at the start, kept by the events of objects."""

from __future__ import annotations

from collections.abc import Iterable

from colla.model.ids import ObjectId


class Holdings:
    """Object ids with their sizes in bytes. The one writer is the router; agents read it as `HoldingsView`.

    `remnants` are objects of which a part is here: a fetch did not end, or a chunk was found damaged. *Own* objects are
    here because somebody put or got them here: they take nothing of what the owner gives to the group, until the
    group counts on them. After a start all that is here counts as given.
    """

    def __init__(self, held: Iterable[tuple[ObjectId, int]], remnants: Iterable[ObjectId] = ()) -> None:
        self._sizes: dict[ObjectId, int] = dict(held)
        self._remnants: dict[ObjectId, None] = dict.fromkeys(remnants)
        self._own: dict[ObjectId, None] = {}

    def holds(self, wanted: ObjectId) -> bool:
        return wanted in self._sizes

    def held(self) -> tuple[ObjectId, ...]:
        """All ids, sorted."""
        return tuple(sorted(self._sizes))

    def remnants(self) -> tuple[ObjectId, ...]:
        """Objects that are here in part, sorted."""
        return tuple(sorted(self._remnants))

    def bytes_given(self) -> int:
        """What the objects take of what the owner gives (shared chunks count once per object: an upper bound)."""
        return sum(size for held, size in self._sizes.items() if held not in self._own)

    def claim(self, object_id: ObjectId, given_bytes: int) -> bool:
        """Let a held object count as kept for the group, if that fits `given_bytes`; whether it does."""
        if object_id not in self._sizes:
            return False
        if object_id in self._own and self.bytes_given() + self._sizes[object_id] <= given_bytes:
            del self._own[object_id]
        return object_id not in self._own

    def add(self, object_id: ObjectId, size_bytes: int, *, own: bool = False) -> None:
        """All of the object is here."""
        if not own:
            self._own.pop(object_id, None)
        elif object_id not in self._sizes:
            self._own[object_id] = None
        self._remnants.pop(object_id, None)
        self._sizes[object_id] = max(size_bytes, self._sizes.get(object_id, 0))

    def remove(self, object_id: ObjectId) -> None:
        """Nothing of it is here any more."""
        self._own.pop(object_id, None)
        self._remnants.pop(object_id, None)
        self._sizes.pop(object_id, None)

    def broke(self, object_id: ObjectId) -> None:
        """Not all of it is here (any more), but something may be."""
        self._sizes.pop(object_id, None)
        self._remnants[object_id] = None
