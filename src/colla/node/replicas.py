"""The replicas that this node's environments run: performs launching, stopping and surveying.

Owns the environment clients and, for each replica, a small note on disk (service, version, kind, written before
the launch) by which a survey after a restart tells whose replica an environment runs. Artifacts are materialised
once per object and shared by replicas; an artifact goes when no note names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import assert_never

import msgspec

from colla.access.interface import TunnelError
from colla.access.streams import Endpoint, TcpEndpoint, UnixEndpoint
from colla.environments import protocol
from colla.environments.client import EnvironmentClient
from colla.kernel.effects import LaunchReplica, StopReplica, SurveyReplicas
from colla.kernel.events import (
    EnvironmentsChanged,
    Event,
    LaunchFailed,
    ReplicaExited,
    ReplicaLaunched,
    ReplicaReady,
    ReplicasSurveyed,
    ReplicaStopped,
    ReplicaUnhealthy,
    StopFailed,
    SurveyedReplica,
    SurveyFailed,
)
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import ReplicaId, ServiceId, short
from colla.model.service import Specification
from colla.node.objects import ObjectStore

log = logging.getLogger(__name__)

REATTACH_FIRST_S = 0.5
REATTACH_MAX_S = 30.0
"""Pauses between attempts to bring an environment program back."""
PROGRESS_EVERY_S = 5.0
"""How often the log is told of a preparation that takes long."""


class Note(msgspec.Struct, frozen=True):
    """What the node remembers of a replica beside the environment's own knowledge."""

    replica: str
    service: str
    name: str
    version: int
    kind: str
    object: str
    token: str = ""
    """What proves to the group's door that it is this replica who asks."""


