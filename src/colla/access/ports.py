"""Listening on TCP ports, with errors that say what to do.

Owns the fixed default port of the gateway and the rule that maps a service to its loopback port.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from colla.model.errors import CollaError
from colla.model.ids import ServiceId, digest

GATEWAY_PORT = 8642
"""The gateway's port when nothing else was set."""
LOOPBACK = "127.0.0.1"
SERVICE_PORTS = range(20_000, 30_000)
"""Below the ephemeral ports of all usual systems, so that outgoing connections do not take ours."""
BACKLOG = 512


def preferred_port(service: ServiceId) -> int:
    """The loopback port that a service gets when it is free: always the same, so that bookmarks go on working."""
    return SERVICE_PORTS[int.from_bytes(digest(service)[:8], "big") % len(SERVICE_PORTS)]


def is_loopback(address: str) -> bool:
    """Whether only programs of this computer can connect to this address."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def listen(address: str, port: int, what: str, option: str = "--port") -> socket.socket:
    """A listening TCP socket; `port` 0 takes any free one.

    Raises `CollaError` (`port_in_use`, `port_not_allowed`, `address_unknown`, `port_invalid`), which names `what`
    wanted to listen and the `option` that chooses another port.
    """
    if not 0 <= port < 65536:
        raise CollaError("port_invalid", f"{port} is no TCP port.", "Choose one between 1 and 65535.")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _explained(error, address, port, what, option) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _explained(error, address, port, what, option) from error
    return listener


def listen_preferring(address: str, port: int, what: str) -> socket.socket:
    """A listening socket at `port`, or at any free port when that one is taken."""
    try:
        return listen(address, port, what)
    except CollaError as error:
        if error.code != "port_in_use":
            raise
    return listen(address, 0, what)


def _explained(error: Exception, address: str, port: int, what: str, option: str) -> CollaError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return CollaError(
            "port_in_use",
            f"Another program already listens on port {port} of {address}, which {what} wanted.",
            f"Stop that program, or choose another port with {option} (0 takes any free one).",
        )
    if number in (errno.EACCES, errno.EPERM):
        return CollaError(
            "port_not_allowed",
            f"This user may not listen on port {port} of {address}, which {what} wanted.",
            f"Choose a port above 1023 with {option}.",
        )
    return CollaError(
        "address_unknown",
        f"{what} cannot listen on {address}: {error}.",
        "Choose an address of this computer, such as 127.0.0.1 or 0.0.0.0.",
    )
