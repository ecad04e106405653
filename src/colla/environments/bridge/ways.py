"""Ways out: a port of the loopback for each thing that the program may reach, joined to a door of the agent's.

The door is a Unix socket; `first` tells it whose way it is and where it leads. The program learns the port from variables.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import Any, Protocol

from .joints import Joint, Watcher

JOINTS_MAX = 256
"""Connections of one program by all its ways; further ones are closed at once."""
BACKLOG = 64


class Ways(Watcher, Protocol):
    """What a way needs of the bridge."""

    selector: selectors.BaseSelector
    joints: dict[int, Joint]
    env: dict[str, str]


class Way:
    """One of them; listens from the beginning, so that the program finds it there."""

    def __init__(self, bridge: Ways, config: dict[str, Any]) -> None:
        self.bridge, self.door, self.first = bridge, config["socket"], config["first"].encode()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        bridge.env |= {name: text.format(self.port) for name, text in config["variables"].items()}
        bridge.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def accept(self, _listener: Any, _mask: int) -> None:
        """Join what comes to the door. While the agent is away nobody opens, and the connection ends."""
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(self.bridge.joints) >= JOINTS_MAX:
                raise ConnectionRefusedError
            for sock in (near, far):
                sock.setblocking(False)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.connect(self.door)
        except OSError:
            for sock in (near, far):
                with contextlib.suppress(OSError):
                    sock.close()
            return
        joint = Joint(self.bridge, near, far, self.first)
        self.bridge.joints[id(joint)] = joint