class Progress:
    """Tells the log how far a preparation is that takes its time."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._told_s = time.monotonic()

    def told(self, line: protocol.PrepareProgress) -> None:
        """One line of progress came."""
        if line.doing:
            log.info("preparing %s: %s", self._service, line.doing)
        if time.monotonic() - self._told_s > PROGRESS_EVERY_S:
            self._told_s = time.monotonic()
            log.info("preparing %s: %d files, %d bytes so far", self._service, line.files, line.size_bytes)


class Replicas:
    """See the module's docstring."""

    def __init__(
        self,
        folder: Path,
        store: ObjectStore,
        post: Callable[[Event], None],
        unsandboxed: Callable[[], bool],
        program: Callable[[str], tuple[str, ...]] = lambda kind: (),
        group: Callable[[str], protocol.GroupAccess | None] = lambda token: None,
    ) -> None:
        """`program` is the command of a kind that is not built in; `group` how a replica with this token asks the group."""
        self.folder = folder
        self._notes_folder = folder / "notes"
        self._artifacts = folder / "artifacts"
        self._store = store
        self._post = post
        self._unsandboxed = unsandboxed
        self._program = program
        self._group = group
        self._problems: dict[str, str] = {}
        self._clients: dict[str, EnvironmentClient] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._notes: dict[ReplicaId, Note] = {}
        self._endpoints: dict[ReplicaId, Endpoint] = {}
        self._artifact_locks: dict[str, asyncio.Lock] = {}
        self._attached = asyncio.Event()
        self._news = asyncio.Event()
        """Set whenever an environment came or went."""
        self._empty = asyncio.Event()

    async def open(self) -> None:
        """Read the notes of earlier starts."""
        await asyncio.to_thread(self._read_notes)

    async def set_kinds(self, kinds: tuple[str, ...]) -> None:
        """Attach exactly these kinds of environment; those that are dropped stop their replicas."""
        for kind in [kind for kind in self._keepers if kind not in kinds]:
            await self._end_keeper(kind)
            client = self._clients.pop(kind, None)
            if client is not None:
                await client.shut_down()
                # Nothing of them is left, whether or not somebody asks about each.
                for replica in [replica for replica, note in self._notes.items() if note.kind == kind]:
                    await self._forget(replica)
        for kind in kinds:
            if kind not in self._keepers:
                self._keepers[kind] = asyncio.create_task(self._keep(kind), name=f"environment {kind}")
        if not kinds:
            self._attached.set()
        self.tell_kinds()

    async def attached(self, timeout_s: float) -> None:
        """Wait until every wanted kind was attached or failed once."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._attached.wait(), timeout_s)

    async def until_attached(self, kind: str, timeout_s: float) -> bool:
        """Wait until this kind is attached; False when it still is not after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while kind not in self._clients:
                    self._news.clear()
                    await self._news.wait()
        return kind in self._clients

    def runtime_of(self, kind: str) -> Path:
        """The runtime folder of a kind's program."""
        return self.folder / kind

    def info(self, kind: str) -> protocol.EnvironmentInfo | None:
        """What the program of a kind says of itself; None while it is not attached."""
        client = self._clients.get(kind)
        return client.info if client is not None else None

    def problem(self, kind: str) -> str:
        """Why a kind is not attached, as far as that is known."""
        return self._problems.get(kind, "")

    def kinds(self) -> tuple[str, ...]:
        """The kinds that are attached and healthy now."""
        return tuple(sorted(self._clients))

    async def close(self, *, keep_replicas: bool) -> None:
        """Let go of the environments; their replicas go on only when they shall be kept."""
        for kind in list(self._keepers):
            await self._end_keeper(kind)
        for client in list(self._clients.values()):
            if keep_replicas:
                await client.detach()
            else:
                await client.shut_down()
        self._clients.clear()

    # -- effects --------------------------------------------------------------------------------------------

    async def launch(self, effect: LaunchReplica) -> Event:
        """Materialise the object, start the replica."""
        specification = effect.specification
        client = self._clients.get(specification.environment)
        if client is None:
            why = f"the environment {specification.environment!r} is not available here"
            return LaunchFailed(effect.id, effect.replica, why)
        if why := _lacking(effect, client.info):
            return LaunchFailed(
                effect.id, effect.replica, f"the environment {specification.environment!r} {why}"
            )
        try:
            # A launch that is repeated is the same launch, its token included.
            known = self._notes.get(effect.replica)
            note = Note(
                effect.replica.hex(),
                effect.service.hex(),
                specification.name,
                specification.version,
                specification.environment,
                specification.object.hex(),
                known.token if known is not None else secrets.token_urlsafe(24),
            )
            await asyncio.to_thread(self._write_note, note)
            artifact = await self._artifact(specification)
            self._notes[effect.replica] = note
            client.allow_unsandboxed = self._unsandboxed()
            if "prepare" in client.info.capabilities:
                await client.prepare(artifact, Progress(specification.name).told)
            started = await client.start(_spec(effect, artifact, self._group(note.token)))
        except CollaError as error:
            log.warning("replica %s of %s: %s", short(effect.replica), specification.name, error)
            await self._forget(effect.replica)
            return LaunchFailed(effect.id, effect.replica, str(error))
        except OSError as error:
            await self._forget(effect.replica)
            return LaunchFailed(effect.id, effect.replica, f"{error.strerror or error}")
        self._endpoints[effect.replica] = _endpoint(started.endpoint)
        return ReplicaLaunched(effect.id, effect.replica)

    async def stop(self, effect: StopReplica) -> Event:
        """Stop the replica, wherever it runs, and delete what it left."""
        note = self._notes.get(effect.replica)
        clients = list(self._clients.values())
        if note is not None:
            if note.kind not in self._clients:
                # Its environment's program is away; the replica may run on, and is not to be called stopped.
                why = f"the environment {note.kind!r} is not available here"
                return StopFailed(effect.id, effect.replica, why)
            clients = [self._clients[note.kind]]
        self._gone(effect.replica)
        for client in clients:
            try:
                await client.stop(effect.replica, effect.grace_s)
                await client.delete(effect.replica)
            except protocol.EnvironmentFault as error:
                if error.code != "replica_unknown":
                    return StopFailed(effect.id, effect.replica, str(error))
        await self._forget(effect.replica)
        return ReplicaStopped(effect.id, effect.replica)

    async def survey(self, effect: SurveyReplicas) -> Event:
        """List all that runs."""
        found: list[SurveyedReplica] = []
        for client in list(self._clients.values()):
            try:
                listed = await client.list()
            except CollaError as error:
                return SurveyFailed(effect.id, str(error))
            for status in listed:
                if status.phase == "exited":
                    await client.delete(status.replica_id)
                    await self._forget(status.replica_id)
                    continue
                note = self._notes.get(status.replica_id)
                if note is not None:
                    # Without one it was forgotten while the list was made, or is nobody's: it will be stopped.
                    self._endpoints[status.replica_id] = _endpoint(status.endpoint)
                service = ServiceId(bytes.fromhex(note.service)) if note else ServiceId(b"")
                version = note.version if note else 0
                found.append(SurveyedReplica(status.replica_id, service, version, status.phase == "ready"))
        return ReplicasSurveyed(effect.id, tuple(found))

    # -- access ---------------------------------------------------------------------------------------------

    def endpoint_of(self, service: ServiceId, replica: ReplicaId) -> Endpoint:
        """Where a replica of this node accepts connections. Raises `TunnelError("no_such_replica")`."""
        note = self._notes.get(replica)
        endpoint = self._endpoints.get(replica)
        if note is None or endpoint is None or note.service != service.hex():
            raise TunnelError("no_such_replica", f"no replica {short(replica)} runs here")
        return endpoint

    def of_token(self, token: str) -> tuple[ReplicaId, ServiceId] | None:
        """The replica whose token this is."""
        for replica, note in self._notes.items():
            if note.token and hmac.compare_digest(
                note.token.encode(), token.encode("utf-8", "surrogateescape")
            ):
                return replica, ServiceId(bytes.fromhex(note.service))
        return None

    def of(self, service: ServiceId) -> list[tuple[ReplicaId, EnvironmentClient]]:
        """The replicas of the service that run here, each with the program that runs it."""
        return [
            (replica, self._clients[note.kind])
            for replica, note in self._notes.items()
            if note.service == service.hex() and note.kind in self._clients
        ]

    def count(self, kind: str | None = None) -> int:
        """How many replicas run here, in all environments or one."""
        if kind is None:
            return len(self._endpoints)
        return sum(one in self._notes and self._notes[one].kind == kind for one in self._endpoints)

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until no replica runs here any more; False when some still do after `timeout_s`."""
        if not self._endpoints:
            return True
        self._empty.clear()
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _gone(self, replica: ReplicaId) -> None:
        self._endpoints.pop(replica, None)
        if not self._endpoints:
            self._empty.set()

    # -- environments ---------------------------------------------------------------------------------------

    async def _keep(self, kind: str) -> None:
        """Attach the environment, hear its events, and bring it back when its program dies."""
        pause_s = REATTACH_FIRST_S
        while True:
            try:
                client = await EnvironmentClient.launch(
                    kind,
                    self.runtime_of(kind),
                    allow_unsandboxed=self._unsandboxed(),
                    program=self._program(kind),
                )
            except CollaError as error:
                log.warning("the environment %s does not start: %s", kind, error)
                self._problems[kind] = error.message
                self._attached.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, REATTACH_MAX_S)
                continue
            pause_s = REATTACH_FIRST_S
            self._clients[kind] = client
            self._problems.pop(kind, None)
            if all(wanted in self._clients for wanted in self._keepers):
                self._attached.set()
            self.tell_kinds()
            try:
                await self._hear(client.events())
            except CollaError as error:
                log.warning("the environment %s went away: %s", kind, error)
            finally:
                self._clients.pop(kind, None)
            self.tell_kinds()
            await client.detach()
            await asyncio.sleep(pause_s)

    async def _hear(self, events: AsyncIterator[protocol.EnvironmentEvent]) -> None:
        async for event in events:
            replica = event.replica_id
            if replica not in self._notes:
                continue
            match event:
                case protocol.ReplicaStarted():
                    pass
                case protocol.ReplicaReady():
                    self._post(ReplicaReady(replica))
                case protocol.ReplicaUnhealthy():
                    self._post(ReplicaUnhealthy(replica, event.message))
                case protocol.ReplicaExited():
                    self._gone(replica)
                    self._post(ReplicaExited(replica, _why(event.exit)))
                case _:
                    assert_never(event)

    async def _end_keeper(self, kind: str) -> None:
        keeper = self._keepers.pop(kind)
        client = self._clients.get(kind)
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        if client is not None:
            self._clients[kind] = client

    def tell_kinds(self) -> None:
        """Tell the agents which environments are attached, and how they isolate."""
        self._news.set()
        isolation = tuple((kind, self._clients[kind].info.isolation) for kind in self.kinds())
        self._post(EnvironmentsChanged(self.kinds(), isolation))

    # -- files ----------------------------------------------------------------------------------------------

    async def _artifact(self, specification: Specification) -> Path:
        name = specification.object.hex()
        async with self._artifact_locks.setdefault(name, asyncio.Lock()):
            # Whatever else lies there was left by a crash, or changed by a program that runs unsandboxed.
            return await self._store.materialise(specification.object, self._artifacts / name, replace=True)

    async def _forget(self, replica: ReplicaId) -> None:
        note = self._notes.pop(replica, None)
        self._gone(replica)
        (self._notes_folder / f"{replica.hex()}.json").unlink(missing_ok=True)
        if note is None or any(other.object == note.object for other in self._notes.values()):
            return
        async with self._artifact_locks.setdefault(note.object, asyncio.Lock()):
            if not any(other.object == note.object for other in self._notes.values()):
                await self._store.remove_materialised(self._artifacts / note.object)
        self._artifact_locks.pop(note.object, None)

    def _write_note(self, note: Note) -> None:
        path = self._notes_folder / f"{note.replica}.json"
        temporary = path.with_suffix(".part")
        temporary.write_bytes(msgspec.json.encode(note))
        temporary.replace(path)

    def _read_notes(self) -> None:
        for folder in (self.folder, self._notes_folder, self._artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._notes_folder.glob("*.json")):
            try:
                note = msgspec.json.decode(path.read_bytes(), type=Note)
            except UNDECODABLE:
                log.warning("%s is damaged; its replica will be stopped", path)
                path.unlink()
                continue
            self._notes[ReplicaId(bytes.fromhex(note.replica))] = note


def _lacking(effect: LaunchReplica, info: protocol.EnvironmentInfo) -> str:
    """What the service needs and the environment does not claim, as the end of a sentence; empty when nothing."""
    if effect.secrets and "secrets" not in info.capabilities:
        return "takes no secrets"
    if effect.specification.health.command and "check_command" not in info.capabilities:
        return "runs no commands that check health"
    return ""


def _spec(effect: LaunchReplica, artifact: Path, group: protocol.GroupAccess | None) -> protocol.ReplicaSpec:
    specification = effect.specification
    health = specification.health
    return protocol.ReplicaSpec(
        replica=effect.replica.hex(),
        service=specification.name,
        artifact=str(artifact),
        command=specification.command,
        env=dict(specification.env),
        secrets={name: value.text for name, value in effect.secrets},
        group=group,
        uses=specification.services_used,
        outgoing=specification.outgoing,
        limits=protocol.Limits(
            memory_bytes=specification.limits.memory_bytes,
            cpus=specification.limits.cpus if specification.limits.cpus >= 1.0 else None,
            pids=specification.limits.processes,
        ),
        health=protocol.HealthCheck(
            path=health.path or None,
            interval_s=health.interval_s,
            timeout_s=health.timeout_s,
            start_period_s=health.start_period_s,
            failures_max=health.failures_max,
            tcp=health.tcp,
            command=health.command,
        ),
    )


def _endpoint(endpoint: protocol.Endpoint) -> Endpoint:
    match endpoint:
        case protocol.UnixEndpoint(path=path):
            return UnixEndpoint(path)
        case protocol.TcpEndpoint(host=address, port=port):
            return TcpEndpoint(address, port)
        case _:
            assert_never(endpoint)


def _why(exit_: protocol.Exit) -> str:
    text = exit_.message or exit_.reason
    return f"{text}: {exit_.last_lines[-1]}" if exit_.last_lines else text
