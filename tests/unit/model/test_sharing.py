"""What is shared among the nodes of one process: nobody can tell, and no more is remembered than there is room for."""

from __future__ import annotations

import pytest

from colla.model import sharing
from colla.model.keys import SecretKey, verify
from colla.model.sharing import begin_sharing, shared

KEY = SecretKey(bytes(32))
OTHER = SecretKey(bytes(31) + b"\x01")
MESSAGE = b"what is said"
SIGNATURE = KEY.sign(MESSAGE)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(sharing, "_sharing", False)


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(sharing, "_sharing", False)
    if request.param:
        begin_sharing()


def counted():
    calls = []

    @shared
    def twice(text: bytes, times: int = 2) -> bytes:
        calls.append(text)
        if not text:
            raise ValueError("nothing to say")
        return text * times

    return twice, calls


@pytest.mark.usefixtures("alone")
def test_a_real_node_remembers_nothing():
    twice, calls = counted()
    assert twice(b"a") == twice(b"a") == b"aa"
    assert len(calls) == 2


@pytest.mark.usefixtures("alone")
def test_once_sharing_began_the_same_arguments_are_answered_once():
    begin_sharing()
    twice, calls = counted()
    assert twice(b"a") == twice(bytes([97])) == b"aa"
    assert twice(b"a", 3) == b"aaa"
    assert calls == [b"a", b"a"]


@pytest.mark.usefixtures("alone")
def test_what_was_raised_is_raised_again():
    begin_sharing()
    twice, calls = counted()
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing"):
            twice(b"")
    assert len(calls) == 2


@pytest.mark.usefixtures("alone")
def test_what_is_remembered_is_bounded(monkeypatch):
    begin_sharing()
    monkeypatch.setattr(sharing, "ANSWERS_MAX", 3)
    twice, calls = counted()
    for number in range(8):
        assert twice(bytes([number])) == bytes([number, number])
    twice(bytes([7]))
    twice(bytes([0]))
    assert len(calls) == 9


@pytest.mark.usefixtures("either_way")
def test_only_the_exact_key_message_and_signature_hold():
    for _ in range(2):
        assert verify(KEY.public, MESSAGE, SIGNATURE)
        assert not verify(OTHER.public, MESSAGE, SIGNATURE)
        assert not verify(KEY.public, MESSAGE + b".", SIGNATURE)
        assert not verify(KEY.public, MESSAGE, OTHER.sign(MESSAGE))
        assert not verify(KEY.public[1:], MESSAGE, SIGNATURE)
        assert not verify(KEY.public, SIGNATURE[-1:] + MESSAGE, SIGNATURE[:-1])
