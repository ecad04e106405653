"""The way to the Internet for a service's program: an HTTP proxy that leads to other people's computers and nowhere else.

One connection, one request: CONNECT (for everything that is encrypted), or a plain request by its whole address (RFC 9110
and 9112). Invariant: what is connected to is an address of the Internet that was checked itself, not a name: neither this computer
nor its networks, nor loopback, link-local (metadata of clouds), private or multicast addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec
import psutil

from colla.access.streams import BUFFER_BYTES, SocketStream, pump

HEAD_BYTES_MAX: Final = 16 << 10
HEAD_S_MAX: Final = 10.0
CONNECT_S_MAX: Final = 10.0
ADDRESSES_MAX: Final = 4
"""So many addresses of one name are tried, in turn."""
PORTS_REFUSED: Final = frozenset({25})
"""Mail from a member's home would bring its address onto lists of spam."""
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """The request cannot be carried out: an HTTP status and why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Wanted(msgspec.Struct, frozen=True):
    """Where the connection shall lead, and what is sent there first (nothing for CONNECT)."""

    host_name: str
    port: int
    first: bytes


async def serve_outgoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection of a program until it ends. Raises `ConnectionError` when a side breaks off."""
    client = SocketStream(reader, writer)
    try:
        wanted = read_head(await _head(reader))
        far = await _connect(wanted)
    except Refused as refused:
        body = f"{refused.why}\n".encode()
        about = f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        await client.write(f"{about}Connection: close\r\n\r\n".encode() + body)
        await client.finish()
        return
    try:
        await (far.write(wanted.first) if wanted.first else client.write(b"HTTP/1.1 200 Connected\r\n\r\n"))
        await pump(client, far)
    finally:
        await far.abort()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(HEAD_S_MAX):
            return await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        raise Refused("400 Bad Request", "The request did not come, or is too long.") from None


def read_head(head: bytes) -> Wanted:
    """Where a request leads. Raises `Refused`."""
    try:
        line, *headers = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = line.split(" ")
        connecting = method == "CONNECT"
        parts = urlsplit(f"//{target}" if connecting else target)
        port = parts.port or (None if connecting else 80)
    except ValueError:
        raise Refused("400 Bad Request", "The request is not right.") from None
    if not parts.hostname or port is None or version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused("400 Bad Request", "The request names no address.")
    if connecting:
        return Wanted(parts.hostname, port, b"")
    if parts.scheme != "http":
        raise Refused("400 Bad Request", "Plain requests are for http:// only.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    dropped = ("proxy-", "connection:", "keep-alive:", "host:")
    kept = [header for header in headers if not header.lower().startswith(dropped)]
    lines = [
        f"{method} {path} {version}",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Connection: close",
        *kept,
    ]
    return Wanted(parts.hostname, port, "\r\n".join([*lines, "", ""]).encode("latin-1"))


async def _connect(wanted: Wanted) -> SocketStream:
    if wanted.port in PORTS_REFUSED:
        raise Refused("403 Forbidden", f"Port {wanted.port} is not reached from here.")
    own = await asyncio.to_thread(own_networks)
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            return await _reach(wanted, own)
    except TimeoutError:
        raise Refused("504 Gateway Timeout", f"{wanted.host_name} does not answer.") from None
    except OSError as error:
        why = f"{wanted.host_name} cannot be reached: {error.strerror or error}."
        raise Refused("502 Bad Gateway", why) from None


async def _reach(wanted: Wanted, own: list[Network]) -> SocketStream:
    """Raises `OSError`, and `Refused`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(wanted.host_name, wanted.port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found)
    allowed = [address for address in addresses if is_outside(address, own)]
    if not allowed:
        raise Refused("403 Forbidden", f"{wanted.host_name} is no place of the Internet.")
    problem = OSError("it has no address")
    for address in allowed[:ADDRESSES_MAX]:
        try:
            pair = await asyncio.open_connection(address, wanted.port, limit=BUFFER_BYTES // 2)
        except OSError as error:
            problem = error
        else:
            return SocketStream(*pair)
    raise problem


def is_outside(text: str, own: Iterable[Network] = ()) -> bool:
    """Whether that is an address of the Internet, and of none of our `own` networks."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # What carries an IPv4 address inside leads to that one.
        if address in NAT64:
            return False
        teredo = address.teredo[1] if address.teredo is not None else None
        inner = address.ipv4_mapped or address.sixtofour or teredo
        if inner is not None:
            return is_outside(str(inner), own)
    known = any(address in network for network in own if network.version == address.version)
    return address.is_global and not address.is_multicast and not known


def own_networks() -> list[Network]:
    """The networks that this computer is a part of; everything in them is its owner's."""
    found: list[Network] = []
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                found.append(_network(one.address.partition("%")[0], one.netmask))
    return found


def _network(address: str, netmask: str | None) -> Network:
    """The network of an interface; the address alone where its mask says nothing."""
    plain = ipaddress.ip_address(address)
    mask = int(ipaddress.ip_address(netmask)) if netmask else 0
    bits = mask.bit_count() if mask else plain.max_prefixlen
    return ipaddress.ip_network(f"{address}/{bits}", strict=False)
