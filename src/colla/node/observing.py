"""What replicas write and use, wherever they run: asked of the computers that run them, merged here.

A question travels on a stream of its own to each node that runs a replica of the service, and is answered in lines of
JSON. Whoever may change a service (its owner, an administrator) may see what its replicas say; the owner of a computer
sees what runs on it. Back-pressure goes the whole way: a reader that is slow slows the streams, and what a replica
writes meanwhile is bounded on its computer's disk, where the oldest lines go first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from colla.client.types import LogLineReport, ReplicaStatsReport
from colla.environments.protocol import LogLine
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.node.links import LinkError, LinkStream
from colla.protocol.catalogue.authority import may_change

if TYPE_CHECKING:
    from colla.node.app import Node

OBSERVE_STREAM: Final = "observe"
QUESTION_BYTES_MAX: Final = 1024
LINE_BYTES_MAX: Final = 256 << 10
LINES_MAX: Final = 1000
"""Lines of the past that one computer tells."""
ANSWERS_MAX: Final = 16
"""Questions of others that a node answers at the same time."""
ANSWER_S: Final = 5.0
"""How long a computer has to begin, and to tell its past."""
QUEUE_LINES: Final = 256
"""Lines that wait for a reader, before the streams wait."""
LOOK_AGAIN_S: Final = 2.0
"""How often a follower looks for replicas that came."""


class Question(msgspec.Struct, frozen=True):
    """What is asked of one computer about its replica of a service."""

    service: str
    what: Literal["logs", "stats"]
    lines: int = 0
    follow: bool = False


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer. `live` ends the past of a stream that goes on; `problem` tells why there is none."""

    log: LogLineReport | None = None
    stats: ReplicaStatsReport | None = None
    live: bool = False
    problem: str = ""


