"""Types of the local API about services."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ReplicaReport(msgspec.Struct, frozen=True):
    """One live replica and where it is."""

    replica: str
    node: str
    node_name: str


class ServiceReport(msgspec.Struct, frozen=True):
    """One existing service. `name` is what it resolves as (`name--member` when another holds the short name)."""

    id: str
    name: str
    owner: str
    active: bool
    replicas_wanted: int
    version: int
    environment: str
    object: str
    object_bytes: int
    public: bool
    domains: tuple[str, ...]
    url: str
    master: str = ""
    locations: tuple[ReplicaReport, ...] = ()
    conflicts: tuple[str, ...] = ()
    secrets_missing: tuple[str, ...] = ()
    """Secrets that it needs and that nobody has set: no replica starts without them."""


class WhyLineReport(msgspec.Struct, frozen=True):
    """One computer's part in a service: a stable verdict and a sentence."""

    node: str
    verdict: str
    reason: str
    score: float


class WhyReport(msgspec.Struct, frozen=True):
    """Why replicas run where they run, and what is missing."""

    service: str
    master: str
    term: int
    wanted: int
    running: int
    lines: tuple[WhyLineReport, ...]
    history: tuple[str, ...]


class LogsRequest(msgspec.Struct, frozen=True):
    """The newest `lines` of all replicas, then, with `follow`, those to come."""

    lines: Annotated[int, Meta(ge=0, le=1000)] = 200
    follow: bool = False


class ExecCommand(msgspec.Struct, frozen=True):
    """Run a command beside a replica of the service, on the computer called `node` or on any that has one."""

    command: tuple[str, ...]
    node: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0


class ExecOutputReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of what the command wrote. The last one has its `code` (below 0: minus the signal that ended it), or says in
    `problem` why there is none.
    """

    node: str
    text: str = ""
    code: int | None = None
    problem: str = ""


class LogLineReport(msgspec.Struct, frozen=True):
    """A line that a replica wrote. `number` counts up per replica: a gap means that lines were dropped to stay within
    the bound. With the stream `note` it is not the replica's but tells why a computer's lines are missing.
    """

    node: str
    replica: str
    number: int
    at_s: float
    stream: str
    text: str


class ReplicaStatsReport(msgspec.Struct, frozen=True):
    """What a replica uses now; None where its computer cannot tell."""

    node: str
    replica: str
    cpu_s: float | None
    memory_bytes: int | None
    processes: int | None


class DeployRequest(msgspec.Struct, frozen=True):
    """Create a service, or modify the one of this name that the member owns, then activate it (unless told)."""

    name: str
    object: str
    object_bytes: int
    environment: str
    replicas: int = 3
    activate: bool = True
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    uses: tuple[str, ...] = ()
    public: bool = False
    domains: tuple[str, ...] = ()
    health_path: str = ""
    start_period_s: float = 10.0
    stop_grace_s: float = 5.0
    cpus: float = 0.1
    memory_bytes: int = 128 * 1024 * 1024
    processes: int = 64
    labels: dict[str, str] = {}
    health_tcp: bool = False
    health_command: tuple[str, ...] = ()
    health_interval_s: float = 2.0
    health_timeout_s: float = 2.0
    health_failures_max: int = 3
    secrets: tuple[str, ...] = ()
    """The names of the secrets without which it must not start; their values are set apart."""


class WrittenAnswer(msgspec.Struct, frozen=True):
    """The change is durable on `copies` nodes."""

    service: str
    name: str
    copies: int
    created: bool = False


class ScaleRequest(msgspec.Struct, frozen=True):
    """Ask for another number of replicas."""

    replicas: int


class ForwardRequest(msgspec.Struct, frozen=True):
    """Open a local TCP port that leads to live replicas of the service. Port 0 lets the system choose."""

    service: str
    port: int = 0


class ForwardAnswer(msgspec.Struct, frozen=True):
    """The local port; it stays open until it is closed or the node stops."""

    service: str
    port: int
