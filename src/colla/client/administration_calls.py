"""What `colla.Client` asks to change who belongs, and whose a service is."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from colla.client import types
from colla.client.calls import Calls


class AdministrationCalls(Calls):
    """Members, computers and tickets are named as people see them."""

    async def former_members(self) -> tuple[types.FormerMemberReport, ...]:
        """Who was removed or left."""
        return await self._call("GET", "members/former", tuple[types.FormerMemberReport, ...])

    async def give_role(self, member: str, role: str) -> types.ChangedAnswer:
        """Let the member be administrator, member or guest. Raises `CollaError` (`not_allowed`, `last_administrator`…)."""
        path = f"members/{quote(member, safe='')}/role"
        return await self._call("POST", path, types.ChangedAnswer, types.RoleRequest(role))

    async def rename_member(self, member: str, name: str) -> types.ChangedAnswer:
        """Call a member otherwise. Raises `CollaError` (`not_allowed`, `bad_name`, `name_taken`…)."""
        path = f"members/{quote(member, safe='')}/name"
        return await self._call("POST", path, types.ChangedAnswer, types.NameRequest(name))

    async def remove_member(self, member: str, reason: str = "") -> types.ChangedAnswer:
        """Remove a member for good. Raises `CollaError` (`not_allowed`, `last_administrator`…)."""
        path = f"members/{quote(member, safe='')}?{urlencode({'reason': reason})}"
        return await self._call("DELETE", path, types.ChangedAnswer)

    async def rename_computer(self, computer: str, name: str) -> types.ChangedAnswer:
        """Call a computer otherwise. Raises `CollaError` (`not_allowed`, `bad_name`, `name_taken`…)."""
        path = f"nodes/{quote(computer, safe='')}/name"
        return await self._call("POST", path, types.ChangedAnswer, types.NameRequest(name))

    async def retire_computer(self, computer: str, reason: str = "") -> types.ChangedAnswer:
        """Take a computer out for good. Raises `CollaError` (`not_allowed`, `last_administrator`…)."""
        path = f"nodes/{quote(computer, safe='')}?{urlencode({'reason': reason})}"
        return await self._call("DELETE", path, types.ChangedAnswer)

    async def tickets(self) -> tuple[types.TicketReport, ...]:
        """All tickets that the group knows."""
        return await self._call("GET", "tickets", tuple[types.TicketReport, ...])

    async def revoke_ticket(self, ticket: str) -> types.ChangedAnswer:
        """Let a ticket, named by (the beginning of) its id, admit nobody any more."""
        return await self._call("DELETE", f"tickets/{quote(ticket, safe='')}", types.ChangedAnswer)

    async def rename_service(self, service: str, name: str) -> types.ChangedAnswer:
        """Call a service otherwise; it stays the same service, and its replicas start anew one after the other.

        Raises `CollaError` (`not_owner`, `bad_name`, `name_taken`, `no_change`…).
        """
        path = f"services/{quote(service, safe='')}/name"
        return await self._call("POST", path, types.ChangedAnswer, types.NameRequest(name))

    async def adopt(self, service: str, member: str = "") -> types.ChangedAnswer:
        """Take a service over, or give it to another member. Raises `CollaError` (`not_owner`, `not_found`)."""
        path = f"services/{quote(service, safe='')}/owner"
        return await self._call("POST", path, types.ChangedAnswer, types.OwnerRequest(member))

    async def delegate(self, service: str, members: Sequence[str]) -> types.ChangedAnswer:
        """Let these members change the service too. Raises `CollaError` (`not_owner`, `not_found`)."""
        path = f"services/{quote(service, safe='')}/delegates"
        return await self._call("POST", path, types.ChangedAnswer, types.DelegatesRequest(tuple(members)))
