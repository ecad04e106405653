"""The frames waiting for one peer, bounded in number and bytes. Frames on the wire: length (4 bytes), bytes."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

FRAMES_MAX = 4096
BYTES_MAX = 8 * 1024 * 1024
"""A peer that takes nothing for a while loses frames beyond this; what matters is repaired by sessions."""
LENGTH = struct.Struct("!I")


class FrameQueue:
    """First in, first out; refuses what does not fit rather than grow."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> bool:
        """Whether there was room for `frame`."""
        if len(self._frames) >= FRAMES_MAX or self._bytes + len(frame) > BYTES_MAX:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        return True

    def take(self, bytes_max: int) -> list[bytes]:
        """The next frames, together at most `bytes_max` bytes, but at least one if any waits."""
        taken: list[bytes] = []
        size = 0
        while self._frames and (not taken or size + len(self._frames[0]) <= bytes_max):
            frame = self._frames.popleft()
            taken.append(frame)
            size += len(frame)
        self._bytes -= size
        return taken

    def clear(self) -> int:
        """Drop everything; how many frames that were."""
        count = len(self._frames)
        self._frames.clear()
        self._bytes = 0
        return count


def pack(frames: list[bytes]) -> bytes:
    """The bytes that carry these frames on a stream."""
    parts: list[bytes] = []
    for frame in frames:
        parts.append(LENGTH.pack(len(frame)))
        parts.append(frame)
    return b"".join(parts)


class TooLong(Exception):
    """A frame announces more bytes than are allowed."""


class FrameReader:
    """Cuts a stream of bytes back into frames. Never holds more than one frame and one read."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes, frame_bytes_max: int) -> Iterator[bytes]:
        """The frames that are whole now, to be taken all.

        Raises `TooLong`, after the frames before it, as soon as a frame too long announces itself.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            if length > frame_bytes_max:
                raise TooLong(f"a frame of {length} bytes")
            end = start + LENGTH.size + length
            if len(buffer) < end:
                break
            yield bytes(buffer[start + LENGTH.size : end])
            start = end
        if start:
            del buffer[:start]
