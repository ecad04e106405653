"""What a master decides, case by case, and what must hold in any case."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colla.model.ids import NodeId
from colla.protocol.supervision.decision import Judged, Situation, decide


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


def ready(number: int, **changes: Any) -> Judged:
    given = {"ready": True, "serving": True, "acknowledged": True} | changes
    return Judged(node=node(number), **given)


def starting(number: int, **changes: Any) -> Judged:
    return ready(number, ready=False, serving=False, **changes)


def situation(wanted: int, *replicas: Judged, **changes: Any) -> Situation:
    given = {"offers": 0, "free": True, "may_spare": True, "trim_now": False} | changes
    return Situation(wanted=wanted, replicas=replicas, **given)


def test_what_is_missing_is_started_and_what_is_on_its_way_counts() -> None:
    assert decide(situation(3)).starts == 3
    assert decide(situation(3, ready(1), starting(2))).starts == 1
    assert decide(situation(3, ready(1), starting(2), offers=1)).starts == 0
    assert decide(situation(3, ready(1), starting(2), offers=1)).missing == 2


def test_a_full_number_is_left_alone() -> None:
    decision = decide(situation(3, ready(1), ready(2), ready(3)))
    assert (decision.starts, decision.spares, decision.stops, decision.trims, decision.missing) == (
        0,
        0,
        (),
        (),
        0,
    )


def test_one_spare_for_doubtful_ones_and_no_second() -> None:
    late = ready(3, doubtful=True)
    assert decide(situation(3, ready(1), ready(2), late)).spares == 1
    assert decide(situation(3, ready(1), ready(2), late, offers=1)).spares == 0
    assert decide(situation(3, ready(1), ready(2), late, ready(4))).spares == 0
    assert decide(situation(3, ready(1), late, ready(2, doubtful=True))).spares == 1
    assert decide(situation(3, ready(1), late, ready(2, doubtful=True), starting(4))).spares == 0
    assert decide(situation(3, ready(1), ready(2), late, may_spare=False)).spares == 0


def test_doubtful_ones_are_no_surplus() -> None:
    late = ready(4, doubtful=True)
    decision = decide(situation(3, ready(1), ready(2), ready(3), late, trim_now=True))
    assert (decision.surplus, decision.trims) == (0, ())


def test_the_worst_placed_are_trimmed_only_when_it_is_time_and_acknowledged() -> None:
    four = [ready(number, rank=number) for number in range(4)]
    assert decide(situation(3, *four)).trims == ()
    assert decide(situation(3, *four)).surplus == 1
    assert decide(situation(3, *four, trim_now=True)).trims == (node(3),)
    four[0] = ready(0, acknowledged=False)
    assert decide(situation(3, *four, trim_now=True)).trims == ()


def test_a_draining_replica_stops_when_its_successor_is_ready() -> None:
    leaving = ready(3, leaving=True)
    before = decide(situation(3, ready(1), ready(2), leaving))
    assert (before.starts, before.stops) == (1, ())
    meanwhile = decide(situation(3, ready(1), ready(2), leaving, starting(4)))
    assert (meanwhile.starts, meanwhile.stops) == (0, ())
    after = decide(situation(3, ready(1), ready(2), leaving, ready(4)))
    assert (after.starts, after.stops) == (0, (node(3),))


def test_a_draining_replica_with_nowhere_to_go_stays() -> None:
    leaving = ready(3, leaving=True)
    decision = decide(situation(3, ready(1), ready(2), leaving, free=False))
    assert decision.stops == ()


def test_old_versions_are_replaced_one_at_a_time() -> None:
    old = [ready(number, old=True) for number in range(3)]
    assert decide(situation(3, *old)).starts == 1
    assert decide(situation(3, *old, starting(4))).starts == 0
    done = decide(situation(3, *old, ready(4)))
    assert (done.starts, done.stops) == (0, (node(0),))
    stopping = decide(situation(3, ready(0, old=True, ordered=True), *old[1:], ready(4)))
    assert (stopping.starts, stopping.stops) == (0, ())
    assert decide(situation(3, *old[1:], ready(4))).starts == 1


def test_where_no_executor_is_free_one_old_one_stops_first() -> None:
    old = [ready(number, old=True) for number in range(3)]
    assert decide(situation(3, *old, free=False)).stops == (node(0),)
    assert decide(situation(3, *old, free=False, hopeful=True)).stops == ()
    assert decide(situation(3, *old[1:], starting(0), free=False)).stops == ()
    assert decide(situation(1, old[0], free=False)).stops == (node(0),)


def test_the_last_serving_one_of_several_is_never_stopped_for_a_newer_version() -> None:
    decision = decide(situation(2, ready(1, old=True), free=False))
    assert decision.stops == ()


def test_ill_replicas_are_replaced_and_stopped_first() -> None:
    ill = ready(3, ready=False, serving=False, ill=True)
    assert decide(situation(3, ready(1), ready(2), ill)).starts == 1
    assert decide(situation(3, ready(1), ready(2), ill, offers=1)).stops == (node(3),)
    assert decide(situation(3, ready(1), ready(2), ill, free=False)).stops == (node(3),)


FLAGS = st.booleans()


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    count = draw(st.integers(0, 7))
    replicas = []
    for number in range(count):
        is_ready = draw(FLAGS)
        replicas.append(
            Judged(
                node=node(number),
                ready=is_ready,
                serving=is_ready,
                acknowledged=draw(FLAGS),
                doubtful=draw(st.sampled_from([False, False, True])),
                ordered=draw(st.sampled_from([False, False, True])),
                old=draw(FLAGS),
                leaving=draw(st.sampled_from([False, False, True])),
                ill=not is_ready and draw(FLAGS),
                rank=draw(st.integers(0, 9)),
            )
        )
    return Situation(
        wanted=draw(st.integers(1, 5)),
        replicas=tuple(replicas),
        offers=draw(st.integers(0, 2)),
        free=draw(FLAGS),
        may_spare=draw(FLAGS),
        trim_now=draw(FLAGS),
        hopeful=draw(FLAGS),
    )


@given(situations())
def test_in_any_situation_no_decision_takes_the_service_away(given_situation: Situation) -> None:
    decision = decide(given_situation)
    replicas = {item.node: item for item in given_situation.replicas}
    stopped = [*decision.stops, *decision.trims]
    assert len(stopped) == len(set(stopped))
    for chosen in stopped:
        item = replicas[chosen]
        assert item.acknowledged and not item.doubtful and not item.ordered
    serving = [i for i in given_situation.replicas if i.serving and not i.ordered and not i.doubtful]
    left = [item for item in serving if item.node not in stopped]
    if given_situation.wanted >= 2:
        assert left or not serving, "at least one keeps serving"
    if given_situation.free:
        sound = [item for item in left if not item.outgoing]
        assert len(left) >= min(given_situation.wanted, len(serving)) or len(sound) >= given_situation.wanted


@given(situations())
def test_in_any_situation_starts_are_bounded(given_situation: Situation) -> None:
    decision = decide(given_situation)
    alive = [item for item in given_situation.replicas if not item.ordered]
    sound = [item for item in alive if not item.outgoing and not item.doubtful]
    assert decision.starts >= 0 and decision.spares in (0, 1)
    assert len(sound) + given_situation.offers + decision.starts <= max(
        given_situation.wanted, len(sound) + given_situation.offers
    )
    if decision.spares:
        assert any(item.doubtful for item in alive) and given_situation.may_spare


@given(situations())
def test_what_decides_is_what_there_is_not_its_order(given_situation: Situation) -> None:
    backwards = Situation(
        given_situation.wanted,
        tuple(reversed(given_situation.replicas)),
        given_situation.offers,
        given_situation.free,
        given_situation.may_spare,
        given_situation.trim_now,
        given_situation.hopeful,
    )
    assert decide(backwards) == decide(given_situation)


def test_the_only_one_that_can_be_had_is_replaced_by_stopping_it() -> None:
    """Three are wanted, one executor exists: a new version would never come (found by chaos, seed 160014)."""
    old = ready(1, old=True)
    assert decide(situation(3, old, free=False)).stops == (), "others may still come"
    assert decide(situation(3, old, free=False, short_for_long=True)).stops == (old.node,)
    assert decide(situation(3, old, free=True, short_for_long=True)).stops == (), "its successor comes first"
    assert decide(situation(3, old, ready(2), free=False, short_for_long=True)).stops == (old.node,)
