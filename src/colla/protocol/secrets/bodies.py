"""The bodies of secrets' records. Part of the storage and wire format.

One key a secret: the kind `secret`, the service's id and the name in the subject. A body without a sealed value says that
the secret was taken away. `revision` grows with each change of the key, so that the versions of a service do.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, RANDOM_ID_BYTES, ServiceId
from colla.model.record import Key, Record
from colla.model.sealing import CONTENT_KEY_BYTES, TAG_BYTES, WRAP_OVERHEAD_BYTES
from colla.model.secret import WrappedKey, check_secret_name

KIND_SECRET = "secret"
REVISION_MAX = 2**31
KEYS_MAX = 64
"""Computers for which the key of one secret is wrapped."""
WRAPPED_BYTES = CONTENT_KEY_BYTES + WRAP_OVERHEAD_BYTES


class SecretBody(msgspec.Struct, frozen=True, array_like=True):
    """The body of `secret`. `sealed` is the value under a content key of its own; `keys` is that key, wrapped."""

    revision: Annotated[int, Meta(ge=1, le=REVISION_MAX)]
    keys: Annotated[tuple[WrappedKey, ...], Meta(max_length=KEYS_MAX)] = ()
    sealed: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SecretBody)


def secret_key(service: ServiceId, name: str) -> Key:
    """The key of a service's secret."""
    return Key(KIND_SECRET, service + name.encode())


def secret_of(key: Key) -> tuple[ServiceId, str]:
    """The service and the name. Raises `ValueError` when the subject is malformed."""
    service, name = key.subject[:RANDOM_ID_BYTES], key.subject[RANDOM_ID_BYTES:].decode()
    try:
        return ServiceId(service), check_secret_name(name)
    except CollaError as error:
        raise ValueError(str(error)) from None


def encode(body: SecretBody) -> bytes:
    """The bytes that go into the record."""
    return _encoder.encode(body)


def decode(body: bytes) -> SecretBody:
    """Raises `ValueError`."""
    return _decoder.decode(body)


def check_secret(record: Record) -> None:
    """Whether a record of the kind may be held. Raises `ValueError`."""
    secret_of(record.key)
    body = decode(record.body)
    if not body.sealed and body.keys:
        raise ValueError("there are keys and nothing that they open")
    if 0 < len(body.sealed) < TAG_BYTES:
        raise ValueError("what is sealed is too short")
    for key in body.keys:
        if len(key.node) != KEY_BYTES or len(key.wrapped) != WRAPPED_BYTES:
            raise ValueError("a wrapped key is malformed")
