"""Messages to bytes and back: one tagged msgpack union, lengths checked before memory is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Union

import msgspec

from colla.kernel.messages import Message


class MessageCodec(Protocol):
    """What a mechanism that carries other mechanisms' messages needs."""

    def encode(self, message: Message) -> bytes: ...
    def decode(self, frame: bytes) -> Message: ...


class Codec:
    """Encodes and decodes every message type that it was made with.

    `decode` raises `ValueError` for a frame that is too long, malformed or of an unknown kind.
    """

    def __init__(self, types: Sequence[type[Message]], frame_bytes_max: int) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
            Union[tuple(types)]  # noqa: UP007 (built at run time)
        )
        self._frame_bytes_max = frame_bytes_max

    def encode(self, message: Message) -> bytes:
        frame = self._encoder.encode(message)
        if len(frame) > self._frame_bytes_max:
            raise ValueError(f"{type(message).__name__} of {len(frame)} bytes is longer than a frame may be")
        return frame

    def decode(self, frame: bytes) -> Message:
        if len(frame) > self._frame_bytes_max:
            raise ValueError(f"a frame of {len(frame)} bytes is too long")
        try:
            return self._decoder.decode(frame)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"malformed frame: {error}") from None
