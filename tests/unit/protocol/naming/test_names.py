"""Named objects: which path leads where, what lost, and who may say so."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.outbox import Outbox
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId, digest
from colla.model.record import TOPIC_OBJECTS, Key, Record
from colla.protocol.naming.bodies import KeyFor, Named, Sealing, clean_path, encode, key_of
from colla.protocol.naming.names import NOTHING, Names, register_names
from colla.protocol.records.book import RecordBook
from colla.protocol.views import Identity, MemberInfo, RecordChange, Role, Writer

ADA, BEN, EVE = (MemberId(digest(name)) for name in (b"ada", b"ben", b"eve"))


def named(path: str, content: str) -> Named:
    return Named(path, ObjectId(digest(content.encode())), len(content), len(content), 1, False)


class Members:
    """Nodes 0 and 1 are Ada's, 2 Ben's, 3 Eve's, who is a guest."""

    def __init__(self, lab: ModuleType) -> None:
        self.owners = {lab.secret(n).public: owner for n, owner in enumerate((ADA, ADA, BEN, EVE))}
        self.roles = {ADA: "administrator", BEN: "member", EVE: "guest"}

    def member(self, member: MemberId) -> MemberInfo | None:
        return MemberInfo(member, "somebody", self.roles[member], 0) if member in self.roles else None

    def owner_of(self, node: NodeId) -> MemberId | None:
        return self.owners.get(node)

    def writer(self, record: Record) -> Writer | None:
        owner = self.owner_of(record.log.node)
        info = self.member(owner) if owner is not None else None
        return Writer(info.id, Role(info.role)) if info is not None else None


class Desk:
    """One node's book and names."""

    def __init__(self, lab: ModuleType, number: int, members: Members) -> None:
        self.lab = lab
        identity = Identity(lab.GROUP, lab.secret(number))
        self.book = RecordBook(identity, RecordConfig(), Random(number), Outbox(1), Durable({}, {}))
        register_names(self.book)
        self.book.opened()
        self.names = Names(self.book, members)  # type: ignore[arg-type]
        self.me = members.owners[identity.node]

    def put(self, path: str, content: str, seconds: float = 0.0, **more: Any) -> None:
        self.write(self.names.name(named(path, content), self.me, **more), seconds)

    def write(self, items: Any, seconds: float = 0.0) -> None:
        records, _ = self.book.write(TOPIC_OBJECTS, items, self.lab.instant(seconds))
        self.names.records_changed([RecordChange(TOPIC_OBJECTS, record.key) for record in records])

    def hear(self, *desks: Desk) -> bool:
        changed = False
        for other in desks:
            signed = [record.signed for record in other.book.all_records(TOPIC_OBJECTS)]
            changed |= self.names.records_changed(self.book.receive(signed, self.lab.instant()).changes)
        return changed

    def leads(self, path: str) -> ObjectId | None:
        entry = self.names.find(path)
        return entry.current.object if entry is not None else None


@pytest.fixture
def members(lab: ModuleType) -> Members:
    return Members(lab)


@pytest.fixture
def desks(lab: ModuleType, members: Members) -> list[Desk]:
    return [Desk(lab, number, members) for number in range(4)]


def code_of(call: Any, *words: Any, **named_words: Any) -> str:
    with pytest.raises(CollaError) as caught:
        call(*words, **named_words)
    return caught.value.code


def test_a_path_leads_to_what_was_put_last(desks: list[Desk]) -> None:
    ada, _, ben, _ = desks
    ada.put("notes/one.txt", "first")
    assert ben.hear(ada)
    assert not ben.hear(ada)
    assert ben.leads("notes/one.txt") == named("", "first").object
    ben.put("notes/one.txt", "second", replace=True)
    ada.hear(ben)
    for desk in (ada, ben):
        entry = desk.names.find("notes/one.txt")
        assert entry is not None
        assert (entry.current.object, entry.current.member) == (named("", "second").object, BEN)
        assert entry.conflicts == ()
        assert [version.object for version in entry.earlier] == [named("", "first").object]


def test_of_concurrent_writes_the_later_wins_and_the_loser_is_kept_and_shown(desks: list[Desk]) -> None:
    ada, _, ben, _ = desks
    ada.put("plan", "hers", 1.0)
    ben.put("plan", "his", 2.0)
    ada.hear(ben)
    ben.hear(ada)
    assert ada.names.find("plan") == ben.names.find("plan")
    entry = ada.names.find("plan")
    assert entry is not None
    assert entry.current.object == named("", "his").object
    assert [(version.object, version.member) for version in entry.conflicts] == [
        (named("", "hers").object, ADA)
    ]
    assert sorted(ada.names.referenced()) == sorted(named("", text).object for text in ("his", "hers"))
    ada.put("plan", "ours", 3.0, replace=True)
    ben.hear(ada)
    entry = ben.names.find("plan")
    assert entry is not None
    assert entry.conflicts == ()
    assert list(ben.names.referenced()) == [named("", "ours").object]


def test_a_removal_is_a_version_like_any_other(desks: list[Desk]) -> None:
    ada, _, ben, _ = desks
    ada.put("plan", "hers", 1.0)
    ben.hear(ada)
    ada.write(ada.names.remove("plan", ADA), 2.0)
    assert ada.names.find("plan") is None
    assert ada.names.referenced() == {}
    assert code_of(ada.names.remove, "plan", ADA) == "not_found"
    ben.put("plan", "his", 3.0, replace=True)
    ada.hear(ben)
    assert ada.leads("plan") == named("", "his").object, "what was written concurrently and later is not lost"
    ben.hear(ada)
    entry = ben.names.find("plan")
    assert entry is not None
    assert [version.named for version in entry.conflicts] == [None], "that it was removed is shown"


