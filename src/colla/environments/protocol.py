"""The environment protocol: what an execution environment and the executor's side say to each other.

An environment is a program of its own. It prints one `Handshake` as a line of JSON on stdout and then serves
HTTP/1.1 with JSON bodies on the Unix socket that the handshake names; `CALLS` is the complete list, and
`openapi.json` beside this module is generated from it. Streams are NDJSON: one JSON value per line, an empty
line now and then to show that the other side lives. An error is a status of 400 or more and a `Problem`.

Rules that every environment keeps:
- starting is idempotent by the replica's id: the same id and specification give the same answer again;
- replicas go on when whoever asked for them goes away, and are listed until they are deleted;
- a limit that is not enforced on this computer is not listed in `EnvironmentInfo.limits_enforced`;
- restarting what crashed is the executor's decision: an environment reports and never restarts;
- one program per runtime folder: it writes its handshake into `program.json` there before it prints it, takes it away
  when it ends, and a second program that finds a living one ends by itself with an error.

Versions: an environment serves each version that it speaks under a prefix of its own (`/v1`) and lists them in
`EnvironmentInfo.protocol_versions`; whoever speaks several begins with `/v1/info`. Within a version, fields and calls
are only added; what is optional to serve is a capability.

What the calls are was learnt from Nomad's task drivers, containerd's shims and Kubernetes' CRI.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from colla.model.errors import CollaError
from colla.model.ids import RANDOM_ID_BYTES, ReplicaId, parse_hex

PROTOCOL_VERSION: Final = 1
BODY_BYTES_MAX: Final = 1 << 20
"""Longest JSON body of a request or an answer."""
LINE_BYTES_MAX: Final = 256 << 10
"""Longest line of an NDJSON stream; an exit with its last log lines is the longest there is."""
EVENTS_KEPT_MAX: Final = 1024
"""Events that a program keeps for a listener that comes back."""
CAPABILITIES: Final[dict[str, str]] = {
    "prepare": "an artifact can be made ready before a replica starts",
    "recover": "replicas go on when the program ends, and the next program finds them",
    "logs": "what a replica's program writes is kept, within a bound",
    "stats": "what a replica uses can be told",
    "check_command": "the health of a replica can be checked by a command that runs beside its program",
    "exec": "a command can be run beside a replica's program, as isolated as that",
    "signal": "a signal can be sent to a replica's program",
    "secrets": "variables that are secret reach a replica's program, no log or command line, and no file of the environment",
}
"""What an environment may claim; an agent asks only for what is claimed. Names of one's own begin with `x-`."""
EXIT_LINES_MAX: Final = 20
"""Log lines that come with an exit."""
THREATS: Final[dict[str, str]] = {
    "files": "reads or changes files of the owner, keys among them, or of other services",
    "names": "learns which files there are, how large and how old they are",
    "processes": "reads, traces or signals other programs",
    "network": "reaches other computers, or what listens on this one",
    "system": "mounts, loads modules, changes the clock or settings of the system",
    "terminal": "types into the terminal of whoever started the agent",
    "fork_bomb": "starts processes until nobody else can",
    "memory_bomb": "takes the memory of others",
    "disk_bomb": "fills the disk",
}
"""What a service's program may try against its computer."""
START_PERIOD_S: Final = 10.0
"""How long a program may take until it answers, unless its specification says otherwise."""

LimitName = Literal["memory_bytes", "cpus", "pids", "open_files"]
Phase = Literal["starting", "ready", "unhealthy", "stopping", "exited"]
Isolation = Literal["nothing-executed", "webassembly", "container", "bubblewrap", "landlock", "none"]
ExitReason = Literal["exited", "killed", "stopped", "out_of_memory", "not_started", "never_listened", "lost"]
ReplicaSignal = Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"]
StopSignal = Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"]


