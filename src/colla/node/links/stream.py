"""One bulk stream over iroh: a two-way QUIC stream that begins with a small header naming its kind.

The header is one byte with the length of the kind, then the kind in UTF-8. iroh locks each direction while
an operation on it is under way, so giving up first cancels what is pending. Every handle of iroh's is let go
when the stream ends, because each keeps the endpoint's socket open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import iroh

from colla.node.links.endpoint import explain
from colla.node.links.interface import LinkError
from colla.node.links.tally import Tally

WRITE_BYTES_MAX = 256 * 1024
"""Bulk goes out in pieces of this size: larger ones gain nothing, smaller ones cost calls."""
READ_BYTES_MAX = 1024 * 1024
"""The most that one read may ask for, since iroh takes that much memory beforehand."""
KIND_BYTES_MAX = 64
ABORTED = 1
REFUSED = 2
"""Codes with which streams are reset; only their difference matters to a reader of a trace."""

_Result = TypeVar("_Result")


def encode_header(kind: str) -> bytes:
    """The bytes that open a stream of this kind. Raises `ValueError` for an unusable kind."""
    encoded = kind.encode()
    if not 0 < len(encoded) <= KIND_BYTES_MAX:
        raise ValueError(f"the kind of a stream has 1 to {KIND_BYTES_MAX} bytes, not {len(encoded)}")
    return bytes((len(encoded),)) + encoded


async def read_header(receiving: iroh.RecvStream) -> str:
    """The kind that an incoming stream names. Raises `ValueError` or `IrohError`."""
    length = (await receiving.read_exact(1))[0]
    if not 0 < length <= KIND_BYTES_MAX:
        raise ValueError(f"a kind of {length} bytes")
    return (await receiving.read_exact(length)).decode()


class IrohStream:
    """A `LinkStream` over iroh. `on_end` is called once, when both directions are over."""

    __slots__ = (
        "_finished",
        "_on_end",
        "_pending",
        "_read_to_end",
        "_receiving",
        "_sending",
        "_tally",
        "why",
    )

    def __init__(self, pair: iroh.BiStream, tally: Tally, on_end: Callable[[IrohStream], None]) -> None:
        self._sending: iroh.SendStream | None = pair.send()
        self._receiving: iroh.RecvStream | None = pair.recv()
        self._tally = tally
        self._on_end: Callable[[IrohStream], None] | None = on_end
        self._pending: dict[asyncio.Future[Any], None] = {}
        self._finished = False
        self._read_to_end = False
        self.why = "the stream is closed"

    async def read(self, at_most: int) -> bytes:
        """See `LinkStream.read`."""
        if self._read_to_end:
            return b""
        if self._receiving is None:
            raise LinkError(self.why)
        data = await self._run(self._receiving.read(min(at_most, READ_BYTES_MAX)))
        self._tally.stream_bytes_in += len(data)
        if not data:
            self._read_to_end = True
            self._receiving = None
            self._end_if_over()
        return data

    async def write(self, data: bytes) -> None:
        """See `LinkStream.write`."""
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES_MAX):
            if self._sending is None:
                raise LinkError(self.why)
            piece = bytes(view[start : start + WRITE_BYTES_MAX])
            await self._run(self._sending.write_all(piece))
            self._tally.stream_bytes_out += len(piece)

    async def finish(self) -> None:
        """See `LinkStream.finish`."""
        if self._finished:
            return
        if self._sending is None:
            raise LinkError(self.why)
        await self._run(self._sending.finish())
        # Without waiting here, closing the link later would lose what the peer has not acknowledged.
        code = await self._run(self._sending.stopped())
        if code is not None:
            await self.abort()
            raise LinkError("the peer did not want the rest of the stream")
        self._finished = True
        self._sending = None
        self._end_if_over()

    async def abort(self) -> None:
        """See `LinkStream.abort`."""
        await self.give_up(ABORTED, "the stream was aborted")

    async def give_up(self, code: int, why: str) -> None:
        """End both directions with `code`; whoever waits gets a `LinkError` that says `why`."""
        sending, receiving = self.let_go(why)
        # A direction that had ended by itself, or with the connection, refuses to be ended again: no harm.
        if sending is not None:
            with contextlib.suppress(iroh.IrohError):
                await sending.reset(code)
        if receiving is not None:
            with contextlib.suppress(iroh.IrohError):
                await receiving.stop(code)

    def let_go(self, why: str) -> tuple[iroh.SendStream | None, iroh.RecvStream | None]:
        """Forget iroh's handles at once, without telling the peer: the link itself is gone."""
        sending, receiving = self._sending, self._receiving
        self._sending = self._receiving = None
        if not (self._finished and self._read_to_end):
            self.why = why
        for operation in list(self._pending):
            operation.cancel()
        self._end_if_over()
        return sending, receiving

    def _end_if_over(self) -> None:
        if self._sending is None and self._receiving is None and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(self)

    async def _run(self, operation: Coroutine[Any, Any, _Result]) -> _Result:
        task = asyncio.ensure_future(operation)
        self._pending[task] = None
        try:
            return await task
        except iroh.IrohError as error:
            raise LinkError(explain(error)) from None
        except asyncio.CancelledError:
            # Cancelled from outside, or because this stream was given up: only the latter is an error of its own.
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise LinkError(self.why) from None
        finally:
            task.cancel()
            self._pending.pop(task, None)
