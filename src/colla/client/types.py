"""The types of the local HTTP API: what the node serves and what CLI, dashboard and programs read.

JSON; identifiers are hexadecimal text; times are Unix seconds; every name has its unit. Frozen structs, so that
an answer can be kept and compared. Fields with defaults may be added by later versions.
"""

from __future__ import annotations

import msgspec

from colla.model.contribution import Contribution

API_VERSION = "v1"
SOCKET_NAME = "api.sock"
TOKEN_NAME = "api.token"
TOKEN_HEADER = "X-Colla-Token"


class ApiError(msgspec.Struct, frozen=True):
    """Why a request failed: `code` is stable, `message` is for people, `hint` says what to do."""

    code: str
    message: str
    hint: str = ""


class NodeReport(msgspec.Struct, frozen=True):
    """This computer's node. `joined` is false while the group has not admitted it: `join_problem` says why, and
    `join_again` whether it goes on trying.
    """

    node: str
    name: str
    group: str
    group_name: str
    election: str
    member: str
    member_name: str
    joined: bool
    join_problem: str
    version: str
    pid: int
    port: int
    gateway: str
    addresses: tuple[str, ...]
    contribution: Contribution
    environments: tuple[str, ...]
    replicas: int
    objects: int
    object_bytes: int
    resident_bytes: int
    uptime_s: float
    join_again: bool = False


class MemberReport(msgspec.Struct, frozen=True):
    """One member."""

    id: str
    name: str
    role: str
    nodes: tuple[str, ...]
    present: bool


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


class StatusReport(msgspec.Struct, frozen=True):
    """The group at a glance."""

    node: NodeReport
    computers: tuple[ComputerReport, ...]
    services: tuple[ServiceReport, ...]
    warnings: tuple[str, ...] = ()


class PutAnswer(msgspec.Struct, frozen=True):
    """An object was stored; `copies` repository agents hold it durably, of `wanted`."""

    object: str
    size_bytes: int
    copies: int
    wanted: int
    reasons: tuple[str, ...] = ()


class PutRequest(msgspec.Struct, frozen=True):
    """Store the folder or file at this path of this computer as an object."""

    path: str


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


class WrittenAnswer(msgspec.Struct, frozen=True):
    """The change is durable on `copies` nodes."""

    service: str
    name: str
    copies: int
    created: bool = False


class ScaleRequest(msgspec.Struct, frozen=True):
    """Ask for another number of replicas."""

    replicas: int


class InviteRequest(msgspec.Struct, frozen=True):
    """Issue a ticket for one person, or for a further computer of the member."""

    my_computer: bool = False
    expiry_s: float = 7 * 24 * 3600.0


class InviteAnswer(msgspec.Struct, frozen=True):
    """The ticket as text."""

    ticket: str
    group_name: str
    expires_s: float
    copies: int


class ContributeRequest(msgspec.Struct, frozen=True):
    """The whole contribution as it shall be from now on."""

    contribution: Contribution


class ContributeAnswer(msgspec.Struct, frozen=True):
    """What holds now, and how many replicas still have to move or stop."""

    contribution: Contribution
    replicas_left: int


class ConnectRequest(msgspec.Struct, frozen=True):
    """An address (`host:port`) where a node of the group may be reached."""

    address: str


class ForwardRequest(msgspec.Struct, frozen=True):
    """Open a local TCP port that leads to live replicas of the service. Port 0 lets the system choose."""

    service: str
    port: int = 0


class ForwardAnswer(msgspec.Struct, frozen=True):
    """The local port; it stays open until it is closed or the node stops."""

    service: str
    port: int


class NoticeReport(msgspec.Struct, frozen=True):
    """Something that happened, as told on this node."""

    at_s: float
    kind: str
    text: str
    service: str = ""
    node: str = ""


class DoctorLine(msgspec.Struct, frozen=True):
    """One check: `ok`, `warning` or `problem`, what was seen, what to do."""

    verdict: str
    subject: str
    text: str
    hint: str = ""
