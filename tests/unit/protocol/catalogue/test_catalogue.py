"""The catalogue: what exists, who may change it, who holds a name."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import msgspec
import pytest

from colla.kernel.config import RecordConfig
from colla.kernel.durable import Durable
from colla.kernel.outbox import Outbox
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId, ServiceId, digest
from colla.model.record import TOPIC_CATALOGUE, Key, Record, Stamp
from colla.model.service import Limits, Specification
from colla.protocol.catalogue.bodies import Replicas, Specified, Wanted, encode, service_id
from colla.protocol.catalogue.catalogue import Catalogue, register_catalogue
from colla.protocol.records.book import RecordBook
from colla.protocol.views import Election, Identity, MemberInfo, NodeInfo, Role, Writer

ADA, BEN, EVE = (MemberId(digest(name)) for name in (b"ada", b"ben", b"eve"))


class Members:
    """A membership that tests change: nodes 0 and 1 are Ada's, 2 Ben's, 3 Eve's; Ben may be administrator."""

    group_name = "test"
    election = Election.HASHING

    def __init__(self, lab: ModuleType) -> None:
        self.owners = {lab.secret(n).public: owner for n, owner in enumerate((ADA, ADA, BEN, EVE))}
        self.roles = {ADA: "member", BEN: "member", EVE: "member"}
        self.names = {ADA: "ada", BEN: "ben", EVE: "eve"}

    def members(self) -> tuple[MemberInfo, ...]:
        return tuple(self._info(one) for one in sorted(self.names))

    def _info(self, member: MemberId) -> MemberInfo:
        return MemberInfo(member, self.names[member], self.roles[member], 0)

    def member(self, member: MemberId) -> MemberInfo | None:
        return self._info(member) if member in self.names else None

    def nodes(self) -> tuple[NodeInfo, ...]:
        return ()

    def node(self, node: NodeId) -> NodeInfo | None:
        return None

    def owner_of(self, node: NodeId) -> MemberId | None:
        return self.owners.get(node)

    def writer(self, record: Record) -> Writer | None:
        owner = self.owner_of(record.log.node)
        info = self.member(owner) if owner is not None else None
        return Writer(info.id, Role(info.role)) if info is not None else None


class Desk:
    """One node's book and catalogue."""

    def __init__(self, lab: ModuleType, number: int, members: Members) -> None:
        self.lab = lab
        identity = Identity(lab.GROUP, lab.secret(number))
        self.book = RecordBook(identity, RecordConfig(), Random(number), Outbox(1), Durable({}, {}))
        register_catalogue(self.book)
        self.book.opened()
        self.catalogue = Catalogue(self.book, members)
        self.me = members.owners.get(identity.node, EVE)

    def write(self, items: Any, seconds: float = 0.0) -> list[ServiceId]:
        records, _ = self.book.write(TOPIC_CATALOGUE, items, self.lab.instant(seconds))
        changes = [self.change(record) for record in records]
        return self.catalogue.records_changed(changes, self.lab.instant())

    def change(self, record: Record) -> Any:
        from colla.protocol.views import RecordChange

        return RecordChange(TOPIC_CATALOGUE, record.key)

    def hear(self, *desks: Desk) -> list[ServiceId]:
        changed: list[ServiceId] = []
        for desk in desks:
            signed = [record.signed for record in desk.book.all_records(TOPIC_CATALOGUE)]
            received = self.book.receive(signed, self.lab.instant())
            assert received.rejected == 0
            changed += self.catalogue.records_changed(received.changes, self.lab.instant())
        return changed

    def create(self, name: str, seconds: float = 0.0, active: bool = True, replicas: int = 2) -> ServiceId:
        service, items = self.catalogue.create(
            self.book._own._rng, specification(name, self.me), active, replicas, self.me
        )
        assert self.write(items, seconds) == [service]
        return service


def specification(name: str, owner: MemberId, /, **changes: Any) -> Specification:
    made = Specification(name, owner, 1, ObjectId(b"o" * 32), 10, "static")
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def members(lab: ModuleType) -> Members:
    return Members(lab)


