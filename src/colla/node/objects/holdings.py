"""What the store holds, in memory: chunks present, objects, and which chunk is needed by how many.

Plain bookkeeping with no input or output; `Shelf` calls it under its lock and rebuilds it from the disk at
every start. Invariant: `needed[chunk]` is the number of objects that name the chunk plus the number of puts,
reads and fetches under way that do; a chunk may be removed only when it is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from colla.model.ids import ObjectId
from colla.model.manifest import BadManifest, Chunk, ChunkId


@dataclass(slots=True)
class Holding:
    """One object on this disk. `chunks` has what is known to belong to it, its manifests
    included; `learned` tells that this is all of it."""

    object: ObjectId
    complete: bool
    stored_at_s: float
    size: int = 0
    files: int = 0
    learned: bool = False
    chunks: dict[ChunkId, int] = field(default_factory=dict)


class Holdings:
    """Chunks by id with their length on disk, objects by id, and the count of who needs each chunk."""

    def __init__(self) -> None:
        self.present: dict[ChunkId, int] = {}
        self.present_bytes = 0
        self.objects: dict[ObjectId, Holding] = {}
        self.needed: dict[ChunkId, int] = {}

    def add_present(self, chunk: ChunkId, size: int) -> None:
        """The chunk's file exists; counts once."""
        self.present_bytes += size - self.present.get(chunk, 0)
        self.present[chunk] = size

    def remove_present(self, chunk: ChunkId) -> None:
        """The chunk's file is gone."""
        self.present_bytes -= self.present.pop(chunk, 0)

    def need(self, chunk: ChunkId) -> None:
        """One more needs the chunk."""
        self.needed[chunk] = self.needed.get(chunk, 0) + 1

    def release(self, chunk: ChunkId) -> bool:
        """One fewer needs the chunk; whether nobody does now."""
        left = self.needed[chunk] - 1
        if left:
            self.needed[chunk] = left
        else:
            del self.needed[chunk]
        return not left

    def extend(self, holding: Holding, chunks: Iterable[Chunk]) -> None:
        """The object turned out to consist of these chunks as well (size 0: not known yet). Raises `BadManifest`."""
        for chunk in chunks:
            known = holding.chunks.get(chunk.id)
            if known and chunk.size and known != chunk.size:
                raise BadManifest("The manifest gives one chunk two lengths.")
            if known is None:
                self.need(chunk.id)
            holding.chunks[chunk.id] = chunk.size or known or 0

    def missing(self, holding: Holding) -> list[Chunk]:
        """The known chunks of the object that are not present."""
        return [Chunk(chunk, size) for chunk, size in holding.chunks.items() if chunk not in self.present]

    def naming(self, chunk: ChunkId) -> list[Holding]:
        """The objects that need the chunk."""
        return [holding for holding in self.objects.values() if chunk in holding.chunks]
