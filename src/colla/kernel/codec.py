"""Messages to bytes and back: one tagged msgpack union, lengths checked before memory is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Union

import msgspec

from colla.kernel.messages import Message
from colla.model.errors import UNDECODABLE


class UnknownMessage(ValueError):
    """A well-formed message of a kind that this version does not know: to be ignored, its sender is newer."""


class MessageCodec(Protocol):
    """What a mechanism that carries other mechanisms' messages needs."""

    def encode(self, message: Message) -> bytes: ...
    def decode(self, frame: bytes) -> Message: ...


class Codec:
    """Encodes and decodes every message type that it was made with.

    `decode` raises `UnknownMessage` for one of an unknown kind, `ValueError` for a frame that is too long or
    malformed.
    """

    def __init__(self, types: Sequence[type[Message]], frame_bytes_max: int) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
            Union[tuple(types)]  # noqa: UP007 (built at run time)
        )
        self._frame_bytes_max = frame_bytes_max
        self._kinds = frozenset(str(kind.__struct_config__.tag) for kind in types)

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
        except UNDECODABLE as error:
            if self._is_unknown(frame):
                raise UnknownMessage(f"a message of an unknown kind: {error}") from None
            raise ValueError(f"malformed frame: {error}") from None

    def _is_unknown(self, frame: bytes) -> bool:
        try:
            fields = msgspec.msgpack.decode(frame, type=list[msgspec.Raw])
            kind = msgspec.msgpack.decode(fields[0], type=str)
        except (*UNDECODABLE, IndexError):
            return False
        return kind not in self._kinds