@pytest.fixture
def ada(lab: ModuleType, members: Members) -> Desk:
    return Desk(lab, 0, members)


@pytest.fixture
def ada2(lab: ModuleType, members: Members) -> Desk:
    return Desk(lab, 1, members)


@pytest.fixture
def ben(lab: ModuleType, members: Members) -> Desk:
    return Desk(lab, 2, members)


@pytest.fixture
def eve(lab: ModuleType, members: Members) -> Desk:
    return Desk(lab, 3, members)


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(CollaError) as caught:
        call(*arguments)
    assert caught.value.message
    return caught.value.code


def test_a_created_service_exists_with_all_that_is_wanted(ada: Desk) -> None:
    service = ada.create("calendar", replicas=3)
    (found,) = ada.catalogue.services()
    assert found == ada.catalogue.service(service) == ada.catalogue.by_name("calendar")
    assert (found.name, found.owner, found.active, found.replicas) == ("calendar", ADA, True, 3)
    assert found.short and found.conflicts == () and found.specification.version == 1


def test_the_operations(ada: Desk) -> None:
    catalogue = ada.catalogue
    service = ada.create("calendar")
    assert ada.write(catalogue.deactivate(service, ADA)) == [service]
    assert not catalogue.services()[0].active
    assert ada.write(catalogue.activate(service, ADA)) == [service]
    assert ada.write(catalogue.activate(service, ADA)) == [], "nothing changed"
    assert ada.write(catalogue.scale(service, 5, ADA)) == [service]
    changed = specification("calendar", EVE, version=77, environment="wasm")
    assert ada.write(catalogue.modify(service, changed, ADA)) == [service]
    (found,) = catalogue.services()
    assert (found.active, found.replicas, found.specification.environment) == (True, 5, "wasm")
    assert (found.owner, found.specification.version) == (ADA, 2), "owner and version are not the caller's"
    assert ada.write(catalogue.eliminate(service, ADA)) == [service]
    assert catalogue.services() == () and catalogue.eliminated(service)
    assert catalogue.by_name("calendar") is None


def test_what_cannot_be_is_said(ada: Desk, ben: Desk) -> None:
    catalogue = ada.catalogue
    rng = Random(1)
    service = ada.create("calendar")
    ben.hear(ada)
    unknown = ServiceId(b"?" * 16)

    def create(name: str, owner: MemberId = ADA, replicas: int = 1, **changes: Any) -> str:
        return code(catalogue.create, rng, specification(name, owner, **changes), True, replicas, ADA)

    assert create("Calendar!") == "bad_name"
    assert create("a--b") == "bad_name"
    assert create("x" * 64) == "bad_name"
    assert create("calendar") == "name_taken"
    assert create("other", owner=BEN) == "not_owner"
    assert create("other", replicas=0) == "bad_replicas"
    assert create("other", replicas=65) == "too_many_replicas"
    assert create("other", environment="") == "bad_specification"
    assert create("other", limits=Limits(cpus=float("nan"))) == "bad_specification"
    assert create("other", limits=Limits(memory_bytes=10**40)) == "bad_specification"
    assert create("other", limits=Limits(processes=-1)) == "bad_specification"
    assert create("other", object_bytes=2**64 - 1) == "bad_specification"
    assert create("other", stop_grace_s=float("inf")) == "bad_specification"
    assert create("other", object=ObjectId(b"short")) == "bad_specification"
    for call, arguments in (
        (catalogue.activate, ()),
        (catalogue.deactivate, ()),
        (catalogue.eliminate, ()),
        (catalogue.scale, (2,)),
        (catalogue.modify, (specification("x", ADA),)),
    ):
        assert code(call, unknown, *arguments, ADA) == "not_found"
        assert code(getattr(ben.catalogue, call.__name__), service, *arguments, BEN) == "not_owner"
    assert code(catalogue.scale, service, 65, ADA) == "too_many_replicas"


