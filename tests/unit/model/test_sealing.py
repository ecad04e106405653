"""Sealed bytes open for the right key, purpose and place, and for nothing else."""

from __future__ import annotations

import pytest

from colla.model.sealing import (
    CONTENT_KEY_BYTES,
    TAG_BYTES,
    WRAP_OVERHEAD_BYTES,
    ContentCipher,
    UnsealError,
    derive_decryption_key,
    wrap,
)

SEED = bytes(range(32))


def test_a_wrapped_secret_is_for_one_key_and_one_purpose() -> None:
    key, other = derive_decryption_key(SEED), derive_decryption_key(bytes(32))
    wrapped = wrap(key.public, b"secret", b"purpose")
    assert len(wrapped) == len(b"secret") + WRAP_OVERHEAD_BYTES
    assert key.unwrap(wrapped, b"purpose") == b"secret"
    for damaged in (wrapped[:-1], b"", bytes([wrapped[0] ^ 1]) + wrapped[1:], wrapped[:-1] + b"x"):
        with pytest.raises(UnsealError):
            key.unwrap(damaged, b"purpose")
    with pytest.raises(UnsealError):
        key.unwrap(wrapped, b"another purpose")
    with pytest.raises(UnsealError):
        other.unwrap(wrapped, b"purpose")


def test_the_derived_key_is_always_the_same_and_not_shown() -> None:
    key = derive_decryption_key(SEED)
    # Stored wraps must open for ever: this value is a part of the storage format.
    assert key.public.hex().startswith(KNOWN_PUBLIC)
    assert SEED.hex() not in repr(key)


def test_segments_open_only_whole_and_where_they_belong() -> None:
    cipher = ContentCipher(bytes(CONTENT_KEY_BYTES))
    first, last = cipher.seal(0, False, b"first"), cipher.seal(1, True, b"last")
    assert len(first) == len(b"first") + TAG_BYTES
    assert (cipher.open(0, False, first), cipher.open(1, True, last)) == (b"first", b"last")
    for place, is_last, sealed in (
        (1, False, first),
        (0, True, first),
        (1, False, last),
        (0, False, first[:-1]),
        (0, False, b""),
    ):
        with pytest.raises(UnsealError):
            cipher.open(place, is_last, sealed)


def test_sealing_again_gives_the_same_so_that_an_interrupted_put_goes_on() -> None:
    cipher = ContentCipher(bytes(CONTENT_KEY_BYTES))
    assert cipher.seal(3, False, b"data") == ContentCipher(bytes(CONTENT_KEY_BYTES)).seal(3, False, b"data")


KNOWN_PUBLIC = "4701d08488451f54"
