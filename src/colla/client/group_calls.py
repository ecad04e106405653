"""What `colla.Client` asks about the group."""

from __future__ import annotations

from colla.client import types
from colla.client.calls import Calls


class GroupCalls(Calls):
    """The group: who belongs, who is here, who may come."""

    async def status(self) -> types.StatusReport:
        """The group at a glance."""
        return await self._call("GET", "status", types.StatusReport)

    async def members(self) -> tuple[types.MemberReport, ...]:
        """All members."""
        return await self._call("GET", "members", tuple[types.MemberReport, ...])

    async def computers(self) -> tuple[types.ComputerReport, ...]:
        """All nodes of the group."""
        return await self._call("GET", "nodes", tuple[types.ComputerReport, ...])

    async def invite(self, request: types.InviteRequest) -> types.InviteAnswer:
        """Issue a ticket."""
        return await self._call("POST", "invite", types.InviteAnswer, request)