def test_separate_matters_change_without_conflict(ada: Desk, ada2: Desk) -> None:
    service = ada.create("calendar")
    ada2.hear(ada)
    ada.write(ada.catalogue.scale(service, 7, ADA))
    ada2.write(ada2.catalogue.deactivate(service, ADA))
    ada.hear(ada2)
    ada2.hear(ada)
    assert ada.catalogue.services() == ada2.catalogue.services()
    (found,) = ada.catalogue.services()
    assert (found.replicas, found.active, found.conflicts) == (7, False, ())


def test_concurrent_changes_are_shown_as_a_conflict_until_settled(ada: Desk, ada2: Desk) -> None:
    service = ada.create("calendar")
    ada2.hear(ada)
    ada.write(ada.catalogue.scale(service, 7, ADA), 10)
    ada2.write(ada2.catalogue.scale(service, 8, ADA), 20)
    assert ada.hear(ada2) == [service]
    ada2.hear(ada)
    assert ada.catalogue.services() == ada2.catalogue.services()
    assert (ada.catalogue.services()[0].replicas, ada.catalogue.services()[0].conflicts) == (8, ("replicas",))
    ada.write(ada.catalogue.scale(service, 9, ADA), 15)
    ada2.hear(ada)
    for desk in (ada, ada2):
        assert (desk.catalogue.services()[0].replicas, desk.catalogue.services()[0].conflicts) == (9, ())


def test_concurrent_changes_to_the_same_are_no_conflict(ada: Desk, ada2: Desk) -> None:
    service = ada.create("calendar", active=False)
    ada2.hear(ada)
    ada.write(ada.catalogue.activate(service, ADA))
    ada2.write(ada2.catalogue.activate(service, ADA))
    ada.hear(ada2)
    assert ada.catalogue.services()[0].conflicts == ()


def test_elimination_beats_a_concurrent_change_and_nothing_brings_it_back(ada: Desk, ada2: Desk) -> None:
    service = ada.create("calendar")
    ada2.hear(ada)
    ada2.write(ada2.catalogue.modify(service, specification("calendar", ADA, environment="wasm"), ADA), 50)
    ada2.write(ada2.catalogue.activate(service, ADA), 60)
    ada.write(ada.catalogue.eliminate(service, ADA), 1)
    assert ada.hear(ada2) == [] and ada2.hear(ada) == [service]
    for desk in (ada, ada2):
        assert desk.catalogue.services() == () and desk.catalogue.eliminated(service)
    assert ada.catalogue.fingerprint() == ada2.catalogue.fingerprint()


def test_a_tombstone_is_small_and_takes_its_logs_records_along(ada: Desk) -> None:
    service = ada.create("calendar")
    ada.write(ada.catalogue.eliminate(service, ADA))
    (left,) = ada.book.all_records(TOPIC_CATALOGUE)
    assert left.key == Key("gone", service)
    assert left.size <= 200
    assert ada.catalogue.eliminated(service)


def test_others_cannot_change_eliminate_or_take_over(ada: Desk, eve: Desk) -> None:
    """Eve's node writes whatever it likes, with a `seen` that covers everything Ada did."""
    service = ada.create("calendar")
    (before,) = ada.catalogue.services()
    eve.hear(ada)
    nonce = b"n" * 16
    mine = specification("calendar", EVE)
    entry = ada.catalogue._entries[service]
    eve.write([(Key("wanted", service), encode(Wanted(False)))], 99)
    eve.write([(Key("replicas", service), encode(Replicas(64)))], 99)
    eve.write([(Key("gone", service), b"")], 99)
    stolen = specification("calendar", ADA, environment="evil")
    eve.write([(Key("spec", service), encode(Specified(entry.nonce, None, stolen)))], 99)
    foreign = eve.lab.forge(
        3, 50, Key("spec", service), encode(Specified(nonce, None, mine)), topic=TOPIC_CATALOGUE
    )
    assert ada.hear(eve) == []
    assert ada.catalogue.services() == (before,)
    assert not ada.catalogue.eliminated(service)
    assert ada.book.receive([foreign.signed], ada.lab.instant()).rejected == 1, "the id is not Eve's"
    # Ada goes on as if nothing had been said.
    assert ada.write(ada.catalogue.scale(service, 4, ADA), 1) == [service]
    assert ada.catalogue.services()[0].replicas == 4


