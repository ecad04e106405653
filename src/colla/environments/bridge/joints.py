"""Two sockets joined: bytes copied both ways, at most one chunk waiting in each direction."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from typing import Any, Protocol

CHUNK_BYTES = 64 << 10


class Watcher(Protocol):
    """What a joint needs of the loop."""

    def watch(self, sock: Any, before: int, after: int, joint: Joint) -> None: ...
    def joint_closed(self, joint: Joint) -> None: ...


class Joint:
    """Two connected sockets whose bytes are copied both ways; at most one chunk waits in each direction."""

    def __init__(self, bridge: Watcher, near: socket.socket, far: socket.socket, first: bytes = b"") -> None:
        self.bridge, self.near, self.far = bridge, near, far
        self.waiting = {near: b"", far: first}
        """What is still to be written to each; `first` goes before all that comes from near."""
        self.ended = {near: False, far: False}
        self.connecting = True
        self.masks = {near: 0, far: 0}
        self.watch()

    def watch(self) -> None:
        for sock, other in ((self.near, self.far), (self.far, self.near)):
            mask = 0
            if self.connecting:
                mask = selectors.EVENT_WRITE if sock is self.far else 0
            else:
                if not self.ended[sock] and not self.waiting[other]:
                    mask |= selectors.EVENT_READ
                if self.waiting[sock]:
                    mask |= selectors.EVENT_WRITE
            self.bridge.watch(sock, self.masks[sock], mask, self)
            self.masks[sock] = mask

    def on_ready(self, sock: Any, mask: int) -> None:
        other = self.far if sock is self.near else self.near
        try:
            if self.connecting:
                if problem := self.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(problem, os.strerror(problem))
                self.connecting = False
            if mask & selectors.EVENT_WRITE and self.waiting[sock]:
                self.write(sock)
            if mask & selectors.EVENT_READ and not self.waiting[other]:
                data = sock.recv(CHUNK_BYTES)
                self.waiting[other] = data
                if data:
                    self.write(other)
                else:
                    self.ended[sock] = True
                    other.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            # Whichever side broke off, the other learns it by its connection being closed.
            self.close()
            return
        if all(self.ended.values()) and not any(self.waiting.values()):
            self.close()
        else:
            self.watch()

    def write(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            sent = sock.send(self.waiting[sock])
            self.waiting[sock] = self.waiting[sock][sent:]

    def close(self) -> None:
        for sock in (self.near, self.far):
            self.bridge.watch(sock, self.masks[sock], 0, self)
            sock.close()
        self.bridge.joint_closed(self)
