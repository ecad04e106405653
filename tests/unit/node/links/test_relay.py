"""A member's relay: joins nodes that have no address of each other, admits by key, survives bad clients."""

from __future__ import annotations

import asyncio
import os

import aiohttp
import pytest
from blake3 import blake3

from colla.model.errors import CollaError
from colla.model.keys import SecretKey
from colla.node.links import relay as relay_module
from colla.node.links.relay import CHALLENGE_CONTEXT, Relay


@pytest.fixture
async def relay():
    admitted: dict[bytes, None] = {}
    relay = Relay(lambda node_id: node_id in admitted)
    await relay.start("127.0.0.1", 0)
    relay.admitted = admitted
    yield relay
    await relay.close()


async def test_it_joins_nodes_that_have_no_address_of_each_other(relay, bind) -> None:
    url = f"http://127.0.0.1:{relay.port}"
    (a, _), (b, b_heard) = await bind(1), await bind(2)
    relay.admitted.update({a.node_id: None, b.node_id: None})
    assert all(await asyncio.gather(a.use_relay(url), b.use_relay(url)))
    assert a.my_addresses() == (f"127.0.0.1:{a.port}", f"relay:{url}/")
    a.set_accepted(b.node_id, True)
    b.set_accepted(a.node_id, True)
    assert await a.dial(b.node_id, (f"relay:{url}",))
    a.send(b.node_id, b"through the relay", datagram=False)
    assert await b_heard.frames_from(a.node_id, 1) == [b"through the relay"]
    assert relay.counters().clients == 2 and relay.counters().packets > 0
    assert any(address == f"relay:{url}/" for address in b_heard.up[a.node_id])


async def test_without_being_inserted_a_peers_relay_is_still_dialled(relay, bind) -> None:
    url = f"http://127.0.0.1:{relay.port}"
    (a, _), (b, b_heard) = await bind(1), await bind(2)
    relay.admitted.update({a.node_id: None, b.node_id: None})
    assert await b.use_relay(url)
    assert await a.dial(b.node_id, (f"relay:{url}",))
    await b_heard.until(lambda: a.node_id in b_heard.up)


