"""A subscription says what was taken: behind the loop, never before; nothing after an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from colla.client import types
from colla.client.communication_calls import TAKEN_EVERY, CommunicationCalls, Subscription


def event(place: int) -> types.EventReport:
    return types.EventReport(f"{place:032x}", place, "shop", 0.0, "ben", "vps")


class Calls(CommunicationCalls):
    """Gives the events 1, 2, 3… and notes what is said to be taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken_to: list[int] = []

    async def events(self, **asked: Any) -> types.EventsReport:
        return types.EventsReport((event(1),), 1, False) if self.count else types.EventsReport((), 7, True)

    async def follow_events(self, **asked: Any) -> AsyncIterator[types.EventReport]:
        for place in range(1, self.count + 1):
            yield event(place)

    async def taken(self, subscriber: str, place: int) -> types.SubscriberReport:
        self.taken_to.append(place)
        return types.SubscriberReport(subscriber, place)


async def read(calls: Calls, until: int, *, fail: bool = False) -> None:
    async with calls.subscribe("books", ["shop"]) as events:
        assert isinstance(events, Subscription)
        async for one in events:
            if one.place == until:
                if fail:
                    raise RuntimeError("the program crashes")
                break


async def test_leaving_the_loop_takes_what_was_given() -> None:
    calls = Calls(10)
    await read(calls, 3)
    assert calls.taken_to == [3]


async def test_an_exception_takes_nothing_of_what_was_under_way() -> None:
    calls = Calls(10)
    with pytest.raises(RuntimeError):
        await read(calls, 3, fail=True)
    assert calls.taken_to == []


async def test_long_loops_say_now_and_then_where_they_are() -> None:
    calls = Calls(3 * TAKEN_EVERY)
    with pytest.raises(RuntimeError):
        await read(calls, 2 * TAKEN_EVERY + 5, fail=True)
    assert calls.taken_to == [TAKEN_EVERY, 2 * TAKEN_EVERY]


async def test_a_new_subscriber_without_events_exists_from_the_beginning_of_the_block() -> None:
    calls = Calls(0)
    await read(calls, 1)
    assert calls.taken_to == [7]
