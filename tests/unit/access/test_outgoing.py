"""The proxy to the Internet: it leads there and nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from colla.access import outgoing
from colla.access.outgoing import Refused, is_outside, own_networks, read_head, serve_outgoing


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "localhost", "not an address",
    ],
)  # fmt: skip
def test_it_does_not_lead_to_what_is_near(address: str) -> None:
    assert not is_outside(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_it_leads_outside_but_never_into_its_own_networks(address: str) -> None:
    assert is_outside(address)
    own = [ipaddress.ip_network("93.184.216.0/24"), ipaddress.ip_network("2606:2800:220:1::/64")]
    assert not is_outside(address, own)


def test_the_networks_of_this_computer_are_its_own() -> None:
    assert any(
        ipaddress.ip_address("127.0.0.1") in network for network in own_networks() if network.version == 4
    )


def test_requests_are_understood() -> None:
    tunnel = read_head(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
    assert (tunnel.host_name, tunnel.port, tunnel.first) == ("example.org", 443, b"")
    assert read_head(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n").host_name == "2001:db8::1"
    plain = read_head(
        b"GET http://user:word@example.org/a?b=c HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\nAccept: */*\r\n\r\n"
    )
    assert (plain.host_name, plain.port) == ("example.org", 80)
    assert plain.first == (
        b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\nAccept: */*\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT example.org HTTP/1.1", b"GET / HTTP/1.1", b"GET https://x/ HTTP/1.1", b"CONNECT x:99999 HTTP/1.1", b"",
        b"GET ftp://x/ HTTP/1.1", b"CONNECT x:1 HTTP/2", b"a b c d",
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        read_head(head + b"\r\n\r\n")


async def ask(head: bytes) -> bytes:
    """What the proxy answers."""
    server = await asyncio.start_server(serve_outgoing, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(head)
        answer = await reader.read(1000)
        writer.close()
    return answer


async def test_neighbours_are_refused_by_their_address() -> None:
    for target in ("127.0.0.1:80", "localhost:80", "[::1]:80", "169.254.169.254:80"):
        assert b"403 Forbidden" in await ask(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()), target
    assert b"403" in await ask(b"CONNECT 93.184.216.34:25 HTTP/1.1\r\n\r\n")
    assert b"400" in await ask(b"CONNECT nowhere HTTP/1.1\r\n\r\n")


async def test_bytes_flow_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(line.upper())
        writer.close()

    monkeypatch.setattr(outgoing, "is_outside", lambda address, own: address == "127.0.0.1")
    far = await asyncio.start_server(shout, "127.0.0.1", 0)
    near = await asyncio.start_server(serve_outgoing, "127.0.0.1", 0)
    async with far, near:
        reader, writer = await asyncio.open_connection(*near.sockets[0].getsockname())
        writer.write(f"CONNECT 127.0.0.1:{far.sockets[0].getsockname()[1]} HTTP/1.1\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connected\r\n\r\n"
        writer.write(b"hello\n")
        assert await reader.read() == b"HELLO\n"
        writer.close()
