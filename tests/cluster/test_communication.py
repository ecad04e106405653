"""Messages, events and presence between real processes: who was away has everything soon after coming back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from computers import Computer, deploy, eventually, make_group

from colla.client import types
from colla.model.errors import CollaError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

RETURN_S = 5.0
MESSAGES, EVENTS = 50, 200
TOPIC = "shop.orders"


async def test_who_was_away_has_everything_within_seconds(tmp_path: Path) -> None:
    """50 messages, 200 events, a changed and a renamed service, within 5 s of return, in order, each once."""
    first, second, away = computers = await make_group(tmp_path, "hashing", 3)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("one")
    try:
        await deploy(first, site, "web", 1)
        async with away.client() as client, client.subscribe("bookkeeping", [TOPIC]):
            pass
        async with away.client() as client:
            assert [subscriber.name for subscriber in await client.subscribers()] == ["bookkeeping"]
        watching = asyncio.create_task(seen_leaving(first, "member-of-home3"))
        assert await away.stop() == 0
        await asyncio.wait_for(watching, 15.0)

        await asyncio.gather(write(first, 0), write(second, 1))
        (site / "index.html").write_text("two")
        await deploy(first, site, "web", 1)
        await rename(first)

        started = time.monotonic()
        await away.up()
        up = time.monotonic()
        await eventually(lambda: has_all(away), RETURN_S, "the returned one has everything")
        done = time.monotonic()
        print(f"everything {done - up:.2f} s after the API answered, {done - started:.2f} s after the start")
        await check(away)
    finally:
        for computer in computers:
            computer.unplug()


async def seen_leaving(computer: Computer, member: str) -> None:
    """Follow presence until the member is away."""
    async with computer.client() as client:
        async for report in client.follow_presence():
            if report.member == member and not report.here:
                assert report.seen_s > time.time() - 60
                return


async def write(computer: Computer, place: int) -> None:
    """Every second of the messages and events, one after the other, by this computer."""
    async with computer.client() as client:
        for number in range(place, MESSAGES, 2):
            await client.send(f"message {number}", ["member-of-home3"])
        for number in range(place, EVENTS, 2):
            await client.publish(TOPIC, {"number": number})


async def rename(computer: Computer) -> None:
    async with computer.client() as client:
        before = await client.service("web")
        await client.rename_service("web", "shop")
        after = await client.service("shop")
        assert (after.id, after.version) == (before.id, before.version + 1)
        for name, code in (("shop", "no_change"), ("Shop!", "bad_name")):
            with pytest.raises(CollaError) as refused:
                await client.rename_service("shop", name)
            assert refused.value.code == code


async def has_all(computer: Computer) -> bool:
    async with computer.client() as client:
        messages = (await client.messages(limit=100)).messages
        events = (await client.events(topics=[TOPIC])).events
        services = [(service.name, service.version) for service in await client.services()]
        return len(messages) == MESSAGES and len(events) == EVENTS and services == [("shop", 3)]


async def check(away: Computer) -> None:
    async with away.client() as client:
        unread = (await client.messages(unread=True, limit=100)).messages
        numbers = [(message.sender, int(message.text.split()[1])) for message in unread]
        for place, sender in enumerate(("anna", "member-of-home2")):
            assert [number for who, number in numbers if who == sender] == list(range(place, MESSAGES, 2))
        assert await client.mark_read([message.id for message in unread]) == MESSAGES
        assert (await client.messages(unread=True)).messages == ()

        taken: list[types.EventReport] = []
        async with client.subscribe("bookkeeping", [TOPIC]) as events:
            async for event in events:
                taken.append(event)
                if len(taken) == EVENTS // 2:
                    break
        # The program came back, and goes on where it was.
        async with client.subscribe("bookkeeping", [TOPIC]) as events:
            async for event in events:
                taken.append(event)
                if len(taken) == EVENTS:
                    break
        assert len({event.id for event in taken}) == EVENTS
        for place, member in enumerate(("anna", "member-of-home2")):
            own = [event.data["number"] for event in taken if event.member == member]
            assert own == list(range(place, EVENTS, 2))
        left = await client.events(subscriber="bookkeeping", topics=[TOPIC])
        assert left.events == () and left.last


async def test_what_is_sent_comes_at_once_and_streams_end_with_the_node(tmp_path: Path) -> None:
    left, right = computers = await make_group(tmp_path, "hashing", 2)
    try:
        got: asyncio.Queue[types.MessageReport] = asyncio.Queue()
        following = asyncio.create_task(follow(right, got))
        async with left.client() as client:
            sent = await client.send("hello", to_all=True)
            assert sent.computers == 1 and sent.copies == 2
            message = await asyncio.wait_for(got.get(), 5.0)
            assert (message.text, message.sender, message.to) == ("hello", "anna", ())

            async def receipt() -> bool:
                (mine,) = (await client.messages(sent=True)).messages
                return list(mine.delivered_s) == ["member-of-home2"]

            await eventually(receipt, 5.0, "the delivery is confirmed")
            async with right.client() as other:
                await other.mark_read([message.id])

            async def read() -> bool:
                (mine,) = (await client.messages(sent=True)).messages
                return list(mine.read_s) == ["member-of-home2"]

            await eventually(read, 5.0, "the author knows that it was read")
            # A stream that cannot begin is refused as any other request.
            with pytest.raises(CollaError) as caught:
                async for _ in client.follow_events(subscriber="x" * 65):
                    pass
            assert caught.value.code == "bad_subscriber"
        stopping = time.monotonic()
        assert await right.stop() == 0
        assert time.monotonic() - stopping < 8.0, "nobody who follows holds the goodbye up"
        await asyncio.wait_for(following, 5.0)
    finally:
        for computer in computers:
            computer.unplug()


async def follow(computer: Computer, got: asyncio.Queue[types.MessageReport]) -> None:
    async with computer.client() as client:
        async for message in client.follow_messages():
            got.put_nowait(message)