class Observing:
    """Asks, and answers what others ask."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answering = 0

    # -- asking ---------------------------------------------------------------------------------------------

    async def logs(self, service: ServiceId, lines: int, *, follow: bool) -> AsyncIterator[LogLineReport]:
        """The newest lines of all replicas in the order of their times, then with `follow` those to come."""
        queue: asyncio.Queue[tuple[NodeId, Line | None]] = asyncio.Queue(QUEUE_LINES)
        question = Question(service.hex(), "logs", min(lines, LINES_MAX), follow)
        asked: dict[NodeId, asyncio.Task[None]] = {}
        try:
            self._ask_new(service, question, asked, queue)
            past = await self._past(asked, queue)
            for told in sorted(past, key=lambda told: told.at_s)[max(0, len(past) - lines) :]:
                yield told
            while follow:
                with contextlib.suppress(TimeoutError):
                    node, line = await asyncio.wait_for(queue.get(), LOOK_AGAIN_S)
                    if line is None:
                        asked.pop(node)
                    elif line.log is not None:
                        yield line.log
                self._ask_new(service, msgspec.structs.replace(question, lines=LINES_MAX), asked, queue)
        finally:
            for reading in asked.values():
                reading.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)

    async def stats(self, service: ServiceId) -> tuple[ReplicaStatsReport, ...]:
        """What each replica uses now; those whose computer does not say are left out."""
        question = Question(service.hex(), "stats")

        async def one(node: NodeId) -> list[ReplicaStatsReport]:
            with contextlib.suppress(TimeoutError, CollaError):
                async with asyncio.timeout(ANSWER_S):
                    return [line.stats async for line in self._answer_of(node, question) if line.stats]
            return []

        found = await asyncio.gather(*map(one, self._nodes(service)))
        return tuple(report for reports in found for report in reports)

    def _nodes(self, service: ServiceId) -> list[NodeId]:
        known = [location.node for location in self._node.core.user.locations(service)]
        return list(dict.fromkeys([self._node.identity.node, *known]))

    def _ask_new(
        self,
        service: ServiceId,
        question: Question,
        asked: dict[NodeId, asyncio.Task[None]],
        queue: asyncio.Queue[tuple[NodeId, Line | None]],
    ) -> None:
        for node in self._nodes(service):
            if node not in asked and (node != self._node.identity.node or self._node.replicas.of(service)):
                asked[node] = asyncio.create_task(self._read(node, question, queue))

    async def _read(
        self, node: NodeId, question: Question, queue: asyncio.Queue[tuple[NodeId, Line | None]]
    ) -> None:
        try:
            async for line in self._answer_of(node, question):
                if line.problem:
                    raise CollaError("not_allowed", line.problem)
                await queue.put((node, line))
        except CollaError as error:
            name = self._node.core.node_name(node)
            note = LogLineReport(node=name, replica="", number=0, at_s=0.0, stream="note", text=error.message)
            await queue.put((node, Line(log=note)))
        await queue.put((node, None))

    async def _past(
        self, asked: dict[NodeId, asyncio.Task[None]], queue: asyncio.Queue[tuple[NodeId, Line | None]]
    ) -> list[LogLineReport]:
        """What is told until each is live or has ended, or takes too long."""
        past: list[LogLineReport] = []
        waited = dict.fromkeys(asked)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while waited:
                    node, line = await queue.get()
                    if line is not None and line.log is not None:
                        past.append(line.log)
                    elif line is None or line.live:
                        waited.pop(node, None)
                    if line is None:
                        asked.pop(node)
        return past

    async def _answer_of(self, node: NodeId, question: Question) -> AsyncIterator[Line]:
        """The lines of one computer, this one or another. Raises `CollaError("unreachable")`."""
        if node == self._node.identity.node:
            async for line in self._answer(question):
                yield line
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                stream = await self._node.links.open_stream(node, OBSERVE_STREAM)
        except (LinkError, TimeoutError) as error:
            raise CollaError("unreachable", f"It does not answer: {error or 'no answer in time'}.") from None
        try:
            await stream.write(msgspec.json.encode(question) + b"\n")
            async for raw in lines_of(stream, LINE_BYTES_MAX):
                yield msgspec.json.decode(raw, type=Line)
        except (LinkError, ValueError) as error:
            raise CollaError("unreachable", f"It stopped answering: {error}.") from None
        finally:
            await stream.abort()

    # -- answering ------------------------------------------------------------------------------------------

    async def serve(self, peer: NodeId, stream: LinkStream) -> None:
        """Answer one question of a peer; never raises."""
        self._answering += 1
        try:
            question = await self._question(stream)
            problem = self._refusal(peer, question)
            if problem:
                await stream.write(msgspec.json.encode(Line(problem=problem)) + b"\n")
                await stream.finish()
                return
            async for line in self._answer(question):
                await stream.write(msgspec.json.encode(line) + b"\n")
            await stream.finish()
        except (LinkError, CollaError, TimeoutError, ValueError, *UNDECODABLE):
            # The peer hung up, or asked nothing that can be answered: it hears nothing.
            await stream.abort()
        finally:
            self._answering -= 1

    async def _question(self, stream: LinkStream) -> Question:
        async with asyncio.timeout(ANSWER_S):
            async for raw in lines_of(stream, QUESTION_BYTES_MAX):
                return msgspec.json.decode(raw, type=Question)
        raise ValueError("no question")

    def _refusal(self, peer: NodeId, question: Question) -> str:
        membership = self._node.core.membership
        service = self._node.core.catalogue.service(ServiceId(bytes.fromhex(question.service)))
        member = membership.owner_of(peer)
        if self._answering > ANSWERS_MAX:
            return "This computer answers too many questions at once."
        if service is None or member is None or not may_change(membership, member, service.owner):
            return (
                "Only the service's owner and administrators see what its replicas write and use elsewhere."
            )
        return ""

    async def _answer(self, question: Question) -> AsyncIterator[Line]:
        """The lines about the replicas of this computer."""
        name = self._node.core.node_name(self._node.identity.node)
        for replica, client in self._node.replicas.of(ServiceId(bytes.fromhex(question.service))):
            if question.what not in client.info.capabilities:
                continue
            if question.what == "stats":
                used = await client.stats(replica)
                report = ReplicaStatsReport(
                    name, replica.hex(), used.cpu_seconds, used.memory_bytes, used.processes
                )
                yield Line(stats=report)
                continue
            kept = [line async for line in client.logs(replica)]
            for line in kept[max(0, len(kept) - min(question.lines, LINES_MAX)) :]:
                yield _log(name, replica, line)
            if question.follow:
                yield Line(live=True)
                after = kept[-1].number if kept else 0
                async for line in client.logs(replica, follow=True, after=after):
                    yield _log(name, replica, line)


def _log(name: str, replica: ReplicaId, line: LogLine) -> Line:
    return Line(log=LogLineReport(name, replica.hex(), line.number, line.at, line.stream, line.text))


async def lines_of(stream: LinkStream, bytes_max: int) -> AsyncIterator[bytes]:
    """The lines of a stream. Raises `ValueError` when one is longer than `bytes_max`, `LinkError`."""
    rest = b""
    while data := await stream.read(64 << 10):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > bytes_max:
            raise ValueError("a line is too long")
        for line in whole:
            yield line
