"""One link that both ends agreed on: an iroh connection with a long-lived stream of frames.

Frames go out on one two-way stream in coalesced writes (a stream per frame is 13 times slower); datagrams and
bulk streams go beside it. A link ends once: by the peer, by an error, or by `shut`, which first sends what
is queued and waits until it is acknowledged. `owner.link_ended` is called exactly once unless the owner ended it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import iroh

from colla.model.ids import NodeId
from colla.node.links.chores import Chores
from colla.node.links.endpoint import closing_reason, explain
from colla.node.links.frame_queue import FrameQueue, FrameReader, TooLong, pack
from colla.node.links.interface import FRAME_BYTES_MAX, RELAY_PREFIX, LinkError, PathInfo
from colla.node.links.strangers import STRANGER_FRAME_BYTES_MAX
from colla.node.links.stream import REFUSED, IrohStream, encode_header, read_header
from colla.node.links.tally import Tally

WRITE_BYTES_MAX = 256 * 1024
READ_BYTES_MAX = 256 * 1024
FLUSH_TIMEOUT_S = 1.0
"""How long a link that is shut may take to send what was queued."""
FAREWELL_TIMEOUT_S = 2.0
"""How long the reason may take to arrive after the peer ended its frames."""
STREAMS_OUT_MAX = 100
"""Streams of mine open on one link; further ones wait."""
STREAMS_IN_MAX = 128
"""Streams of the peer's; more than it may open itself, for those that it ended and I have not yet."""
STREAM_WAITERS_MAX = 256
OPEN_STREAM_TIMEOUT_S = 10.0
HEADER_TIMEOUT_S = 5.0
CLOSED_BY_OWNER = 1
MALFORMED = 2


class LinkOwner(Protocol):
    """What a link tells whoever holds it."""

    def frame_arrived(self, link: Link, frame: bytes, *, datagram: bool) -> None: ...

    def stream_arrived(self, link: Link, kind: str, stream: IrohStream) -> None: ...

    def link_ended(self, link: Link, reason: str) -> None: ...


