"""What can go wrong with objects on a disk or on the way, as errors that people and programs can act on."""

from __future__ import annotations

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import NodeId, ObjectId, short
from colla.model.manifest import ChunkId


class ChunkNotHeld(CollaError):
    """The store does not have this chunk (`not_held`)."""

    def __init__(self, chunk: ChunkId) -> None:
        super().__init__("not_held", f"The chunk {short(chunk)} is not on this computer.")
        self.chunk = chunk


class CorruptChunk(CollaError):
    """The bytes on the disk are not those that were stored (`corrupt_chunk`); they were put aside."""

    def __init__(self, chunk: ChunkId) -> None:
        hint = "It is fetched again from another computer that holds it."
        super().__init__("corrupt_chunk", f"The chunk {short(chunk)} is damaged on this disk.", hint)
        self.chunk = chunk


class ObjectIncomplete(CollaError):
    """Not all of the object is on this computer (`object_incomplete`)."""

    def __init__(self, object_id: ObjectId) -> None:
        hint = "Fetch it first."
        super().__init__("object_incomplete", f"The object {short(object_id)} is not here as a whole.", hint)
        self.object = object_id


class QuotaExceeded(CollaError):
    """The object does not fit what the owner contributes of the disk (`quota_exceeded`)."""

    def __init__(self, wanted_bytes: int, quota_bytes: int) -> None:
        message = (
            f"{wanted_bytes:,} bytes do not fit the {quota_bytes:,} that this computer gives to objects."
        )
        super().__init__("quota_exceeded", message, "Contribute more disk, or remove objects.")
        self.wanted_bytes = wanted_bytes
        self.quota_bytes = quota_bytes


def disk_too_full(wanted_bytes: int, free_bytes: int) -> CollaError:
    """What shall be put does not fit the disk of this computer (`disk_full`)."""
    message = f"{wanted_bytes:,} bytes do not fit this computer's disk, of which {free_bytes:,} are free."
    return CollaError("disk_full", message, "Free some space, or put it on another computer.")


class HolderOutcome(msgspec.Struct, frozen=True):
    """What one holder gave during a fetch; `failure` says why it was dropped, `lied` that its bytes were wrong."""

    node: NodeId
    chunks: int
    size: int
    failure: str = ""
    lied: bool = False


class FetchFailed(CollaError):
    """No holder could give what is missing (`fetch_failed`). What did arrive is kept for the next try."""

    def __init__(self, reason: str, holders: tuple[HolderOutcome, ...]) -> None:
        super().__init__("fetch_failed", f"The object could not be fetched: {reason}.", "Try again later.")
        self.reason = reason
        self.holders = holders

    @property
    def holders_tried(self) -> tuple[NodeId, ...]:
        """The nodes that were asked, in the order of the attempts."""
        return tuple(holder.node for holder in self.holders)
