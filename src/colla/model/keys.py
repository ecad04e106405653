"""Ed25519 keys: signing and verifying (RFC 8032), through `cryptography`.

Verification is a pure function of its arguments. A key is made from a 32-byte seed, so that the simulator
derives the same keys from the same randomness.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from colla.model.sharing import shared

SIGNATURE_BYTES = 64


class SecretKey:
    """An Ed25519 private key made from a 32-byte seed. Its `repr` never shows the seed."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Raises `ValueError` when the seed is not 32 bytes long."""
        if len(seed) != 32:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over `message`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SecretKey(public={self.public.hex()[:10]})"


@shared
def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` was made by the holder of `public`. Never raises on bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
