"""HPKE with its randomness passed in: the vectors of RFC 9180, the library's own, and keys that need no publishing."""

from __future__ import annotations

from random import Random

import pytest
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from colla.model import hpke
from colla.model.keys import SecretKey
from colla.model.sealing import WRAP_OVERHEAD_BYTES, UnsealError, derive_decryption_key, wrap

SUITE = library.Suite(library.KEM.X25519, library.KDF.HKDF_SHA256, library.AEAD.CHACHA20_POLY1305)
# RFC 9180, appendix A.2: the suite of this module. Its first ciphertext there has additional data, ours has none.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
EPHEMERAL = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
ENCAPSULATED = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
RECIPIENT = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
RECIPIENT_PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
CIPHERTEXT_BEFORE_TAG = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b")


def test_the_vectors_of_the_standard() -> None:
    sealed = hpke.seal(RECIPIENT_PUBLIC, PLAINTEXT, INFO, EPHEMERAL)
    assert sealed[:32] == ENCAPSULATED
    # The tag differs with the additional data; the key, the nonce and so the ciphertext do not.
    assert sealed[32 : 32 + len(PLAINTEXT)] == CIPHERTEXT_BEFORE_TAG
    assert len(sealed) == len(PLAINTEXT) + WRAP_OVERHEAD_BYTES


def test_the_library_opens_what_was_sealed_here() -> None:
    private = X25519PrivateKey.from_private_bytes(RECIPIENT)
    for size in (0, 1, 32, 5000):
        sealed = hpke.seal(RECIPIENT_PUBLIC, bytes(size), b"purpose", Random(size).randbytes(32))
        assert SUITE.decrypt(sealed, private, info=b"purpose") == bytes(size)


def test_who_is_known_by_a_signing_key_can_be_sealed_for() -> None:
    for number in range(20):
        seed = Random(number).randbytes(32)
        known_by = SecretKey(seed).public
        key = derive_decryption_key(seed)
        assert hpke.encryption_key_of(known_by) == key.public
        assert key.unwrap(wrap(hpke.encryption_key_of(known_by), b"secret", b"x"), b"x") == b"secret"
        sealed = hpke.seal(key.public, b"secret", b"x", Random(-number).randbytes(32))
        assert key.unwrap(sealed, b"x") == b"secret"
        with pytest.raises(UnsealError):
            key.unwrap(sealed, b"y")


@pytest.mark.parametrize("no_key", [b"", bytes(31), bytes(33), b"\xff" * 32, (1).to_bytes(32, "little")])
def test_what_is_no_key_is_refused(no_key: bytes) -> None:
    with pytest.raises(ValueError):
        hpke.encryption_key_of(no_key)