class Link:
    """See the module. `over` is set as soon as nothing more may go through it."""

    def __init__(
        self,
        peer: NodeId,
        connection: iroh.Connection,
        control: iroh.BiStream,
        queue: FrameQueue,
        owner: LinkOwner,
        tally: Tally,
    ) -> None:
        self.peer = peer
        self.accepted = False
        self.over = False
        self.ending = False
        """The peer has said that it sends no more frames; what is queued waits for the next link."""
        self.used_at = asyncio.get_running_loop().time()
        self._connection = connection
        self._control = control
        self._queue = queue
        self._owner = owner
        self._tally = tally
        self._wake = asyncio.Event()
        self._shutting = False
        self._slots = asyncio.Semaphore(STREAMS_OUT_MAX)
        self._waiters = 0
        self._streams: dict[IrohStream, None] = {}
        self._chores = Chores()
        self.gone = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._why = "the link is closed"

    def start(self) -> None:
        """Begin to carry frames. Call once, when both ends have agreed on this connection."""
        self._connection.set_max_concurrent_bi_streams(STREAMS_IN_MAX)
        self._wake.set()
        self._writer = self._spawn(self._write_frames(self._control.send()))
        self._spawn(self._read_frames(self._control.recv()))
        self._spawn(self._read_datagrams())
        self._spawn(self._accept_streams())
        self._spawn(self._watch())

    # -- sending ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something was put into the queue."""
        self._wake.set()

    def send_datagram(self, frame: bytes) -> bool:
        """Send one datagram at once. False when it is too large for the path."""
        room = self._connection.max_datagram_size()
        if room is None or len(frame) > room:
            return False
        try:
            self._connection.send_datagram(frame)
        except iroh.IrohError:
            # The path shrank or the connection is closing: the reliable way, or the next link, takes it.
            return False
        self._tally.datagrams_out += 1
        self._tally.bytes_out += len(frame)
        self.used_at = asyncio.get_running_loop().time()
        return True

    async def open_stream(self, kind: str) -> IrohStream:
        """Open a bulk stream, waiting while too many are open. Raises `LinkError`."""
        header = encode_header(kind)
        try:
            async with asyncio.timeout(OPEN_STREAM_TIMEOUT_S):
                await self._take_slot()
                try:
                    return await self._open(header)
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError:
            raise LinkError("no stream became free in time") from None
        except iroh.IrohError as error:
            raise LinkError(explain(error)) from None

    async def _take_slot(self) -> None:
        if self._waiters >= STREAM_WAITERS_MAX:
            self._tally.drop("stream_queue_full")
            raise LinkError("too many streams are waiting for this peer")
        self._waiters += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiters -= 1

    async def _open(self, header: bytes) -> IrohStream:
        if self.over:
            raise LinkError(self._why)
        pair = await self._connection.open_bi()
        await pair.send().write_all(header)
        if self.over:
            raise LinkError(self._why)
        stream = IrohStream(pair, self._tally, self._outgoing_over)
        self._streams[stream] = None
        return stream

    # -- looking ----------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no stream is open and no frame waits."""
        return not self._streams and not len(self._queue)

    def paths(self) -> tuple[PathInfo, ...]:
        """The paths that are open, the one in use first."""
        found = sorted(self._connection.paths(), key=lambda path: not path.is_selected)
        return tuple(
            PathInfo(
                direct=not path.is_relay,
                address=RELAY_PREFIX + path.remote_addr if path.is_relay else path.remote_addr,
                rtt_ms=path.rtt_ms,
            )
            for path in found
        )

    # -- ending -----------------------------------------------------------------------------------------

    async def shut(self, reason: str, last_frames: FrameQueue) -> None:
        """Send `last_frames`, then close so that the peer sees `reason`. The owner is not told."""
        self.over = True
        self._why = reason
        self._queue = last_frames
        self._shutting = True
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=FLUSH_TIMEOUT_S)
        self._tally.drop("link_closed", last_frames.clear())
        self._close_connection(CLOSED_BY_OWNER, reason)
        self.gone.set()
        await self._chores.end()

    def fail(self, code: int, reason: str) -> None:
        """End at once, telling the peer and the owner `reason`."""
        if self.over:
            return
        self._close_connection(code, reason)
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self._why = reason
        self._close_connection(CLOSED_BY_OWNER, "")
        self._chores.cancel()
        self.gone.set()
        self._owner.link_ended(self, reason)

    async def ended(self) -> None:
        """Wait until nothing of a link that is over runs any more."""
        await self._chores.end()

    def _close_connection(self, code: int, reason: str) -> None:
        self._connection.close(code, reason.encode()[:512])
        for stream in list(self._streams):
            stream.let_go(f"the link was lost: {reason or self._why}")

    # -- what runs --------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._chores.spawn(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except iroh.IrohError as error:
            ended = self._connection.close_reason()
            self._end(closing_reason(ended) if ended else explain(error))

    async def _write_frames(self, sending: iroh.SendStream) -> None:
        # Frames go before bulk: a heartbeat or an order must not wait behind an object.
        await sending.set_priority(1)
        while True:
            self._wake.clear()
            frames = [] if self.ending else self._queue.take(WRITE_BYTES_MAX)
            if frames:
                await sending.write_all(pack(frames))
                self._tally.frames_out += len(frames)
                self._tally.bytes_out += sum(map(len, frames))
                self.used_at = asyncio.get_running_loop().time()
            elif self._shutting:
                break
            else:
                await self._wake.wait()
        await sending.finish()
        # Closing before the peer has acknowledged everything would lose it.
        await sending.stopped()

    async def _read_frames(self, receiving: iroh.RecvStream) -> None:
        reader = FrameReader()
        while data := await receiving.read(READ_BYTES_MAX):
            limit = FRAME_BYTES_MAX if self.accepted else STRANGER_FRAME_BYTES_MAX
            try:
                for frame in reader.feed(data, limit):
                    if self.over:
                        return
                    self._arrived(frame, datagram=False)
            except TooLong as error:
                self._tally.drop("malformed")
                self.fail(MALFORMED, f"malformed: {error}")
                return
        self.ending = True
        # The reason comes with the end of the connection, which `_watch` sees.
        await asyncio.sleep(FAREWELL_TIMEOUT_S)
        self._end("the peer ended the link")

    async def _read_datagrams(self) -> None:
        while True:
            frame = await self._connection.read_datagram()
            if self.over:
                return
            self._tally.datagrams_in += 1
            self._arrived(frame, datagram=True)

    def _arrived(self, frame: bytes, *, datagram: bool) -> None:
        if not datagram:
            self._tally.frames_in += 1
        self._tally.bytes_in += len(frame)
        self.used_at = asyncio.get_running_loop().time()
        self._owner.frame_arrived(self, frame, datagram=datagram)

    async def _accept_streams(self) -> None:
        while True:
            pair = await self._connection.accept_bi()
            if self.over:
                return
            self._spawn(self._admit(pair))

    async def _admit(self, pair: iroh.BiStream) -> None:
        stream = IrohStream(pair, self._tally, self._incoming_over)
        self._streams[stream] = None
        try:
            if not self.accepted:
                raise ValueError("from a stranger")
            async with asyncio.timeout(HEADER_TIMEOUT_S):
                kind = await read_header(pair.recv())
        except (ValueError, TimeoutError, iroh.IrohError):
            self._tally.drop("stream_refused")
            await stream.give_up(REFUSED, "the stream was refused")
            return
        if self.over or not self.accepted:
            await stream.give_up(REFUSED, "the stream was refused")
            return
        self.used_at = asyncio.get_running_loop().time()
        self._owner.stream_arrived(self, kind, stream)

    async def _watch(self) -> None:
        self._end(closing_reason(await self._connection.closed()))

    def _incoming_over(self, stream: IrohStream) -> None:
        self._streams.pop(stream, None)
        self.used_at = asyncio.get_running_loop().time()

    def _outgoing_over(self, stream: IrohStream) -> None:
        self._incoming_over(stream)
        self._slots.release()

    async def abort_streams(self) -> None:
        """Give up every stream of the peer's and mine: the peer is not accepted any more."""
        for stream in list(self._streams):
            await stream.give_up(REFUSED, "the peer is not accepted any more")
