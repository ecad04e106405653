"""The door behind the ways of replicas: to the services that a service names in `uses`, and to the Internet.

A bridge (`environments.bridge.ways`) connects to this Unix socket, says in one line whose way it is (the replica's token) and where
it leads, and from then on bytes flow. What the specification does not name, or the owner does not allow now, is refused
by closing. Invariant: at most `CONNECTIONS_MAX` of all replicas of this node at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colla.access.interface import TunnelError
from colla.access.outgoing import HEAD_BYTES_MAX, serve_outgoing
from colla.access.streams import BUFFER_BYTES, SocketStream, pump
from colla.environments.folders import listen_on, private_folder
from colla.environments.group import OUTGOING_WAY
from colla.model.service import Specification

if TYPE_CHECKING:
    from colla.node.app import Node

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 512
LINE_S_MAX: Final = 5.0
"""How long a bridge may take to say what it wants."""


class WaysDoor:
    """Serves one node's replicas."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._serving: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def open(self, socket: Path) -> None:
        """Begin to listen there."""
        private_folder(socket.parent)
        limit = max(HEAD_BYTES_MAX, BUFFER_BYTES // 2)
        self._serving = await asyncio.start_unix_server(self._accept, sock=listen_on(socket), limit=limit)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._serving is not None:
            self._serving.close()
        running = list(self._running)
        for connection in running:
            connection.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio runs each connection in a task that it does not keep; we do, to end it when we close.
        running = asyncio.current_task()
        assert running is not None
        self._running.add(running)
        program = SocketStream(reader, writer)
        try:
            if len(self._running) <= CONNECTIONS_MAX:
                await self._lead(reader, writer, program)
        except (TunnelError, ValueError, TimeoutError) as error:
            log.info("a way of a replica leads nowhere: %s", error)
        except ConnectionError as error:
            log.debug("a way of a replica broke: %s", error)
        except asyncio.CancelledError:
            # Closing the door ends its connections; nobody waits for this task's result.
            pass
        finally:
            await program.abort()
            self._running.discard(running)

    async def _lead(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, program: SocketStream
    ) -> None:
        async with asyncio.timeout(LINE_S_MAX):
            token, _, where = (await reader.readline()).decode("utf-8", "replace").strip().partition(" ")
        specification = self._specification(token)
        if specification is None:
            return
        if where == OUTGOING_WAY:
            if specification.outgoing and self._node.core.contribution.lets_out:
                await serve_outgoing(reader, writer)
        elif where in specification.services_used:
            await pump(program, await self._node.forwards.reach(where))

    def _specification(self, token: str) -> Specification | None:
        found = self._node.replicas.of_token(token)
        known = self._node.core.catalogue.service(found[1]) if found is not None else None
        return known.specification if known is not None else None
