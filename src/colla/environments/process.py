"""The process environment: any program, in a bubblewrap sandbox where there is one, with a bridge beside it.

What starts is /bin/sh (which enters the control groups) → bubblewrap → the bridge → the program; without a sandbox
/bin/sh → the bridge → the program, and only if the owner of the computer agreed. The bridge owns listener, log and
notes, so that replicas go on when this program ends, and are found again by process id, boot and start time. A
replica whose launch was cut off in the middle is killed, not adopted.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, Final

import msgspec

import colla
from colla.environments import processes, sandbox
from colla.environments.artifacts import check_artifact, count_artifact
from colla.environments.bridge_config import Inherited, bridge_config
from colla.environments.cgroups import ControlGroups, Group
from colla.environments.containment import find_containment, not_contained
from colla.environments.driver import fault
from colla.environments.folders import Place, RuntimeFolder, listen_on
from colla.environments.landlock import Landlock
from colla.environments.notes import read_lines
from colla.environments.packages import Bundle, PythonPackages
from colla.environments.process_replica import LAUNCH_ERRORS, Handle, ProcessReplica
from colla.environments.processes import Identity
from colla.environments.protocol import (
    PROTOCOL_VERSION,
    EnvironmentFault,
    EnvironmentInfo,
    LimitName,
    LogLine,
    PrepareProgress,
    ReplicaSpec,
)
from colla.environments.sandbox import Bubblewrap

INFO_TIMEOUT_S: Final = 10.0
"""How long bubblewrap may take to say which process the bridge became."""
INFO_BYTES_MAX: Final = 4096
COMMAND_BYTES_MAX: Final = 64 << 10
OOM_SCORE: Final = 400
"""When memory runs out the kernel shall end a service rather than the owner's own programs."""
ENTER: Final = (
    'for file in $COLLA_GROUPS; do echo 0 > "$file" || exit 126; done; unset COLLA_GROUPS; '
    f'if [ -w /proc/self/oom_score_adj ]; then echo {OOM_SCORE} > /proc/self/oom_score_adj; fi; exec "$@"'
)
"""For /bin/sh: enter the control groups, then become the rest of the chain."""


