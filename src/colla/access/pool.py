"""Idle connections to replicas, kept for the next request.

Owns every connection that is not in use. Invariants: at most `IDLE_PER_REPLICA_MAX` per replica and `IDLE_MAX` in all;
a connection is given out at most once at a time; one that idled longer than `IDLE_S` is never given out again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

from colla.access.http1 import Conversation
from colla.access.interface import ByteStream, ReplicaLocation, Tunnels
from colla.model.ids import ReplicaId, ServiceId

IDLE_PER_REPLICA_MAX = 32
IDLE_MAX = 256
IDLE_S = 4.0
"""Below the 5 s after which common programs (uvicorn, Node.js) close an idle connection themselves."""
IDLE_MARGIN_S = 1.0
"""How long before a replica's own `Keep-Alive: timeout` its connection is given up."""


class Connection(Conversation):
    """An open connection to one replica."""

    __slots__ = ("idle_until", "replica", "served")

    def __init__(self, stream: ByteStream, replica: ReplicaId) -> None:
        super().__init__(stream)
        self.replica = replica
        self.served = 0
        """How many answers it has carried to their end."""
        self.idle_until = 0.0


class ConnectionPool:
    """Gives out connections to replicas, idle ones first."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._idle: OrderedDict[ReplicaId, list[Connection]] = OrderedDict()
        self._idle_count = 0
        self._sweep_at: asyncio.TimerHandle | None = None
        self._aborting: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, replica: ReplicaId) -> Connection | None:
        """The idle connection to this replica that was used last, if there is one."""
        idle = self._idle.get(replica)
        if not idle:
            return None
        connection = idle.pop()
        self._idle_count -= 1
        if not idle:
            del self._idle[replica]
        if connection.idle_until <= asyncio.get_running_loop().time():
            self.discard(connection)
            return None
        return connection

    async def open(self, location: ReplicaLocation, service: ServiceId) -> Connection:
        """A fresh connection. Raises `TunnelError`."""
        stream = await self._tunnels.open(location.node, service, location.replica)
        return Connection(stream, location.replica)

    def give_back(self, connection: Connection) -> None:
        """Keep the connection for later if it may carry another request, else abort it."""
        head = connection.head
        if not connection.reusable or head is None or self._closed:
            self.discard(connection)
            return
        idle_s = IDLE_S if head.keep_alive_s is None else min(IDLE_S, head.keep_alive_s - IDLE_MARGIN_S)
        idle = self._idle.get(connection.replica)
        if idle_s <= 0 or (idle is not None and len(idle) >= IDLE_PER_REPLICA_MAX):
            self.discard(connection)
            return
        if idle is None:
            idle = self._idle[connection.replica] = []
        else:
            self._idle.move_to_end(connection.replica)
        loop = asyncio.get_running_loop()
        connection.served += 1
        connection.idle_until = loop.time() + idle_s
        idle.append(connection)
        self._idle_count += 1
        if self._idle_count > IDLE_MAX:
            self._drop_oldest()
        if self._sweep_at is None:
            self._sweep_at = loop.call_later(IDLE_S / 2, self._sweep)

    def forget(self, replica: ReplicaId) -> None:
        """Abort all idle connections to a replica that failed: they lead nowhere."""
        for connection in self._idle.pop(replica, []):
            self._idle_count -= 1
            self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Abort a connection, without waiting for it."""
        self.in_background(connection.stream.abort())

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something short to its end, and keep hold of it until then."""
        running = asyncio.get_running_loop().create_task(work)
        self._aborting.add(running)
        running.add_done_callback(self._aborting.discard)

    async def close(self) -> None:
        """Abort everything that idles; what is in use aborts when given back."""
        self._closed = True
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for replica in list(self._idle):
            self.forget(replica)
        while self._aborting:
            await asyncio.wait(self._aborting)

    @property
    def idle_count(self) -> int:
        """How many connections idle now."""
        return self._idle_count

    def _drop_oldest(self) -> None:
        replica, idle = next(iter(self._idle.items()))
        self.discard(idle.pop(0))
        self._idle_count -= 1
        if not idle:
            del self._idle[replica]

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for replica, idle in list(self._idle.items()):
            while idle and idle[0].idle_until <= now:
                self.discard(idle.pop(0))
                self._idle_count -= 1
            if not idle:
                del self._idle[replica]
        self._sweep_at = loop.call_later(IDLE_S / 2, self._sweep) if self._idle else None
