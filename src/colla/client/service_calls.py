"""What `colla.Client` asks about services."""

from __future__ import annotations

from collections.abc import AsyncIterator

from colla.client import types
from colla.client.calls import Calls, quoted


class ServiceCalls(Calls):
    """Services: created, changed, run, found, reached, eliminated."""

    async def services(self) -> tuple[types.ServiceReport, ...]:
        """All existing services."""
        return await self._call("GET", "services", tuple[types.ServiceReport, ...])

    async def service(self, name: str) -> types.ServiceReport:
        """One service with fresh locations. Raises `CollaError("not_found")`."""
        return await self._call("GET", f"services/{quoted(name)}", types.ServiceReport)

    async def why(self, name: str) -> types.WhyReport:
        """Why the replicas of the service run where they run."""
        return await self._call("GET", f"services/{quoted(name)}/why", types.WhyReport)

    async def logs(
        self, name: str, lines: int = 200, *, follow: bool = False
    ) -> AsyncIterator[types.LogLineReport]:
        """What all replicas wrote: the newest `lines` in the order of time, then with `follow` those to come."""
        query = {"lines": str(lines), "follow": "true" if follow else "false"}
        async for line in self._lines(
            "GET", f"services/{quoted(name)}/logs", types.LogLineReport, query=query
        ):
            yield line

    async def exec(
        self, name: str, command: tuple[str, ...], *, node: str = "", timeout_s: float = 60.0
    ) -> AsyncIterator[types.ExecOutputReport]:
        """What a command writes that runs beside a replica, on the computer called `node` or any; leaving ends it."""
        body = types.ExecCommand(command, node, timeout_s)
        async for output in self._lines(
            "POST", f"services/{quoted(name)}/exec", types.ExecOutputReport, body
        ):
            yield output

    async def stats(self, name: str) -> tuple[types.ReplicaStatsReport, ...]:
        """What each replica uses now."""
        return await self._call("GET", f"services/{quoted(name)}/stats", tuple[types.ReplicaStatsReport, ...])

    async def deploy(self, request: types.DeployRequest) -> types.WrittenAnswer:
        """Create or modify a service; the object must have been put before."""
        return await self._call("POST", "services", types.WrittenAnswer, request)

    async def activate(self, name: str) -> types.WrittenAnswer:
        """Let the group keep replicas of the service running."""
        return await self._call("POST", f"services/{quoted(name)}/activate", types.WrittenAnswer)

    async def deactivate(self, name: str) -> types.WrittenAnswer:
        """Stop all replicas; the service goes on existing."""
        return await self._call("POST", f"services/{quoted(name)}/deactivate", types.WrittenAnswer)

    async def scale(self, name: str, replicas: int) -> types.WrittenAnswer:
        """Ask for another number of replicas."""
        return await self._call(
            "POST", f"services/{quoted(name)}/scale", types.WrittenAnswer, types.ScaleRequest(replicas)
        )

    async def eliminate(self, name: str) -> types.WrittenAnswer:
        """Remove the service for good."""
        return await self._call("DELETE", f"services/{quoted(name)}", types.WrittenAnswer)

    async def forward(self, name: str, port: int = 0) -> types.ForwardAnswer:
        """Open a local TCP port to live replicas of the service."""
        return await self._call("POST", "forwards", types.ForwardAnswer, types.ForwardRequest(name, port))

    async def close_forward(self, port: int) -> None:
        """Close a local port that `forward` opened."""
        await self._call("DELETE", f"forwards/{port}", types.Done)
