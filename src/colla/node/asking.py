"""Requests of the API that wait for the agents' answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from colla.agents.requests import Request
from colla.kernel.effects import Answer, Refusal
from colla.kernel.events import Event, Requested
from colla.model.errors import CollaError

PENDING_MAX = 256
ANSWER_TIMEOUT_S = 40.0


class Asking:
    """Turns a request into an event and its answer into a result or a `CollaError`."""

    def __init__(
        self, post: Callable[[Event], None], trouble: Callable[[], CollaError | None] = lambda: None
    ) -> None:
        """`trouble` tells why nobody answers now, while that is so."""
        self._post = post
        self._trouble = trouble
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, request: Request, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Ask the agents. Raises `CollaError` when they refuse, `busy`, or `timeout`."""
        if (trouble := self._trouble()) is not None:
            raise CollaError(trouble.code, trouble.message, trouble.hint)
        if len(self._pending) >= PENDING_MAX:
            raise CollaError("busy", "This computer's node has too many requests open.", "Try again soon.")
        request_id = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        self._post(Requested(request_id, request))
        try:
            result = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise CollaError(
                "timeout", "The group did not answer in time.", "`colla status` shows who is here."
            ) from None
        finally:
            self._pending.pop(request_id, None)
        if isinstance(result, Refusal):
            raise CollaError(result.code, result.message, result.hint)
        return result

    def answered(self, effect: Answer) -> None:
        """The agents answered; an answer that nobody waits for any more is dropped."""
        future = self._pending.get(effect.id)
        if future is not None and not future.done():
            future.set_result(effect.result)

    def restart(self, why: CollaError) -> None:
        """The agents start again from disk, or end: whoever waits is told why."""
        for future in self._pending.values():
            if not future.done():
                future.set_result(Refusal(why.code, why.message, why.hint))
