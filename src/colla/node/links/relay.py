"""A member's relay: carries the encrypted packets of other members that cannot reach each other directly.

Speaks iroh's relay protocol (versions 1 and 2, frame types as in `iroh-relay/src/protos/common.rs`) over a
WebSocket: a challenge signed with the node's key, a callback that admits by key, then datagrams passed on to
the client they name. The relay sees who talks to whom and how much, never what: packets are end-to-end encrypted.
A client too slow for its packets loses some, as on any network path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

import msgspec
from aiohttp import WSMessage, WSMsgType, web
from blake3 import blake3

from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, NodeId, short
from colla.model.keys import SIGNATURE_BYTES, verify

logger = logging.getLogger("colla.relay")

CLIENTS_MAX = 256
HANDSHAKES_MAX = 64
HANDSHAKE_TIMEOUT_S = 10.0
MESSAGE_BYTES_MAX = 128 * 1024
"""One message carries at most 64 KiB of packets and 36 bytes around them."""
PACKETS_MAX = 512
BACKLOG_BYTES_MAX = 4 * 1024 * 1024
"""Packets that wait for one client; more are dropped."""
CORRESPONDENTS_MAX = 1024
"""Clients that one client has sent to and that are told when it is gone."""
PING_INTERVAL_S = 15.0
"""Half of QUIC's idle timeout, as iroh's own relay does; a client silent for twice that is gone."""
CLOSE_TIMEOUT_S = 1.0
PROTOCOLS = ("iroh-relay-v2", "iroh-relay-v1")
CHALLENGE_BYTES = 16
CHALLENGE_CONTEXT = "iroh-relay handshake v1 challenge signature"

SERVER_CHALLENGE, CLIENT_AUTH, CONFIRMED, DENIED = 0, 1, 2, 3
CLIENT_DATAGRAM, CLIENT_BATCH, RELAYED_DATAGRAM, RELAYED_BATCH = 4, 5, 6, 7
ENDPOINT_GONE, PING, PONG, HEALTH, RESTARTING, STATUS = 8, 9, 10, 11, 12, 13
PING_BYTES = 8
SAME_ENDPOINT_CONNECTED = 1


class RelayCounters(msgspec.Struct, frozen=True):
    """What a relay did since its start."""

    clients: int = 0
    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    refused: int = 0
    malformed: int = 0


class _Client:
    """One connected node and the packets that wait for it."""

    def __init__(self, node_id: NodeId, socket: web.WebSocketResponse, second_version: bool) -> None:
        self.node_id = node_id
        self.socket = socket
        self.second_version = second_version
        self.correspondents: dict[NodeId, None] = {}
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(PACKETS_MAX)
        self._bytes = 0

    def put(self, message: bytes) -> bool:
        """Whether there was room for `message`."""
        if self._waiting.full() or self._bytes + len(message) > BACKLOG_BYTES_MAX:
            return False
        self._waiting.put_nowait(message)
        self._bytes += len(message)
        return True

    async def pump(self) -> None:
        """Send what waits, for as long as the socket is open."""
        while True:
            message = await self._waiting.get()
            self._bytes -= len(message)
            await self.socket.send_bytes(message)


class Relay:
    """A relay listening on one TCP port. `admits` is asked for each client, and again by `recheck`."""

    def __init__(self, admits: Callable[[NodeId], bool]) -> None:
        self._admits = admits
        self._clients: dict[NodeId, _Client] = {}
        self._handshakes = 0
        self._packets = self._bytes = self._dropped = self._refused = self._malformed = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen on TCP `host`:`port` (0: any). Raises `CollaError` with code `port_in_use`."""
        app = web.Application()
        app.router.add_get("/relay", self._serve)
        app.router.add_get("/ping", _well)
        app.router.add_get("/generate_204", _empty)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise CollaError(
                "port_in_use",
                f"The relay cannot listen on TCP {host}:{port}: {error.strerror or error}.",
                "Stop the program that uses the port, or choose another port for the relay.",
            ) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def close(self) -> None:
        """Disconnect every client and stop listening."""
        runner, self._runner = self._runner, None
        await asyncio.gather(*(client.socket.close() for client in self._clients.values()))
        if runner is not None:
            await runner.cleanup()

    def counters(self) -> RelayCounters:
        """What went through so far."""
        return RelayCounters(
            len(self._clients), self._packets, self._bytes, self._dropped, self._refused, self._malformed
        )

    async def recheck(self) -> None:
        """Disconnect the clients that are not admitted any more, as after a removal."""
        removed = [client for client in self._clients.values() if not self._admits(client.node_id)]
        await asyncio.gather(*(client.socket.close() for client in removed))

    # -- one client -------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._handshakes >= HANDSHAKES_MAX or len(self._clients) >= CLIENTS_MAX:
            self._refused += 1
            return web.Response(status=503)
        socket = web.WebSocketResponse(
            protocols=PROTOCOLS, compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=CLOSE_TIMEOUT_S
        )
        await socket.prepare(request)
        self._handshakes += 1
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                node_id = await self._authenticate(socket)
        except TimeoutError:
            node_id = None
        finally:
            self._handshakes -= 1
        if node_id is None:
            self._refused += 1
            await socket.close()
            return socket
        await self._carry(_Client(node_id, socket, socket.ws_protocol == PROTOCOLS[0]))
        return socket

    async def _authenticate(self, socket: web.WebSocketResponse) -> NodeId | None:
        """The client's id, once it has proved to hold the key and is admitted."""
        challenge = os.urandom(CHALLENGE_BYTES)
        await socket.send_bytes(bytes((SERVER_CHALLENGE,)) + challenge)
        answer = await socket.receive()
        data = answer.data if answer.type is WSMsgType.BINARY else b""
        # The key, then the signature behind its length.
        if len(data) != 2 + KEY_BYTES + SIGNATURE_BYTES or data[0] != CLIENT_AUTH:
            return None
        key, length, signature = data[1 : 1 + KEY_BYTES], data[1 + KEY_BYTES], data[2 + KEY_BYTES :]
        signed = blake3(challenge, derive_key_context=CHALLENGE_CONTEXT).digest()
        if length != SIGNATURE_BYTES or not verify(key, signed, signature):
            await _deny(socket, "the signature is wrong")
            return None
        if not self._admits(NodeId(key)):
            await _deny(socket, "this relay serves members only")
            return None
        await socket.send_bytes(bytes((CONFIRMED,)))
        return NodeId(key)

    async def _carry(self, client: _Client) -> None:
        older = self._clients.get(client.node_id)
        self._clients[client.node_id] = client
        if older is not None:
            if older.second_version:
                older.put(bytes((STATUS, SAME_ENDPOINT_CONNECTED)))
            else:
                older.put(bytes((HEALTH,)) + b"another endpoint connected with the same id")
        pumping = asyncio.create_task(client.pump())
        pinging = asyncio.create_task(self._ping(client))
        logger.debug("%s is connected", short(client.node_id))
        try:
            await self._read(client)
        finally:
            for task in (pumping, pinging):
                task.cancel()
            await asyncio.wait((pumping, pinging))
            for task in (pumping, pinging):
                # A send that failed because the client had left is how its reading ended, too.
                if not task.cancelled() and isinstance(task.exception(), ConnectionError):
                    logger.debug("%s left: %s", short(client.node_id), task.exception())
            self._left(client)

    async def _read(self, client: _Client) -> None:
        while True:
            try:
                message = await client.socket.receive(timeout=2 * PING_INTERVAL_S)
            except TimeoutError:
                await client.socket.close()
                return
            if message.type is not WSMsgType.BINARY:
                return
            if not self._take(client, message):
                self._malformed += 1
                await client.socket.close()
                return

    def _take(self, client: _Client, message: WSMessage) -> bool:
        """Act on one message; False when it is malformed."""
        data: bytes = message.data
        kind = data[0] if data else -1
        if kind in (CLIENT_DATAGRAM, CLIENT_BATCH):
            if len(data) <= 1 + KEY_BYTES:
                return False
            self._pass_on(client, kind, NodeId(data[1 : 1 + KEY_BYTES]), data[1 + KEY_BYTES :])
            return True
        if kind == PING and len(data) == 1 + PING_BYTES:
            if not client.put(bytes((PONG,)) + data[1:]):
                self._dropped += 1
            return True
        return kind == PONG and len(data) == 1 + PING_BYTES

    def _pass_on(self, client: _Client, kind: int, to: NodeId, packets: bytes) -> None:
        receiver = self._clients.get(to)
        relayed = RELAYED_DATAGRAM if kind == CLIENT_DATAGRAM else RELAYED_BATCH
        if receiver is None or not receiver.put(bytes((relayed,)) + client.node_id + packets):
            self._dropped += 1
            return
        if len(client.correspondents) < CORRESPONDENTS_MAX:
            client.correspondents[to] = None
        self._packets += 1
        self._bytes += len(packets)

    async def _ping(self, client: _Client) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            if not client.put(bytes((PING,)) + os.urandom(PING_BYTES)):
                self._dropped += 1

    def _left(self, client: _Client) -> None:
        if self._clients.get(client.node_id) is not client:
            return
        del self._clients[client.node_id]
        logger.debug("%s is gone", short(client.node_id))
        for other in self._clients.values():
            wrote = other.node_id in client.correspondents or client.node_id in other.correspondents
            if wrote and not other.put(bytes((ENDPOINT_GONE,)) + client.node_id):
                self._dropped += 1


async def _deny(socket: web.WebSocketResponse, reason: str) -> None:
    encoded = reason.encode()
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes((DENIED, len(encoded))) + encoded)


async def _well(_: web.Request) -> web.Response:
    return web.Response(headers={"Access-Control-Allow-Origin": "*"})


async def _empty(_: web.Request) -> web.Response:
    return web.Response(status=204)
