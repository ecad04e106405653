"""One attempt: one request given to one replica, up to the point where its answer may be passed on.

Owns its connection until it hands it back to the pool or aborts it. Invariants: `sent` becomes true before the first
byte of the request leaves, so `not sent` proves that the replica saw nothing; an answer is `WHOLE` only when its
framing says so; after `STREAMING` began, exactly one reader consumes `pieces_from_now_on`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum, auto

from colla.access.health import HealthMemory
from colla.access.http1 import AnswerHead, BrokenAnswer, Framing, encode_request
from colla.access.interface import ByteStream, ReplicaLocation
from colla.access.pool import Connection, ConnectionPool
from colla.model.ids import ServiceId

KEPT_BYTES_MAX = 256 * 1024
"""Answers up to this size are kept back until whole, so that another replica can be asked when one dies midway."""
STALL_S = 0.3
"""An answer of unknown length that pauses this long is a stream: what has come of it is passed on at once."""
INLINE_BYTES_MAX = 16 * 1024
"""Request bodies above this are sent while the answer is already awaited, since it may come early."""
LIVE_TYPES = frozenset(("text/event-stream", "application/x-ndjson", "multipart/x-mixed-replace"))
"""Content types whose pieces matter as they come."""

Upload = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
"""Sends a request body, framed, through the function it is given. Raises `UploadFailed`; runs at most once."""


class UploadFailed(ConnectionError):
    """The client did not send the rest of its request."""


class Parcel:
    """A request as replicas get it. `body` is whole and small, or else `upload` streams it."""

    __slots__ = ("body", "head", "method", "name", "replayable", "upgrade", "upload")

    def __init__(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        *,
        name: str = "",
        body: bytes = b"",
        upload: Upload | None = None,
        replayable: bool = True,
        upgrade: bool = False,
    ) -> None:
        self.method = method
        self.head = encode_request(method, target, headers)
        self.name = name
        """The host name by which the service is located again."""
        self.body = body
        self.upload = upload
        self.replayable = replayable
        """Whether it may be given to several replicas: idempotent, and held whole."""
        self.upgrade = upgrade


class Phase(Enum):
    """How far an attempt has come."""

    OPENING = auto()
    ASKED = auto()
    ANSWERING = auto()
    WHOLE = auto()
    STREAMING = auto()
    FAILED = auto()


class Attempt:
    """See the module. `bell` is rung at every step that its owner may want to act upon."""

    __slots__ = (
        "_bell",
        "_connection",
        "_fresh",
        "_health",
        "_loop",
        "_parcel",
        "_pieces",
        "_pool",
        "_released",
        "_sending",
        "_sent_whole",
        "_size",
        "_stall_at",
        "failure",
        "head",
        "location",
        "phase",
        "progressed_at",
        "reused",
        "running",
        "sent",
        "service",
        "started_at",
    )

    def __init__(
        self,
        parcel: Parcel,
        service: ServiceId,
        location: ReplicaLocation,
        pool: ConnectionPool,
        health: HealthMemory,
        bell: Callable[[], None],
        fresh: bool,
    ) -> None:
        """`fresh`: never use an idle connection."""
        self._parcel, self._pool, self._health, self._bell, self._fresh = parcel, pool, health, bell, fresh
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stall_at: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._sent_whole = self._released = False
        self.service, self.location = service, location
        self.phase = Phase.OPENING
        self.head: AnswerHead | None = None
        self.failure: Exception | None = None
        self.sent = False
        self.reused = False
        """Whether it went over a connection that had carried others before."""
        self.started_at = self.progressed_at = self._loop.time()
        health.asked(location.replica, self.started_at)
        self.running = self._loop.create_task(self._run())

    @property
    def in_flight(self) -> bool:
        return self.phase in (Phase.OPENING, Phase.ASKED, Phase.ANSWERING)

    @property
    def kept(self) -> bytes:
        """The body of a `WHOLE` answer."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def commit(self) -> None:
        """From now on the answer is passed on as it comes, and no other replica can take its place."""
        if self.phase is Phase.ANSWERING:
            self.phase = Phase.STREAMING
            self._bell()

    async def pieces_from_now_on(self) -> AsyncIterator[bytes]:
        """The body of a `STREAMING` answer, from its beginning. Raises `ConnectionError` when it ends early."""
        connection = self._connection
        while self._pieces:
            yield self._pieces.pop(0)
        # A read may have been under way when the attempt was committed; it belongs to the running task.
        await asyncio.shield(self.running)
        if self.failure is not None:
            raise ConnectionResetError(str(self.failure)) from self.failure
        assert connection is not None
        while self._pieces:
            yield self._pieces.pop(0)
        while not connection.complete:
            try:
                piece = await connection.read_body()
            except OSError as error:
                self.failure = error
                raise ConnectionResetError(str(error)) from error
            if piece:
                yield piece
        self.end()

    def take_stream(self) -> tuple[ByteStream, bytes]:
        """After a 101: the stream, now the caller's, and what has already been read from it."""
        assert self._connection is not None
        connection, self._connection = self._connection, None
        return connection.stream, connection.take_buffer()

    def end(self) -> None:
        """Release the replica: its connection goes back to the pool if it may, else it is aborted."""
        if self._stall_at is not None:
            self._stall_at.cancel()
        sending, connection = self._sending, self._connection
        self._sending = self._connection = None
        if sending is not None:
            sending.cancel()
        if connection is not None:
            if self.running.done() and (sending is None or self._sent_whole):
                self._pool.give_back(connection)
            else:
                self._pool.discard(connection)
        self.running.cancel()
        if not self._released:
            self._released = True
            self._health.released(self.location.replica)

    # ------------------------------------------------------------------ the running task

    async def _run(self) -> None:
        try:
            await self._exchange()
        except Exception as error:
            # The owner raises what is no failure of the world.
            self.failure = self.failure or error
            if self.phase is not Phase.STREAMING:
                self.phase = Phase.FAILED
        finally:
            self._bell()

    async def _exchange(self) -> None:
        connection = None if self._fresh else self._pool.take(self.location.replica)
        head: AnswerHead | None = None
        if connection is not None:
            self._connection, self.reused = connection, True
            try:
                head = await self._ask(connection)
            except (OSError, BrokenAnswer) as error:
                if isinstance(error, BrokenAnswer) and error.began:
                    raise
                # The replica had closed it while it idled, or has died: a fresh connection will tell.
                self._pool.discard(connection)
                self._connection, self.reused, self.phase = None, False, Phase.OPENING
        if head is None:
            connection = await self._pool.open(self.location, self.service)
            self._connection = connection
            head = await self._ask(connection)
        assert connection is not None
        self.head = head
        self.phase = Phase.ANSWERING
        self.progressed_at = self._loop.time()
        await self._keep_back(connection, head)

    async def _ask(self, connection: Connection) -> AnswerHead:
        parcel = self._parcel
        self.phase = Phase.ASKED
        self.sent = True
        if parcel.upload is None and len(parcel.body) <= INLINE_BYTES_MAX:
            await connection.stream.write(parcel.head + parcel.body if parcel.body else parcel.head)
        else:
            self._sending = self._loop.create_task(self._send(connection))
        head = await connection.read_head(parcel.method)
        if head.status == 101 and not parcel.upgrade:
            raise BrokenAnswer("the replica switched protocols unasked")
        return head

    async def _send(self, connection: Connection) -> None:
        async def write(data: bytes) -> None:
            await connection.stream.write(data)
            self.progressed_at = self._loop.time()

        try:
            await write(self._parcel.head)
            if self._parcel.upload is not None:
                await self._parcel.upload(write)
            else:
                await write(self._parcel.body)
            self._sent_whole = True
        except UploadFailed as error:
            self.failure = error
            await connection.stream.abort()
        except OSError:
            # A replica that refuses a body answers and closes; so what it answers decides, not this.
            pass

    async def _keep_back(self, connection: Connection, head: AnswerHead) -> None:
        """Read the answer until it is whole, or until it must be streamed."""
        if self._must_stream(head):
            self.commit()
            return
        if head.framing in (Framing.CHUNKED, Framing.UNTIL_END):
            self._stall_at = self._loop.call_later(STALL_S, self._check_stall)
        while not connection.complete:
            piece = await connection.read_body()
            self.progressed_at = self._loop.time()
            if piece:
                self._pieces.append(piece)
                self._size += len(piece)
            if self.phase is Phase.STREAMING:
                return
            if self._size > KEPT_BYTES_MAX:
                self.commit()
                return
        if self._stall_at is not None:
            self._stall_at.cancel()
        self.phase = Phase.WHOLE

    def _must_stream(self, head: AnswerHead) -> bool:
        if head.framing is Framing.NONE:
            return head.status == 101
        if head.length is not None:
            return head.length > KEPT_BYTES_MAX
        return (
            head.content_type in LIVE_TYPES
            or head.content_type.startswith(("audio/", "video/"))
            or any(name.lower() == "x-accel-buffering" and value == "no" for name, value in head.headers)
        )

    def _check_stall(self) -> None:
        if self.phase is not Phase.ANSWERING:
            return
        since = self._loop.time() - self.progressed_at
        if since >= STALL_S:
            self.commit()
        else:
            self._stall_at = self._loop.call_later(STALL_S - since, self._check_stall)
