"""What a node's owner gives to the group (DESIGN section 13). The owner alone decides; the executor enforces."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import CollaError

CPUS_MAX = 65_536.0
BYTES_MAX = 2**60
"""More than any computer has, and small enough that a group's sums fit where they must."""
REPLICAS_MAX = 4096
ENCODED_BYTES_MAX = 2048
"""Every announcement carries the whole contribution."""


class AgentKind(enum.StrEnum):
    """The five kinds of agents; a node carries any subset."""

    USER = "user"
    REPOSITORY = "repository"
    GROUP = "group"
    DISPATCHER = "dispatcher"
    EXECUTOR = "executor"


ALL_AGENTS: tuple[AgentKind, ...] = tuple(AgentKind)


class Contribution(msgspec.Struct, frozen=True):
    """What one node offers. The default gives nothing but the member's own door to the group.

    `cpus` in cores, `memory_bytes`, `disk_bytes`: what replicas and objects together may use. `environments`
    names the kinds of execution environment that may run. `members` lists (as hex ids or member names) whose
    services may run here, an empty tuple meaning everybody's; `own_only` restricts to the owner's services.
    `unsandboxed` lets the process environment run without a sandbox. `relay` is the URL of the relay that this
    node runs. `address` tells where others reach this computer, as `example.org` or `203.0.113.7:4242`, where it
    cannot know by itself: behind a router with a port forwarded to it. `paused` refuses new replicas and stops
    the running ones at once; `draining` refuses new ones and lets replicas move first. `denied_members` never run here,
    whoever else may. Services that ask for one of `denied_labels` do not run here; with `only_labels` only those do that
    ask for one of them. `strangers` is the weakest isolation (`model.willing`) for services of others than the owner and
    `members`; empty: any. `outgoing` lets services reach the Internet that ask for it; unset, as it was before there was such
    a thing, is no. `exec` lets those who may change a service run commands beside its replicas; unset is no, too.
    """

    agents: tuple[AgentKind, ...] = (AgentKind.USER,)
    cpus: Annotated[float, Meta(ge=0.0, le=CPUS_MAX)] = 0.0
    memory_bytes: Annotated[int, Meta(ge=0, le=BYTES_MAX)] = 0
    disk_bytes: Annotated[int, Meta(ge=0, le=BYTES_MAX)] = 0
    environments: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    own_only: bool = False
    unsandboxed: bool = False
    replicas_max: Annotated[int, Meta(ge=0, le=REPLICAS_MAX)] = 64
    labels: tuple[tuple[str, str], ...] = ()
    gateway: str = ""
    relay: str = ""
    address: str = ""
    draining: bool = False
    paused: bool = False
    denied_members: tuple[str, ...] = ()
    only_labels: tuple[tuple[str, str], ...] = ()
    denied_labels: tuple[tuple[str, str], ...] = ()
    strangers: str = ""
    outgoing: bool | msgspec.UnsetType = msgspec.UNSET
    exec: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def lets_out(self) -> bool:
        """Whether services may reach the Internet from here."""
        return self.outgoing is True

    @property
    def lets_exec(self) -> bool:
        """Whether those who may change a service may run commands beside its replicas here."""
        return self.exec is True

    def carries(self, agent: AgentKind) -> bool:
        """Whether the node carries this agent."""
        return agent in self.agents

    def label(self, name: str) -> str:
        """The value of a label such as `site`, or an empty text."""
        return dict(self.labels).get(name, "")


GIVES_NOTHING = Contribution()


def gives_all(cpus: float, memory_bytes: int, disk_bytes: int, environments: tuple[str, ...]) -> Contribution:
    """A contribution that carries all five agents with the given limits."""
    return Contribution(
        agents=ALL_AGENTS,
        cpus=cpus,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        environments=environments,
    )


def check_contribution(contribution: Contribution) -> Contribution:
    """Return it when a node can give and announce that; raise `CollaError("bad_contribution")` saying what cannot be."""
    try:
        encoded = msgspec.msgpack.encode(contribution)
        msgspec.msgpack.decode(encoded, type=Contribution)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise CollaError(
            "bad_contribution", f"No computer can give that: {error}.", "Give what this computer has."
        ) from None
    if len(encoded) > ENCODED_BYTES_MAX:
        raise CollaError(
            "bad_contribution",
            f"What this computer gives takes {len(encoded)} bytes to tell; {ENCODED_BYTES_MAX} are possible.",
            "Use fewer or shorter labels, members and environments.",
        )
    return contribution
