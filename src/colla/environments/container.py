"""The container environment: images that arrive as objects, run by the computer's Docker or Podman.

A container has a read-only root, no capabilities, no network but its endpoint, and a small /tmp. The replica is a process of the
process environment that runs `container_runner`, so that listener, log and recovery are the same as for any program; the container
itself is found by its name whatever happened to that process.
"""

from __future__ import annotations

import asyncio
import codecs
import signal as signals
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

import colla
from colla.environments.artifacts import check_artifact, count_artifact
from colla.environments.bridge_config import HERE, PROXY
from colla.environments.complaints import complain
from colla.environments.container_commands import KILLED, run_command
from colla.environments.container_engine import DOOR, Engine, end_service, find_engine
from colla.environments.container_runner import (
    CONFIG_VARIABLE,
    CONNECTED,
    DOOR_SOCKET,
    OUT_OF_MEMORY,
    WAYS_PORT,
    RunnerConfig,
)
from colla.environments.containment import BOMBS
from colla.environments.driver import fault
from colla.environments.folders import Place, RuntimeFolder
from colla.environments.group import OUTGOING_WAY, SOCKET_VARIABLE, TOKEN_VARIABLE, USES_VARIABLE
from colla.environments.images import read_image
from colla.environments.process import ProcessDriver
from colla.environments.process_replica import ProcessReplica
from colla.environments.protocol import (
    PROTOCOL_VERSION,
    EnvironmentFault,
    EnvironmentInfo,
    ExecOutput,
    ExecRequest,
    Exit,
    GroupAccess,
    LimitName,
    Limits,
    LogLine,
    PrepareProgress,
    ReplicaSignal,
    ReplicaSpec,
    ReplicaStats,
    StopSignal,
)
from colla.environments.runners import runner_spec

OPEN_FOR_S: Final = 0.1
"""A connection that is not refused for so long is one that somebody accepted."""
RETRY_S: Final = 0.05
COMMANDS_MAX: Final = 4
"""At the same time in one container, besides the one that checks its health."""
REMOVE_AGAIN_S: Final = 0.5
REMOVE_FOR_S: Final = 60.0
"""An engine that is away is waited for so long before a replica is given up with what may be left of it."""
CHECK_PAUSE_S: Final = 2.0
"""Between two checks at least: each makes the engine start programs, of which Podman leaves two waiting for five minutes."""
SECRETS_KEPT: Final = (
    "the container engine keeps the variables of a container, secrets too, in files of its own while the container exists,"
    " and in its database perhaps for longer"
)
"""Its API has no other way to give a program of any image variables."""
SIGNALS_END: Final = 128 + 65
"""Exit codes below it and above 128 stand for signals."""


def not_contained(limits: tuple[LimitName, ...]) -> tuple[str, ...]:
    """What an engine that enforces these limits does not keep a program from (`THREATS` of the protocol).

    All that a container can write to is memory; so where that is bounded, the disk needs no bound of its own.
    """
    return tuple(threat for threat, limit in BOMBS.items() if limit not in limits)


