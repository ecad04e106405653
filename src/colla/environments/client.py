"""The executor's side of the environment protocol: one `EnvironmentClient` per environment program.

The program is spawned in a session of its own and is not a part of the agent: when the agent ends, or is killed,
the program and its replicas go on, and the next `launch` in the same runtime folder attaches to it again. When the
program dies, the next call (or the stream of events) starts a new one, which finds the replicas that still run.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from colla.environments import processes
from colla.environments.folders import RuntimeFolder
from colla.environments.protocol import (
    CALLS,
    LINE_BYTES_MAX,
    PROTOCOL_VERSION,
    EnvironmentEvent,
    EnvironmentFault,
    EnvironmentInfo,
    ExecOutput,
    ExecRequest,
    Handshake,
    Health,
    LogLine,
    Nothing,
    PrepareProgress,
    PrepareRequest,
    Problem,
    RecoverRequest,
    ReplicaList,
    ReplicaSignal,
    ReplicaSpec,
    ReplicaStats,
    ReplicaStatus,
    SignalRequest,
    StartedReplica,
    StartRequest,
    StopRequest,
    StopSignal,
    Wire,
)
from colla.model.ids import ReplicaId

HANDSHAKE_TIMEOUT_S: Final = 15.0
CALL_TIMEOUT_S: Final = 30.0
STREAM_SILENCE_S: Final = 20.0
"""A stream says something at least every few seconds; after this long it is taken for dead."""
LAUNCH_ATTEMPTS_MAX: Final = 4  # Tries to attach to a program or to start one before `launch` gives up.
RETURN_ATTEMPTS_MAX: Final = 5  # Tries in a row to bring a dead program back before events end with a fault.
BACK_OFF_S: Final = 0.2
"""Before the second try; doubled each time."""
SHUT_DOWN_GRACE_S: Final = 5.0
PROGRAM_END_TIMEOUT_S: Final = 5.0
"""How long the program may take to end once all of its replicas have; then it is killed."""

AnswerType = TypeVar("AnswerType", bound=Wire)
LineType = TypeVar("LineType")

_PROGRESS: Final = msgspec.json.Decoder(PrepareProgress)
_EXEC: Final = msgspec.json.Decoder(ExecOutput)
_LOG_LINE: Final = msgspec.json.Decoder(LogLine)
_EVENT: Final[msgspec.json.Decoder[EnvironmentEvent]] = msgspec.json.Decoder(EnvironmentEvent)


class _Gone(Exception):
    """The program cannot be reached; says nothing about the call."""


class EnvironmentClient:
    """The agent's hold of one environment program. Make it by `launch`; end it by `detach` or `shut_down`."""

    info: EnvironmentInfo

    def __init__(
        self, kind: str, folder: RuntimeFolder, allow_unsandboxed: bool, program: tuple[str, ...]
    ) -> None:
        self._kind = kind
        self._folder = folder
        self._program = program
        self._session: aiohttp.ClientSession | None = None
        self._socket = ""
        self._streams: dict[int, aiohttp.ClientResponse] = {}
        """The streams that are being read now."""
        self._bounds: dict[int, asyncio.Timeout] = {}
        """Those of the calls under way."""
        self._returning = asyncio.Lock()
        self._detached = False
        self._ending = False
        self._process: processes.Identity | None = None
        self.allow_unsandboxed = allow_unsandboxed
        """Whether the owner of this computer agreed to programs without a sandbox; may change at any time."""

    @classmethod
    async def launch(
        cls,
        kind: str,
        runtime: Path,
        *,
        allow_unsandboxed: bool = False,
        isolation: str = "auto",
        program: tuple[str, ...] = (),
        attempts: int = LAUNCH_ATTEMPTS_MAX,
    ) -> EnvironmentClient:
        """Attach to the living program of the runtime folder, or start one.

        `kind` is one that is built in, unless `program` is given: the command of an environment that is not built in, called with
        `--runtime DIR`. Raises `EnvironmentFault` when no program can be brought to life.
        """
        own = (sys.executable, "-P", "-m", "colla.environments", kind, "--isolation", isolation)
        client = cls(kind, RuntimeFolder(runtime), allow_unsandboxed, program or own)
        await client._attach_or_spawn(attempts)
        return client

    @property
    def pid(self) -> int:
        """The process of the program as it was started or found last; 0 when that lives no more."""
        return self._process.pid if self._process is not None else 0

    # --- the program -------------------------------------------------------------------------------------

    async def _attach_or_spawn(self, attempts: int = LAUNCH_ATTEMPTS_MAX) -> None:
        problem: Exception = EnvironmentFault(
            "environment_gone", f"The environment {self._kind} does not answer."
        )
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(BACK_OFF_S * 2 ** (attempt - 1))
            try:
                if await self._attach():
                    return
                await self._spawn()
            except (_Gone, EnvironmentFault) as error:
                problem = error
        await self._disconnect()
        message = f"The environment {self._kind} could not be started: {problem}"
        raise EnvironmentFault("environment_gone", message, f"See {self._folder.log}.", retryable=True)

    async def _attach(self) -> bool:
        """Whether a program lives in the folder that speaks our version."""
        try:
            handshake = msgspec.json.decode(self._folder.handshake.read_bytes(), type=Handshake)
        except (OSError, msgspec.DecodeError):
            return False
        await self._connect(handshake)
        try:
            info = await self._call_once("info", EnvironmentInfo)
        except _Gone:
            return False
        if PROTOCOL_VERSION not in info.protocol_versions:
            # Left over from another version of colla: its replicas cannot be talked about any more.
            await self._call_once(
                "shut_down", Nothing, StopRequest(grace_s=SHUT_DOWN_GRACE_S), timeout_s=None
            )
            return False
        self.info = info
        return True

    async def _connect(self, handshake: Handshake) -> None:
        self._process = processes.Identity.of(handshake.pid)
        if self._session is not None and self._socket == handshake.socket:
            # A new program on the same socket: the session simply connects again.
            return
        await self._disconnect()
        self._socket = handshake.socket
        self._session = aiohttp.ClientSession(
            "http://environment",
            connector=aiohttp.UnixConnector(handshake.socket, limit=0),
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=LINE_BYTES_MAX,
        )

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        # aiohttp 3.14 leaves whoever waits for an answer or reads a stream waiting when its session is closed.
        for bound in list(self._bounds.values()):
            bound.reschedule(0.0)
        for response in list(self._streams.values()):
            response.content.set_exception(aiohttp.ClientConnectionError("let go"))
        if session is not None:
            await session.close()

    def _popen(self) -> subprocess.Popen[bytes]:
        command = (*self._program, "--runtime", str(self._folder.path))
        with self._folder.log.open("wb") as log:
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            try:
                return subprocess.Popen(
                    command, stdin=nothing, stdout=pipe, stderr=log, start_new_session=True, cwd="/"
                )
            except OSError as error:
                raise EnvironmentFault(
                    "environment_missing", f"{command[0]} does not start: {error}."
                ) from error

    async def _spawn(self) -> None:
        process = self._popen()
        # Not asyncio's: its transport would kill the program when the agent's loop ends. The thread only reaps.
        threading.Thread(target=process.wait, daemon=True, name=f"reap-{self._kind}").start()
        try:
            line = await _first_line(process)
            handshake = msgspec.json.decode(line, type=Handshake)
        except (TimeoutError, msgspec.DecodeError, ValueError):
            process.kill()
            said = self._folder.log.read_text(errors="replace").strip()[-500:]
            raise EnvironmentFault("handshake_failed", said or "it printed no handshake") from None
        if handshake.colla_environment != PROTOCOL_VERSION:
            process.kill()
            both = f"version {handshake.colla_environment} of the protocol, this colla version {PROTOCOL_VERSION}"
            raise EnvironmentFault("version_unknown", f"it speaks {both}; update the older of the two")
        await self._connect(handshake)
        self.info = await self._call_once("info", EnvironmentInfo)

    async def _bring_back(self, instance: str) -> None:
        """After the program with this instance was found gone; others may have brought it back meanwhile."""
        async with self._returning:
            if self._detached or self._ending:
                raise EnvironmentFault("detached", f"The environment {self._kind} was let go.")
            if self.info.instance == instance:
                await self._attach_or_spawn()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise _Gone("not connected")
        return self._session

    # --- one call ----------------------------------------------------------------------------------------

    async def _call_once(
        self,
        name: str,
        answer: type[AnswerType],
        body: Wire | None = None,
        *,
        timeout_s: float | None = CALL_TIMEOUT_S,
        replica: str = "",
        query: dict[str, str] | None = None,
    ) -> AnswerType:
        call = CALLS[name]
        session = self._open_session()
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(timeout_s) as bound:
                self._bounds[id(bound)] = bound
                path = call.path.replace("{replica}", replica)
                try:
                    async with session.request(call.method, path, data=data, params=query) as response:
                        raw = await response.read()
                finally:
                    del self._bounds[id(bound)]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _Gone(f"{name}: {error!r}") from error
        if response.status >= 400:
            raise _fault(raw)
        try:
            return msgspec.json.decode(raw, type=answer)
        except msgspec.DecodeError as error:
            raise EnvironmentFault(
                "answer_malformed", f"The environment {self._kind} answers nonsense: {error}."
            ) from error

    async def _call(
        self, name: str, answer: type[AnswerType], body: Wire | None = None, **more: Any
    ) -> AnswerType:
        """A call that may be repeated, as all of them may: once more after the program was brought back."""
        if self._detached:
            raise EnvironmentFault("detached", f"The environment {self._kind} was let go.")
        instance = self.info.instance
        try:
            return await self._call_once(name, answer, body, **more)
        except _Gone:
            await self._bring_back(instance)
        try:
            return await self._call_once(name, answer, body, **more)
        except _Gone as error:
            message = f"The environment {self._kind} does not answer: {error}"
            raise EnvironmentFault(
                "environment_gone", message, f"See {self._folder.log}.", retryable=True
            ) from error

    async def _lines(
        self,
        name: str,
        decoder: msgspec.json.Decoder[LineType],
        body: Wire | None = None,
        *,
        replica: str = "",
        query: dict[str, str] | None = None,
    ) -> AsyncIterator[LineType]:
        call = CALLS[name]
        session = self._open_session()
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(sock_read=STREAM_SILENCE_S)
        path = call.path.replace("{replica}", replica)
        try:
            async with session.request(
                call.method, path, data=data, params=query, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise _fault(await response.read())
                self._streams[id(response)] = response
                try:
                    async for raw in response.content:
                        if raw.strip():
                            yield decoder.decode(raw)
                finally:
                    del self._streams[id(response)]
        except msgspec.DecodeError as error:
            raise EnvironmentFault(
                "answer_malformed", f"The environment {self._kind} says nonsense: {error}."
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _Gone(f"{name}: {error!r}") from error

    # --- the interface -----------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Whether the environment works."""
        return await self._call("health", Health)

    async def prepare(
        self, artifact: Path, progressed: Callable[[PrepareProgress], None] = lambda line: None
    ) -> PrepareProgress:
        """Make an artifact ready, telling each line of progress; returns the last. Raises `EnvironmentFault`."""
        last = PrepareProgress()
        try:
            async for last in self._lines("prepare", _PROGRESS, PrepareRequest(artifact=str(artifact))):
                progressed(last)
                if last.problem is not None:
                    raise _from_problem(last.problem)
        except _Gone as error:
            raise EnvironmentFault("environment_gone", str(error), retryable=True) from error
        return last

    async def start(self, spec: ReplicaSpec) -> StartedReplica:
        """Start a replica, or find the one that was started with this id. Raises `EnvironmentFault`."""
        return await self._call(
            "start", StartedReplica, StartRequest(spec=spec, allow_unsandboxed=self.allow_unsandboxed)
        )

    async def recover(self, replica_id: ReplicaId, handle: str) -> StartedReplica:
        """Find a replica by the handle that `start` gave. Raises `EnvironmentFault` (replica_unknown)."""
        return await self._call(
            "recover", StartedReplica, RecoverRequest(replica=replica_id.hex(), handle=handle)
        )

    async def list(self) -> tuple[ReplicaStatus, ...]:
        """Every replica that the program knows, those that ended included."""
        return (await self._call("list", ReplicaList)).replicas

    async def inspect(self, replica_id: ReplicaId) -> ReplicaStatus:
        """One replica. Raises `EnvironmentFault` (replica_unknown), as all below do."""
        return await self._call("inspect", ReplicaStatus, replica=replica_id.hex())

    async def stop(
        self, replica_id: ReplicaId, grace_s: float, signal: StopSignal = "SIGTERM"
    ) -> ReplicaStatus:
        """Signal, grace, then the whole tree is killed; returns when nothing of it runs."""
        wanted = StopRequest(signal=signal, grace_s=grace_s)
        return await self._call(
            "stop", ReplicaStatus, wanted, replica=replica_id.hex(), timeout_s=grace_s + CALL_TIMEOUT_S
        )

    async def signal(self, replica_id: ReplicaId, signal: ReplicaSignal) -> None:
        """Send its program a signal, nothing more. Raises `EnvironmentFault` (not_supported) where that cannot be."""
        await self._call("signal", Nothing, SignalRequest(signal=signal), replica=replica_id.hex())

    async def wait(self, replica_id: ReplicaId, timeout_s: float) -> ReplicaStatus:
        """Its status when it has ended or the time is over."""
        query = {"timeout_s": str(timeout_s)}
        return await self._call(
            "wait", ReplicaStatus, replica=replica_id.hex(), query=query, timeout_s=timeout_s + CALL_TIMEOUT_S
        )

    async def delete(self, replica_id: ReplicaId) -> None:
        """Kill what runs of it and forget it; no fault if it is not known (any more)."""
        try:
            await self._call("delete", Nothing, replica=replica_id.hex())
        except EnvironmentFault as error:
            if error.code != "replica_unknown":
                raise

    async def exec(self, replica: ReplicaId, request: ExecRequest) -> AsyncIterator[ExecOutput]:
        """What a command beside its program writes, then its code; never repeated. Raises `EnvironmentFault`."""
        try:
            async for line in self._lines("exec", _EXEC, request, replica=replica.hex()):
                yield line
        except _Gone as error:
            raise EnvironmentFault("environment_gone", f"The environment went away: {error}.") from None

    async def stats(self, replica_id: ReplicaId) -> ReplicaStats:
        """What it uses now."""
        return await self._call("stats", ReplicaStats, replica=replica_id.hex())

    async def logs(
        self, replica_id: ReplicaId, follow: bool = False, after: int = 0
    ) -> AsyncIterator[LogLine]:
        """The kept lines with a number above `after`; with `follow` also those to come, until it ends."""
        query = {"follow": "1" if follow else "0", "after": str(after)}
        try:
            async for line in self._lines("logs", _LOG_LINE, replica=replica_id.hex(), query=query):
                yield line
        except _Gone as error:
            raise EnvironmentFault("environment_gone", str(error), retryable=True) from error

    async def events(self) -> AsyncIterator[EnvironmentEvent]:
        """What happens, and what the program still remembers, from now until `detach`.

        A dead program is brought back meanwhile and tells then what became of its replicas; `number` begins
        anew when `instance` changes. Raises `EnvironmentFault` when it cannot be brought back.
        """
        after, failures = 0, 0
        instance = self.info.instance
        while not self._detached:
            # The program compares the instance itself, since another one may answer than was asked.
            query = {"after": str(after), "instance": instance}
            try:
                async for event in self._lines("events", _EVENT, query=query):
                    instance, after, failures = event.instance, event.number, 0
                    yield event
            except _Gone:
                pass
            if self._detached:
                return
            failures += 1
            if failures > RETURN_ATTEMPTS_MAX:
                message = f"The environment {self._kind} ends again and again."
                raise EnvironmentFault(
                    "environment_gone", message, f"See {self._folder.log}.", retryable=True
                )
            await asyncio.sleep(BACK_OFF_S * 2 ** (failures - 1))
            await self._bring_back_if_gone()

    async def _bring_back_if_gone(self) -> None:
        instance = self.info.instance
        try:
            await self._call_once("health", Health)
        except _Gone:
            if not self._detached and not self._ending:
                await self._bring_back(instance)

    async def detach(self) -> None:
        """Let go: program and replicas go on. Nothing can be called afterwards."""
        self._detached = True
        await self._disconnect()

    async def shut_down(self, grace_s: float = SHUT_DOWN_GRACE_S) -> None:
        """Stop every replica and the program, then let go; returns when it has ended, also if it was gone before."""
        if self._detached:
            return
        # A call that finds the program gone from now on must not start another one.
        self._ending = True
        with suppress(_Gone):
            await self._call_once(
                "shut_down", Nothing, StopRequest(grace_s=grace_s), timeout_s=grace_s + CALL_TIMEOUT_S
            )
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRAM_END_TIMEOUT_S):
                    await processes.until_ended(self._process)
            processes.kill(self._process)
        await self.detach()


def _from_problem(problem: Problem) -> EnvironmentFault:
    return EnvironmentFault(problem.code, problem.message, problem.hint, retryable=problem.retryable)


def _fault(raw: bytes) -> EnvironmentFault:
    try:
        return _from_problem(msgspec.json.decode(raw, type=Problem))
    except msgspec.DecodeError:
        return EnvironmentFault(
            "environment_failed", "The environment failed without saying why.", retryable=True
        )


async def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The handshake. Raises `TimeoutError`, `ValueError` when the line is too long."""
    assert process.stdout is not None
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            return await reader.readline()
    finally:
        transport.close()
