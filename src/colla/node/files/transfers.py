"""What is under way on this node for people and programs: puts, gets, checks, and how far they are.

A transfer belongs to the node, not to whoever asked for it: it goes on when the asking program ends, and who asks for
the same again waits for the one that runs. Invariant: at most `TRANSFERS_MAX` run at a time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from colla.model.errors import CollaError
from colla.model.ids import ObjectId

TRANSFERS_MAX = 32
ID_CHARS_MAX = 64
FOLLOWERS_MAX = 32
NO_OBJECT = ObjectId(b"")
STORING, COPYING, FETCHING, WRITING, CHECKING = "storing", "copying", "fetching", "writing", "checking"


@dataclass(slots=True, eq=False)
class Transfer:
    """One of them. `phase`: storing, copying, fetching, writing or checking; bytes are those of the phase."""

    id: str
    """Of whoever asked first; whoever asked for the same again follows it by a name of its own (`also`)."""
    kind: str
    name: str
    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    object: ObjectId = NO_OBJECT
    also: dict[str, None] = field(default_factory=dict)
    task: asyncio.Task[Any] | None = field(default=None, repr=False)

    def enter(self, phase: str, total_bytes: int = 0) -> None:
        """The next phase begins."""
        self.phase, self.done_bytes, self.total_bytes = phase, 0, total_bytes

    def progressed(self, done_bytes: int, total_bytes: int) -> None:
        self.done_bytes, self.total_bytes = done_bytes, total_bytes


class Transfers:
    """All transfers of a node."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Transfer] = {}

    def running(self) -> list[Transfer]:
        """Those under way, the oldest first."""
        return list(self._running.values())

    def find(self, transfer_id: str) -> Transfer:
        """Raises `CollaError("not_found")` when it is over, or never was."""
        for transfer in self._running.values():
            if transfer.id == transfer_id or transfer_id in transfer.also:
                return transfer
        raise CollaError("not_found", "There is no such transfer under way.", "Perhaps it is over.")

    async def run(
        self,
        what: Hashable,
        transfer: Transfer,
        work: Callable[[Transfer], Awaitable[Any]],
    ) -> Any:
        """Do the work, or wait for the same (`what`) that runs already. Raises `CollaError` (`busy`, `stopped`, …)."""
        running = self._running.get(what)
        if running is None:
            if len(self._running) >= TRANSFERS_MAX:
                raise CollaError("busy", "Too many transfers are under way.", "Try again when one is over.")
            running = transfer
            running.id = running.id[:ID_CHARS_MAX] or secrets.token_hex(8)
            self._running[what] = running
            running.task = asyncio.ensure_future(self._carry(what, work(running)))
        elif transfer.id and len(running.also) < FOLLOWERS_MAX:
            running.also[transfer.id[:ID_CHARS_MAX]] = None
        assert running.task is not None
        try:
            return await asyncio.shield(running.task)
        except asyncio.CancelledError:
            if running.task.cancelled():
                raise CollaError(
                    "stopped", "It was stopped.", "Ask again: it goes on where it stopped."
                ) from None
            raise

    async def stop(self, transfer_id: str) -> None:
        """Stop a transfer; asked for again, it goes on where it stopped. Raises `CollaError("not_found")`."""
        task = self.find(transfer_id).task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """The node ends: stop everything."""
        tasks = [one.task for one in self._running.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, what: Hashable, work: Awaitable[Any]) -> Any:
        try:
            return await work
        finally:
            del self._running[what]
