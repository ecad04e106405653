"""Services: what a member offers to the group, and what is wanted of it (DESIGN sections 4, 6 and 7)."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import CollaError
from colla.model.ids import MemberId, ObjectId, ServiceId
from colla.model.secret import SECRET_USE, SECRETS_MAX, SealedSecret, is_secret_name

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
OUTGOING_USE = "network:internet"
"""What a service names in `uses` to reach the Internet."""
SERVICES_USED_MAX = 16
USED_PATTERN = re.compile(r"[a-z0-9-]{1,200}")
"""A service's name, alone or as `name--member`."""
KIND_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
"""The name of a kind of execution environments."""
REPLICAS_MAX = 64
SECONDS_MAX = 24 * 3600.0
CPUS_MAX = 65_536.0
BYTES_MAX = 2**60
PROCESSES_MAX = 2**22
"""Beyond these no computer can run it; small enough that a group's sums fit where they must."""

_Seconds = Annotated[float, Meta(ge=0.0, le=SECONDS_MAX)]
_Bytes = Annotated[int, Meta(ge=0, le=BYTES_MAX)]


class HealthCheck(msgspec.Struct, frozen=True):
    """How the agent sees that a replica serves: by an HTTP path, by a connection that is kept (`tcp`), by a command that
    runs beside the program, or only once by the endpoint's accepting connections. `failures_max` failed checks in a row
    make it unhealthy.
    """

    path: str = ""
    interval_s: _Seconds = 2.0
    timeout_s: _Seconds = 2.0
    start_period_s: _Seconds = 10.0
    tcp: bool = False
    command: tuple[str, ...] = ()
    failures_max: Annotated[int, Meta(ge=1, le=1000)] = 3


class Limits(msgspec.Struct, frozen=True):
    """What one replica may use and what placement reserves for it."""

    cpus: Annotated[float, Meta(ge=0.0, le=CPUS_MAX)] = 0.1
    memory_bytes: _Bytes = 128 * 1024 * 1024
    processes: Annotated[int, Meta(ge=0, le=PROCESSES_MAX)] = 64


class Specification(msgspec.Struct, frozen=True):
    """All that an executor needs to run a replica, signed by the owner's node as part of a record.

    `version` grows with every modification; `object` names the folder with the service's files.
    """

    name: str
    owner: MemberId
    version: int
    object: ObjectId
    object_bytes: _Bytes
    environment: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    uses: tuple[str, ...] = ()
    limits: Limits = Limits()
    health: HealthCheck = HealthCheck()
    stop_grace_s: _Seconds = 5.0
    public: bool = False
    domains: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def services_used(self) -> tuple[str, ...]:
        """The names of the services that its program may reach."""
        return tuple(use for use in self.uses if USED_PATTERN.fullmatch(use))[:SERVICES_USED_MAX]

    @property
    def outgoing(self) -> bool:
        """Whether its program wants to reach the Internet."""
        return OUTGOING_USE in self.uses

    @property
    def secrets_needed(self) -> tuple[str, ...]:
        """The secrets without which it must not start: what it uses as `secret:NAME`."""
        named = [use.removeprefix(SECRET_USE) for use in self.uses if use.startswith(SECRET_USE)]
        return tuple(name for name in named[:SECRETS_MAX] if is_secret_name(name))


class Service(msgspec.Struct, frozen=True):
    """One existing service as the catalogue gives it: the merged content of its records.

    `short` tells whether it holds its short name; otherwise it resolves as `name--member`. `conflicts` names
    the record kinds of which a concurrent change lost and is kept. `adopted_by` is empty while the service belongs to
    who created it; `delegates` may change it beside its owner. `secrets` are sorted by name; the version that
    `specification` shows grows with each change of them, too.
    """

    id: ServiceId
    specification: Specification
    active: bool
    replicas: int
    short: bool = True
    conflicts: tuple[str, ...] = ()
    adopted_by: MemberId = MemberId(b"")
    delegates: tuple[MemberId, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()

    @property
    def lacking(self) -> tuple[str, ...]:
        """The secrets that it needs and that nobody has set: without them it does not start."""
        have = {secret.name for secret in self.secrets}
        return tuple(name for name in self.specification.secrets_needed if name not in have)

    @property
    def name(self) -> str:
        return self.specification.name

    @property
    def owner(self) -> MemberId:
        return self.adopted_by or self.specification.owner


def lacking_text(service: Service) -> str:
    """Why a service that lacks secrets does not start, and what to do."""
    one = len(service.lacking) == 1
    names = ", ".join(service.lacking)
    return f"its secret{'' if one else 's'} {names} {'is' if one else 'are'} not set: `colla secret set`"


def check_name(name: str) -> str:
    """Return `name` when it is a DNS label without `--`; raise `CollaError("bad_name")` saying what is one."""
    if NAME_PATTERN.fullmatch(name) is None or "--" in name:
        raise CollaError(
            "bad_name",
            f"{name!r} cannot be the name of a service.",
            "Use 1 to 63 lower-case letters, digits and single hyphens, as in 'our-calendar'.",
        )
    return name


def check_kind(kind: str) -> str:
    """Return `kind` when it can name execution environments; raise `CollaError("bad_kind")`."""
    if KIND_PATTERN.fullmatch(kind) is None:
        raise CollaError(
            "bad_kind",
            f"{kind!r} cannot name a kind of environments.",
            "Use 1 to 32 lower-case letters, digits and hyphens, as in 'static'.",
        )
    return kind
