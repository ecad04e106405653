"""Floors of ballots, nonces and their echoes, the alarm, and who is settled."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colla.kernel.config import Config, ElectionConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import WakeAt
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import NO_BALLOT, Ballot
from colla.protocol.election.alarm import Alarm
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.floors import BallotFloors
from colla.protocol.election.messages import ReviewDue
from colla.protocol.election.rule import is_settled
from colla.protocol.views import PresenceEntry, PresencePhase

SERVICE = ServiceId(b"s" * 16)
ME, PEER = NodeId(b"m" * 32), NodeId(b"p" * 32)


def at(seconds: float) -> Instant:
    return Instant(seconds, 1e9 + seconds)


def ballot(term: int, proximity: int = 0, node: bytes = b"n" * 32) -> Ballot:
    return Ballot(term, proximity, NodeId(node))


def test_ballots_are_totally_ordered_by_term_then_proximity_then_node() -> None:
    ordered = [NO_BALLOT, ballot(1), ballot(1, 5), ballot(1, 5, b"z" * 32), ballot(2), ballot(3)]
    assert sorted(ordered) == ordered


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.booleans()), max_size=30))
def test_floors_never_sink_whatever_comes_and_whenever_the_node_restarts(
    steps: list[tuple[int, int, bool]],
) -> None:
    disk = Durable({}, {})
    floors = BallotFloors("obeyed-ballot/", disk)
    highest_on_disk = NO_BALLOT
    for term, proximity, restart in steps:
        before = floors.pledged(SERVICE)
        write = floors.raise_to(SERVICE, ballot(term, proximity))
        assert (write is None) == (ballot(term, proximity) <= before)
        if write is not None and not restart:
            disk.apply([write])
            floors.persisted(SERVICE, ballot(term, proximity))
            highest_on_disk = max(highest_on_disk, ballot(term, proximity))
        if restart:
            floors = BallotFloors("obeyed-ballot/", disk)
        assert floors.obeyed(SERVICE) == highest_on_disk
        assert floors.pledged(SERVICE) >= floors.obeyed(SERVICE)


def test_what_was_forgotten_while_it_was_written_stays_forgotten() -> None:
    floors = BallotFloors("obeyed-ballot/", Durable({}, {}))
    assert floors.raise_to(SERVICE, ballot(3)) is not None
    assert floors.forget(SERVICE) is not None
    floors.persisted(SERVICE, ballot(3))
    assert floors.obeyed(SERVICE) == floors.pledged(SERVICE) == NO_BALLOT


def test_floors_of_two_purposes_do_not_mix_and_are_forgotten() -> None:
    disk = Durable({}, {})
    obeyed = BallotFloors("obeyed-ballot/", disk)
    write = obeyed.raise_to(SERVICE, ballot(3))
    assert write is not None
    disk.apply([write])
    assert BallotFloors("claimed-ballot/", disk).services() == []
    again = BallotFloors("obeyed-ballot/", disk)
    forgotten = again.forget(SERVICE)
    assert forgotten is not None and again.forget(SERVICE) is None
    disk.apply([forgotten])
    assert disk.cells == {}


def test_a_corrupt_floor_is_no_floor_of_zero() -> None:
    disk = Durable({}, {"obeyed-ballot/" + SERVICE.hex(): b"\xc1"})
    with pytest.raises(ValueError, match="corrupt"):
        BallotFloors("obeyed-ballot/", disk)


def echoes(echoed_s: float | None = None) -> Echoes:
    presence = SimpleNamespace(echoed_s=lambda node, now_s: echoed_s)
    setting = SimpleNamespace(me=ME, config=Config(), rng=Random(1), presence=presence)
    return Echoes(setting)  # type: ignore[arg-type]


def test_an_echo_counts_for_three_seconds_from_when_its_nonce_was_sent() -> None:
    mine = echoes()
    nonce = mine.nonce(at(10.0))
    assert not mine.hears_me(PEER, at(10.0))
    mine.heard(PEER, 77, nonce, at(12.0))
    assert mine.hears_me(PEER, at(12.9)) and not mine.hears_me(PEER, at(13.1))
    assert mine.echo(PEER) == 77


def test_old_foreign_and_guessed_echoes_do_not_count() -> None:
    mine = echoes()
    old = mine.nonce(at(10.0))
    mine.nonce(at(13.2))
    for wrong in (old, 0, 1, 12345):
        mine.heard(PEER, 1, wrong, at(13.3))
    assert not mine.hears_me(PEER, at(13.3))


def test_heartbeats_prove_hearing_too_and_oneself_always_hears() -> None:
    assert echoes(1.0).hears_me(PEER, at(5.0))
    assert not echoes(3.5).hears_me(PEER, at(5.0))
    assert echoes().hears_me(ME, at(5.0))


def test_forgetting_and_clearing() -> None:
    mine = echoes()
    mine.heard(PEER, 5, mine.nonce(at(1.0)), at(1.0))
    assert mine.hears_me(PEER, at(1.0))
    mine.forget(PEER)
    assert not mine.hears_me(PEER, at(1.0)) and mine.echo(PEER) == 0
    mine.heard(PEER, 5, mine.nonce(at(1.0)), at(1.0))
    mine.clear()
    assert not mine.hears_me(PEER, at(1.0))


def test_an_alarm_rings_once_at_the_earliest_moment() -> None:
    outbox = Outbox(1)
    alarm = Alarm(outbox, ReviewDue)
    alarm.set(5.0, at(1.0))
    alarm.set(7.0, at(1.0))
    alarm.set(3.0, at(2.0))
    wakes = [effect for effect in outbox.drain() if isinstance(effect, WakeAt)]
    assert [(wake.at_s, wake.timer) for wake in wakes] == [(5.0, ReviewDue(1)), (3.0, ReviewDue(2))]
    assert not alarm.rang(1)
    assert alarm.rang(2)
    assert not alarm.rang(2)
    alarm.set(9.0, at(3.0))
    assert alarm.rang(3)


@pytest.mark.parametrize(
    ("absences", "present_s", "settled"),
    [
        ((), 59.0, False),
        ((), 61.0, True),
        ((10000.0 - 9,), 61.0, False),
        ((10000.0 - 9,), 121.0, True),
        ((1.0,), 61.0, True),
        ((10000.0 - 9,) * 9, 3599.0, False),
        ((10000.0 - 9,) * 9, 3601.0, True),
    ],
)
def test_settled_doubles_with_each_absence_of_the_last_hour(
    absences: tuple[float, ...], present_s: float, settled: bool
) -> None:
    entry = PresenceEntry(PEER, PresencePhase.PRESENT, 1e4 - present_s, None, absences)  # type: ignore[arg-type]
    assert is_settled(entry, ElectionConfig(), 1e4) is settled


def test_suspected_and_unknown_nodes_are_not_settled() -> None:
    entry = PresenceEntry(PEER, PresencePhase.SUSPECTED, 0.0, None)  # type: ignore[arg-type]
    assert not is_settled(entry, ElectionConfig(), 1e4)
    assert not is_settled(None, ElectionConfig(), 1e4)