def test_an_administrator_may(ada: Desk, ben: Desk, members: Members) -> None:
    service = ada.create("calendar")
    members.roles[BEN] = "administrator"
    ben.hear(ada)
    ben.write(ben.catalogue.deactivate(service, BEN))
    assert ada.hear(ben) == [service]
    assert not ada.catalogue.services()[0].active
    members.roles[BEN] = "member"
    assert ada.catalogue.membership_changed() == [service], "authority is judged now, never at merge"
    assert ada.catalogue.services()[0].active


def test_records_of_unknown_authors_show_when_membership_knows_them(
    lab: ModuleType, ada: Desk, members: Members
) -> None:
    service = ada.create("calendar")
    late = Members(lab)
    owners, late.owners = late.owners, {}
    other = Desk(lab, 2, late)
    assert other.hear(ada) == []
    assert other.catalogue.services() == ()
    late.owners = owners
    assert other.catalogue.membership_changed() == [service]
    assert other.catalogue.services() == ada.catalogue.services()


def test_the_earlier_claim_holds_the_short_name(ada: Desk, ben: Desk) -> None:
    later = ada.create("calendar", seconds=20)
    earlier = ben.create("calendar", seconds=10)
    assert sorted(ada.hear(ben)) == sorted((earlier, later)), "the later one lost its short name"
    assert ben.hear(ada) == [later]
    for desk in (ada, ben):
        catalogue = desk.catalogue
        by_name = {name: catalogue.by_name(name) for name in ("calendar", "calendar--ada", "calendar--ben")}
        assert {name: found.id for name, found in by_name.items() if found} == {
            "calendar": earlier,
            "calendar--ada": later,
            "calendar--ben": earlier,
        }
        assert catalogue.by_name("calendar--eve") is None
        assert [found.short for found in catalogue.services() if found.id == later] == [False]
    ben.write(ben.catalogue.eliminate(earlier, BEN))
    assert sorted(ada.hear(ben)) == sorted((earlier, later)), "and has it again"
    found = ada.catalogue.by_name("calendar")
    assert found is not None and found.id == later and found.short


def test_a_claim_survives_modification_but_not_renaming(ada: Desk, ben: Desk) -> None:
    first = ada.create("calendar", seconds=10)
    second = ben.create("calendar", seconds=20)
    ada.hear(ben)
    ada.write(ada.catalogue.modify(first, specification("calendar", ADA, environment="wasm"), ADA), 90)
    ada.write(ada.catalogue.modify(first, specification("calendar", ADA, environment="static"), ADA), 91)
    holder = ada.catalogue.by_name("calendar")
    assert holder is not None and holder.id == first
    ada.write(ada.catalogue.modify(first, specification("agenda", ADA), ADA), 92)
    holder = ada.catalogue.by_name("calendar")
    assert holder is not None and holder.id == second
    assert code(ada.catalogue.modify, first, specification("calendar", ADA), ADA) == "name_taken"
    ben.hear(ada)
    assert code(ben.catalogue.modify, second, specification("agenda", BEN), BEN) == "name_taken"


def test_a_new_name_is_a_new_claim(ada: Desk, ben: Desk) -> None:
    """Ada's service is older, but Ben had the name first."""
    mine = ada.create("calendar", seconds=10)
    his = ben.create("agenda", seconds=50)
    ada.write(ada.catalogue.modify(mine, specification("agenda", ADA), ADA), 92)
    ada.hear(ben)
    holder = ada.catalogue.by_name("agenda")
    assert holder is not None and holder.id == his


def test_the_loser_of_a_name_may_still_be_modified(ada: Desk, ben: Desk) -> None:
    later = ada.create("calendar", seconds=20)
    ben.create("calendar", seconds=10)
    ada.hear(ben)
    assert ada.write(ada.catalogue.modify(later, specification("calendar", ADA, public=True), ADA)) == [later]


