"""The rings: everybody watched by K others, evenly, the same for everybody who knows the same nodes."""

from __future__ import annotations

from random import Random

import pytest

from colla.model.ids import NodeId
from colla.protocol.presence.rings import Places, Rings


def nodes(count: int) -> list[NodeId]:
    rng = Random(count)
    return sorted(NodeId(rng.randbytes(32)) for _ in range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 30, 200])
def test_everybody_has_as_many_different_watchers_as_there_can_be(count: int) -> None:
    present = nodes(count)
    rings = Rings(present, present, 4, Places(4))
    for node in present:
        watchers = rings.watchers_of(node)
        assert len(watchers) == len(set(watchers)) == min(4, count - 1)
        assert node not in watchers
        for watcher in watchers:
            assert node in rings.watched_by(watcher)


def test_the_load_is_even() -> None:
    present = nodes(100)
    rings = Rings(present, present, 4, Places(4))
    assert max(len(rings.watched_by(node)) for node in present) <= 8


def test_one_that_comes_or_goes_changes_few_pairs() -> None:
    present = nodes(60)
    before = Rings(present, present, 4, Places(4))
    after = Rings(present[1:], present[1:], 4, Places(4))
    changed = [node for node in present[1:] if before.watchers_of(node) != after.watchers_of(node)]
    assert len(changed) <= 12


def test_who_carries_no_group_agent_does_not_watch_unless_nobody_does() -> None:
    present = nodes(20)
    few = present[:3]
    rings = Rings(present, few, 4, Places(4))
    for node in present:
        assert set(rings.watchers_of(node)) == set(few) - {node}
    nobody = Rings(present, [], 4, Places(4))
    assert all(len(nobody.watchers_of(node)) == 4 for node in present)
    single = Rings(present, few[:1], 4, Places(4))
    assert len(single.watchers_of(few[0])) == 4
    assert single.watchers_of(present[5]) == (few[0],)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, 0.0])
def test_rings_made_of_those_before_are_the_rings_made_anew(share: float) -> None:
    rng, places, everybody = Random(7), Places(4), nodes(90)
    rings = None
    for _ in range(40):
        present = sorted(rng.sample(everybody, rng.randint(80, 90)))
        watching = [node for node in present if rng.random() < share or share == 1.0]
        rings = Rings(present, watching, 4, places, rings)
        anew = Rings(present, watching, 4, places)
        for node in everybody:
            assert rings.watchers_of(node) == anew.watchers_of(node)
            assert rings.watched_by(node) == anew.watched_by(node)


@pytest.mark.parametrize("watching_count", [0, 1, 2, 5, 6, 7, 30])
def test_whoever_is_watched_by_a_node_has_it_among_its_watchers(watching_count: int) -> None:
    present = nodes(30)
    watching = sorted(Random(3).sample(present, watching_count))
    rings = Rings(present, watching, 4, Places(4))
    for watcher in present:
        subjects = tuple(node for node in present if watcher in rings.watchers_of(node))
        assert rings.watched_by(watcher) == subjects
