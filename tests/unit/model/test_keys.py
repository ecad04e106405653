"""Signatures: good ones hold, everything else does not, whether or not proofs are remembered."""

from __future__ import annotations

import pytest

from colla.model import keys
from colla.model.keys import SecretKey, remember_proofs, verify

KEY = SecretKey(bytes(32))
OTHER = SecretKey(bytes(31) + b"\x01")
MESSAGE = b"what is said"
SIGNATURE = KEY.sign(MESSAGE)


@pytest.fixture(params=[False, True], ids=["computed", "remembered"])
def remembering(request, monkeypatch):
    monkeypatch.setattr(keys, "_proofs", None)
    if request.param:
        remember_proofs()


@pytest.mark.usefixtures("remembering")
def test_only_the_exact_triple_holds():
    for _ in range(2):
        assert verify(KEY.public, MESSAGE, SIGNATURE)
        assert not verify(OTHER.public, MESSAGE, SIGNATURE)
        assert not verify(KEY.public, MESSAGE + b".", SIGNATURE)
        assert not verify(KEY.public, MESSAGE, OTHER.sign(MESSAGE))


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("cut", [1, 31, 33])
def test_a_shifted_border_between_key_signature_and_message_does_not_hold(cut):
    assert verify(KEY.public, MESSAGE, SIGNATURE)
    text = KEY.public + SIGNATURE + MESSAGE
    assert not verify(text[:cut], text[cut + 64 :], text[cut : cut + 64])
    assert not verify(KEY.public, SIGNATURE[-cut:] + MESSAGE, SIGNATURE[:-cut])


def test_proofs_are_bounded(monkeypatch):
    monkeypatch.setattr(keys, "_proofs", None)
    monkeypatch.setattr(keys, "PROOFS_MAX", 3)
    remember_proofs()
    for number in range(8):
        message = bytes([number])
        assert verify(KEY.public, message, KEY.sign(message))
        assert keys._proofs is not None
        assert len(keys._proofs) <= 3