def test_versions_grow_over_concurrent_modifications(ada: Desk, ada2: Desk) -> None:
    service = ada.create("calendar")
    ada2.hear(ada)
    for _ in range(3):
        ada.write(ada.catalogue.modify(service, specification("calendar", ADA), ADA), 1)
    ada2.write(ada2.catalogue.modify(service, specification("calendar", ADA, public=True), ADA), 50)
    ada.hear(ada2)
    assert ada.catalogue.services()[0].specification.version == 2, "the later stamp won"
    ada.write(ada.catalogue.modify(service, specification("calendar", ADA), ADA), 60)
    assert ada.catalogue.services()[0].specification.version == 5, "above all versions that ever were"


def test_equal_records_in_any_order_give_equal_catalogues(
    ada: Desk, ada2: Desk, ben: Desk, eve: Desk
) -> None:
    ada.create("calendar", 3)
    ada2.create("calendar", 2)
    ben.create("calendar", 1)
    gone = ben.create("site", 1)
    ben.write(ben.catalogue.eliminate(gone, BEN))
    ada.hear(ada2, ben)
    eve.hear(ben, ada2, ada)
    ben.hear(eve)
    assert ada.catalogue.services() == eve.catalogue.services() == ben.catalogue.services()
    assert ada.catalogue.fingerprint() == eve.catalogue.fingerprint() == ben.catalogue.fingerprint()
    assert [len(found.conflicts) for found in eve.catalogue.services()] == [0, 0, 0]


BAD_BODIES: dict[str, tuple[str, bytes]] = {
    "spec garbage": ("spec", b"\xc1"),
    "spec of another id": ("spec", encode(Specified(b"x" * 16, None, specification("a", ADA)))),
    "spec without a proper nonce": ("spec", encode(Specified(b"", None, specification("a", ADA)))),
    "wanted garbage": ("wanted", b"\x05"),
    "no replicas": ("replicas", encode(Replicas(0))),
    "too many replicas": ("replicas", encode(Replicas(65))),
    "a tombstone with a body": ("gone", b"x"),
    "nested beyond all measure": ("wanted", b"\x92\xc3" + b"\x91" * 40_000),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bad_bodies_are_rejected(ada: Desk, case: str) -> None:
    kind, body = BAD_BODIES[case]
    record = ada.lab.forge(0, 1, Key(kind, service_id(ADA, b"n" * 16)), body, topic=TOPIC_CATALOGUE)
    assert ada.book.receive([record.signed], ada.lab.instant()).rejected == 1
    assert ada.book.rejections == {"invalid_body": 1}


def test_bad_specifications_and_subjects_are_rejected(ada: Desk) -> None:
    nonce = b"n" * 16
    service = service_id(ADA, nonce)
    for changes in ({"name": "No Label"}, {"version": 0}, {"object": ObjectId(b"x")}, {"stop_grace_s": -1.0}):
        body = encode(Specified(nonce, None, specification("a", ADA, **changes)))
        record = ada.lab.forge(0, 1, Key("spec", service), body, topic=TOPIC_CATALOGUE)
        assert ada.book.receive([record.signed], ada.lab.instant()).rejected == 1
    short = ada.lab.forge(0, 1, Key("gone", b"short"), b"", topic=TOPIC_CATALOGUE)
    assert ada.book.receive([short.signed], ada.lab.instant()).rejected == 1


def test_kinds_and_fields_of_later_versions_pass(ada: Desk) -> None:
    nonce = b"n" * 16
    service = service_id(ADA, nonce)
    later = msgspec.msgpack.encode([*msgspec.to_builtins(Replicas(3)), "and a field more"])
    ada.book.receive(
        [
            ada.lab.forge(0, 1, Key("secrets", b"whatever"), b"\xc1", topic=TOPIC_CATALOGUE).signed,
            ada.lab.forge(0, 2, Key("replicas", service), later, topic=TOPIC_CATALOGUE).signed,
            ada.lab.forge(
                0,
                3,
                Key("spec", service),
                encode(Specified(nonce, Stamp(1), specification("a", ADA))),
                topic=TOPIC_CATALOGUE,
            ).signed,
        ],
        ada.lab.instant(),
    )
    ada.catalogue.membership_changed()
    (found,) = ada.catalogue.services()
    assert (found.replicas, found.active) == (3, False)
    assert len(ada.book.all_records(TOPIC_CATALOGUE)) == 3
