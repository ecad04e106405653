"""HPKE in base mode with its one random value passed in (RFC 9180), so that the pure core can seal.

The library's own `Suite.encrypt` draws from the system; what the simulator runs must give the same bytes for the same
seed. Same suite, same bytes: X25519, HKDF-SHA256, ChaCha20-Poly1305, the first message of a context, no additional data.
Opening is the library's (`sealing.DecryptionKey.unwrap`); the vectors of appendix A.2 and both directions between the
two are tests.

Recipients need publish no key of their own: the X25519 key of who signs with an Ed25519 key is the same point on the
other form of the curve (RFC 7748, section 4.1). That one key pair may serve both, for this very construction, is
proven in Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM" (2021).
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from colla.model.ids import KEY_BYTES

_VERSION = b"HPKE-v1"
_KEM = b"KEM" + (0x0020).to_bytes(2)
_SUITE = b"HPKE" + (0x0020).to_bytes(2) + (0x0001).to_bytes(2) + (0x0003).to_bytes(2)
_BASE_MODE = b"\x00"
_KEY_BYTES, _NONCE_BYTES = 32, 12
_PRIME = 2**255 - 19


def seal(public: bytes, plaintext: bytes, info: bytes, ephemeral: bytes) -> bytes:
    """The encapsulated key and the ciphertext, `sealing.WRAP_OVERHEAD_BYTES` longer than `plaintext`.

    `ephemeral`: 32 random bytes that nobody else learns and that are used once. Raises `ValueError` when `public` is no
    public key.
    """
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    encapsulated = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    extracted = _extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand(_KEM, extracted, b"shared_secret", encapsulated + public, _KEY_BYTES)
    context = (
        _BASE_MODE + _extract(_SUITE, b"", b"psk_id_hash", b"") + _extract(_SUITE, b"", b"info_hash", info)
    )
    schedule = _extract(_SUITE, secret, b"secret", b"")
    key = _expand(_SUITE, schedule, b"key", context, _KEY_BYTES)
    nonce = _expand(_SUITE, schedule, b"base_nonce", context, _NONCE_BYTES)
    return encapsulated + ChaCha20Poly1305(key).encrypt(nonce, plaintext, None)


def encryption_key_of(signer: bytes) -> bytes:
    """The X25519 public key (32 bytes) of who signs with the Ed25519 public key `signer`: a node, or a member.

    `sealing.derive_decryption_key` gives the private one from the signer's seed. Raises `ValueError` for what is no key.
    """
    y = int.from_bytes(signer, "little") & (2**255 - 1)
    if len(signer) != KEY_BYTES or y >= _PRIME:
        raise ValueError("it is no Ed25519 public key")
    u = (1 + y) * pow(1 - y, -1, _PRIME) % _PRIME
    return u.to_bytes(KEY_BYTES, "little")


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt, _VERSION + suite + label + material, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """One block is enough: no more than 32 bytes are ever asked for."""
    labelled = length.to_bytes(2) + _VERSION + suite + label + info
    return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]