class EnvironmentFault(CollaError):
    """An environment refused or failed. `retryable` says whether the same call may succeed later."""

    def __init__(self, code: str, message: str, hint: str = "", *, retryable: bool = False) -> None:
        super().__init__(code, message, hint)
        self.retryable = retryable


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every value of the protocol; unknown fields of newer versions are ignored."""


class OfReplica(Wire, frozen=True, kw_only=True):
    """A value about one replica, named by 32 hexadecimal digits so that people can type it."""

    replica: str

    @property
    def replica_id(self) -> ReplicaId:
        """The id as bytes. Raises `ValueError` when the text is none."""
        return ReplicaId(parse_hex(self.replica, RANDOM_ID_BYTES, "replica id"))


class Problem(Wire, frozen=True, kw_only=True):
    """Why a call failed: `code` is stable, `message` is for people, `hint` says what to do."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class Handshake(Wire, frozen=True, kw_only=True):
    """The one line that an environment prints on stdout; afterwards nobody reads its stdout."""

    colla_environment: int
    """The protocol version."""
    kind: str
    socket: str
    """Absolute path of the Unix socket that serves the calls."""
    pid: int


class Limits(Wire, frozen=True, kw_only=True):
    """What a replica may use at most; None is unlimited."""

    memory_bytes: int | None = None
    cpus: float | None = None
    """Processors, as in 0.5: half of one."""
    pids: int | None = None
    open_files: int | None = None


class HealthCheck(Wire, frozen=True, kw_only=True):
    """How to see that a replica works, at first within its start period and then at intervals, by one of three ways.

    Without any: once its endpoint accepts connections it is ready, and it is not looked at again until it ends.
    """

    path: str | None = None
    """Asked for by HTTP GET; an answer below 400 is healthy."""
    interval_s: float = 5.0
    timeout_s: float = 2.0
    start_period_s: float = START_PERIOD_S
    failures_max: int = 3
    """Failed checks in a row that make a replica unhealthy."""
    tcp: bool = False
    """Its endpoint takes a connection and keeps it."""
    command: tuple[str, ...] = ()
    """Run beside the program, as isolated as that; healthy when it ends with 0. Capability `check_command`."""


class GroupAccess(Wire, frozen=True, kw_only=True):
    """Where a replica, or its environment for it, asks the group (`group`): a Unix socket of the agent, and the token
    that says which replica asks. It holds across restarts of the agent; between them nobody answers.
    """

    socket: str
    token: str
    ways: str = ""
    """The socket behind which the ways lie that `ReplicaSpec.uses` and `outgoing` ask for; each begins with a line: the token, a
    blank, and where it leads."""


class ReplicaSpec(OfReplica, frozen=True, kw_only=True):
    """Everything that an environment needs to run one replica."""

    service: str
    """The service's name: for logs and for the program's own environment, never an identifier."""
    artifact: str
    """Absolute path of the folder with the service's files; the environment only reads it."""
    command: tuple[str, ...] = ()
    """The program and its arguments, looked up inside the sandbox; empty where nothing is executed."""
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    """Variables besides `env` that the environment writes to no disk and no log; `EnvironmentInfo.secrets_kept` says where
    something else does. Capability `secrets`."""
    listen: Literal["auto", "fds", "unix", "port"] = "auto"
    """How the program takes connections. auto offers all three and finds out which one it uses."""
    limits: Limits = Limits()
    health: HealthCheck = HealthCheck()
    group: GroupAccess | None = None
    uses: tuple[str, ...] = ()
    """Services to which the program gets a way: a port of its loopback, told in `COLLA_USES_NAME`."""
    outgoing: bool = False
    """Whether it gets a way to the Internet: an HTTP proxy, told in `HTTPS_PROXY` and `HTTP_PROXY`."""

    @property
    def variables(self) -> dict[str, str]:
        """All that its program finds in its environment by the service's will."""
        return self.env | self.secrets

    @property
    def remembered(self) -> ReplicaSpec:
        """What may be written to a disk."""
        return msgspec.structs.replace(self, secrets={}) if self.secrets else self

    def __repr__(self) -> str:
        return f"ReplicaSpec({self.replica} of {self.service})"


class StartRequest(Wire, frozen=True, kw_only=True):
    """Start a replica. Others' code runs without a sandbox only where the owner of the computer agreed."""

    spec: ReplicaSpec
    allow_unsandboxed: bool = False


class UnixEndpoint(Wire, frozen=True, kw_only=True, tag="unix"):
    """The replica accepts connections on this Unix socket."""

    path: str


class TcpEndpoint(Wire, frozen=True, kw_only=True, tag="tcp"):
    """The replica accepts connections on this address of this computer."""

    host: str
    port: int


