"""What a bridge is told: the program's command and variables, what it inherited, what it may reach.

Paths are as the bridge sees them: those of the sandbox where it is inside of one with its program, else this computer's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from colla.environments import sandbox
from colla.environments.artifacts import check_artifact
from colla.environments.folders import LOG_SEGMENT_BYTES_MAX, Place
from colla.environments.group import (
    OUTGOING_WAY,
    SOCKET_VARIABLE,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    USES_VARIABLE,
)
from colla.environments.landlock import Landlock
from colla.environments.protocol import ReplicaSpec
from colla.environments.sandbox import Bubblewrap

OPEN_FILES_DEFAULT: Final = 4096
SCRATCH_BYTES_MAX: Final = 1 << 30
"""What a replica may keep in its scratch folder, where it is contained at all."""

HERE: Final = "http://127.0.0.1:{}"
PROXY: Final = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), HERE) | {
    "NO_PROXY": "127.0.0.1,localhost,::1",
    "no_proxy": "127.0.0.1,localhost,::1",
    "NODE_USE_ENV_PROXY": "1",
}
"""How programs are told of a proxy; Node.js looks only where it is asked to."""


class Inherited(msgspec.Struct, frozen=True):
    """The descriptors that the bridge begins with."""

    listener: int
    status: int
    logs: tuple[int, ...]
    control: int


def bridge_config(
    spec: ReplicaSpec,
    place: Place,
    inherited: Inherited,
    packages: Path | None,
    containment: Bubblewrap | Landlock | None,
) -> dict[str, Any]:
    """The configuration of one replica's bridge; `packages` are those that the service brought, on this computer."""
    artifact = check_artifact(spec.artifact)
    inside = isinstance(containment, Bubblewrap)
    env = _variables(spec, place, packages, containment)
    config: dict[str, Any] = {
        "command": spec.command,
        "env": env,
        "cwd": sandbox.APP if inside else str(artifact),
        "listen": spec.listen,
        "listener": inherited.listener,
        "socket": env.get("COLLA_SOCKET", str(place.app_socket)),
        "port": sandbox.PORT if inside else 0,
        "control": inherited.control,
        "status": inherited.status,
        "logs": list(inherited.logs),
        "log_bytes_max": LOG_SEGMENT_BYTES_MAX,
        "start_period_s": spec.health.start_period_s,
        "contained": inside,
        "check": list(spec.health.command),
        "check_interval_s": spec.health.interval_s,
        "check_timeout_s": spec.health.timeout_s,
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": spec.limits.open_files or OPEN_FILES_DEFAULT},
        "ways": _ways(spec, containment),
    }
    if containment is not None:
        config["scratch"] = [sandbox.SCRATCH if inside else str(place.scratch)]
        config["scratch_bytes_max"] = SCRATCH_BYTES_MAX
        config["rlimits"]["RLIMIT_FSIZE"] = SCRATCH_BYTES_MAX
    if isinstance(containment, Landlock):
        config["fence"] = containment.fence(artifact, place.scratch, packages, bool(spec.health.command))
    return config


def _variables(
    spec: ReplicaSpec, place: Place, packages: Path | None, containment: Bubblewrap | Landlock | None
) -> dict[str, str]:
    inside = isinstance(containment, Bubblewrap)
    search, home, tmp = sandbox.search_path(), f"{sandbox.SCRATCH}/home", "/tmp"
    if not inside:
        home, tmp = str(place.scratch / "home"), str(place.scratch / "tmp")
    if containment is None:
        search = f"{search}:{os.environ.get('PATH', '')}"
    env = {"HOME": home, "TMPDIR": tmp, "LANG": "C.UTF-8", "HOST": "127.0.0.1", "USER": "app"}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if packages is not None:
        env["VIRTUAL_ENV"] = sandbox.PACKAGES if inside else str(packages)
        search = f"{env['VIRTUAL_ENV']}/bin:{search}"
    env |= {"PATH": search} | spec.variables
    if spec.group is not None:
        env[TOKEN_VARIABLE] = spec.group.token
    if not isinstance(containment, Landlock):
        env["COLLA_SOCKET"] = sandbox.APP_SOCKET if inside else str(place.app_socket)
        if spec.group is not None:
            env[SOCKET_VARIABLE] = _door(spec.group.socket, inside)
    return env | {"COLLA_SERVICE": spec.service, "COLLA_REPLICA": spec.replica}


def _ways(spec: ReplicaSpec, containment: Bubblewrap | Landlock | None) -> list[dict[str, Any]]:
    """See `bridge.ways`."""
    access, ways = spec.group, []
    if access is None:
        return []
    if isinstance(containment, Landlock):
        ways.append(_way(access.socket, "", {URL_VARIABLE: HERE}))
    if access.ways:
        door = _door(access.ways, isinstance(containment, Bubblewrap))
        for name in spec.uses:
            variable = USES_VARIABLE + name.upper().replace("-", "_")
            ways.append(_way(door, f"{access.token} {name}\n", {variable: HERE}))
        if spec.outgoing:
            ways.append(_way(door, f"{access.token} {OUTGOING_WAY}\n", PROXY))
    return ways


def _way(door: str, first: str, variables: dict[str, str]) -> dict[str, Any]:
    return {"socket": door, "first": first, "variables": variables}


def _door(socket: str, inside: bool) -> str:
    return f"{sandbox.GROUP}/{Path(socket).name}" if inside else socket
