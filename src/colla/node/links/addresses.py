"""The text forms of addresses: reading them, resolving names, finding this computer's own.

An address is `ip:port`, `[ipv6]:port`, `dns-name:port` or `relay:URL`. Addresses come from other nodes and
from people, so reading them never raises: what cannot be used is left out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
import psutil

from colla.node.links.interface import RELAY_PREFIX

ADDRESSES_MAX = 32
"""How many addresses of one peer are remembered and dialled."""
ADDRESS_CHARS_MAX = 300
RESOLVE_TIMEOUT_S = 2.0
"""How long one DNS name may take; numeric addresses never wait for names."""
INNER_INTERFACES = (
    "br-",
    "cni",
    "docker",
    "flannel",
    "kube",
    "lxc",
    "lxdbr",
    "podman",
    "veth",
    "virbr",
    "vmnet",
)
"""Prefixes of interfaces that lead only to containers and virtual machines of the same computer."""


class Targets(msgspec.Struct, frozen=True):
    """Addresses sorted by what must be done with them."""

    numeric: tuple[str, ...] = ()
    names: tuple[tuple[str, int], ...] = ()
    relays: tuple[str, ...] = ()


def join(ip: str, port: int) -> str:
    """`ip:port`, with brackets around IPv6."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def sort_targets(addresses: Iterable[str]) -> Targets:
    """Sort addresses into numeric ones, names to be resolved and relays; unusable ones are left out."""
    numeric: dict[str, None] = {}
    names: dict[tuple[str, int], None] = {}
    relays: dict[str, None] = {}
    for address in addresses:
        if len(address) > ADDRESS_CHARS_MAX:
            continue
        if address.startswith(RELAY_PREFIX):
            url = relay_url(address.removeprefix(RELAY_PREFIX))
            if url is not None:
                relays[url] = None
            continue
        parts = _split(address)
        if parts is None:
            continue
        host, port = parts
        ip = _usable_ip(host)
        if ip is not None:
            numeric[join(ip, port)] = None
        elif ":" not in host and not host.replace(".", "").isdigit():
            names[(host, port)] = None
    return Targets(tuple(numeric), tuple(names), tuple(relays))


def with_port(text: str, port: int) -> str:
    """`name:port` of what an owner wrote; `port` where they named none."""
    name = text.strip()
    bare = name.removeprefix("[").removesuffix("]")
    return name if _usable_ip(bare) is None and _split(name) is not None else join(bare, port)


def is_public(ip: str) -> bool:
    """Whether this is an IP address of the whole Internet."""
    try:
        return ipaddress.ip_address(ip).is_global
    except ValueError:
        return False


def relay_url(text: str) -> str | None:
    """The relay's URL in one spelling (`http://192.0.2.7:3340/`), or None when it is no such URL."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = 80 if parts.scheme == "http" else 443
    return f"{parts.scheme}://{host}/" if port in (None, usual) else f"{parts.scheme}://{host}:{port}/"


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """The numeric addresses behind a DNS name, by the loop's resolver; empty when there are none in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, TimeoutError):
        return ()
    ips = (_usable_ip(str(entry[4][0])) for entry in found)
    return tuple(dict.fromkeys(join(ip, port) for ip in ips if ip is not None))[:ADDRESSES_MAX]


def own_ips() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """This computer's addresses as (reachable by others, not to be told to others).

    The second list holds addresses of interfaces that lead only inside this computer. Loopback, link-local
    addresses and interfaces that are down are in neither.
    """
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    reachable: dict[str, None] = {}
    inner: dict[str, None] = {}
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if name not in up:
            continue
        target = inner if name.startswith(INNER_INTERFACES) else reachable
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            ip = _usable_ip(entry.address)
            if ip is not None and not ipaddress.ip_address(ip).is_loopback:
                target[ip] = None
    by_family = sorted(reachable, key=lambda ip: ":" in ip)
    return tuple(by_family), tuple(inner)


def _split(address: str) -> tuple[str, int] | None:
    host, colon, port_text = address.strip().rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text) < 65536:
        return None
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or any(character.isspace() for character in host):
        return None
    return host, int(port_text)


def _usable_ip(text: str) -> str | None:
    """`text` as an address in its usual spelling, or None when it is none that can be dialled."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        # A link-local IPv6 address means nothing without the interface it belongs to.
        if ip.is_link_local or ip.scope_id:
            return None
    if ip.is_multicast or ip.is_unspecified:
        return None
    return str(ip)
