"""Which service a request means: its Host, understood.

Pure. Invariant: what is not clearly a name of ours is refused, so that a foreign web page whose name points at this
computer (DNS rebinding) never reaches a service.
"""

from __future__ import annotations

import re

import msgspec

LOCAL_SUFFIXES = ("localhost",)
HOST_CHARACTERS_MAX = 253

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", re.ASCII)
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))


class FrontPage(msgspec.Struct, frozen=True):
    """The request names this computer, no service."""


class ByName(msgspec.Struct, frozen=True):
    """The request names a service as `Resolver.locate` understands it."""

    host_name: str


class ByDomain(msgspec.Struct, frozen=True):
    """The request names a domain that a public service may claim."""

    domain: str


class Foreign(msgspec.Struct, frozen=True):
    """The request names something that is not ours."""

    host: str


class Malformed(msgspec.Struct, frozen=True):
    """No, several, or mangled names."""


Meaning = FrontPage | ByName | ByDomain | Foreign | Malformed


def split_host(value: str) -> tuple[str, str] | None:
    """The name (lower case, without a final dot) and the port ("" if none) of a Host header; None if mangled."""
    match = _HOST.fullmatch(value.strip())
    if match is None or len(match[1]) > HOST_CHARACTERS_MAX + 1:
        return None
    name = match[1].lower().removesuffix(".")
    if not name.startswith("[") and not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name, match[2] or ""


def meaning(
    hosts: list[str], *, public_only: bool = False, suffixes: tuple[str, ...] = LOCAL_SUFFIXES
) -> Meaning:
    """What the Host headers of one request mean.

    A member's own gateway (`public_only` false) knows names below `suffixes` and its own loopback names. A
    contributed one also takes bare names (`http://blog/` on a LAN) and anything that may be a domain.
    """
    split = split_host(hosts[0]) if len(hosts) == 1 else None
    if split is None:
        return Malformed()
    name = split[0]
    if name in _LOOPBACK or name in suffixes:
        return FrontPage()
    for suffix in suffixes:
        if name.endswith("." + suffix):
            return ByName(name[: -len(suffix) - 1])
    if not public_only:
        return Foreign(name)
    if name.startswith("[") or name.replace(".", "").isdigit():
        return FrontPage()
    return ByDomain(name) if "." in name else ByName(name)