Endpoint = UnixEndpoint | TcpEndpoint


class StartedReplica(OfReplica, frozen=True, kw_only=True):
    """The answer to a start: `handle` is opaque, and enough to recover the replica."""

    handle: str
    endpoint: Endpoint


class RecoverRequest(OfReplica, frozen=True, kw_only=True):
    """Find the replica of this handle again, after a restart of the environment or its caller."""

    handle: str


class PrepareRequest(Wire, frozen=True, kw_only=True):
    """Make ready whatever a later start of this artifact needs. May be repeated at any time."""

    artifact: str


class PrepareProgress(Wire, frozen=True, kw_only=True):
    """One line of a preparation; the last has `done`, or carries the problem."""

    done: bool = False
    files: int = 0
    size_bytes: int = 0
    problem: Problem | None = None
    doing: str = ""
    """What takes its time, in words; empty where the numbers say it."""


class StopRequest(Wire, frozen=True, kw_only=True):
    """Ask the program to end; after the grace everything that is left of it is killed."""

    signal: StopSignal = "SIGTERM"
    grace_s: float = 10.0


class SignalRequest(Wire, frozen=True, kw_only=True):
    """Send a signal to the program and leave the rest to it; what ends by it was not stopped by anybody."""

    signal: ReplicaSignal


class ExecRequest(Wire, frozen=True, kw_only=True):
    """Run a command beside the program: as isolated, with its variables and limits, without input. Who hangs up ends it."""

    command: tuple[str, ...]
    timeout_s: float = 60.0


class ExecOutput(Wire, frozen=True, kw_only=True):
    """A piece of what a command wrote, stdout and stderr as they came; the last one has the `code` (below 0: a signal)."""

    text: str = ""
    code: int | None = None


class Exit(Wire, frozen=True, kw_only=True):
    """How a replica ended. `code` is None when a signal ended it or nobody saw the end."""

    reason: ExitReason
    code: int | None = None
    signal: int | None = None
    message: str = ""
    last_lines: tuple[str, ...] = ()


class ReplicaStatus(OfReplica, frozen=True, kw_only=True):
    """One replica as its environment sees it. Times are wall-clock seconds since 1970."""

    service: str
    phase: Phase
    handle: str
    endpoint: Endpoint
    started_at: float
    ready_at: float | None = None
    unhealthy_because: str = ""
    limits_enforced: tuple[LimitName, ...] = ()
    """Those limits of the specification that really hold for this replica."""
    exit: Exit | None = None


class ReplicaList(Wire, frozen=True, kw_only=True):
    """Every replica that the program knows, those that ended included."""

    replicas: tuple[ReplicaStatus, ...] = ()


class ReplicaStats(OfReplica, frozen=True, kw_only=True):
    """What a replica uses now; None where the computer cannot tell."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None


class LogLine(Wire, frozen=True, kw_only=True):
    """One line that a replica's program wrote."""

    number: int
    """Counts up from 1 per replica; a gap means that lines were dropped to stay within the bound."""
    at: float
    stream: Literal["stdout", "stderr"]
    text: str


class EnvironmentInfo(Wire, frozen=True, kw_only=True):
    """What an environment is and what it can really do on this computer."""

    protocol_versions: tuple[int, ...]
    kind: str
    version: str
    instance: str
    """Random, new at each start of the program: event numbers count within it."""
    artifact_kinds: tuple[str, ...]
    config_schema: dict[str, Any]
    """JSON Schema of the parts of a specification that this kind reads."""
    isolation: Isolation
    network_modes: tuple[Literal["isolated", "shared"], ...]
    limits_enforced: tuple[LimitName, ...]
    capabilities: tuple[str, ...]
    needs_consent: str = ""
    """Why the owner has to agree before it runs anything, in a sentence; empty when it is sandboxed."""
    not_contained: tuple[str, ...] | None = None
    """Those of `THREATS` that it does not keep a program from on this computer; None where it does not say."""
    secrets_kept: str = ""
    """Who else, and where, writes the secrets of a replica to a disk, in a sentence; empty where nobody does."""


class Health(Wire, frozen=True, kw_only=True):
    """Whether the environment itself works."""

    healthy: bool
    message: str = ""
    replicas_running: int = 0


