"""Forwards: a local TCP port that leads to a live replica of one service, whatever protocol it speaks.

Owns the listening ports and the connections through them. Source: DESIGN.md section 8 (`colla forward`). Invariants: each new
connection goes to the nearest live replica, or the next one when that cannot be reached; once bytes flow, a
connection stays with its replica and ends with it; at most `CONNECTIONS_MAX` per forward.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random

from colla.access.health import HealthMemory
from colla.access.interface import ByteStream, Located, ReplicaLocation, Resolver, TunnelError, Tunnels
from colla.access.ports import LOOPBACK, listen, listen_preferring, preferred_port
from colla.access.streams import BUFFER_BYTES, SocketStream, pump
from colla.model.errors import CollaError

CONNECTIONS_MAX = 256
"""Open connections per forward; further ones are closed at once."""
FORWARDS_MAX = 256
OPEN_S = 10.0
"""How long a new connection tries to reach any replica."""
NEXT_AFTER_S = 1.0
"""How long one replica may take before another one is tried beside it."""
AGAIN_AFTER_S = 0.25

_log = logging.getLogger(__name__)


class Forward:
    """One open forward. `port` is where it listens."""

    def __init__(self, forwards: Forwards, host_name: str, address: str, port: int) -> None:
        self.host_name, self.address, self.port = host_name, address, port
        self.connections = 0
        """How many are open now."""
        self._forwards = forwards
        self._running: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._listening is not None:
            self._listening.close()
        self._forwards.forget(self)
        running = list(self._running)
        for connection in running:
            connection.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio runs each connection in a task that it does not keep; we do, to end it when we close.
        running = asyncio.current_task()
        assert running is not None
        self._running.add(running)
        self.connections += 1
        client = SocketStream(reader, writer)
        try:
            if self.connections <= CONNECTIONS_MAX:
                replica = await self._forwards.reach(self.host_name)
                await pump(client, replica)
        except TunnelError as error:
            _log.info("forward to %s: no replica could be reached: %s", self.host_name, error)
        except ConnectionError as error:
            _log.debug("forward to %s: a connection broke: %s", self.host_name, error)
        except asyncio.CancelledError:
            # Closing the forward ends its connections; nobody waits for this task's result.
            pass
        finally:
            await client.abort()
            self.connections -= 1
            self._running.discard(running)


class Forwards:
    """Opens forwards and finds replicas for their connections."""

    def __init__(self, resolver: Resolver, tunnels: Tunnels, rng: Random) -> None:
        self._resolver = resolver
        self._tunnels = tunnels
        self._health = HealthMemory(rng)
        self._open: list[Forward] = []

    @property
    def all(self) -> tuple[Forward, ...]:
        """The forwards that are open, oldest first."""
        return tuple(self._open)

    async def open(self, host_name: str, port: int | None = None, address: str = LOOPBACK) -> Forward:
        """Listen for connections to a service.

        `port` None takes the service's usual port, or another when that is taken; 0 takes any.
        Raises `CollaError` (`service_unknown`, `port_in_use`, `too_many_forwards`).
        """
        if len(self._open) >= FORWARDS_MAX:
            raise CollaError(
                "too_many_forwards", f"{FORWARDS_MAX} forwards are open.", "Close one of them first."
            )
        located = self._resolver.locate(host_name) or await self._resolver.locate_fresh(host_name, OPEN_S)
        if located is None:
            raise CollaError(
                "service_unknown",
                f"There is no service called {host_name}.",
                "See which there are: colla services",
            )
        what = f"the forward to {host_name}"
        if port is None:
            listener = listen_preferring(address, preferred_port(located.service), what)
        else:
            listener = listen(address, port, what)
        forward = Forward(self, host_name, address, listener.getsockname()[1])
        forward._listening = await asyncio.start_server(
            forward._accept, sock=listener, limit=BUFFER_BYTES // 2
        )
        self._open.append(forward)
        return forward

    def forget(self, forward: Forward) -> None:
        """Called by a forward that closes."""
        if forward in self._open:
            self._open.remove(forward)

    async def close(self) -> None:
        """Close all forwards."""
        await asyncio.gather(*(forward.close() for forward in list(self._open)))

    async def reach(self, host_name: str) -> ByteStream:
        """A stream to a live replica, the nearest first, within `OPEN_S`. Raises `TunnelError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + OPEN_S
        located = self._resolver.locate(host_name)
        last = TunnelError("unreachable", "no replica is running")
        while loop.time() < deadline:
            if located is not None and located.locations:
                try:
                    return await self._reach_any(located, deadline)
                except TunnelError as error:
                    last = error
            before = loop.time()
            located = await self._resolver.locate_fresh(host_name, deadline - before)
            await asyncio.sleep(max(0.0, min(before + AGAIN_AFTER_S, deadline) - loop.time()))
        raise last

    async def _reach_any(self, located: Located, deadline: float) -> ByteStream:
        """Try the replicas in order, the next one as soon as one fails or takes long; the first stream wins."""
        loop = asyncio.get_running_loop()
        waiting = self._health.ordered(located.locations, loop.time())
        trying: dict[asyncio.Task[ByteStream], ReplicaLocation] = {}
        last = TunnelError("timed_out")
        try:
            while waiting or trying:
                if waiting:
                    location = waiting.pop(0)
                    opening = self._tunnels.open(location.node, located.service, location.replica)
                    trying[asyncio.ensure_future(opening)] = location
                left_s = deadline - loop.time()
                timeout_s = min(NEXT_AFTER_S, left_s) if waiting else left_s
                done, _ = await asyncio.wait(trying, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                for finished in [one for one in list(trying) if one in done]:
                    location = trying.pop(finished)
                    try:
                        return finished.result()
                    except TunnelError as error:
                        last = error
                        self._health.failed(location.replica, loop.time())
                        self._resolver.report_failed(located.service, location.replica)
                if not done and loop.time() >= deadline:
                    break
            raise last
        finally:
            await _give_up(list(trying))


async def _give_up(openings: list[asyncio.Task[ByteStream]]) -> None:
    """End attempts that lost; a stream that one of them had opened already is aborted."""
    for opening in openings:
        opening.cancel()
    if openings:
        await asyncio.wait(openings)
    for opening in openings:
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().abort()
