"""The program that all built-in environments share: it serves the protocol and keeps the replicas' records.

Owns the runtime folder (by its lock) and every replica in it. When it starts it finds the replicas that an earlier
program left: those that still run are adopted, the others are reported as ended. When it is ended by a signal,
or killed, replicas of the process environment go on; only the call `shut_down` stops them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from colla.environments.complaints import complain
from colla.environments.driver import Driver, Executing, fault
from colla.environments.folders import Record, RuntimeFolder, listen_on, write_whole
from colla.environments.health import check_health_check
from colla.environments.protocol import (
    BODY_BYTES_MAX,
    CALLS,
    PROTOCOL_VERSION,
    EnvironmentFault,
    ExecRequest,
    Handshake,
    Health,
    Nothing,
    PrepareProgress,
    PrepareRequest,
    Problem,
    RecoverRequest,
    ReplicaList,
    ReplicaSpec,
    ReplicaStats,
    SignalRequest,
    StartedReplica,
    StartRequest,
    StopRequest,
    Wire,
)
from colla.environments.replicas import EventLog, Replica

REPLICAS_RUNNING_MAX: Final = 256
ENDED_KEPT_MAX: Final = 64
"""Replicas that ended and were not deleted; the oldest are forgotten first."""
QUIET_S: Final = 2.0
"""A stream on which nothing happens sends an empty line this often."""
STREAMS_END_S: Final = 0.1
"""At the program's end, what streams get to end by themselves."""
FOLLOW_POLL_S: Final = 0.1
WAIT_S_MAX: Final = 600.0
GRACE_S_MAX: Final = 600.0
SHUTDOWN_PARALLEL_MAX: Final = 16
STATUS_OF_CODE: Final = {
    "replica_unknown": 404,
    "replica_differs": 409,
    "too_many_replicas": 503,
    "not_supported": 501,
}
_SERVICE = re.compile(r"[^\x00-\x1f\x7f/]{1,200}")

Answer = web.StreamResponse
BodyType = TypeVar("BodyType", bound=Wire)
LineType = TypeVar("LineType", bound=Wire)


