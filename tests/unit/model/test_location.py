"""Ballots: whatever a peer claims, the next one can still be told to everybody."""

from __future__ import annotations

import msgspec
import pytest

from colla.model.ids import NodeId
from colla.model.location import NO_BALLOT, TERM_MAX, Ballot

ME = NodeId(b"m" * 32)


def test_the_next_ballot_is_higher() -> None:
    claimed = Ballot(7, 2**64 - 1, NodeId(b"\xff" * 32))
    assert claimed < claimed.next(0, ME) == Ballot(8, 0, ME)
    assert NO_BALLOT.next(0, ME) > NO_BALLOT


def test_the_ballot_after_the_last_term_can_still_be_read_by_all() -> None:
    last = Ballot(TERM_MAX, 5, NodeId(b"l" * 32)).next(1, ME)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(last), type=Ballot) == last


@pytest.mark.parametrize("term", [-1, TERM_MAX + 1, 2**63 - 1, 2**64 - 1])
def test_a_term_that_no_group_can_reach_is_no_ballot(term: int) -> None:
    frame = msgspec.msgpack.encode([term, 0, ME])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(frame, type=Ballot)
