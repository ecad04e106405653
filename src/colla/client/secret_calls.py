"""What `colla.Client` asks about secrets of services."""

from __future__ import annotations

from collections.abc import Mapping

from colla.client import types
from colla.client.calls import Calls, quoted


class SecretCalls(Calls):
    """Secrets: set, listed by name, taken away. Nobody can ask for a value."""

    async def secrets(self, service: str) -> tuple[types.SecretReport, ...]:
        """The secrets of a service that are set or needed. Raises `CollaError("not_found")`."""
        return await self._call("GET", f"services/{quoted(service)}/secrets", tuple[types.SecretReport, ...])

    async def set_secrets(self, service: str, secrets: Mapping[str, str]) -> types.WrittenAnswer:
        """Give secrets of a service new values; its replicas are replaced by ones that have them."""
        path = f"services/{quoted(service)}/secrets"
        return await self._call("POST", path, types.WrittenAnswer, types.SecretsRequest(dict(secrets)))

    async def remove_secret(self, service: str, name: str) -> types.WrittenAnswer:
        """Take a secret away. Raises `CollaError("not_found")` when there is none of that name."""
        path = f"services/{quoted(service)}/secrets/{quoted(name)}"
        return await self._call("DELETE", path, types.WrittenAnswer)
