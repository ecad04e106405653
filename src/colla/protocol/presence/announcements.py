"""What a node says of itself, signed: made by `sign_announcement`, judged by `open_announcement`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE
from colla.model.ids import KEY_BYTES, GroupId
from colla.model.keys import verify
from colla.model.sharing import shared
from colla.protocol.presence.messages import NUMBER_MAX, SignedAnnouncement
from colla.protocol.views import Announcement, Identity

ADDRESS_CHARS_MAX = 255
ENVIRONMENTS_MAX = 64

# Keeps a signature over an announcement from ever being one over a record, which is over group and payload.
_CONTEXT = b"colla announcement 1"


class _Bounds(msgspec.Struct, array_like=True):
    """The lengths that are checked before anything is believed; the order of the fields is `Announcement`'s."""

    node: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    start: Annotated[int, Meta(ge=0, lt=NUMBER_MAX)]
    revision: Annotated[int, Meta(ge=0, lt=NUMBER_MAX)]
    contribution: msgspec.Raw
    environments: Annotated[tuple[str, ...], Meta(max_length=ENVIRONMENTS_MAX)]
    addresses: tuple[Annotated[str, Meta(max_length=ADDRESS_CHARS_MAX)], ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Announcement)
_bounds = msgspec.msgpack.Decoder(_Bounds)


def sign_announcement(identity: Identity, announcement: Announcement) -> SignedAnnouncement:
    """Sign what this node says of itself."""
    payload = _encoder.encode(announcement)
    return SignedAnnouncement(payload, identity.secret.sign(_CONTEXT + identity.group + payload))


def read_announcement(signed: SignedAnnouncement, addresses_max: int) -> Announcement:
    """Decode without judging the signature. Raises `ValueError` when it is malformed or beyond a bound."""
    return _read(signed.payload, addresses_max)


@shared
def _read(payload: bytes, addresses_max: int) -> Announcement:
    try:
        bounds = _bounds.decode(payload)
        announcement = _decoder.decode(payload)
    except UNDECODABLE as error:
        raise ValueError(f"malformed announcement: {error}") from None
    if len(bounds.addresses) > addresses_max:
        raise ValueError("an announcement with too many addresses")
    return announcement


def signature_holds(group: GroupId, announcement: Announcement, signed: SignedAnnouncement) -> bool:
    """Whether the announced node signed these bytes."""
    return verify(announcement.node, _CONTEXT + group + signed.payload, signed.signature)
