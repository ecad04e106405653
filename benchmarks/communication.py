"""How soon messages and events are where they shall be, simulated at 30 nodes and between real processes.

    python benchmarks/communication.py [--nodes 30] [--samples 200] [--returns 20] [--real 5] [--quick]

Method. *Simulated*: the agents of real nodes run in virtual time (`colla.sim`): messages pass the codec over home lines (one way
16 ms and 4 ms of jitter on average, without and with 5 % of packets lost), disks flush in 4 ms (sometimes 250). Every other
node has a program that waits for events (`FindEvents`, as the API asks it); a random node publishes. *event*: until one
node's program has it, over all nodes; *event, last node*: until all have it. *message*: from `SendMessage` until the recipient's
program has the opened text; *receipt*: until the author knows that it came, which is confirmed together with others after
0.3 s. *return*: a node was stopped during 50 messages and 200 events; from its start until its programs could read all.

*Real*: `--real` processes on one computer; a client publishes through the API of one, a client follows at another; both are
this program, so that one clock measures. What is measured includes both APIs, both disks (what is published leaves its node
once it is durable there, and is told once it is durable where it came) and the link between. p99 is the nearest rank.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from colla.agents.communication_requests import (
    EventsFound,
    FindEvents,
    FindMessages,
    MessageSent,
    MessagesFound,
    PublishEvent,
    SendMessage,
)
from colla.kernel.effects import Answer, Effect
from colla.kernel.events import Event
from colla.sim.computer import Computer
from colla.sim.group import SimGroup
from colla.sim.lines import HOME

GIVE_UP_S = 60.0
TOPIC = "bench.topic"
AWAY_MESSAGES, AWAY_EVENTS = 50, 200


class Answers:
    """When each node's program got something."""

    def __init__(self, group: SimGroup) -> None:
        self.at_s: dict[str, float] = {}
        self._group = group
        group.observers.append(self)

    def will_step(self, computer: Computer, event: Event) -> None:
        pass

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        pass

    def performed(self, computer: Computer, effect: Effect) -> None:
        if isinstance(effect, Answer):
            result = effect.result
            got = (isinstance(result, EventsFound) and result.events) or (
                isinstance(result, MessagesFound) and result.messages
            )
            if got:
                self.at_s[computer.name] = self._group.world.now_s


def formed(seed: int, nodes: int, loss: float) -> SimGroup:
    group = SimGroup(seed, line=HOME.losing(loss))
    group.grow(nodes)
    group.run(20.0)
    return group


def simulated(nodes: int, samples: int, loss: float) -> dict[str, list[float]]:
    """Latencies in seconds by what was measured."""
    group = formed(1, nodes, loss)
    answers, rng = Answers(group), group.world.random("benchmark")
    found: dict[str, list[float]] = {"event": [], "event, last node": [], "message": [], "receipt": []}
    for _ in range(samples):
        author, reader = rng.sample(group.computers, 2)
        others = [computer for computer in group.computers if computer is not author]
        for computer in others:
            last = computer.core.communication.happenings.journal.last
            computer.ask(FindEvents(after=last, topics=(TOPIC,), wait_s=GIVE_UP_S))
        group.run(rng.uniform(0.1, 0.5))
        answers.at_s.clear()
        since_s = group.world.now_s
        author.ask(PublishEvent(TOPIC, b"1"))
        group.until(lambda: len(answers.at_s) == nodes - 1, GIVE_UP_S, "all have the event")
        latencies = [at_s - since_s for at_s in answers.at_s.values()]
        found["event"] += latencies
        found["event, last node"].append(max(latencies))
        message(group, answers, author, reader, found)
    return {name: sorted(values) for name, values in found.items()}


def message(
    group: SimGroup, answers: Answers, author: Computer, reader: Computer, found: dict[str, list[float]]
) -> None:
    """One message and its receipt."""
    last = reader.core.communication.correspondence.journal.last
    reader.ask(FindMessages(after=last, wait_s=GIVE_UP_S))
    group.run(0.2)
    answers.at_s.clear()
    since_s = group.world.now_s
    asked = author.ask(SendMessage((group.owner(reader).id,), "Are you there?"))
    group.until(lambda: reader.name in answers.at_s and asked.answered, GIVE_UP_S, "the message came")
    assert isinstance(asked.result, MessageSent)
    found["message"].append(answers.at_s[reader.name] - since_s)
    sent, mailbox = asked.result.message, author.core.communication.correspondence.mailbox
    took_s = group.world.run_until(lambda: sent in mailbox.receipts(), GIVE_UP_S, look_every_s=0.01)
    found["receipt"].append(float("inf") if took_s is None else group.world.now_s - since_s)


