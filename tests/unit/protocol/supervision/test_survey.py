"""What a survey makes of what executors and dispatchers answered."""

from __future__ import annotations

from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.protocol.election.messages import MasterAnswer
from colla.protocol.supervision.messages import InventoryEntry
from colla.protocol.supervision.survey import Survey

SERVICE = ServiceId(b"s" * 16)
MASTER, WITNESS, EXECUTOR = (NodeId(letter * 32) for letter in (b"m", b"w", b"e"))
OLD = NO_BALLOT.next(0, MASTER)
NEWER = OLD.next(0, WITNESS)


def survey() -> Survey:
    """An executor that obeys the master of the old ballot says that it heard its node just now."""
    entries = {EXECUTOR: InventoryEntry(SERVICE, OLD, 0.0, True)}
    return Survey(SERVICE, 0.0, (EXECUTOR,), (MASTER, WITNESS), NodeId(b""), entries, {}, {})


def answer(ballot: Ballot, heard_s: float) -> MasterAnswer:
    return MasterAnswer(SERVICE, ballot, heard_s, 1, 0)


def test_an_executor_vouches_for_a_master_that_was_not_asked() -> None:
    assert survey().heard() == [(0.0, OLD)]


def test_what_a_master_says_of_itself_confirms_the_executors() -> None:
    found = survey()
    found.witnesses[MASTER] = answer(OLD, 0.0)
    assert found.heard() == [(0.0, OLD), (0.0, OLD)]


def test_who_stepped_down_is_not_vouched_for_by_those_that_obeyed_it() -> None:
    for denial in (answer(OLD, -1.0), answer(NO_BALLOT, -1.0)):
        found = survey()
        found.witnesses[MASTER] = denial
        assert found.heard() == []
        assert found.ballot() == OLD, "the next ballot is higher all the same"


def test_who_stepped_down_still_bears_witness_for_another() -> None:
    found = survey()
    found.witnesses[MASTER] = answer(NEWER, 0.5)
    assert found.heard() == [(0.5, NEWER)]


def test_another_witness_denies_nobody() -> None:
    found = survey()
    found.witnesses[WITNESS] = answer(NO_BALLOT, -1.0)
    assert found.heard() == [(0.0, OLD)]