class Program:
    """One environment program in one runtime folder."""

    def __init__(self, driver: Driver, folder: RuntimeFolder) -> None:
        self._driver = driver
        self._folder = folder
        self._events = EventLog(driver.info.instance)
        self._replicas: dict[str, Replica] = {}
        self._starting: dict[str, asyncio.Task[Replica]] = {}
        self.over = asyncio.Event()
        """Set when the program shall end."""

    # --- replicas ----------------------------------------------------------------------------------------

    async def recover_all(self) -> None:
        """Find what an earlier program left in the folder."""
        for place in self._folder.places():
            record = place.read()
            running = None
            if record is not None and record.exit is None:
                try:
                    running = await self._driver.adopt(record.spec, place, record.handle)
                except (EnvironmentFault, OSError) as error:
                    complain(f"cannot recover {record.spec.replica}: {error}")
            if record is None or (record.exit is None and running is None):
                # Its launch was cut off, or its files are gone: nobody can count on it.
                await self._driver.abandon(place)
                await asyncio.to_thread(place.delete)
                continue
            replica = Replica(self._driver, place, record, running, self._events)
            self._replicas[record.spec.replica] = replica
            replica.begin(recovered=True)

    async def _start(self, spec: ReplicaSpec) -> Replica:
        place = self._folder.place(spec.replica_id)
        record = Record(spec=spec.remembered, started_at=time.time())
        try:
            await asyncio.to_thread(place.create, record)
            running = await self._driver.launch(spec, place)
        except BaseException:
            await asyncio.to_thread(place.delete)
            raise
        record = msgspec.structs.replace(record, handle=running.handle)
        place.write(record)
        replica = Replica(self._driver, place, record, running, self._events)
        self._replicas[spec.replica] = replica
        replica.begin(recovered=False)
        return replica

    async def start_replica(self, spec: ReplicaSpec, allow_unsandboxed: bool) -> Replica:
        """Start it, or find the one that was started with the same id. Raises `EnvironmentFault`."""
        known = self._replicas.get(spec.replica)
        if known is None:
            _check_spec(spec)
            if spec.health.command and "check_command" not in self._driver.info.capabilities:
                raise fault(
                    "not_supported",
                    "This environment runs no commands that check health.",
                    "Use a path, or tcp.",
                )
            if spec.secrets and "secrets" not in self._driver.info.capabilities:
                raise fault("not_supported", "This environment runs nothing that could read secrets.")
            self._driver.check(spec, allow_unsandboxed)
            # The task goes on if the caller hangs up: a replica is started wholly or not at all.
            task = self._starting.get(spec.replica)
            if task is None:
                self._make_room()
                task = asyncio.create_task(self._start(spec))
                self._starting[spec.replica] = task
                task.add_done_callback(lambda _: self._starting.pop(spec.replica, None))
            known = await asyncio.shield(task)
        if known.record.spec != spec.remembered:
            raise fault("replica_differs", f"Replica {spec.replica} was started with another specification.")
        return known

    def _make_room(self) -> None:
        running = sum(replica.phase != "exited" for replica in self._replicas.values()) + len(self._starting)
        if running >= REPLICAS_RUNNING_MAX:
            raise fault("too_many_replicas", f"{running} replicas run here already.", retryable=True)
        ended = [replica for replica in self._replicas.values() if replica.phase == "exited"]
        for replica in ended[: max(0, len(ended) - ENDED_KEPT_MAX + 1)]:
            del self._replicas[replica.record.spec.replica]
            replica.place.delete()

    def _replica(self, name: str) -> Replica:
        replica = self._replicas.get(name)
        if replica is None:
            raise fault("replica_unknown", f"There is no replica {name} here.")
        return replica

    async def shut_down(self, request: StopRequest) -> None:
        """Stop every replica, then end the program."""
        while self._starting:
            await asyncio.wait(list(self._starting.values()))
        slots = asyncio.Semaphore(SHUTDOWN_PARALLEL_MAX)

        async def stop(replica: Replica) -> None:
            async with slots:
                await replica.stop(request.signal, request.grace_s)

        await asyncio.gather(*(stop(replica) for replica in self._replicas.values()))
        await self._driver.close()
        self.over.set()

    async def detach(self) -> None:
        """End without stopping what can go on."""
        for replica in self._replicas.values():
            await replica.detach()

    # --- calls -------------------------------------------------------------------------------------------

    async def on_info(self, request: web.Request) -> Answer:
        return _json(self._driver.info)

    async def on_health(self, request: web.Request) -> Answer:
        running = sum(replica.phase != "exited" for replica in self._replicas.values())
        return _json(Health(healthy=True, replicas_running=running))

    async def on_prepare(self, request: web.Request) -> Answer:
        wanted = await _body(request, PrepareRequest)

        async def lines() -> AsyncIterator[PrepareProgress]:
            try:
                async for line in self._driver.prepare(wanted.artifact):
                    yield line
            except EnvironmentFault as error:
                yield PrepareProgress(problem=_problem(error))

        return await _stream(request, _lively(lines()))

    async def on_start(self, request: web.Request) -> Answer:
        wanted = await _body(request, StartRequest)
        return _json(_started(await self.start_replica(wanted.spec, wanted.allow_unsandboxed)))

    async def on_recover(self, request: web.Request) -> Answer:
        wanted = await _body(request, RecoverRequest)
        replica = self._replica(wanted.replica)
        if replica.record.handle != wanted.handle:
            raise fault("replica_unknown", f"Replica {wanted.replica} has another handle.")
        return _json(_started(replica))

    async def on_list(self, request: web.Request) -> Answer:
        return _json(ReplicaList(replicas=tuple(replica.status for replica in self._replicas.values())))

    async def on_inspect(self, request: web.Request) -> Answer:
        return _json(self._replica(request.match_info["replica"]).status)

    async def on_stop(self, request: web.Request) -> Answer:
        replica = self._replica(request.match_info["replica"])
        wanted = await _body(request, StopRequest)
        await replica.stop(wanted.signal, min(max(wanted.grace_s, 0.0), GRACE_S_MAX))
        return _json(replica.status)

    async def on_wait(self, request: web.Request) -> Answer:
        replica = self._replica(request.match_info["replica"])
        await replica.until_ended(min(_number(request, "timeout_s", WAIT_S_MAX), WAIT_S_MAX))
        return _json(replica.status)

    async def on_delete(self, request: web.Request) -> Answer:
        name = request.match_info["replica"]
        replica = self._replica(name)
        await replica.delete()
        self._replicas.pop(name, None)
        return _json(Nothing())

    async def on_signal(self, request: web.Request) -> Answer:
        replica = self._replica(request.match_info["replica"])
        wanted = await _body(request, SignalRequest)
        if replica.running is not None:
            await replica.running.signal(wanted.signal)
        return _json(Nothing())

    async def on_exec(self, request: web.Request) -> Answer:
        running = self._replica(request.match_info["replica"]).running
        wanted = await _body(request, ExecRequest)
        if not isinstance(running, Executing):
            raise fault("not_running", "The replica does not run.")
        if not wanted.command or wanted.timeout_s <= 0:
            raise fault("command_missing", "Nobody said what to run, or for how long.", "Give a command.")
        return await _stream(request, _lively(running.exec(wanted)))

    async def on_stats(self, request: web.Request) -> Answer:
        replica = self._replica(request.match_info["replica"])
        if replica.running is None:
            return _json(ReplicaStats(replica=replica.record.spec.replica))
        return _json(await asyncio.to_thread(replica.running.stats))

    async def on_logs(self, request: web.Request) -> Answer:
        replica = self._replica(request.match_info["replica"])
        follow = request.query.get("follow", "") in ("1", "true")
        return await _stream(request, self._lines(replica, int(_number(request, "after", 0)), follow))

    async def _lines(self, replica: Replica, after: int, follow: bool) -> AsyncIterator[Wire | None]:
        quiet_since = time.monotonic()
        while True:
            # Asked before reading: what is written before the end is read after it.
            last = replica.phase == "exited" or not follow
            for line in await asyncio.to_thread(self._driver.logs, replica.place, after):
                after, quiet_since = line.number, time.monotonic()
                yield line
            if last:
                return
            if time.monotonic() - quiet_since >= QUIET_S:
                quiet_since = time.monotonic()
                yield None
            await replica.until_ended(FOLLOW_POLL_S)

    async def on_events(self, request: web.Request) -> Answer:
        after = int(_number(request, "after", 0))
        if request.query.get("instance", self._events.instance) != self._events.instance:
            after = 0
        return await _stream(request, self._events.follow(after, QUIET_S))

    async def on_shut_down(self, request: web.Request) -> Answer:
        await self.shut_down(await _body(request, StopRequest))
        return _json(Nothing())

    def application(self) -> web.Application:
        """The HTTP side: one handler `on_NAME` for each call of the protocol."""
        application = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_faults_as_problems])
        claimed = self._driver.info.capabilities
        for name, call in CALLS.items():
            served = not call.capability or call.capability in claimed
            handler = getattr(self, f"on_{name}") if served else _not_supported
            application.router.add_route(call.method, call.path, handler)
        return application


