"""Types of the local API about the group."""

from __future__ import annotations

import msgspec

from colla.client.types.computer import NodeReport
from colla.client.types.services import ServiceReport


class MemberReport(msgspec.Struct, frozen=True):
    """One member."""

    id: str
    name: str
    role: str
    nodes: tuple[str, ...]
    present: bool
    me: bool = False


class ComputerReport(msgspec.Struct, frozen=True):
    """One node of the group as this one sees it. `phase`: present, suspected, absent or left."""

    node: str
    name: str
    member: str
    phase: str
    me: bool
    since_s: float
    agents: tuple[str, ...]
    environments: tuple[str, ...]
    draining: bool
    paused: bool
    cpus: float
    memory_bytes: int
    disk_bytes: int
    labels: dict[str, str]
    path: str = ""
    rtt_ms: float = 0.0
    version: str = ""


class StatusReport(msgspec.Struct, frozen=True):
    """The group at a glance."""

    node: NodeReport
    computers: tuple[ComputerReport, ...]
    services: tuple[ServiceReport, ...]
    warnings: tuple[str, ...] = ()


class InviteRequest(msgspec.Struct, frozen=True):
    """Issue a ticket for `uses` persons, who come with `role`; or for further computers, one's own (`my_computer`) or
    those of `member` (a name), who lost theirs.
    """

    my_computer: bool = False
    expiry_s: float = 7 * 24 * 3600.0
    role: str = "member"
    uses: int = 1
    member: str = ""


class InviteAnswer(msgspec.Struct, frozen=True):
    """The ticket as text."""

    ticket: str
    group_name: str
    expires_s: float
    copies: int
