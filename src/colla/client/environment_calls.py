"""What `colla.Client` asks about execution environments."""

from __future__ import annotations

from collections.abc import Sequence

from colla.client import types
from colla.client.calls import Calls, quoted

ATTACH_TIMEOUT_S = 120.0


class EnvironmentCalls(Calls):
    """Execution environments of this computer."""

    async def environments(self) -> tuple[types.EnvironmentReport, ...]:
        """All that this computer gives or has attached."""
        return await self._call("GET", "environments", tuple[types.EnvironmentReport, ...])

    async def attach(self, command: Sequence[str]) -> types.EnvironmentReport:
        """Attach the environment that the command starts, and give its kind from now on."""
        request = types.AttachRequest(tuple(command))
        return await self._call(
            "POST", "environments", types.EnvironmentReport, request, timeout_s=ATTACH_TIMEOUT_S
        )

    async def detach(self, kind: str) -> None:
        """Give the kind no longer, and forget its program."""
        await self._call("DELETE", f"environments/{quoted(kind)}", types.Done)
