"""Ed25519 keys: signing and verifying (RFC 8032), through `cryptography`.

Verification is a pure function of its arguments. A key is made from a 32-byte seed, so that the simulator
derives the same keys from the same randomness. Where all nodes live in one process, each would compute what the others
computed already: there `remember_proofs` may be called.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from colla.model.ids import KEY_BYTES, digest

SIGNATURE_BYTES = 64
PROOFS_MAX = 32_768
"""Hashes of good signatures that are remembered, if any are; then all are forgotten at once."""

_proofs: dict[bytes, None] | None = None


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


def remember_proofs() -> None:
    """From now on a signature that was found good in this process is known by its hash. For simulations only."""
    global _proofs
    if _proofs is None:
        _proofs = {}


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` was made by the holder of `public`. Never raises on bad input."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if _proofs is None:
        return _holds(public, message, signature)
    # Both lengths are fixed, so no two triples share one text.
    proof = digest(public + signature + message)
    if proof in _proofs:
        return True
    holds = _holds(public, message, signature)
    if holds:
        if len(_proofs) >= PROOFS_MAX:
            _proofs.clear()
        _proofs[proof] = None
    return holds


def _holds(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
