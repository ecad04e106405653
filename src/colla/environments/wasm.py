"""The wasm environment: WASI modules that answer HTTP by the CGI convention, an instance per request (RFC 3875, "WAGI").

A module can do nothing but compute, read its bundle and answer: it gets no network, no writable file and no clock of others. So it
is what code of people one does not know should be written for. This driver checks and compiles; the replica itself is a process of
the process environment that runs `wasm_runner`, so that listener, log, limits and recovery are the same as
for any program. It needs no consent without bubblewrap: the module is contained by WebAssembly itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Final

import msgspec

import colla
from colla.environments.artifacts import check_artifact, count_artifact
from colla.environments.driver import fault
from colla.environments.folders import Place, RuntimeFolder, private_folder
from colla.environments.process import ProcessDriver
from colla.environments.process_replica import ProcessReplica
from colla.environments.protocol import (
    PROTOCOL_VERSION,
    EnvironmentInfo,
    LimitName,
    LogLine,
    PrepareProgress,
    ReplicaSpec,
)
from colla.environments.runners import runner_spec
from colla.environments.wasm_modules import ModuleCache, find_module, modules_of, read_module, why_unavailable
from colla.environments.wasm_runner import CONFIG_VARIABLE, PROCESSES_MAX, RunnerConfig

PROCESS_MEMORY_BYTES: Final = 128 << 20
"""What one of its processes needs beside its instances (measured: 45 MB, and answers on their way)."""
OWN_ENFORCED: Final[tuple[LimitName, ...]] = ("memory_bytes",)


class WasmDriver:
    """Runs modules; see `Driver`."""

    def __init__(self, instance: str, folder: RuntimeFolder) -> None:
        """Raises `EnvironmentFault` where nothing can be run."""
        if why := why_unavailable():
            raise fault(
                "not_installed", f"WebAssembly cannot be run here: {why}.", "Install it, then try again."
            )
        if sys.platform != "linux":
            raise fault("not_supported", "The wasm environment runs on Linux only so far.")
        self._processes = ProcessDriver(instance, folder, "none")
        self._cache = ModuleCache(private_folder(folder.path / "compiled"))
        inner = self._processes.info.limits_enforced
        enforced = dict.fromkeys((*OWN_ENFORCED, *(name for name in inner if name == "cpus")))
        self.info = EnvironmentInfo(
            protocol_versions=(PROTOCOL_VERSION,),
            kind="wasm",
            version=colla.__version__,
            instance=instance,
            artifact_kinds=("folder",),
            config_schema={
                "type": "object",
                "properties": {
                    "command": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "the module, its arguments",
                    },
                    "env": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            isolation="webassembly",
            network_modes=("isolated",),
            limits_enforced=tuple(enforced),
            capabilities=("prepare", "recover", "logs", "stats", "secrets"),
            # It has no files, processes or network to do harm with, and its memory the runner itself counts.
            not_contained=(),
        )

    def check(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> None:
        module = find_module(check_artifact(spec.artifact), spec.command)
        read_module(module)
        if spec.uses or spec.outgoing:
            text = f"{spec.service} wants to use other services, and a module has no sockets."
            raise fault("not_supported", text, "Deploy it without `uses`, or as a program or a container.")
        self._processes.check(_placeholder(spec), allow_unsandboxed=True)

    async def prepare(self, artifact: str) -> AsyncIterator[PrepareProgress]:
        """Compile what is at the top of the folder, once."""
        for module in modules_of(check_artifact(artifact)):
            await self._cache.compiled(module)
        async for progress in count_artifact(artifact):
            yield progress

    async def launch(self, spec: ReplicaSpec, place: Place) -> ProcessReplica:
        folder = check_artifact(spec.artifact)
        module = find_module(folder, spec.command)
        compiled = await self._cache.compiled(module)
        processes = max(1, min(PROCESSES_MAX, os.cpu_count() or 1, round(spec.limits.cpus or PROCESSES_MAX)))
        config = RunnerConfig(
            module=str(compiled),
            name=module.name,
            folder=str(folder),
            arguments=spec.command[1:],
            env=spec.variables | {"COLLA_SERVICE": spec.service, "COLLA_REPLICA": spec.replica},
            memory_bytes=spec.limits.memory_bytes,
            processes=processes,
        )
        memory_bytes = spec.limits.memory_bytes
        limits = msgspec.structs.replace(
            spec.limits,
            memory_bytes=None if memory_bytes is None else memory_bytes + processes * PROCESS_MEMORY_BYTES,
            pids=None,
        )
        env = {CONFIG_VARIABLE: config.encode()}
        # No door to the group: WASI's first preview opens no sockets, and the token would only be one thing more to lose.
        inner = runner_spec(spec, "colla.environments.wasm_runner", env, limits)
        return _as_wasm(await self._processes.launch(inner, place), self._limits(spec))

    async def adopt(self, spec: ReplicaSpec, place: Place, handle: str) -> ProcessReplica | None:
        found = await self._processes.adopt(spec, place, handle)
        return None if found is None else _as_wasm(found, self._limits(spec))

    async def abandon(self, place: Place) -> None:
        await self._processes.abandon(place)

    async def close(self) -> None:
        """Nothing runs beside the replicas."""

    def logs(self, place: Place, after: int) -> list[LogLine]:
        return self._processes.logs(place, after)

    def _limits(self, spec: ReplicaSpec) -> tuple[LimitName, ...]:
        return tuple(name for name in self.info.limits_enforced if getattr(spec.limits, name) is not None)


def _placeholder(spec: ReplicaSpec) -> ReplicaSpec:
    """The same with a command, which the process environment insists on."""
    return spec if spec.command else msgspec.structs.replace(spec, command=("module",))


def _as_wasm(replica: ProcessReplica, limits: tuple[LimitName, ...]) -> ProcessReplica:
    replica.limits_enforced = limits
    return replica