class ContainerReplica:
    """One container, and the process that speaks for it."""

    def __init__(self, inner: ProcessReplica, spec: ReplicaSpec, place: Place, engine: Engine) -> None:
        self.handle = inner.handle
        limits = spec.limits
        self.limits_enforced: tuple[LimitName, ...] = tuple(
            name for name in engine.limits if getattr(limits, name) is not None
        )
        self._inner = inner
        self._spec = spec
        self._place = place
        self._engine = engine
        self._commands = 0
        """How many run now because somebody asked for them."""
        self._checked_s = -CHECK_PAUSE_S

    async def until_listening(self) -> None:
        """The proxy closes a connection at once while nobody listens inside."""
        connected = self._place.path / CONNECTED
        while not (connected.exists() and await self._accepts()):  # noqa: ASYNC110 - nobody tells when a program in a container listens
            await asyncio.sleep(RETRY_S)

    async def _accepts(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._place.endpoint))
        except OSError:
            return False
        try:
            async with asyncio.timeout(OPEN_FOR_S + RETRY_S):
                began_s = time.monotonic()
                data = await reader.read(1)
                return bool(data) or time.monotonic() - began_s > OPEN_FOR_S
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            writer.close()

    async def until_exit(self) -> Exit:
        exit = await self._inner.until_exit()
        await self._remove()
        if (self._place.path / OUT_OF_MEMORY).exists():
            message = "It needed more memory than it may have."
            return msgspec.structs.replace(exit, reason="out_of_memory", message=message)
        if exit.reason == "exited" and exit.code is not None and 128 < exit.code < SIGNALS_END:
            number = exit.code - 128
            # Not every engine says that memory ran out.
            hint = ", as when memory runs out" if number == signals.SIGKILL else ""
            message = f"It was ended by signal {number}{hint}."
            return msgspec.structs.replace(exit, reason="killed", code=None, signal=number, message=message)
        return exit

    async def _remove(self) -> None:
        """An engine that is away for a while, as for an update, removes it when it is back; meanwhile it has not ended."""
        until_s = time.monotonic() + REMOVE_FOR_S
        while True:
            try:
                await asyncio.to_thread(self._engine.remove, self._spec.replica)
                return
            except EnvironmentFault as error:
                if time.monotonic() > until_s:
                    complain(f"cannot remove the container of {self._spec.replica}: {error.message}")
                    return
            await asyncio.sleep(REMOVE_AGAIN_S)

    async def signal(self, signal: ReplicaSignal) -> None:
        await self._inner.signal(signal)

    async def stop(self, signal: StopSignal, grace_s: float) -> None:
        await self._inner.stop(signal, grace_s)
        await self._remove()

    async def exec(self, request: ExecRequest) -> AsyncIterator[ExecOutput]:
        """Inside the container, by the engine."""
        if self._commands >= COMMANDS_MAX:
            raise fault("exec_failed", f"{COMMANDS_MAX} commands run in it already.", retryable=True)
        self._commands += 1
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        running = run_command(self._engine, self._spec.replica, request.command, request.timeout_s)
        try:
            async with aclosing(running):
                async for piece in running:
                    if isinstance(piece, int):
                        yield ExecOutput(text=decoder.decode(b"", final=True), code=piece)
                    elif text := decoder.decode(piece):
                        yield ExecOutput(text=text)
        finally:
            self._commands -= 1

    async def check_problem(self) -> str:
        """The command runs inside the container, now."""
        check = self._spec.health
        await asyncio.sleep(self._checked_s + CHECK_PAUSE_S - time.monotonic())
        began_s = time.monotonic()
        code: int | None = None
        running = run_command(self._engine, self._spec.replica, check.command, check.timeout_s)
        try:
            async with aclosing(running):
                async for piece in running:
                    code = piece if isinstance(piece, int) else None
        except EnvironmentFault as error:
            return f"the command that checks it could not be run: {error.message}"
        finally:
            self._checked_s = time.monotonic()
        if code == KILLED and self._checked_s - began_s >= check.timeout_s:
            return f"the command that checks it took longer than {check.timeout_s:g} s"
        return "" if code == 0 else f"the command that checks it ended with {code}"

    def why_not_listening(self) -> str:
        return f"nothing in the container listens on port {port_of(self._spec)}"

    def stats(self) -> ReplicaStats:
        seconds, memory_bytes, processes = self._engine.usage(self._spec.replica)
        return ReplicaStats(
            replica=self._spec.replica, cpu_seconds=seconds, memory_bytes=memory_bytes, processes=processes
        )


def port_of(spec: ReplicaSpec) -> int:
    """Where the program in the container listens: what `PORT` says, else what its image exposes."""
    said = spec.env.get("PORT", "")
    if not said:
        return read_image(Path(spec.artifact)).port
    if not (said.isdigit() and 0 < int(said) < 65536):
        raise fault("port_malformed", f"PORT={said!r} is no port.", "Give a number from 1 to 65535.")
    return int(said)


def ways_of(spec: ReplicaSpec) -> list[tuple[str, dict[str, str]]]:
    """For each way out the line that it begins with, and the variables that tell of it, with {} for its port."""
    if spec.group is None or not spec.group.ways:
        return []
    ways = [(name, {USES_VARIABLE + name.upper().replace("-", "_"): HERE}) for name in spec.uses]
    if spec.outgoing:
        ways.append((OUTGOING_WAY, dict(PROXY)))
    return [(f"{spec.group.token} {name}\n", variables) for name, variables in ways]


