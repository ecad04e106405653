"""`colla.Client`: the local HTTP API for programs, asynchronous. One class per area, joined here."""

from __future__ import annotations

from types import TracebackType

from colla.client.administration_calls import AdministrationCalls
from colla.client.communication_calls import CommunicationCalls
from colla.client.computer_calls import ComputerCalls
from colla.client.environment_calls import EnvironmentCalls
from colla.client.group_calls import GroupCalls
from colla.client.object_calls import ObjectCalls
from colla.client.secret_calls import SecretCalls
from colla.client.service_calls import ServiceCalls


class Client(
    ComputerCalls,
    GroupCalls,
    AdministrationCalls,
    ServiceCalls,
    SecretCalls,
    ObjectCalls,
    CommunicationCalls,
    EnvironmentCalls,
):
    """A connection to this computer's node in one group. Use it as an asynchronous context manager."""

    async def __aenter__(self) -> Client:
        """Raises `CollaError("not_running")` when no node serves this folder."""
        self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._disconnect()
