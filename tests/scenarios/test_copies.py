"""Copies of named objects: made before a put is acknowledged, kept while computers die, remade in time, never collected."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colla.agents.requests import Contribute, NameObject, ObjectNamed, ObjectPlaced, PlaceObject, RemoveName
from colla.kernel.config import Config, CopiesConfig
from colla.model.ids import NodeId, ObjectId, digest
from colla.protocol.naming.bodies import Named
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

FILM = ObjectId(digest(b"a film"))
FILM_BYTES = 20_000_000
SOON = CopiesConfig(check_interval_s=5.0, remake_after_s=60.0, unreferenced_kept_s=60.0, surplus_kept_s=60.0)
"""An hour is a minute here, so that scenarios need not run for hours of virtual time."""


def named(path: str, object_id: ObjectId = FILM, size_bytes: int = FILM_BYTES) -> Named:
    return Named(path, object_id, size_bytes, size_bytes, 1, False)


def put(group: SimGroup, at: Computer, path: str, object_id: ObjectId = FILM) -> ObjectPlaced:
    """Put as the node's shell does: store here, let copies be made, name it."""
    at.put_object(object_id, FILM_BYTES)
    placed = group.answer(at, PlaceObject(object_id, FILM_BYTES))
    assert isinstance(placed, ObjectPlaced)
    written = group.answer(at, NameObject(named(path, object_id), replace=True))
    assert isinstance(written, ObjectNamed)
    return placed


def holders(group: SimGroup, object_id: ObjectId = FILM) -> list[Computer]:
    """Running computers that have the whole object on their disks."""
    return [one for one in group.computers if one.up and object_id in one.objects.sizes]


def of_nodes(group: SimGroup, nodes: Sequence[NodeId]) -> list[Computer]:
    return [one for one in group.computers if one.node in nodes]


def test_what_was_acknowledged_survives_any_two_of_its_holders(new_scenario):
    scenario = new_scenario(6, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    placed = put(group, group[0], "film")
    assert placed.copies == placed.wanted == len(of_nodes(group, placed.holders)) == 3
    dying = of_nodes(group, placed.holders)[:2]
    group.crash(*dying)
    # Nobody waits for an hour: there are fewer than two.
    keepers = [one for one in holders(group) if one.node in placed.holders]
    assert len(keepers) == 1
    group.until(lambda: len(holders(group)) >= 3, 60.0, "three copies again")
    scenario.settle(60.0)


def test_those_who_are_asked_and_die_in_the_middle_are_replaced(new_scenario):
    scenario = new_scenario(6, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    group[0].put_object(FILM, FILM_BYTES)
    asked = group[0].ask(PlaceObject(FILM, FILM_BYTES))
    group.until(lambda: sum(bool(one.objects.missing) for one in group.computers) >= 2, 10.0, "two fetch")
    dying = [one for one in group.computers if one.objects.missing][:2]
    group.crash(*dying)
    group.until(lambda: asked.answered, 120.0, "the put is acknowledged")
    assert asked.result.copies == 3
    assert not {one.node for one in dying} & set(asked.result.holders)
    assert len(holders(group)) >= 3


def test_a_closed_laptop_sets_off_nothing_and_one_that_stays_away_is_replaced(new_scenario):
    scenario = new_scenario(6, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    at = of_nodes(group, group[0].core.foundation.repositories_for(FILM)[:1])[0]
    placed = put(group, at, "film")
    laptop = next(one for one in of_nodes(group, placed.holders) if one is not at)
    before = len(holders(group))
    assert before == 3
    laptop.suspend()
    group.run(45.0)
    assert len(holders(group)) == before - 1, "a copy that is away for a moment is waited for"
    laptop.resume()
    group.run(30.0)
    laptop.suspend()
    group.run(45.0)
    assert len(holders(group)) == before - 1, "and its hour begins anew"
    group.until(lambda: len(holders(group)) == before, 60.0, "until the hour is over")


def test_an_owner_who_gives_less_is_obeyed_and_the_copies_move(new_scenario):
    scenario = new_scenario(6, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    placed = put(group, group[0], "film")
    owner = next(one for one in of_nodes(group, placed.holders) if one is not group[0])
    gives = msgspec.structs.replace(owner.settings.contribution, disk_bytes=FILM_BYTES // 2)
    owner.ask(Contribute(gives))
    group.until(lambda: FILM not in owner.objects.sizes, 60.0, "nothing is left where nothing is given")
    group.until(lambda: len(holders(group)) >= 3, 60.0, "others hold it")
    group.run(30.0)
    assert FILM not in owner.objects.sizes


def test_damage_everywhere_is_healed_from_whoever_has_the_rest(new_scenario):
    scenario = new_scenario(5, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    placed = put(group, group[0], "film")
    damaged = of_nodes(group, placed.holders)[:2]
    for computer in damaged:
        computer.objects.damage(FILM)
        computer.objects.read(FILM)
    assert all(FILM not in computer.objects.sizes for computer in damaged)
    group.until(lambda: all(FILM in computer.objects.sizes for computer in damaged), 30.0, "both are healed")


def test_nothing_that_is_referenced_is_collected_and_what_is_not_goes(new_scenario):
    scenario = new_scenario(5, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    old, draft = ObjectId(digest(b"first cut")), ObjectId(digest(b"never named"))
    put(group, group[0], "film", old)
    put(group, group[1], "also", old)
    put(group, group[0], "film", FILM)
    group[2].put_object(draft, FILM_BYTES)
    group.run(200.0)
    assert len(holders(group, old)) >= 3, "another name leads to it"
    assert len(holders(group)) >= 3
    assert holders(group, draft) == [], "nobody ever named it"
    group.answer(group[1], RemoveName("also"))
    group.until(lambda: holders(group, old) == [], 200.0, "the last name is gone")
    assert len(holders(group)) == 3, "and copies too many go as well"
    scenario.settle(30.0)


def test_a_slow_put_is_not_collected_by_those_who_are_done(new_scenario):
    """The last copy takes longer than unreferenced objects are kept: the first ones wait for it."""
    scenario = new_scenario(5, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    at = group[0]
    at.put_object(FILM, 20 * FILM_BYTES)
    asked = at.ask(PlaceObject(FILM, 20 * FILM_BYTES))
    group.until(lambda: asked.answered, 1000.0, "all copies are made")
    assert group.world.now_s > 2 * SOON.unreferenced_kept_s
    assert asked.result.copies == 3
    assert len([one for one in holders(group) if one.node in asked.result.holders]) == 3
    assert isinstance(group.answer(at, NameObject(named("film", FILM, 20 * FILM_BYTES))), ObjectNamed)


def test_concurrent_writes_of_a_name_keep_the_loser(new_scenario):
    scenario = new_scenario(6, replicas=0, config=Config(copies=SOON))
    group = scenario.group
    other = ObjectId(digest(b"another film"))
    left, right = group.computers[:3], group.computers[3:]
    group.partition(left, right)
    group.run(15.0)
    put(group, left[0], "film", FILM)
    put(group, right[0], "film", other)
    group.run(60.0)
    group.heal()
    names = [one.core.foundation.names for one in group.computers]
    group.until(
        lambda: all(each.find("film") == names[0].find("film") for each in names), 60.0, "all see the same"
    )
    entry = names[0].find("film")
    assert entry is not None
    assert sorted((entry.current.object, entry.conflicts[0].object)) == sorted((FILM, other))
    group.run(200.0)
    assert len(holders(group, FILM)) >= 3
    assert len(holders(group, other)) >= 3, "the loser is kept as well"
