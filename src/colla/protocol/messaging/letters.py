"""Sealing messages for their recipients' computers, and opening them. Pure: the randomness is passed in.

The content is sealed once, under a key of its own; that key is wrapped with HPKE for each computer of each recipient,
and of the author's member, known by the node's id alone (`model/hpke.py`). A wrap is bound to group, message and author,
so that nobody can put another's letter into a record of his own. That the author wrote it is proven by the signature of
the record, as for every record.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from colla.model import hpke
from colla.model.ids import GroupId, MemberId, NodeId
from colla.model.record import Key
from colla.model.sealing import CONTENT_KEY_BYTES, ContentCipher, DecryptionKey, UnsealError
from colla.protocol.messaging.bodies import (
    Content,
    ContentKey,
    Letter,
    decode_content,
    encode,
    letter_key,
)

EPHEMERAL_BYTES = 32


def seal_message(
    group: GroupId,
    author: NodeId,
    message: bytes,
    to: tuple[MemberId, ...],
    nodes: Sequence[NodeId],
    content: Content,
    keys_per_letter_max: int,
    rng: Random,
) -> list[tuple[Key, bytes]]:
    """The letters of a message as items to write: one for every `keys_per_letter_max` of the recipients' nodes."""
    content_key = rng.randbytes(CONTENT_KEY_BYTES)
    sealed = ContentCipher(content_key).seal(0, True, encode(content))
    info = _info(group, message, author)
    keys = [
        ContentKey(
            node, hpke.seal(hpke.encryption_key_of(node), content_key, info, rng.randbytes(EPHEMERAL_BYTES))
        )
        for node in nodes
    ]
    items = []
    for part, begin in enumerate(range(0, len(keys), keys_per_letter_max)):
        letter = Letter(message, to, tuple(keys[begin : begin + keys_per_letter_max]), sealed)
        items.append((letter_key(message, part), encode(letter)))
    return items


def is_for(letter: Letter, node: NodeId) -> bool:
    """Whether the letter has a key for this computer."""
    return any(key.node == node for key in letter.keys)


def open_letter(
    group: GroupId, author: NodeId, letter: Letter, node: NodeId, key: DecryptionKey
) -> Content | None:
    """What the letter says; None when it is not for this computer, or whoever wrote it did not seal it well."""
    for wrapped in letter.keys:
        if wrapped.node != node:
            continue
        try:
            content_key = key.unwrap(wrapped.wrapped, _info(group, letter.message, author))
            return decode_content(ContentCipher(content_key).open(0, True, letter.sealed))
        except (UnsealError, ValueError):
            return None
    return None


def _info(group: GroupId, message: bytes, author: NodeId) -> bytes:
    return b"colla message 1" + group + message + author
