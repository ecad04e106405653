"""What `colla.Client` asks about this computer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from colla.client import types
from colla.client.calls import Calls
from colla.model.contribution import Contribution


class ComputerCalls(Calls):
    """This computer: its node, what it gives, what happens on it, and its end."""

    async def node(self) -> types.NodeReport:
        """This computer's node."""
        return await self._call("GET", "node", types.NodeReport)

    async def doctor(self) -> tuple[types.DoctorLine, ...]:
        """What the node sees of its own health and connections."""
        return await self._call("GET", "doctor", tuple[types.DoctorLine, ...])

    async def notices(self) -> AsyncIterator[types.NoticeReport]:
        """What happens on this node, as it happens; the newest of the past come first."""
        async for notice in self._lines("GET", "notices", types.NoticeReport):
            yield notice

    async def contribute(self, contribution: Contribution) -> types.ContributeAnswer:
        """Decide anew what this computer gives; takes effect at once."""
        return await self._call(
            "POST", "contribute", types.ContributeAnswer, types.ContributeRequest(contribution)
        )

    async def connect(self, address: str) -> None:
        """Try to reach a node of the group at this address."""
        await self._call("POST", "connect", types.Done, types.ConnectRequest(address))

    async def leave(self, *, now: bool = False, anyway: bool = False) -> None:
        """Say goodbye and stop this node; its replicas stop too. Does not need any other node."""
        await self._call("POST", "leave", types.Done, types.LeaveRequest(now, anyway))

    async def shut_down(self, *, keep_replicas: bool = False) -> None:
        """Stop the node; it comes back with `colla up`. Replicas stop too unless they are to be kept."""
        await self._call("POST", "shut-down", types.Done, types.ShutDownRequest(keep_replicas))
