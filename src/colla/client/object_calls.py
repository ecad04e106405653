"""What `colla.Client` asks about objects."""

from __future__ import annotations

from pathlib import Path

from colla.client import types
from colla.client.calls import Calls

PUT_TIMEOUT_S = 24 * 3600.0


class ObjectCalls(Calls):
    """Objects."""

    async def put(self, path: Path) -> types.PutAnswer:
        """Store a folder or file as an object, with copies on repository agents."""
        request = types.PutRequest(_absolute(path))
        return await self._call("POST", "objects", types.PutAnswer, request, timeout_s=PUT_TIMEOUT_S)


def _absolute(path: Path) -> str:
    # The node has another working folder.
    return str(path.resolve())
