"""Objects on a real node's disk, and their transfer between nodes.

`ObjectStore` keeps them, `serve_objects` gives them to other nodes over a link's stream, `fetch_object` brings
them here from whoever holds them. What an object is, is said in `colla.model.manifest`.
"""

from colla.node.objects.problems import (
    ChunkNotHeld,
    CorruptChunk,
    FetchFailed,
    HolderOutcome,
    ObjectIncomplete,
    QuotaExceeded,
)
from colla.node.objects.putting import OnProgress, Progress, Stored
from colla.node.objects.serving import Served, UploadLimiter, serve_objects
from colla.node.objects.shelf import Damage
from colla.node.objects.store import HeldObject, ObjectStore
from colla.node.objects.transfer import Fetched, fetch_object

__all__ = [
    "ChunkNotHeld",
    "CorruptChunk",
    "Damage",
    "FetchFailed",
    "Fetched",
    "HeldObject",
    "HolderOutcome",
    "ObjectIncomplete",
    "ObjectStore",
    "OnProgress",
    "Progress",
    "QuotaExceeded",
    "Served",
    "Stored",
    "UploadLimiter",
    "fetch_object",
    "serve_objects",
]
