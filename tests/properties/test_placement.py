"""Placement against a naive twin: for any group, the same executors are fit, and the chosen one is among the best."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from colla.model.contribution import Contribution
from colla.model.ids import MemberId, NodeId, ObjectId
from colla.model.service import Limits, Specification
from colla.protocol.placement.scoring import Candidate, Verdict, choose, judge
from colla.protocol.supervision.messages import Capacity

OWNERS = [MemberId(bytes([number]) * 32) for number in range(4)]
NAMES = {owner: f"m{number}" for number, owner in enumerate(OWNERS)}


@st.composite
def candidates(draw: st.DrawFn, number: int = 0) -> Candidate:
    cpus = draw(st.sampled_from([0.0, 1.0, 2.0]))
    labels = draw(st.sampled_from([(), (("site", "home"),), (("site", "lab"), ("arch", "arm"))]))
    members = draw(st.sampled_from([(), ("m0",), (OWNERS[1].hex(), "m2")]))
    contribution = Contribution(
        cpus=cpus,
        memory_bytes=1000,
        environments=draw(st.sampled_from([("static",), ("static", "wasm"), ()])),
        members=members,
        denied_members=draw(st.sampled_from([(), (), tuple(NAMES.values())[:1]])),
        only_labels=draw(st.sampled_from([(), (), (("arch", "arm"),)])),
        denied_labels=draw(st.sampled_from([(), (), (("arch", "arm"),)])),
        own_only=draw(st.sampled_from([False, False, True])),
        labels=labels,
        draining=draw(st.sampled_from([False, False, False, True])),
        paused=draw(st.sampled_from([False, False, False, True])),
    )
    capacity = Capacity(
        cpus=cpus,
        cpus_reserved=draw(st.sampled_from([0.0, 0.5, 0.9])),
        memory_bytes=1000,
        memory_reserved_bytes=draw(st.sampled_from([0, 500, 950])),
        disk_free_bytes=draw(st.sampled_from([0, 50, 500])),
        replicas=draw(st.integers(0, 3)),
        replicas_max=draw(st.integers(1, 4)),
    )
    attached = tuple(kind for kind in contribution.environments if draw(st.integers(0, 9)))
    return Candidate(
        node=NodeId(bytes([number]) * 32),
        member=draw(st.sampled_from(OWNERS)),
        contribution=contribution,
        environments=attached,
        capacity=capacity,
        holds=draw(st.booleans()),
        present_s=draw(st.sampled_from([0.0, 60.0, 1e5])),
    )


@st.composite
def groups(draw: st.DrawFn) -> list[Candidate]:
    return [draw(candidates(number)) for number in range(draw(st.integers(0, 8)))]


@st.composite
def specifications(draw: st.DrawFn) -> Specification:
    return Specification(
        name="site",
        owner=draw(st.sampled_from(OWNERS)),
        version=1,
        object=ObjectId(b"o" * 32),
        object_bytes=100,
        environment=draw(st.sampled_from(["static", "wasm"])),
        limits=Limits(draw(st.sampled_from([0.1, 0.5, 1.0])), draw(st.sampled_from([50, 500]))),
        labels=draw(st.sampled_from([(), (), (("arch", "arm"),)])),
    )


def naively_fit(one: Candidate, wanted: Specification) -> bool:
    """Every constraint on its own line, from DESIGN sections 7 and 13."""
    gives, capacity, limits = one.contribution, one.capacity, wanted.limits
    assert capacity is not None
    rules = [
        not gives.paused,
        not gives.draining,
        wanted.environment in gives.environments,
        wanted.environment in one.environments,
        one.member == wanted.owner or not gives.own_only,
        gives.members == () or {wanted.owner.hex(), NAMES[wanted.owner]} & set(gives.members),
        not {wanted.owner.hex(), NAMES[wanted.owner]} & set(gives.denied_members),
        gives.only_labels == () or set(gives.only_labels) & set(wanted.labels),
        not set(gives.denied_labels) & set(wanted.labels),
        all(dict(gives.labels).get(key) == value for key, value in wanted.labels),
        capacity.replicas + 1 <= capacity.replicas_max,
        round(capacity.cpus_reserved + limits.cpus, 6) <= capacity.cpus,
        capacity.memory_reserved_bytes + limits.memory_bytes <= capacity.memory_bytes,
        one.holds or wanted.object_bytes <= capacity.disk_free_bytes,
    ]
    return all(rules)


def judged(group: list[Candidate], wanted: Specification, placed: list[Candidate]) -> list[Verdict]:
    return judge(group, wanted, NAMES[wanted.owner], placed)


@given(groups(), specifications())
def test_the_same_executors_are_fit_and_each_unfit_one_has_its_reason(
    group: list[Candidate], wanted: Specification
) -> None:
    verdicts = {verdict.node: verdict for verdict in judged(group, wanted, [])}
    assert len(verdicts) == len(group)
    for one in group:
        assert verdicts[one.node].fit == naively_fit(one, wanted), verdicts[one.node]
        assert verdicts[one.node].reason


@given(groups(), specifications(), st.integers(0, 3), st.integers(0, 99))
def test_the_chosen_one_spreads_best_and_is_among_the_best_three(
    group: list[Candidate], wanted: Specification, keeping: int, seed: int
) -> None:
    placed, others = group[:keeping], group[keeping:]
    verdicts = judged(others, wanted, placed)
    chosen = choose(verdicts, Random(seed), 3)
    fit = [one for one in others if naively_fit(one, wanted)]
    if not fit:
        assert chosen is None
        return
    assert chosen is not None
    by_node = {one.node: one for one in fit}

    def spread(one: Candidate) -> tuple[int, int]:
        site = one.contribution.label("site")
        members = sum(other.member == one.member for other in placed)
        return members, sum(bool(site) and other.contribution.label("site") == site for other in placed)

    best = min(spread(one) for one in fit)
    assert spread(by_node[chosen.node]) == best
    scores = sorted((v.score for v in verdicts if v.fit and v.spread == best), reverse=True)
    assert chosen.score >= scores[min(2, len(scores) - 1)]


@given(groups(), specifications(), st.integers(0, 3))
def test_the_order_of_the_candidates_does_not_matter(
    group: list[Candidate], wanted: Specification, keeping: int
) -> None:
    placed = group[:keeping]
    assert judged(group, wanted, placed) == judged(group[::-1], wanted, placed[::-1])


@given(groups(), specifications())
def test_what_is_better_in_one_respect_never_scores_lower(
    group: list[Candidate], wanted: Specification
) -> None:
    from msgspec.structs import replace

    for one in group:
        assert one.capacity is not None
        holding = replace(one, holds=True)
        long = replace(one, present_s=1e6)
        idle = replace(one, capacity=replace(one.capacity, cpus_reserved=0.0, memory_reserved_bytes=0))
        (before,) = judged([one], wanted, [])
        for better in (holding, long, idle):
            (after,) = judged([better], wanted, [])
            assert (after.fit, after.score) >= (before.fit, before.score)


def test_all_of_the_best_three_are_chosen_sometimes() -> None:
    verdicts = [Verdict(NodeId(bytes([n]) * 32), True, 5.0 - n, "fit") for n in range(5)]
    rng = Random(1)
    chosen = {choose(verdicts, rng, 3).node[0] for _ in range(60)}  # type: ignore[union-attr]
    assert chosen == {0, 1, 2}
