"""The door: takes incoming connections as far as their hello, with bounds on time and on how many at once.

One address may hold only a part of the places, so that nobody who connects and says nothing keeps members out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import iroh

from colla.node.links.agreement import HELLO_BYTES, Hello, decode_hello
from colla.node.links.chores import Chores
from colla.node.links.dialler import ABANDONED
from colla.node.links.endpoint import explain
from colla.node.links.tally import Tally

logger = logging.getLogger("colla.links")

HANDSHAKES_MAX = 256
"""Incoming connections that have not yet been answered."""
HANDSHAKES_PER_ADDRESS_MAX = 64
HANDSHAKE_TIMEOUT_S = 5.0
RELAYED = "relay"
"""Stands for the address of whoever comes through a relay."""


def ip_of(origin: str) -> str:
    """The address without its port, for bounds per address."""
    return origin if origin == RELAYED else origin.rpartition(":")[0]


Answer = Callable[[iroh.Connection, iroh.BiStream, Hello, str], Awaitable[bool]]


class Door:
    """Calls `answer(connection, control, hello, origin)`, which says whether the connection is used.

    `origin` is `ip:port` or `RELAYED`.
    """

    def __init__(self, answer: Answer, chores: Chores, tally: Tally) -> None:
        self._answer = answer
        self._chores = chores
        self._tally = tally
        self._inside: Counter[str] = Counter()

    async def keep(self, endpoint: iroh.Endpoint) -> None:
        """Take connections until the endpoint is closed."""
        while (incoming := await endpoint.accept_next()) is not None:
            remote = await incoming.remote_addr()
            origin = remote.addr if isinstance(remote, iroh.IncomingAddr.IP) else RELAYED
            ip = ip_of(origin)
            full = self._inside[ip] >= HANDSHAKES_PER_ADDRESS_MAX
            if full or self._inside.total() >= HANDSHAKES_MAX:
                self._tally.drop("handshakes_full")
                await incoming.refuse()
                continue
            self._inside[ip] += 1
            self._chores.spawn(self._receive(incoming, origin))

    async def _receive(self, incoming: iroh.Incoming, origin: str) -> None:
        connection: iroh.Connection | None = None
        used = False
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                connection = await (await incoming.accept()).connect()
                control = await connection.accept_bi()
                hello = decode_hello(await control.recv().read_exact(HELLO_BYTES))
                used = await self._answer(connection, control, hello, origin)
                if not used:
                    # The one who got the last word closes, or the word would be lost.
                    await connection.closed()
        except (TimeoutError, ValueError, iroh.IrohError) as error:
            self._tally.drop("handshake_failed")
            logger.debug("an incoming connection failed: %s", explain(error))
        finally:
            self._inside -= Counter((ip_of(origin),))
            if connection is not None and not used:
                connection.close(ABANDONED, b"not needed")
