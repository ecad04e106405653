"""Sealing secrets, opening them, and passing their keys on. Pure: the randomness is passed in.

As messages are (`protocol/messaging/letters`): a value is sealed once under a content key of its own, and that key is
wrapped with HPKE for each computer that may read it, known by the node's id alone. What is passed on later are the content
keys, several in one box for the one node. Every wrap is bound to the group, the service and its purpose (the name too, or
the recipient), so that a record of another service cannot make somebody open it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model import hpke
from colla.model.ids import GroupId, NodeId, ServiceId
from colla.model.sealing import CONTENT_KEY_BYTES, ContentCipher, DecryptionKey, UnsealError
from colla.model.secret import SECRETS_MAX, Hidden, SealedSecret, WrappedKey

EPHEMERAL_BYTES = 32
ID_BYTES = 16

_Id = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
_ContentKey = Annotated[bytes, Meta(min_length=CONTENT_KEY_BYTES, max_length=CONTENT_KEY_BYTES)]
_encoder = msgspec.msgpack.Encoder()
_keys: msgspec.msgpack.Decoder[dict[bytes, bytes]] = msgspec.msgpack.Decoder(
    Annotated[dict[_Id, _ContentKey], Meta(max_length=SECRETS_MAX)]
)


def seal_value(
    group: GroupId, service: ServiceId, name: str, value: Hidden, nodes: Sequence[NodeId], rng: Random
) -> tuple[tuple[WrappedKey, ...], bytes]:
    """The keys for `nodes`, and the sealed value."""
    content_key = rng.randbytes(CONTENT_KEY_BYTES)
    info = _value_info(group, service, name)
    keys = tuple(
        WrappedKey(
            node, hpke.seal(hpke.encryption_key_of(node), content_key, info, rng.randbytes(EPHEMERAL_BYTES))
        )
        for node in nodes
    )
    return keys, ContentCipher(content_key).seal(0, True, value.text.encode())


def unwrap_own(
    group: GroupId, service: ServiceId, secret: SealedSecret, node: NodeId, key: DecryptionKey
) -> bytes | None:
    """The content key, when the record itself has it for this node; else None."""
    for wrapped in secret.keys:
        if wrapped.node != node:
            continue
        try:
            return key.unwrap(wrapped.wrapped, _value_info(group, service, secret.name))
        except UnsealError:
            return None
    return None


def open_value(secret: SealedSecret, content_key: bytes) -> Hidden | None:
    """The value; None when that is not its key."""
    try:
        return Hidden(ContentCipher(content_key).open(0, True, secret.sealed).decode())
    except (UnsealError, ValueError):
        return None


def seal_keys(
    group: GroupId, service: ServiceId, keys: Mapping[bytes, bytes], node: NodeId, rng: Random
) -> bytes:
    """Content keys, by the ids of their secrets, readable by the one node."""
    ephemeral = rng.randbytes(EPHEMERAL_BYTES)
    public = hpke.encryption_key_of(node)
    return hpke.seal(public, _encoder.encode(keys), _keys_info(group, service, node), ephemeral)


def open_keys(
    group: GroupId, service: ServiceId, sealed: bytes, node: NodeId, key: DecryptionKey
) -> dict[bytes, bytes]:
    """What `seal_keys` was given; nothing when it is not for this node, or not whole."""
    try:
        return _keys.decode(key.unwrap(sealed, _keys_info(group, service, node)))
    except (UnsealError, msgspec.DecodeError):
        return {}


def _value_info(group: GroupId, service: ServiceId, name: str) -> bytes:
    return b"colla secret 1" + group + service + name.encode()


def _keys_info(group: GroupId, service: ServiceId, node: NodeId) -> bytes:
    return b"colla secret keys 1" + group + service + node