async def test_a_stranger_is_not_admitted(relay, bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.reachability.RELAY_ONLINE_TIMEOUT_S", 0.5)
    a, _ = await bind(1)
    assert not await a.use_relay(f"http://127.0.0.1:{relay.port}")
    assert relay.counters().refused > 0 and relay.counters().clients == 0
    assert a.my_addresses() == (f"127.0.0.1:{a.port}",)


async def test_a_relay_can_be_dropped(relay, bind) -> None:
    url = f"http://127.0.0.1:{relay.port}"
    a, _ = await bind(1)
    relay.admitted[a.node_id] = None
    assert await a.use_relay(url)
    await a.drop_relay(url)
    assert a.my_addresses() == (f"127.0.0.1:{a.port}",)
    assert await a.use_relay(url)


async def test_no_relay_there_is_no_relay_used(bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.reachability.RELAY_ONLINE_TIMEOUT_S", 0.3)
    a, _ = await bind(1)
    assert not await a.use_relay("http://127.0.0.1:9")
    assert not await a.use_relay("no url")
    await a.drop_relay("http://127.0.0.1:9")


async def test_its_port_may_be_taken(relay) -> None:
    second = Relay(lambda _: True)
    with pytest.raises(CollaError) as error:
        await second.start("127.0.0.1", relay.port)
    assert error.value.code == "port_in_use" and str(relay.port) in error.value.message


class Client:
    """A client of our own, to say what iroh never would."""

    def __init__(self, session: aiohttp.ClientSession, port: int, seed: int) -> None:
        self.session, self.port, self.key = session, port, SecretKey(bytes([seed]) * 32)

    async def connect(self, signature: bytes | None = None) -> aiohttp.ClientWebSocketResponse:
        socket = await self.session.ws_connect(
            f"http://127.0.0.1:{self.port}/relay", protocols=("iroh-relay-v2",)
        )
        challenge = await socket.receive_bytes()
        assert challenge[0] == relay_module.SERVER_CHALLENGE
        signed = blake3(challenge[1:], derive_key_context=CHALLENGE_CONTEXT).digest()
        await socket.send_bytes(b"\x01" + self.key.public + b"\x40" + (signature or self.key.sign(signed)))
        return socket


@pytest.fixture
async def client(relay):
    async with aiohttp.ClientSession() as session:

        def make(seed: int, admitted: bool = True) -> Client:
            client = Client(session, relay.port, seed)
            if admitted:
                relay.admitted[client.key.public] = None
            return client

        yield make


async def test_the_key_must_be_proved(client, relay) -> None:
    socket = await client(1).connect(signature=os.urandom(64))
    assert (await socket.receive_bytes())[0] == relay_module.DENIED
    socket = await client(2, admitted=False).connect()
    denied = await socket.receive_bytes()
    assert denied[0] == relay_module.DENIED and denied[2:] == b"this relay serves members only"
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert relay.counters().refused == 2 and relay.counters().clients == 0


@pytest.mark.parametrize(
    "message", [b"", b"\x04short", b"\x09\x01", b"\x63what", b"\x04" + bytes(200_000)], ids=len
)
async def test_a_malformed_message_ends_that_client_only(client, relay, message: bytes) -> None:
    bad, good = client(1), client(2)
    bad_socket, good_socket = await bad.connect(), await good.connect()
    assert await bad_socket.receive_bytes() == await good_socket.receive_bytes() == b"\x02"
    await bad_socket.send_bytes(message)
    assert (await bad_socket.receive()).type is aiohttp.WSMsgType.CLOSE
    await good_socket.send_bytes(b"\x0912345678")
    assert await good_socket.receive_bytes() == b"\x0a12345678"


async def test_packets_are_passed_on_and_the_gone_are_announced(client, relay) -> None:
    a, b = client(1), client(2)
    to_a, to_b = await a.connect(), await b.connect()
    assert await to_a.receive_bytes() == await to_b.receive_bytes() == b"\x02"
    await to_a.send_bytes(b"\x04" + b.key.public + b"\x00packet")
    assert await to_b.receive_bytes() == b"\x06" + a.key.public + b"\x00packet"
    await to_b.send_bytes(b"\x05" + a.key.public + b"\x00\x00\x03abcdef")
    assert await to_a.receive_bytes() == b"\x07" + b.key.public + b"\x00\x00\x03abcdef"
    await to_b.send_bytes(b"\x04" + bytes(32) + b"\x00to nobody")
    await to_b.close()
    assert await to_a.receive_bytes() == b"\x08" + b.key.public
    assert relay.counters().packets == 2 and relay.counters().dropped == 1


async def test_the_same_node_again_takes_over(client, relay) -> None:
    a, b = client(1), client(2)
    old, to_b = await a.connect(), await b.connect()
    assert await old.receive_bytes() == await to_b.receive_bytes() == b"\x02"
    new = await a.connect()
    assert await new.receive_bytes() == b"\x02"
    assert await old.receive_bytes() == b"\x0d\x01"
    await old.close()
    await to_b.send_bytes(b"\x04" + a.key.public + b"\x00x")
    assert await new.receive_bytes() == b"\x06" + b.key.public + b"\x00x"


async def test_the_removed_are_disconnected(client, relay) -> None:
    a = client(1)
    socket = await a.connect()
    assert await socket.receive_bytes() == b"\x02"
    await relay.recheck()
    await socket.send_bytes(b"\x0912345678")
    assert await socket.receive_bytes() == b"\x0a12345678"
    del relay.admitted[a.key.public]
    closing = asyncio.create_task(relay.recheck())
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    await closing


async def test_a_client_that_reads_nothing_loses_packets_and_nobody_else_does() -> None:
    sent: list[bytes] = []

    class Stuck:
        async def send_bytes(self, message: bytes) -> None:
            sent.append(message)
            await asyncio.Event().wait()

    stuck = relay_module._Client(bytes(32), Stuck(), True)
    fitted = sum(stuck.put(bytes(60_000)) for _ in range(1000))
    assert fitted == relay_module.BACKLOG_BYTES_MAX // 60_000
