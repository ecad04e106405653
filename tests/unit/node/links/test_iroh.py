"""What is peculiar to iroh: its patch, its ports, its quirks, malformed peers."""

from __future__ import annotations

import asyncio
import inspect
import socket

import iroh
import pytest

from colla.model.errors import CollaError
from colla.node.links import FRAME_BYTES_MAX, iroh_patch
from colla.node.links.agreement import Hello
from colla.node.links.door import Door
from colla.node.links.endpoint import closing_reason, explain
from colla.node.links.reachability import Reachability


def test_iroh_still_needs_the_patch() -> None:
    """When this fails, upstream has mended its slow copy: delete `iroh_patch.py` and the call of `apply`."""
    assert iroh_patch.apply()
    for original in (iroh_patch.ORIGINAL_WRITE, iroh_patch.ORIGINAL_PACK_INTO):
        source = inspect.getsource(original)
        assert "enumerate(" in source and "self.rbuf.data[self.rbuf.len + i] = byte" in source


def test_the_patch_copies_what_the_original_does() -> None:
    def lowered(write, pack_into) -> bytes:
        builder = iroh.iroh_ffi._UniffiRustBufferBuilder()
        pack_into(builder, 4, ">i", 5)
        write(builder, b"")
        write(builder, bytes(range(256)) * 10)
        buffer = builder.finalize()
        copied = b"".join(buffer.data[index] for index in range(buffer.len))
        buffer.free()
        return copied

    original = lowered(iroh_patch.ORIGINAL_WRITE, iroh_patch.ORIGINAL_PACK_INTO)
    assert lowered(iroh_patch._write, iroh_patch._pack_into) == original


def test_another_version_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(iroh_patch, "version", lambda _: "9.9.9")
    assert not iroh_patch.apply()


async def test_a_port_in_use_is_said_clearly(bind) -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(CollaError) as error:
            await bind(1, port)
    assert error.value.code == "port_in_use" and str(port) in str(error.value) and error.value.hint
    links, _ = await bind(1, port)
    assert links.port == port


async def test_an_address_of_another_computer_cannot_be_bound(bind) -> None:
    for port in (0, 45_678):
        with pytest.raises(CollaError) as error:
            await bind(1, port, host="192.0.2.99")
        assert error.value.code == "cannot_bind"


async def test_both_ip_versions_share_the_port(bind) -> None:
    (a, _), (b, _) = await bind(1, host="0.0.0.0"), await bind(2)
    bound = a._endpoint.bound_sockets()
    assert f"0.0.0.0:{a.port}" in bound
    if any(address.startswith("[") for address in bound):
        assert f"[::]:{a.port}" in bound
        assert await b.dial(a.node_id, (f"[::1]:{a.port}",))
    assert all(address.endswith(f":{a.port}") for address in a.my_addresses()) and a.my_addresses()


async def test_another_protocol_does_not_get_through(bind) -> None:
    (a, a_heard), (b, b_heard) = await bind(1), await bind(2, alpn=b"colla/another")
    assert not await a.dial(b.node_id, (f"127.0.0.1:{b.port}",))
    assert not a_heard.up and not b_heard.up


async def test_an_external_address_is_told_to_others(bind) -> None:
    a, _ = await bind(1)
    await a.add_external_address("192.0.2.200:4100")
    await a.add_external_address("nonsense")
    assert a.my_addresses() == ("192.0.2.200:4100", f"127.0.0.1:{a.port}")
    for number in range(20):
        await a.add_external_address(f"192.0.2.{number}:4100")
    assert len(a.my_addresses()) == 5 and "192.0.2.200:4100" not in a.my_addresses()


async def test_an_address_that_a_member_sees_is_learnt_when_it_is_none_of_ours(bind, monkeypatch) -> None:
    receive, add = Door._receive, Reachability.add_external_address
    learnt: asyncio.Queue[str] = asyncio.Queue()

    async def add_and_tell(self: Reachability, address: str) -> None:
        await add(self, address)
        learnt.put_nowait(address)

    monkeypatch.setattr(
        Door, "_receive", lambda self, incoming, _: receive(self, incoming, "192.0.2.77:4100")
    )
    monkeypatch.setattr(Reachability, "add_external_address", add_and_tell)
    (a, _), (b, _) = await bind(1), await bind(2)
    assert await a.dial(b.node_id, (f"127.0.0.1:{b.port}",))
    await asyncio.sleep(0)
    assert a.my_addresses() == (f"127.0.0.1:{a.port}",), "a stranger's word counts for nothing"
    a.set_accepted(b.node_id, True)
    async with asyncio.timeout(10):
        assert await learnt.get() == "192.0.2.77:4100"
    assert a.my_addresses() == ("192.0.2.77:4100", f"127.0.0.1:{a.port}")


