"""Commands beside replicas, wherever these run: `colla exec`.

A question travels on a stream of its own to the node that runs the replica; the command's output comes back in lines of
JSON. Who may change a service may ask, and only where the computer's owner allows it; the owner of a computer may ask
on it anyway. Who hangs up ends the command, all the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import msgspec

from colla.client.types import ExecOutputReport
from colla.environments.protocol import ExecRequest
from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import NodeId, ServiceId
from colla.node.links import LinkError, LinkStream
from colla.node.observing import lines_of
from colla.protocol.catalogue.authority import may_change

if TYPE_CHECKING:
    from colla.node.app import Node

EXECUTE_STREAM: Final = "execute"
QUESTION_BYTES_MAX: Final = 64 << 10
LINE_BYTES_MAX: Final = 256 << 10
BEGIN_S: Final = 5.0
"""How long a computer has to be reached, and a question to come."""
RUNNING_MAX: Final = 8
"""Commands of others that run here at the same time."""


class Question(msgspec.Struct, frozen=True):
    """What shall be run beside the replica of this service."""

    service: str
    command: tuple[str, ...]
    timeout_s: float


class Executing:
    """Asks, and answers what others ask."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running = 0

    async def run(
        self, service: ServiceId, command: tuple[str, ...], timeout_s: float, where: str
    ) -> AsyncIterator[ExecOutputReport]:
        """What the command writes, then its code or the problem, on the computer called `where` (empty: any with a replica).

        Raises `CollaError`: `not_running`, and `bad_command` when the question is too long.
        """
        question = Question(service.hex(), command, timeout_s)
        if not command or len(msgspec.json.encode(question)) >= QUESTION_BYTES_MAX:
            raise CollaError("bad_command", "The command is missing or too long.", "Put it into a file.")
        node = self._choose(service, where)
        try:
            if node == self._node.identity.node:
                async for output in self._answer(question):
                    yield output
            else:
                async for output in self._ask(node, question):
                    yield output
        except CollaError as error:
            name = self._node.core.node_name(node)
            yield ExecOutputReport(name, problem=str(error))

    def _choose(self, service: ServiceId, where: str) -> NodeId:
        """This computer first."""
        own = self._node.identity.node
        known = [location.node for location in self._node.core.user.locations(service)]
        nodes = [own, *known] if self._node.replicas.of(service) else known
        for node in nodes:
            if where in ("", self._node.core.node_name(node)):
                return node
        what = f"on {where}" if where else "anywhere"
        raise CollaError(
            "not_running", f"No replica of it runs {what}.", "`colla locate` says where they run."
        )

    async def _ask(self, node: NodeId, question: Question) -> AsyncIterator[ExecOutputReport]:
        try:
            async with asyncio.timeout(BEGIN_S):
                stream = await self._node.links.open_stream(node, EXECUTE_STREAM)
        except (LinkError, TimeoutError) as error:
            raise CollaError("unreachable", f"It does not answer: {error or 'no answer in time'}.") from None
        ended = False
        try:
            await stream.write(msgspec.json.encode(question) + b"\n")
            async for raw in lines_of(stream, LINE_BYTES_MAX):
                output = msgspec.json.decode(raw, type=ExecOutputReport)
                ended = ended or output.code is not None or bool(output.problem)
                yield output
        except (LinkError, ValueError) as error:
            raise CollaError("unreachable", f"It stopped answering: {error}.") from None
        finally:
            await stream.abort()
        if not ended:
            raise CollaError("unreachable", "It stopped answering; an older version of colla perhaps.")

    # -- answering ------------------------------------------------------------------------------------------

    async def serve(self, peer: NodeId, stream: LinkStream) -> None:
        """Run what a peer asks for; never raises."""
        self._running += 1
        try:
            question = await self._question(stream)
            telling = asyncio.ensure_future(self._tell(stream, question, self._refusal(peer, question)))
            # Nothing more is said by who asks: the end of that direction, or of the link, means that nobody listens.
            hearing = asyncio.ensure_future(stream.read(1))
            try:
                await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (telling, hearing):
                    task.cancel()
                await asyncio.gather(telling, hearing, return_exceptions=True)
        except (LinkError, TimeoutError, ValueError, *UNDECODABLE):
            # The peer hung up, or asked nothing that can be answered: it hears nothing.
            pass
        finally:
            self._running -= 1
            await stream.abort()

    async def _question(self, stream: LinkStream) -> Question:
        async with asyncio.timeout(BEGIN_S):
            async for raw in lines_of(stream, QUESTION_BYTES_MAX):
                return msgspec.json.decode(raw, type=Question)
        raise ValueError("no question")

    async def _tell(self, stream: LinkStream, question: Question, refusal: str) -> None:
        name = self._node.core.node_name(self._node.identity.node)
        try:
            if refusal:
                raise CollaError("not_allowed", refusal)
            async for output in self._answer(question):
                await stream.write(msgspec.json.encode(output) + b"\n")
        except CollaError as error:
            await stream.write(msgspec.json.encode(ExecOutputReport(name, problem=str(error))) + b"\n")
        await stream.finish()
        # Until the peer has it all and hangs up.
        await asyncio.sleep(BEGIN_S)

    def _refusal(self, peer: NodeId, question: Question) -> str:
        membership = self._node.core.membership
        service = self._node.core.catalogue.service(ServiceId(bytes.fromhex(question.service)))
        member = membership.owner_of(peer)
        if service is None or member is None or not may_change(membership, member, service.owner):
            return "Only the service's owner and administrators run commands beside its replicas."
        if not self._node.core.contribution.lets_exec:
            return "The owner of this computer does not let others run commands beside replicas."
        return "This computer runs too many commands at once." if self._running > RUNNING_MAX else ""

    async def _answer(self, question: Question) -> AsyncIterator[ExecOutputReport]:
        """On this computer. Raises `CollaError`."""
        name = self._node.core.node_name(self._node.identity.node)
        for replica, client in self._node.replicas.of(ServiceId(bytes.fromhex(question.service))):
            if "exec" not in client.info.capabilities:
                raise CollaError("not_supported", "Its environment runs no commands beside replicas.")
            request = ExecRequest(command=question.command, timeout_s=question.timeout_s)
            async for output in client.exec(replica, request):
                yield ExecOutputReport(name, output.text, output.code)
            return
        raise CollaError("not_running", "No replica of it runs here any more.")
