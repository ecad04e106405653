"""Sealing: bytes that only the holder of one key can read, and content that only the holders of its key can.

Two layers. Small secrets are *wrapped* to a recipient's public key with HPKE in base mode (RFC 9180: X25519,
HKDF-SHA256, ChaCha20-Poly1305); `info` binds a wrap to its purpose, so that none can be moved elsewhere. Content is
cut into segments, each sealed with AES-GCM-SIV (RFC 8452) under a content key of its own that is wrapped to each
recipient. A segment's nonce is its place and whether it is the last one (the STREAM construction of Hoang et al.,
2015): segments can be neither reordered nor left out, nor the end cut off. AES-GCM-SIV since a put that was
interrupted goes on under the same key: the same bytes give the same segments, and a file that changed in between
betrays no more than that.

HPKE draws its randomness from the system: `wrap` is for shells and faces; what the simulator runs uses `hpke.seal`.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

PUBLIC_BYTES = 32
"""An X25519 public key."""
CONTENT_KEY_BYTES = 32
WRAP_OVERHEAD_BYTES = 48
"""What a wrap is longer than what it holds: the sender's ephemeral key and the tag."""
TAG_BYTES = 16
"""What a sealed segment is longer than its content."""
SEGMENTS_MAX = 2**32

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


class UnsealError(ValueError):
    """The bytes are not for this key, or not for this purpose, or damaged: nobody can tell which."""


class DecryptionKey:
    """An X25519 private key. Its `repr` never shows it."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        """`private` is 32 bytes. Raises `ValueError` otherwise."""
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """What `wrap` was given. Raises `UnsealError`."""
        try:
            return _SUITE.decrypt(wrapped, self._key, info=info)
        except (InvalidTag, ValueError):
            raise UnsealError("it is not sealed for this key, or not whole") from None

    def __repr__(self) -> str:
        return f"DecryptionKey(public={self.public.hex()[:10]})"


def derive_decryption_key(seed: bytes) -> DecryptionKey:
    """The decryption key of who signs with the Ed25519 key of this 32-byte seed: nothing more has to be kept.

    Its public key is `hpke.encryption_key_of` the public key that everybody knows: nothing has to be published either.
    """
    # The secret scalar of RFC 8032, section 5.1.5; X25519 clears and sets the same bits.
    return DecryptionKey(hashlib.sha512(seed).digest()[:PUBLIC_BYTES])


def wrap(public: bytes, secret: bytes, info: bytes) -> bytes:
    """`secret`, readable by the holder of the key `public` only. Raises `ValueError` for what is no public key."""
    return _SUITE.encrypt(secret, X25519PublicKey.from_public_bytes(public), info=info)


class ContentCipher:
    """Seals and opens the segments of one content. Safe to use from several threads."""

    def __init__(self, key: bytes) -> None:
        """`key` has `CONTENT_KEY_BYTES`. Raises `ValueError` otherwise."""
        if len(key) != CONTENT_KEY_BYTES:
            raise ValueError(f"a content key has {CONTENT_KEY_BYTES} bytes")
        self._cipher = AESGCMSIV(key)

    def seal(self, place: int, last: bool, data: bytes) -> bytes:
        """The segment at `place` (0, 1, …), `TAG_BYTES` longer than `data`."""
        return self._cipher.encrypt(_nonce(place, last), data, None)

    def open(self, place: int, last: bool, sealed: bytes) -> bytes:
        """The content of a segment. Raises `UnsealError` when it is another's, at another place, or damaged."""
        try:
            return self._cipher.decrypt(_nonce(place, last), sealed, None)
        except InvalidTag:
            raise UnsealError("a part of the content is not what was sealed") from None


def _nonce(place: int, last: bool) -> bytes:
    if not 0 <= place < SEGMENTS_MAX:
        raise ValueError("a content has too many segments")
    return place.to_bytes(11) + bytes([last])