async def test_ones_own_addresses_are_no_news(bind, monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.reachability.own_ips", lambda: (("192.0.2.5",), ("172.17.0.1",)))
    a, _ = await bind(1)
    known = ("127.0.0.1:1", "[::1]:1", "192.0.2.5:7", "172.17.0.1:7", "nonsense", "", "name.example:7")
    assert not any(a._reachability.is_news(address) for address in known)
    assert a._reachability.is_news("192.0.2.6:7") and a._reachability.is_news("[2001:db8::1]:7")


@pytest.fixture
async def raw(bind):
    """A connection to links under test, made by hand, whose first bytes are ours."""
    links, heard = await bind(1)
    options = iroh.EndpointOptions(preset=iroh.preset_minimal(), bind_addr="127.0.0.1:0")
    endpoint = await iroh.Endpoint.bind(options)
    where = iroh.EndpointAddr(iroh.EndpointId.from_bytes(links.node_id), None, [f"127.0.0.1:{links.port}"])
    connection = await endpoint.connect(where, b"colla/test")
    yield links, heard, connection
    await endpoint.close()


@pytest.mark.parametrize("first", [b"x" * 100, b"GET / HTTP/1.1\r\n\r\n" * 10], ids=["noise", "http"])
async def test_noise_instead_of_a_hello_is_dropped_and_counted(raw, first: bytes) -> None:
    links, heard, connection = raw
    control = await connection.open_bi()
    await control.send().write_all(first)
    assert "not needed" in await connection.closed()
    assert links.counters().drops == {"handshake_failed": 1} and not heard.opened


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr("colla.node.links.door.HANDSHAKE_TIMEOUT_S", 0.2)


async def test_silence_instead_of_a_hello_ends(impatient, raw) -> None:
    links, heard, connection = raw
    second = await connection.open_bi()
    await second.send().write_all(b"coll")
    async with asyncio.timeout(10):
        assert "not needed" in await connection.closed()
    assert links.counters().drops == {"handshake_failed": 1} and not heard.opened


async def test_one_address_cannot_take_every_place_at_the_door(raw, monkeypatch) -> None:
    links, _, connection = raw
    monkeypatch.setattr("colla.node.links.door.HANDSHAKES_PER_ADDRESS_MAX", 1)
    second = await iroh.Endpoint.bind(
        iroh.EndpointOptions(preset=iroh.preset_minimal(), bind_addr="127.0.0.1:0")
    )
    where = iroh.EndpointAddr(iroh.EndpointId.from_bytes(links.node_id), None, [f"127.0.0.1:{links.port}"])
    with pytest.raises(iroh.IrohError) as error:
        await second.connect(where, b"colla/test")
    assert "refused" in error.value.message()
    assert links.counters().drops == {"handshakes_full": 1} and connection.close_reason() is None
    await second.close()


async def test_an_oversized_frame_of_a_member_drops_the_link(raw) -> None:
    links, heard, connection = raw
    control = await connection.open_bi()
    await control.send().write_all(Hello(b"8 bytes!", bytes(8), 1 << 40, False).encode())
    await heard.until(lambda: heard.opened)
    peer = next(iter(heard.opened))
    links.set_accepted(peer, True)
    await control.send().write_all(b"\x00\x00\x00\x02ok" + (FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    await heard.until(lambda: heard.closed)
    assert heard.frames[peer] == [b"ok"]
    assert links.counters().drops == {"malformed": 1}
    assert "malformed" in await connection.closed()


async def test_a_stream_without_a_header_is_refused(raw) -> None:
    links, heard, connection = raw
    control = await connection.open_bi()
    await control.send().write_all(Hello(b"8 bytes!", bytes(8), 1 << 40, False).encode())
    await heard.until(lambda: heard.opened)
    links.set_accepted(next(iter(heard.opened)), True)
    for header in (b"\x00", b"\xff", b"\x02\xff\xfe"):
        bad = await connection.open_bi()
        await bad.send().write_all(header)
        with pytest.raises(iroh.IrohError):
            await bad.recv().read(1)
    assert links.counters().drops == {"stream_refused": 3}
    assert heard.streams.empty() and heard.up


async def test_irohs_errors_are_explained(bind) -> None:
    a, _ = await bind(1)
    with pytest.raises(iroh.IrohError) as error:
        await a._endpoint.connect(iroh.EndpointAddr(iroh.EndpointId.from_bytes(a.node_id), None, []), b"x")
    assert explain(error.value).startswith("connect: ") and len(explain(error.value)) > 12
    assert explain(TimeoutError()) == "TimeoutError"


def test_the_peers_reason_is_cut_out_of_irohs_words() -> None:
    assert closing_reason("closed by peer: not a member (code 403)") == "not a member"
    assert closing_reason("timed out") == "timed out"


async def test_idle_links_are_closed_except_those_to_keep(bind, monkeypatch) -> None:
    nodes = [await bind(seed) for seed in (1, 2, 3, 4)]
    hub, hub_heard = nodes[0]
    for links, _ in nodes[1:]:
        links.set_accepted(hub.node_id, True)
        hub.set_accepted(links.node_id, True)
        assert await hub.dial(links.node_id, (f"127.0.0.1:{links.port}",))
    kept, busy, idle = (links.node_id for links, _ in nodes[1:])
    hub.close_idle(())
    assert len(hub_heard.up) == 3
    stream = await hub.open_stream(busy, "object")
    monkeypatch.setattr("colla.node.links.iroh_links.LINK_IDLE_S", 0.0)
    await asyncio.sleep(0.01)
    hub.close_idle((kept,))
    assert hub_heard.closed == {idle: ["idle"]} and set(hub_heard.up) == {kept, busy}
    await stream.abort()