class Occurrence(OfReplica, frozen=True, kw_only=True):
    """The base of the events. `number` counts up from 1 within one `instance` of the program."""

    instance: str
    number: int
    at: float


class ReplicaStarted(Occurrence, frozen=True, kw_only=True, tag="started"):
    """The program was launched, or found running again after the environment's own restart."""

    recovered: bool = False


class ReplicaReady(Occurrence, frozen=True, kw_only=True, tag="ready"):
    """The endpoint answers, for the first time or again."""

    start_to_ready_s: float


class ReplicaUnhealthy(Occurrence, frozen=True, kw_only=True, tag="unhealthy"):
    """It was ready and now fails its checks; it goes on running."""

    message: str


class ReplicaExited(Occurrence, frozen=True, kw_only=True, tag="exited"):
    """Nothing of the replica runs any more."""

    exit: Exit


EnvironmentEvent = ReplicaStarted | ReplicaReady | ReplicaUnhealthy | ReplicaExited


class Nothing(Wire, frozen=True, kw_only=True):
    """The answer of calls that have nothing to say."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the protocol: the single truth for routing, the client and the OpenAPI document."""

    name: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    summary: str
    answer: object
    """The struct (or union of structs) of the answer, or of each line when `streams`."""
    body: Any = None
    """The struct of the body; `msgspec.Raw` where it is any bytes."""
    query: tuple[str, ...] = ()
    streams: bool = False
    capability: str = ""
    """What an environment must claim for this call; without it the call answers `not_supported`."""


def _calls() -> dict[str, Call]:
    one = "/v1/replicas/{replica}"
    calls = (
        Call(name="info", method="GET", path="/v1/info", answer=EnvironmentInfo, summary="What this environment is and can"),
        Call(name="health", method="GET", path="/v1/health", answer=Health, summary="Whether the environment works"),
        Call(name="prepare", method="POST", path="/v1/prepare", body=PrepareRequest, answer=PrepareProgress, streams=True, capability="prepare", summary="Make an artifact ready; idempotent"),
        Call(name="start", method="POST", path="/v1/replicas", body=StartRequest, answer=StartedReplica, summary="Start a replica; idempotent by its id"),
        Call(name="recover", method="POST", path="/v1/recover", body=RecoverRequest, answer=StartedReplica, summary="Find a replica again by its handle"),
        Call(name="list", method="GET", path="/v1/replicas", answer=ReplicaList, summary="All replicas, ended ones included"),
        Call(name="inspect", method="GET", path=one, answer=ReplicaStatus, summary="One replica"),
        Call(name="stop", method="POST", path=f"{one}/stop", body=StopRequest, answer=ReplicaStatus, summary="Signal, grace, then the whole tree is killed; answers when it ended"),
        Call(name="wait", method="GET", path=f"{one}/wait", query=("timeout_s",), answer=ReplicaStatus, summary="Answers when the replica ended or the time is over"),
        Call(name="delete", method="DELETE", path=one, answer=Nothing, summary="Kill what runs and forget the replica, its logs included"),
        Call(name="signal", method="POST", path=f"{one}/signal", body=SignalRequest, answer=Nothing, capability="signal", summary="Send a signal to the program, nothing more"),
        Call(name="exec", method="POST", path=f"{one}/exec", body=ExecRequest, answer=ExecOutput, streams=True, capability="exec", summary="Run a command beside the program; its output as it comes"),
        Call(name="stats", method="GET", path=f"{one}/stats", answer=ReplicaStats, capability="stats", summary="What a replica uses"),
        Call(name="logs", method="GET", path=f"{one}/logs", query=("follow", "after"), answer=LogLine, streams=True, capability="logs", summary="Lines that the program wrote, after number `after`"),
        Call(name="events", method="GET", path="/v1/events", query=("after", "instance"), answer=EnvironmentEvent, streams=True, summary="What happened after event `after` of `instance` (all, if that is another one), then what happens"),
        Call(name="shut_down", method="POST", path="/v1/shut-down", body=StopRequest, answer=Nothing, summary="Stop every replica, then the program"),
    )  # fmt: skip
    return {call.name: call for call in calls}


CALLS: Final[dict[str, Call]] = _calls()
