"""What the agents rely on, from every record store: `Durable.apply` is the contract, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, DropRecord, Persist, StoreCell, StoreRecord
from colla.kernel.events import Persisted, PersistFailed
from colla.model.record import SignedRecord

topics = st.sampled_from(["membership", "catalogue", "messages/ä"])
slots = st.sampled_from([b"", b"\0", b"one", b"two"])
names = st.sampled_from(["", "records/own/catalogue", "ballot/ü", "x" * 300])
writes = st.one_of(
    st.builds(
        StoreRecord, topics, slots, st.builds(SignedRecord, st.binary(max_size=64), st.binary(max_size=64))
    ),
    st.builds(DropRecord, topics, slots),
    st.builds(StoreCell, names, st.binary(max_size=64)),
    st.builds(DropCell, names),
)
batches = st.lists(st.lists(writes, max_size=4).map(tuple), min_size=1, max_size=6)
lives = st.lists(st.tuples(batches, st.sampled_from(["crash", "restart", "load"])), min_size=1, max_size=4)


def cell(number: int, name: str = "name", value: bytes | None = None) -> Persist:
    return Persist(number, (StoreCell(name, b"%d" % number if value is None else value),))


def large(number: int) -> Persist:
    return Persist(number, tuple(StoreCell(f"large-{number}-{part}", bytes(50_000)) for part in range(8)))


def test_a_new_store_is_empty(store: Any) -> None:
    assert store.load() == Durable()


@given(lives=lives)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_what_is_persisted_is_found_again(new_store: Callable[[], Any], lives: Any) -> None:
    store = new_store()
    expected = Durable({}, {})
    assert store.load() == expected
    number = 0
    for life, end in lives:
        effects = []
        for batch in life:
            number += 1
            effects.append(Persist(number, batch))
            expected.apply(batch)
        assert store.persist(*effects) == [Persisted(effect.id) for effect in effects]
        getattr(store, end)() if end != "load" else None
        assert store.load() == expected


def test_a_record_is_kept_byte_for_byte(store: Any) -> None:
    store.load()
    record = SignedRecord(bytes(range(256)) * 180, bytes(range(64)))
    store.persist(Persist(1, (StoreRecord("catalogue", b"\0slot", record),)))
    store.crash()
    assert store.load().records == {("catalogue", b"\0slot"): record}


def test_outcomes_come_in_order(store: Any) -> None:
    store.load()
    assert store.persist(*(cell(number) for number in range(200))) == [
        Persisted(number) for number in range(200)
    ]
    store.crash()
    assert store.load().cells == {"name": b"199"}


def test_a_persist_without_writes_has_its_outcome_too(store: Any) -> None:
    store.load()
    assert store.persist(Persist(7, ())) == [Persisted(7)]


def test_nothing_is_taken_before_it_was_loaded(store: Any) -> None:
    assert [type(outcome) for outcome in store.persist(cell(1))] == [PersistFailed]
    assert store.load() == Durable({}, {})


@pytest.mark.parametrize("end", ["crash", "restart"])
def test_a_full_disk_fails_that_persist_and_all_after_it(store: Any, end: str) -> None:
    store.load()
    assert store.persist(cell(1)) == [Persisted(1)]
    store.fill()
    outcomes = store.persist(large(2), cell(3), cell(4))
    assert [(type(outcome), outcome.id) for outcome in outcomes] == [
        (PersistFailed, number) for number in (2, 3, 4)
    ]
    assert all(outcome.why for outcome in outcomes)
    store.free()
    # Still: the agents that asked for this rest on what is not on the disk.
    assert [type(outcome) for outcome in store.persist(cell(5))] == [PersistFailed]
    assert store.load().cells == {"name": b"1"}
    assert store.persist(cell(6)) == [Persisted(6)]
    getattr(store, end)()
    assert store.load().cells == {"name": b"6"}


def test_what_came_before_the_one_that_failed_is_durable(store: Any) -> None:
    store.load()
    store.persist(cell(1, "a"), cell(2, "b"))
    store.fill()
    outcomes = store.persist(cell(3, "a"), large(4), cell(5, "a"))
    assert [type(outcome) for outcome in outcomes] == [Persisted, PersistFailed, PersistFailed]
    store.free()
    store.crash()
    assert store.load().cells == {"a": b"3", "b": b"2"}


def test_loading_twice_gives_two_that_do_not_share(store: Any) -> None:
    first = store.load()
    store.persist(cell(1))
    second = store.load()
    assert first == Durable({}, {})
    second.cells["name"] = b"changed by the agents"
    assert store.load().cells == {"name": b"1"}
