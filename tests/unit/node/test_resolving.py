"""The gateway's questions to the group: many requests that wait for one service ask once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from colla.agents.requests import LocateService
from colla.model.errors import CollaError
from colla.model.ids import ServiceId
from colla.node.resolving import NodeResolver

SERVICE = ServiceId(b"s" * 16)


class Asking:
    """Answers when told to; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[LocateService] = []
        self.begun = asyncio.Event()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def ask(self, request: LocateService, timeout_s: float) -> Any:
        self.asked.append(request)
        self.begun.set()
        return await asyncio.shield(self.answer)


def resolver(asking: Asking) -> NodeResolver:
    service = SimpleNamespace(
        id=SERVICE, active=True, replicas=3, specification=SimpleNamespace(public=False), name="blog"
    )
    core = SimpleNamespace(
        catalogue=SimpleNamespace(by_name=lambda name: service if name == "blog" else None),
        membership=SimpleNamespace(group_name="club"),
        user=SimpleNamespace(watch=lambda service, now: None, locations=lambda service: ()),
        shown_name=lambda service: service.name,
    )
    return NodeResolver(lambda: core, None, asking)  # type: ignore[arg-type]


async def test_many_waiting_requests_ask_the_group_once() -> None:
    asking = Asking()
    found = resolver(asking)
    waiting = [asyncio.create_task(found.locate_fresh("blog", 5)) for _ in range(100)]
    await asking.begun.wait()
    asking.answer.set_result(None)
    located = await asyncio.gather(*waiting)
    assert len(asking.asked) == 1 and all(each is not None and each.name == "blog" for each in located)
    await found.locate_fresh("blog", 5)
    assert len(asking.asked) == 2, "the next question is a new one"
    assert await found.locate_fresh("nothing", 5) is None


async def test_a_question_without_answer_holds_nobody_longer_than_wanted() -> None:
    asking = Asking()
    found = resolver(asking)
    patient = asyncio.create_task(found.locate_fresh("blog", 5))
    assert await found.locate_fresh("blog", 0.01) is not None
    assert not patient.done()
    asking.answer.set_exception(CollaError("timeout", "nobody"))
    assert await patient is not None