class ContainerDriver:
    """Runs containers; see `Driver`."""

    def __init__(self, instance: str, folder: RuntimeFolder) -> None:
        """Raises `EnvironmentFault` where there is no engine."""
        if sys.platform != "linux":
            raise fault("not_supported", "The container environment runs on Linux only so far.")
        self._processes = ProcessDriver(instance, folder, "none")
        self._folder = folder
        self._engine = find_engine(folder)
        self._loading = asyncio.Lock()
        self.info = EnvironmentInfo(
            protocol_versions=(PROTOCOL_VERSION,),
            kind="container",
            version=colla.__version__,
            instance=instance,
            artifact_kinds=("folder",),
            config_schema={
                "type": "object",
                "properties": {
                    "command": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "instead of the image's",
                    },
                    "env": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            isolation="container",
            network_modes=("isolated",),
            limits_enforced=self._engine.limits,
            capabilities=("prepare", "recover", "logs", "stats", "signal", "secrets")
            + (("check_command", "exec") if self._engine.runs_commands else ()),
            not_contained=not_contained(self._engine.limits),
            secrets_kept=SECRETS_KEPT,
        )

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        read_image(check_artifact(spec.artifact))
        port_of(spec)
        inner = spec if spec.command else msgspec.structs.replace(spec, command=("image",))
        self._processes.check(inner, allow_unsandboxed=True)

    async def prepare(self, artifact: str) -> AsyncIterator[PrepareProgress]:
        """Give the image to the engine."""
        await self._load(check_artifact(artifact))
        async for progress in count_artifact(artifact):
            yield progress

    async def _load(self, folder: Path) -> None:
        # One at a time: two of the same image would fill the disk twice.
        async with self._loading:
            await asyncio.to_thread(self._engine.load, read_image(folder), self._folder.path)

    async def launch(self, spec: ReplicaSpec, place: Place) -> ContainerReplica:
        folder = check_artifact(spec.artifact)
        await self._load(folder)
        port = port_of(spec)
        for note in (OUT_OF_MEMORY, CONNECTED):
            (place.path / note).unlink(missing_ok=True)
        group, told = spec.group or GroupAccess(socket="", token=""), {}
        if spec.group is not None:
            told = {SOCKET_VARIABLE: f"{DOOR}/{DOOR_SOCKET}", TOKEN_VARIABLE: group.token}
        ways = ways_of(spec)
        for number, (_, variables) in enumerate(ways, WAYS_PORT):
            told |= {name: text.format(number) for name, text in variables.items()}
        config = RunnerConfig(
            engine=self._engine.url,
            image=str(folder),
            replica=spec.replica,
            command=spec.command,
            env={
                "PORT": str(port),
                "HOST": "127.0.0.1",
                "COLLA_SERVICE": spec.service,
                "COLLA_REPLICA": spec.replica,
            }
            | spec.variables
            | told,
            limits=spec.limits,
            port=port,
            notes=str(place.path),
            group=group.socket,
            ways=group.ways,
            way_lines=tuple(line for line, _ in ways),
            init=self._engine.has_init,
        )
        env = {CONFIG_VARIABLE: config.encode()}
        inner = runner_spec(spec, "colla.environments.container_runner", env, Limits())
        return ContainerReplica(await self._processes.launch(inner, place), spec, place, self._engine)

    async def adopt(self, spec: ReplicaSpec, place: Place, handle: str) -> ContainerReplica | None:
        found = await self._processes.adopt(spec, place, handle)
        return None if found is None else ContainerReplica(found, spec, place, self._engine)

    async def abandon(self, place: Place) -> None:
        await self._processes.abandon(place)
        try:
            await asyncio.to_thread(self._engine.remove, place.path.name)
        except EnvironmentFault as error:
            complain(f"cannot remove the container of {place.path.name}: {error.message}")

    async def close(self) -> None:
        """The process that served the engine's API for us ends too; an engine of the owner's goes on."""
        await asyncio.to_thread(end_service, self._folder)

    def logs(self, place: Place, after: int) -> list[LogLine]:
        return self._processes.logs(place, after)