def test_what_was_removed_last_keeps_what_was_written_concurrently(desks: list[Desk]) -> None:
    ada, _, ben, _ = desks
    ada.put("plan", "hers", 1.0)
    ben.hear(ada)
    ben.put("plan", "his", 2.0, replace=True)
    ada.write(ada.names.remove("plan", ADA), 3.0)
    ada.hear(ben)
    entry = ada.names.find("plan")
    assert entry is not None
    assert entry.current.named is None
    assert [version.object for version in entry.conflicts] == [named("", "his").object]


def test_anothers_is_replaced_only_where_that_is_said(desks: list[Desk]) -> None:
    ada, second, ben, _ = desks
    ada.put("plan", "hers")
    ben.hear(ada)
    second.hear(ada)
    assert code_of(ben.names.name, named("plan", "his"), BEN) == "name_taken"
    assert code_of(ben.names.remove, "plan", BEN) == "name_taken"
    second.put("plan", "from my other computer")
    ben.names.remove("plan", BEN, replace=True)


def test_compare_and_set(desks: list[Desk]) -> None:
    ada = desks[0]
    ada.put("counter", "1", expected=NOTHING)
    assert code_of(ada.names.name, named("counter", "2"), ADA, NOTHING) == "changed_meanwhile"
    assert code_of(ada.names.name, named("counter", "2"), ADA, named("", "0").object) == "changed_meanwhile"
    ada.put("counter", "2", expected=named("", "1").object)
    assert code_of(ada.names.remove, "counter", ADA, NOTHING) == "changed_meanwhile"
    assert ada.leads("counter") == named("", "2").object


def test_guests_and_strangers_write_nothing_that_counts(desks: list[Desk], members: Members) -> None:
    ada, _, ben, eve = desks
    assert code_of(eve.names.name, named("x", "hers"), EVE) == "not_allowed"
    eve.write([(key_of("x"), encode(named("x", "hers")))])
    assert ada.hear(eve) is False
    members.roles[EVE] = "member"
    assert ada.names.membership_changed()
    assert ada.leads("x") == named("", "hers").object
    ben.put("mine", "his")
    ada.hear(ben)
    del members.owners[ben.book.identity.node]
    assert ada.names.membership_changed()
    assert ada.leads("mine") is None


def test_paths_are_listed_in_order_and_by_their_beginning(desks: list[Desk]) -> None:
    ada = desks[0]
    for path in ("b", "a/2", "a/1", "ab"):
        ada.put(path, path)
    assert [entry.path for entry in ada.names.entries()] == ["a/1", "a/2", "ab", "b"]
    assert [entry.path for entry in ada.names.entries("a/")] == ["a/1", "a/2"]


@pytest.mark.parametrize("path", ["", "/x", "x/", "a//b", "../x", "a/./b", "c:x", "a\\b", "a\nb", "x" * 2000])
def test_what_cannot_be_a_path_is_refused(path: str) -> None:
    assert code_of(clean_path, path) == "bad_name"


def test_a_path_is_one_however_its_letters_are_composed() -> None:
    assert clean_path("cafe\u0301") == clean_path("caf\u00e9") == "caf\u00e9"


@pytest.mark.parametrize(
    "body",
    [
        encode(named("elsewhere", "x")),
        encode(named("../x", "x")),
        b"",
        b"\xc1",
        encode(Named("x", ObjectId(b"short"), 1, 1, 1, False)),
        encode(Named("x", ObjectId(bytes(32)), -1, 1, 1, False)),
        encode(Named("x", ObjectId(bytes(32)), 1, 1, 1, False, Sealing(False, (), ()))),
        encode(
            Named("x", ObjectId(bytes(32)), 1, 1, 1, False, Sealing(False, (), (KeyFor(NodeId(b""), b""),)))
        ),
    ],
)
def test_a_body_that_breaks_a_rule_is_not_held(lab: ModuleType, desks: list[Desk], body: bytes) -> None:
    record = lab.forge(0, 1, key_of("x"), body, topic=TOPIC_OBJECTS)
    assert desks[1].book.receive([record.signed], lab.instant()).rejected == 1
    later = lab.forge(0, 1, Key("later kind", bytes(16)), body, topic=TOPIC_OBJECTS)
    assert desks[1].book.receive([later.signed], lab.instant()).rejected == 0


@settings(max_examples=40, deadline=None)
@given(
    acts=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 5)), max_size=8),
    meetings=st.lists(st.permutations(range(3)), max_size=3),
    last=st.permutations(range(3)),
)
def test_whoever_heard_the_same_sees_the_same(
    lab: ModuleType, acts: list[tuple[int, str, int]], meetings: list[list[int]], last: list[int]
) -> None:
    members = Members(lab)
    desks = [Desk(lab, number, members) for number in range(3)]
    for turn, (who, path, content) in enumerate(acts):
        desk = desks[who]
        if content == 0 and desk.names.find(path) is not None:
            desk.write(desk.names.remove(path, desk.me, replace=True), turn)
        else:
            desk.put(path, str(content), turn, replace=True)
        for first, second, _ in meetings[turn : turn + 1]:
            desks[first].hear(desks[second])
    for one in last:
        for other in last:
            desks[one].hear(desks[other])
    views = [[desk.names.find(path) for path in "ab"] for desk in desks]
    assert views[0] == views[1] == views[2]
    assert desks[0].names.referenced() == desks[1].names.referenced()