def _check_spec(spec: ReplicaSpec) -> None:
    try:
        canonical = spec.replica_id.hex() == spec.replica
    except ValueError as error:
        raise fault("replica_malformed", f"{error}.") from None
    if not canonical:
        raise fault("replica_malformed", f"{spec.replica!r} is not in lower-case hexadecimal digits.")
    if not _SERVICE.fullmatch(spec.service):
        raise fault("service_malformed", f"{spec.service!r} is no name of a service.")
    if any(limit is not None and limit <= 0 for limit in msgspec.structs.astuple(spec.limits)):
        raise fault("limits_malformed", "Limits are above zero.")
    check_health_check(spec.health)


async def _not_supported(request: web.Request) -> Answer:
    raise fault("not_supported", "This environment does not do that.", "See its capabilities.")


def _started(replica: Replica) -> StartedReplica:
    status = replica.status
    return StartedReplica(replica=status.replica, handle=status.handle, endpoint=status.endpoint)


def _problem(error: EnvironmentFault) -> Problem:
    return Problem(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)


def _json(value: Wire, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


async def _body(request: web.Request, kind: type[BodyType]) -> BodyType:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise fault("body_malformed", f"The body is no {kind.__name__}: {error}.") from None


def _number(request: web.Request, name: str, otherwise: float) -> float:
    try:
        number = float(request.query.get(name, otherwise))
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53:
        raise fault("query_malformed", f"{name} is a number that is not negative.")
    return number


async def _lively(lines: AsyncIterator[LineType]) -> AsyncIterator[LineType | None]:
    """The lines, and None whenever the next one takes its time: loading an image may."""

    async def next_line() -> LineType | None:
        return await anext(lines, None)

    coming = asyncio.ensure_future(next_line())
    try:
        while True:
            if not (await asyncio.wait({coming}, timeout=QUIET_S))[0]:
                yield None
                continue
            if (line := coming.result()) is None:
                return
            coming = asyncio.ensure_future(next_line())
            yield line
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


async def _stream(request: web.Request, lines: AsyncIterator[Wire | None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    # A listener that goes away is no failure: it comes back and asks from where it was.
    with suppress(ConnectionError):
        async for line in lines:
            await response.write((b"" if line is None else msgspec.json.encode(line)) + b"\n")
        await response.write_eof()
    return response


@web.middleware
async def _faults_as_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[Answer]]
) -> Answer:
    try:
        return await handler(request)
    except EnvironmentFault as error:
        status = STATUS_OF_CODE.get(error.code, 503 if error.retryable else 400)
        return _json(_problem(error), status)
    except web.HTTPRequestEntityTooLarge:
        return _json(
            Problem(code="body_too_long", message=f"A body has at most {BODY_BYTES_MAX} bytes."), 413
        )
    except web.HTTPException as error:
        return _json(
            Problem(code="call_unknown", message=f"There is no such call: {error.reason}."), error.status
        )
    except OSError as error:
        return _json(
            Problem(code="computer_failed", message=f"The computer failed: {error}.", retryable=True), 503
        )


def take_lock(folder: RuntimeFolder) -> int | None:
    """Become the one program of this folder; None when another one lives. The lock ends with the process."""
    fd = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


async def serve(driver: Driver, folder: RuntimeFolder) -> None:
    """Run until `shut_down` or a signal. The caller holds the folder's lock. Prints the handshake."""
    program = Program(driver, folder)
    await program.recover_all()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.over.set)
    runner = web.AppRunner(program.application(), access_log=None, shutdown_timeout=STREAMS_END_S)
    await runner.setup()
    await web.SockSite(runner, listen_on(folder.control)).start()
    handshake = Handshake(
        colla_environment=PROTOCOL_VERSION, kind=driver.info.kind, socket=str(folder.control), pid=os.getpid()
    )
    line = msgspec.json.encode(handshake)
    write_whole(folder.handshake, line)
    print(line.decode(), flush=True)
    # Nobody reads stdout from here on, and a write to a closed pipe would be an error.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        await program.over.wait()
    finally:
        folder.handshake.unlink(missing_ok=True)
        await runner.cleanup()
        await program.detach()
        folder.tidy()
