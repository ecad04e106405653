"""Binding an iroh endpoint that talks to nobody but the group, and reading iroh's errors.

Everything that is peculiar to how iroh is configured is here: the minimal preset with an empty relay map (the
default preset talks to a third party; a *disabled* relay mode would refuse relays later), both IP versions on
one fixed port, and errors whose `str()` is empty.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket

import iroh

from colla.model.errors import CollaError
from colla.model.keys import SecretKey
from colla.node.links import iroh_patch

PORT_TRIES_MAX = 8
"""How many free ports are tried when any port will do, since another program may take one meanwhile."""
_CLOSED_BY_PEER = re.compile(r"^closed by peer: (?P<reason>.*) \(code \d+\)$", re.DOTALL)


class _OnePort(iroh.Preset):
    """The minimal preset, listening on the given sockets only."""

    def __init__(self, sockets: tuple[str, ...]) -> None:
        self._sockets = sockets

    def apply(self, builder: iroh.EndpointBuilder) -> None:
        builder.apply_minimal()
        for address in self._sockets:
            builder.bind_addr(address)


async def bind_endpoint(
    secret: SecretKey, port: int, alpn: bytes, bind_host: str
) -> tuple[iroh.Endpoint, int]:
    """Bind UDP `port` (0: any) on `bind_host` for IPv4 and, where it exists, IPv6. Returns the port too.

    Raises `CollaError` with code `port_in_use` or `cannot_bind`.
    """
    iroh_patch.apply()
    for _ in range(PORT_TRIES_MAX if port == 0 else 1):
        chosen = port or _free_port(bind_host)
        try:
            return await _bind(secret, chosen, alpn, bind_host), chosen
        except iroh.IrohError as error:
            if "Address already in use" not in error.message():
                raise CollaError(
                    "cannot_bind",
                    f"Cannot listen on UDP {bind_host}:{chosen}: {error.message().splitlines()[-1].strip()}.",
                    "Choose an address of this computer, or 0.0.0.0 for all of them.",
                ) from error
    raise CollaError(
        "port_in_use",
        f"UDP port {port or 'any'} on {bind_host} is in use by another program.",
        "Stop that program (or the other node with the same settings), or choose another port: --port, or `port` in "
        "settings.toml.",
    )


async def _bind(secret: SecretKey, port: int, alpn: bytes, bind_host: str) -> iroh.Endpoint:
    # A node bound to one IPv4 address must not listen to all the world over IPv6.
    inner6 = f"[::]:{port}" if bind_host == "0.0.0.0" else f"[::1]:{port}"
    families = (f"{bind_host}:{port}", inner6) if _has_ipv6() else (f"{bind_host}:{port}",)
    return await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=_OnePort(families),
            secret_key=secret.seed,
            alpns=[alpn],
            relay_mode=iroh.RelayMode.custom(iroh.RelayMap.empty()),
        )
    )


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _free_port(bind_host: str) -> int:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((bind_host, 0))
        except OSError as error:
            raise CollaError(
                "cannot_bind",
                f"Cannot listen on UDP {bind_host}: {errno.errorcode.get(error.errno or 0, error)}.",
                "Choose an address of this computer, or 0.0.0.0 for all of them.",
            ) from error
        return int(probe.getsockname()[1])


def explain(error: BaseException) -> str:
    """One line about `error`; iroh's own errors say nothing through `str()`."""
    if isinstance(error, iroh.IrohError):
        lines = [line.strip() for line in error.message().splitlines() if line.strip()]
        return f"{error.kind().name.lower()}: {lines[-1] if lines else 'no reason given'}"
    return str(error) or type(error).__name__


def closing_reason(text: str) -> str:
    """The reason that the peer gave, out of iroh's description of how a connection ended."""
    found = _CLOSED_BY_PEER.match(text)
    return found["reason"] if found else text
