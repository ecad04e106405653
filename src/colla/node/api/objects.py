"""Routes about objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from colla.agents.requests import ObjectPlaced, PlaceObject
from colla.client import types
from colla.kernel.events import ObjectStored
from colla.model.errors import CollaError
from colla.node.api.routes import Call, Route


async def _put(call: Call[types.PutRequest]) -> types.PutAnswer:
    path = Path(call.body.path)
    if not path.is_absolute():
        raise CollaError("bad_request", "The path must be absolute: the node has another working folder.")
    stored = await call.node.put_path(path)
    call.node.post(ObjectStored(stored.object, stored.size))
    placed: ObjectPlaced = await call.ask(PlaceObject(stored.object, stored.size))
    return types.PutAnswer(stored.object.hex(), stored.size, placed.copies, placed.wanted, placed.reasons)


ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        "POST",
        "objects",
        "Store a folder or file of this computer as an object, with copies on repository agents.",
        _put,
        types.PutAnswer,
        types.PutRequest,
        ("not_found", "disk_full"),
    ),
)
