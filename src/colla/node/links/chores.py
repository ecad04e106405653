"""The things that links do in the background: kept track of, ended together, defects made known."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Chores:
    """A set of running coroutines. An exception that one lets out is a defect and goes to the loop's handler."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run `work` until it ends or `end` is called."""
        task = asyncio.create_task(work)
        self._running[task] = None
        task.add_done_callback(self._done)
        return task

    async def settle(self) -> None:
        """Wait until all that runs now has ended by itself."""
        if self._running:
            await asyncio.wait(list(self._running))

    async def end(self) -> None:
        """Cancel all that runs and wait until it has ended. May be called by one of them, which goes on."""
        tasks = [task for task in self._running if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Cancel all that runs, except the caller, without waiting."""
        for task in self._running:
            if task is not asyncio.current_task():
                task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "links: a defect", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