def returning(nodes: int, returns: int, loss: float) -> list[float]:
    """From the start of a node that was away until it has everything."""
    latencies = []
    for seed in range(returns):
        group = formed(100 + seed, nodes, loss)
        away = group.computers[-1]
        away.stop()
        group.run(5.0)
        for number in range(AWAY_MESSAGES):
            group.answer(group[number % 4], SendMessage((group.owner(away).id,), f"message {number}"))
        for number in range(AWAY_EVENTS):
            group.answer(group[number % 4], PublishEvent(TOPIC, b"%d" % number))
        away.start()

        def complete(away: Computer = away) -> bool:
            both = away.core.communication
            events = sum(1 for _, one in both.happenings.journal.after(0) if one.key.kind == "published")
            return len(list(both.correspondence.mailbox.inbox(0))) == AWAY_MESSAGES and events == AWAY_EVENTS

        took_s = group.world.run_until(complete, GIVE_UP_S, look_every_s=0.01)
        latencies.append(float("inf") if took_s is None else took_s)
    return sorted(latencies)


async def real(nodes: int, samples: int) -> dict[str, list[float]]:
    """Latencies between real processes, in seconds."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))
    from computers import make_group

    found: dict[str, list[float]] = {"event": [], "event acknowledged": [], "message": []}
    with tempfile.TemporaryDirectory(prefix="colla-bench-") as base:
        computers = await make_group(Path(base), "hashing", nodes)
        try:
            async with computers[0].client() as author, computers[1].client() as reader:
                events, messages = asyncio.Queue[Any](), asyncio.Queue[Any]()
                follows = [
                    asyncio.create_task(fill(events, reader.follow_events(topics=[TOPIC]))),
                    asyncio.create_task(fill(messages, reader.follow_messages())),
                ]
                for number in range(samples + 1):
                    latencies = await one(author, events, messages)
                    if number:  # The first of all is to warm up.
                        for name, seconds in latencies.items():
                            found[name].append(seconds)
                for follow in follows:
                    follow.cancel()
        finally:
            for computer in computers:
                computer.unplug()
    return {name: sorted(values) for name, values in found.items()}


async def fill(queue: asyncio.Queue[Any], values: Any) -> None:
    async for _ in values:
        queue.put_nowait(time.perf_counter())


async def one(author: Any, events: asyncio.Queue[Any], messages: asyncio.Queue[Any]) -> dict[str, float]:
    """One event and one message, from this program through two nodes and back."""
    since_s = time.perf_counter()
    published = asyncio.create_task(author.publish(TOPIC, 1))
    came_s = await events.get()
    await published
    acknowledged_s = time.perf_counter()
    began_s = time.perf_counter()
    sending = asyncio.create_task(author.send("Are you there?", to_all=True))
    read_s = await messages.get()
    await sending
    return {
        "event": came_s - since_s,
        "event acknowledged": acknowledged_s - since_s,
        "message": read_s - began_s,
    }


def row(table: Table, where: str, what: str, values: list[float]) -> None:
    rank = max(0, -(-99 * len(values) // 100) - 1)
    figures = (values[len(values) // 2], values[rank], values[-1])
    table.add_row(where, what, str(len(values)), *(f"{1000 * seconds:.0f}" for seconds in figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--returns", type=int, default=20)
    parser.add_argument("--real", type=int, default=5, help="real processes; 0 for none")
    parser.add_argument("--quick", action="store_true", help="few of everything")
    options = parser.parse_args()
    samples, returns = (20, 3) if options.quick else (options.samples, options.returns)
    table = Table(title="messages and events", box=None)
    for column in ("where", "what", "samples", "p50 ms", "p99 ms", "most ms"):
        table.add_column(column)
    for loss in (0.0, 0.05):
        where = f"{options.nodes} nodes simulated, {100 * loss:.0f} % loss"
        for what, values in simulated(options.nodes, samples, loss).items():
            row(table, where, what, values)
        row(table, where, "return", returning(options.nodes, returns, loss))
    if options.real:
        for what, values in asyncio.run(real(options.real, samples)).items():
            row(table, f"{options.real} real processes", what, values)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