class ProcessDriver:
    """Runs programs; see `Driver`."""

    def __init__(self, instance: str, folder: RuntimeFolder, isolation: str = "auto") -> None:
        """`isolation` is auto, none, or bubblewrap or landlock where nothing else will do. Raises `EnvironmentFault`."""
        found, why_not = find_containment(folder.path, isolation)
        self._bubblewrap = found if isinstance(found, Bubblewrap) else None
        self._landlock = found if isinstance(found, Landlock) else None
        self._groups = ControlGroups.find()
        self._packages = PythonPackages(folder, self._bubblewrap)
        self.info = EnvironmentInfo(
            protocol_versions=(PROTOCOL_VERSION,),
            kind="process",
            version=colla.__version__,
            instance=instance,
            artifact_kinds=("folder",),
            config_schema={
                "type": "object",
                "required": ["command"],
                "properties": {
                    "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "env": {"type": "object", "additionalProperties": {"type": "string"}},
                    "listen": {"enum": ["auto", "fds", "unix", "port"], "default": "auto"},
                },
            },
            isolation="bubblewrap" if self._bubblewrap else "landlock" if self._landlock else "none",
            network_modes=("isolated",) if found else ("shared",),
            limits_enforced=(*self._groups.limits, "open_files"),
            capabilities=(
                "prepare",
                "recover",
                "logs",
                "stats",
                "signal",
                "check_command",
                "secrets",
                "exec",
            ),
            needs_consent="" if found else f"programs would run without a sandbox, since {why_not}",
            not_contained=not_contained(found, self._groups),
        )

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        check_artifact(spec.artifact)
        if not spec.command:
            raise fault("command_missing", f"Nobody said what to run for {spec.service}.", "Give a command.")
        variables = spec.variables
        texts = [*spec.command, *variables, *variables.values()]
        if sum(map(len, texts)) > COMMAND_BYTES_MAX:
            raise fault(
                "command_too_long", f"Command and environment exceed {COMMAND_BYTES_MAX} bytes.", "Use files."
            )
        if any("\0" in text for text in texts) or any("=" in name or not name for name in variables):
            raise fault("command_malformed", "Command and environment must not have NUL, nor names '='.")
        if self._landlock is not None and spec.listen == "unix":
            raise fault(
                "not_supported",
                "Without bubblewrap a program has no Unix sockets of its own.",
                "Listen on $PORT.",
            )
        if self.info.needs_consent and not allow_unsandboxed:
            raise fault(
                "consent_needed",
                f"The owner of this computer has not agreed that {self.info.needs_consent}.",
                "Install bubblewrap, or allow programs without a sandbox.",
            )

    async def prepare(self, artifact: str) -> AsyncIterator[PrepareProgress]:
        last = PrepareProgress(done=True)
        async for last in count_artifact(artifact):
            if not last.done:
                yield last
        bundle = self._packages.bundle(check_artifact(artifact))
        if bundle is not None:
            if not self._packages.made(bundle):
                yield PrepareProgress(doing=f"installing {len(bundle.wheels)} Python packages")
            await self._packages.make(bundle)
        yield last

    async def close(self) -> None:
        """Nothing runs beside the replicas."""

    def logs(self, place: Place, after: int) -> list[LogLine]:
        return read_lines(place.logs, after)

    async def adopt(self, spec: ReplicaSpec, place: Place, handle: str) -> ProcessReplica | None:
        """Also one that ended meanwhile: its notes tell how. Without a handle its launch was cut off."""
        try:
            found = msgspec.json.decode(handle, type=Handle)
        except msgspec.DecodeError:
            return None
        with suppress(EnvironmentFault):  # Files that are gone are no reason to lose what runs.
            self._hold(spec)
        group, release = self._groups.existing(_group_name(spec.replica)), self._releaser(spec)
        return ProcessReplica(spec, place, found, group, self._limits(spec), None, release)

    def _hold(self, spec: ReplicaSpec) -> Bundle | None:
        """The packages that the replica needs; they stay until it has ended. Raises `EnvironmentFault`."""
        bundle = self._packages.bundle(check_artifact(spec.artifact))
        if bundle is not None:
            self._packages.hold(spec.replica, bundle)
        return bundle

    def _releaser(self, spec: ReplicaSpec) -> Callable[[], None]:
        return partial(self._packages.release, spec.replica)

    async def abandon(self, place: Place) -> None:
        """The bridge carries the replica's id in its command line, so that it is found without any record."""
        await asyncio.to_thread(self._abandon_now, place.path.name)

    def _abandon_now(self, replica: str) -> None:
        for pid in processes.find_by_argument(replica):
            if identity := Identity.of(pid):
                processes.kill_tree(identity)
        group = self._groups.existing(_group_name(replica))
        group.kill()
        group.remove()

    def _limits(self, spec: ReplicaSpec) -> tuple[LimitName, ...]:
        return tuple(name for name in self.info.limits_enforced if getattr(spec.limits, name) is not None)

    async def launch(self, spec: ReplicaSpec, place: Place) -> ProcessReplica:
        release = self._releaser(spec)
        try:
            return await self._launch(spec, place, release)
        except BaseException:
            release()
            raise

    async def _launch(self, spec: ReplicaSpec, place: Place, release: Callable[[], None]) -> ProcessReplica:
        bundle = self._hold(spec)
        packages = await self._packages.make(bundle) if bundle is not None else None
        try:
            group = self._groups.create(_group_name(spec.replica), spec.limits)
        except OSError as error:
            message = f"The limits of {spec.service} could not be set: {error}."
            raise fault("limits_failed", message, retryable=True) from error
        try:
            child, bridge_pid = await asyncio.to_thread(self._spawn, spec, place, group, packages)
        except OSError as error:
            await asyncio.to_thread(group.remove)
            raise fault(
                "launch_failed", f"{spec.service} could not be launched: {error}.", retryable=True
            ) from error
        handle = Handle(outer=_identity(child.pid), bridge=_identity(bridge_pid))
        return ProcessReplica(spec, place, handle, group, self._limits(spec), child, release)

    def _spawn(
        self, spec: ReplicaSpec, place: Place, group: Group, packages: Path | None
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Start the chain; its outer process and the bridge's process id. Raises `OSError`."""
        with ExitStack() as held:
            listener = held.enter_context(place.listen())
            control = held.enter_context(listen_on(place.control))
            status, *logs = (_open_fresh(held, path) for path in (place.status, *place.logs))
            config = held.enter_context(_config_file(place))
            passed = Inherited(listener.fileno(), status, tuple(logs), control.fileno())
            told = bridge_config(spec, place, passed, packages, self._bubblewrap or self._landlock)
            config.write(msgspec.json.encode(told))
            config.seek(0)
            inherited = [listener.fileno(), control.fileno(), status, *logs, config.fileno()]
            read, write = (
                held.enter_context(os.fdopen(fd, mode))
                for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
            )
            if self._bubblewrap is None:
                command = sandbox.start_bridge(sandbox.bridge_folder())
            else:
                system_calls = sandbox.open_filter()
                if system_calls is not None:
                    held.callback(os.close, system_calls)
                    inherited.append(system_calls)
                inherited.append(write.fileno())
                artifact = check_artifact(spec.artifact)
                door = Path(spec.group.socket).parent if spec.group is not None else None
                command = self._bubblewrap.bridge_command(
                    artifact, place.scratch, write.fileno(), system_calls, door, packages
                )
            errors = _open_fresh(held, place.path / LAUNCH_ERRORS)
            child = subprocess.Popen(
                ["/bin/sh", "-c", ENTER, "sh", *command, str(config.fileno()), spec.replica],
                env={"COLLA_GROUPS": " ".join(map(str, group.process_files)), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=inherited,
                start_new_session=True,
                cwd="/",
            )
            if self._bubblewrap is None:
                return child, child.pid
            write.close()
            try:
                return child, _read_bridge_pid(read.fileno())
            except OSError:
                processes.kill_tree(_identity(child.pid))
                child.wait()
                reason = (place.path / LAUNCH_ERRORS).read_text(errors="replace").strip()[-500:]
                raise OSError(reason or "bubblewrap said nothing") from None


def _config_file(place: Place) -> IO[bytes]:
    """What the bridge reads, secrets included: in memory, where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("bridge"), "w+b")
    return tempfile.TemporaryFile(dir=place.path)


def _group_name(replica: str) -> str:
    return f"colla-{replica}"


def _identity(pid: int) -> Identity:
    """Who that is; one that lives no more for a process that has ended already."""
    return Identity.of(pid) or Identity(pid, "", "")


def _open_fresh(held: ExitStack, path: Path) -> int:
    """An empty file for appending, closed with `held`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    held.callback(os.close, fd)
    return fd


def _read_bridge_pid(fd: int) -> int:
    """What bubblewrap says on its --info-fd. Raises `OSError` when it failed or takes too long."""
    data = b""
    while select.select([fd], [], [], INFO_TIMEOUT_S)[0]:
        chunk = os.read(fd, INFO_BYTES_MAX)
        data += chunk
        if not chunk or len(data) > INFO_BYTES_MAX:
            break
    try:
        return msgspec.json.decode(data, type=BubblewrapInfo).child_pid
    except msgspec.DecodeError:
        raise OSError("no process id from bubblewrap") from None


class BubblewrapInfo(msgspec.Struct, rename="kebab"):
    """The part of bubblewrap's information that matters."""

    child_pid: int
