"""A ticket as text that survives chat programs: `colla1`, then base 32 without look-alikes.

    colla1 | base32( length (2) | check of the length (1) | payload | checksum (5) )

The length tells a truncated text from a mangled one. Spaces and line breaks are ignored, and so is case. The payload
is all that a joiner needs: the group, the ticket's seed, and nodes to ask with their addresses. Whoever holds the
text can use it once. The alphabet is that of bech32 (BIP 173).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import UNDECODABLE, CollaError
from colla.model.ids import GroupId, NodeId, digest
from colla.model.keys import SecretKey
from colla.protocol.membership.bodies import JoinClaim, check_label, sign_claim

PREFIX = "colla"
VERSION = "1"
TEXT_CHARS_MAX = 8192
PAYLOAD_BYTES_MAX = 4096
CONTACTS_MAX = 4
ADDRESSES_PER_CONTACT_MAX = 6
ADDRESS_CHARS_MAX = 255
CHECKSUM_BYTES = 5
HEAD_BYTES = 3
RELAY_PREFIX = "relay:"

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_TEXT = str.maketrans(_RFC4648, _ALPHABET)
_FROM_TEXT = str.maketrans(_ALPHABET, _RFC4648)

_KEY = Meta(min_length=32, max_length=32)
_Address = Annotated[str, Meta(min_length=1, max_length=ADDRESS_CHARS_MAX)]


class Contact(msgspec.Struct, frozen=True, array_like=True):
    """A node that may admit the joiner, and where it was reachable when the ticket was made."""

    node: Annotated[NodeId, _KEY]
    addresses: Annotated[tuple[_Address, ...], Meta(max_length=ADDRESSES_PER_CONTACT_MAX)]


class TicketText(msgspec.Struct, frozen=True, array_like=True):
    """The content of a ticket's text. `author` is the node whose record made the ticket."""

    group: Annotated[GroupId, _KEY]
    group_name: Annotated[str, Meta(min_length=1, max_length=63)]
    seed: Annotated[bytes, _KEY]
    author: Annotated[NodeId, _KEY]
    own_computer: bool
    expires_s: float
    contacts: Annotated[tuple[Contact, ...], Meta(min_length=1, max_length=CONTACTS_MAX)]

    def claim(self, node: NodeId, node_name: str, member: SecretKey, member_name: str) -> JoinClaim:
        """What the joiner signs. The member's key and name are not used with a ticket for one's own computer.

        Raises `CollaError("bad_name")`.
        """
        check_label("computer", node_name)
        if not self.own_computer:
            check_label("member", member_name)
        secret = SecretKey(self.seed)
        who = None if self.own_computer else member
        return sign_claim(self.group, secret, self.author, node, node_name, who, member_name)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TicketText)


def choose_contacts(candidates: Sequence[Contact]) -> tuple[Contact, ...]:
    """The first few contacts with the first few of their addresses, as many as a ticket may carry.

    Relays are left out: they serve members only, and a joiner is none yet.
    """
    chosen: list[Contact] = []
    for contact in candidates:
        fitting = tuple(address for address in contact.addresses if _serves_joiners(address))
        if fitting:
            chosen.append(Contact(contact.node, fitting[:ADDRESSES_PER_CONTACT_MAX]))
    return tuple(chosen[:CONTACTS_MAX])


def _serves_joiners(address: str) -> bool:
    return 0 < len(address) <= ADDRESS_CHARS_MAX and not address.startswith(RELAY_PREFIX)


def write_ticket(ticket: TicketText) -> str:
    """The text to send to the person who is invited. Raises `CollaError("ticket_too_long")`."""
    payload = _encoder.encode(ticket)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise CollaError(
            "ticket_too_long",
            "The addresses of this computer are too long for a ticket.",
            "Configure fewer or shorter addresses.",
        )
    length = len(payload).to_bytes(2)
    data = length + digest(length)[:1] + payload + digest(payload)[:CHECKSUM_BYTES]
    return PREFIX + VERSION + base64.b32encode(data).decode().rstrip("=").translate(_TO_TEXT)


def read_ticket(text: str) -> TicketText:
    """Read what a person pasted.

    Raises `CollaError` with code `ticket_mangled`, `ticket_truncated` or `ticket_version`.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise _mangled()
    compact = "".join(text.split()).lower()
    _check_prefix(compact)
    characters = compact[len(PREFIX) + len(VERSION) :]
    data = _decode_characters(characters)
    if len(data) < HEAD_BYTES:
        raise _truncated()
    length = int.from_bytes(data[:2])
    if digest(data[:2])[:1] != data[2:HEAD_BYTES] or length > PAYLOAD_BYTES_MAX:
        raise _mangled()
    whole = HEAD_BYTES + length + CHECKSUM_BYTES
    if len(data) < whole:
        raise _truncated()
    payload, checksum = data[HEAD_BYTES : HEAD_BYTES + length], data[HEAD_BYTES + length :]
    # Encoding again catches what decoding forgives: spare bits and spare characters at the end.
    canonical = base64.b32encode(data).decode().rstrip("=").translate(_TO_TEXT) == characters
    if len(data) > whole or digest(payload)[:CHECKSUM_BYTES] != checksum or not canonical:
        raise _mangled()
    try:
        return _decoder.decode(payload)
    except UNDECODABLE:
        raise _version() from None


def _check_prefix(compact: str) -> None:
    whole = PREFIX + VERSION
    if compact.startswith(whole):
        return
    if whole.startswith(compact) and compact:
        raise _truncated()
    rest = compact[len(PREFIX) :]
    if compact.startswith(PREFIX) and rest[0].isdigit():
        raise _version()
    raise _mangled()


def _decode_characters(characters: str) -> bytes:
    if any(character not in _ALPHABET for character in characters):
        raise _mangled()
    if len(characters) % 8 in (1, 3, 6):
        # No whole number of bytes has such a length; what is missing is only known after reading the length.
        characters = characters[:-1]
        return base64.b32decode(_padded(characters)) if characters else b""
    return base64.b32decode(_padded(characters))


def _padded(characters: str) -> str:
    return characters.translate(_FROM_TEXT) + "=" * (-len(characters) % 8)


def _mangled() -> CollaError:
    return CollaError(
        "ticket_mangled",
        "This is not a ticket as it was sent: some of its characters are wrong.",
        "Copy it again from the message, all of it, or ask for a new one with `colla invite`.",
    )


def _truncated() -> CollaError:
    return CollaError(
        "ticket_truncated",
        "The end of the ticket is missing.",
        "Copy the whole ticket from the message; it begins with 'colla1' and may be several lines long.",
    )


def _version() -> CollaError:
    return CollaError(
        "ticket_version",
        "This ticket was made by another version of colla, which this one does not understand.",
        "Update colla on this computer, or ask the inviter to update and to send a new ticket.",
    )
