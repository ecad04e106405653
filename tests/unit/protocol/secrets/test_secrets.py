"""Secrets: who may set them, who can read them, what a change does to the version, and what is bounded."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import msgspec
import pytest

from colla.kernel.config import RecordConfig, SecretsConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import Persist
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, ObjectId, ServiceId, digest
from colla.model.record import TOPIC_CATALOGUE, Key
from colla.model.secret import SECRETS_MAX, Hidden
from colla.model.service import Specification
from colla.protocol.catalogue.catalogue import Catalogue, register_catalogue
from colla.protocol.records.book import RecordBook
from colla.protocol.secrets.bodies import KIND_SECRET, SecretBody, check_secret, encode, secret_key
from colla.protocol.secrets.keyring import CELL_PREFIX, Keyring
from colla.protocol.secrets.writing import SecretWriting
from colla.protocol.views import Identity, MemberInfo, NodeInfo, RecordChange, Role, Writer

ADA, BEN, EVE = (MemberId(digest(name)) for name in (b"ada", b"ben", b"eve"))
NOW = Instant(0.0, 1_000.0)


class Members:
    """Nodes 0 and 1 are Ada's, 2 Ben's, 3 Eve's."""

    def __init__(self, lab: ModuleType) -> None:
        self.owners = {NodeId(lab.secret(n).public): who for n, who in enumerate((ADA, ADA, BEN, EVE))}
        self.roles = {ADA: "member", BEN: "administrator", EVE: "member"}

    def member(self, member: MemberId) -> MemberInfo | None:
        return MemberInfo(member, member.hex()[:4], self.roles[member], 0) if member in self.roles else None

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(NodeInfo(node, who, "") for node, who in sorted(self.owners.items()))

    def owner_of(self, node: NodeId) -> MemberId | None:
        return self.owners.get(node)

    def writer(self, record: Any) -> Writer | None:
        who = self.owners.get(record.log.node)
        return Writer(who, Role(self.roles[who])) if who is not None else None


class Desk:
    """One node: its records, catalogue, keyring and what it may write."""

    def __init__(self, lab: ModuleType, number: int, durable: Durable | None = None) -> None:
        self.lab, self.members = lab, Members(lab)
        identity = Identity(lab.GROUP, lab.secret(number))
        self.node, self.me = identity.node, self.members.owners[identity.node]
        self.outbox, self.durable = Outbox(1), durable or Durable({}, {})
        rng, config = Random(number), SecretsConfig()
        self.book = RecordBook(identity, RecordConfig(), rng, self.outbox, Durable({}, {}))
        register_catalogue(self.book)
        self.book.opened()
        self.catalogue = Catalogue(self.book, self.members)  # type: ignore[arg-type]
        self.writing = SecretWriting(identity, config, rng, self.catalogue, self.members)  # type: ignore[arg-type]
        self.keyring = Keyring(identity, config, rng, self.outbox, self.durable, self.catalogue)
        self.rng = rng

    def write(self, items: Any) -> None:
        records, _ = self.book.write(TOPIC_CATALOGUE, items, self.lab.instant(0.0))
        changes = [RecordChange(TOPIC_CATALOGUE, record.key) for record in records]
        self.catalogue.records_changed(changes, NOW)

    def create(self) -> ServiceId:
        made = Specification("shop", self.me, 1, ObjectId(b"o" * 32), 10, "process", uses=("secret:KEY",))
        service, items = self.catalogue.create(self.rng, made, True, 2, self.me)
        self.write(items)
        return service

    def set(self, service: ServiceId, **values: str) -> None:
        pairs = [(name, Hidden(value)) for name, value in values.items()]
        self.write(self.writing.set(service, pairs, self.me))

    def hear(self, *desks: Desk) -> Desk:
        for desk in desks:
            signed = [record.signed for record in desk.book.all_records(TOPIC_CATALOGUE)]
            received = self.book.receive(signed, self.lab.instant())
            assert received.rejected == 0
            self.catalogue.records_changed(received.changes, NOW)
        return self

    def version(self, service: ServiceId) -> int:
        found = self.catalogue.service(service)
        assert found is not None
        return found.specification.version

    def reads(self, service: ServiceId) -> dict[str, str]:
        return {name: value.text for name, value in self.keyring.reveal(service)}

    def give(self, service: ServiceId, to: Desk) -> bytes | None:
        found = self.catalogue.service(service)
        assert found is not None
        return self.keyring.give(found, [secret.id for secret in found.secrets], to.node)


@pytest.fixture
def desks(lab: ModuleType) -> list[Desk]:
    return [Desk(lab, number) for number in range(4)]


def test_the_computers_of_the_owner_can_read_and_others_when_given(desks: list[Desk]) -> None:
    ada, ada2, ben, eve = desks
    service = ada.create()
    found = ada.catalogue.service(service)
    assert found is not None and found.lacking == ("KEY",)
    ada.set(service, KEY="value", OTHER="more")
    for desk in (ada2, ben, eve):
        desk.hear(ada)
    assert ada.reads(service) == ada2.reads(service) == {"KEY": "value", "OTHER": "more"}
    assert ben.reads(service) == {} and len(ben.keyring.lacking(service)) == 2
    assert ben.give(service, eve) is None, "who has no key gives none"

    sealed = ada2.give(service, ben)
    assert sealed is not None and not eve.keyring.take(service, sealed), "it is for one node"
    assert ben.keyring.take(service, sealed) and ben.reads(service) == ada.reads(service)
    assert not ben.keyring.lacking(service)
    passed_on = ben.give(service, eve)
    assert passed_on is not None and eve.keyring.take(service, passed_on)


def test_what_was_given_is_kept_sealed_until_it_is_not_needed(desks: list[Desk], lab: ModuleType) -> None:
    ada, _, ben, _ = desks
    service = ada.create()
    ada.set(service, KEY="value")
    ben.hear(ada)
    sealed = ada.give(service, ben)
    assert sealed is not None and ben.keyring.take(service, sealed)
    for effect in ben.outbox.drain():
        if isinstance(effect, Persist):
            ben.durable.apply(effect.writes)
    (cell,) = [value for name, value in ben.durable.cells.items() if name.startswith(CELL_PREFIX)]
    assert b"value" not in cell

    again = Desk(lab, 2, ben.durable).hear(ada)
    assert again.reads(service) == {"KEY": "value"}
    stolen = Desk(lab, 3, ben.durable).hear(ada)
    assert stolen.reads(service) == {}, "another computer cannot open its cells"
    kept_s = SecretsConfig().kept_s
    again.keyring.tidy([service], NOW)
    again.keyring.tidy([], Instant(1.0, 1.0))
    again.keyring.tidy([], Instant(kept_s, 1.0))
    assert again.reads(service) == {"KEY": "value"}
    again.keyring.tidy([], Instant(kept_s + 1.0, 1.0))
    assert again.reads(service) == {}


def test_every_change_makes_a_version_and_needs_a_new_key(desks: list[Desk]) -> None:
    ada, _, ben, _ = desks
    service = ada.create()
    assert ada.version(service) == 1
    ada.set(service, KEY="one")
    sealed = ada.give(service, ben.hear(ada))
    assert sealed is not None and ben.keyring.take(service, sealed)
    ada.set(service, KEY="two")
    assert ada.version(service) == 3
    assert ben.hear(ada).reads(service) == {}, "the old key opens nothing new"
    specification = ada.catalogue.service(service).specification  # type: ignore[union-attr]
    ada.write(ada.catalogue.modify(service, specification, ADA))
    assert ada.version(service) == 4, "one more, whatever secrets there are"
    ada.write(ada.writing.remove(service, ["KEY"], ADA))
    assert ada.version(service) == 5 and ada.reads(service) == {}
    ada.set(service, KEY="three")
    assert ada.version(service) == 6 == ben.hear(ada).version(service)


def test_concurrent_values_end_alike_everywhere(desks: list[Desk]) -> None:
    ada, ada2, ben, _ = desks
    service = ada.create()
    ada2.hear(ada)
    ada.set(service, KEY="one")
    ada2.set(service, KEY="two")
    for desk in (ada, ada2, ben):
        desk.hear(ada, ada2)
    assert ada.reads(service) == ada2.reads(service)
    assert ada.version(service) == ada2.version(service) == ben.version(service)


def test_only_who_may_change_the_service_may_change_its_secrets(desks: list[Desk]) -> None:
    ada, _, ben, eve = desks
    service = ada.create()
    with pytest.raises(CollaError) as raised:
        eve.hear(ada).set(service, KEY="mine")
    assert raised.value.code == "not_owner"
    ben.hear(ada).set(service, KEY="by an administrator")
    assert ada.hear(ben).reads(service) == {"KEY": "by an administrator"}
    forged = SecretBody(7, (), b"x" * 32)
    eve.write([(secret_key(service, "FORGED"), encode(forged))])
    before = ada.version(service)
    assert ada.hear(eve).version(service) == before, "it counts for nothing"
    assert [one.name for one in ada.catalogue.service(service).secrets] == ["KEY"]  # type: ignore[union-attr]


def test_what_was_sealed_for_one_service_opens_in_no_other(desks: list[Desk]) -> None:
    ada, ada2, _, eve = desks
    service = ada.create()
    ada.set(service, KEY="value")
    secret = ada.catalogue.service(service).secrets[0]  # type: ignore[union-attr]
    own = eve.hear(ada).catalogue
    made = Specification("trap", EVE, 1, ObjectId(b"o" * 32), 10, "process")
    trap, items = own.create(Random(9), made, True, 1, EVE)
    eve.write([*items, (secret_key(trap, "KEY"), encode(SecretBody(1, secret.keys, secret.sealed)))])
    assert ada.hear(eve).reads(trap) == {} and ada2.hear(ada, eve).reads(trap) == {}
    assert ada.give(trap, eve) is None


def test_elimination_takes_the_values_away(desks: list[Desk]) -> None:
    ada, ada2, *_ = desks
    service = ada.create()
    ada.set(service, KEY="value")
    ada.write(ada.catalogue.eliminate(service, ADA))
    ada2.hear(ada)
    for desk in (ada, ada2):
        records = [one for one in desk.book.all_records(TOPIC_CATALOGUE) if one.key.kind == KIND_SECRET]
        assert all(len(record.body) < 8 for record in records)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"lower-case": "x"}, "bad_secret_name"),
        ({"PORT": "80"}, "bad_secret_name"),
        ({"COLLA_TOKEN": "x"}, "bad_secret_name"),
        ({"KEY": ""}, "bad_secret"),
        ({"KEY": "a\0b"}, "bad_secret"),
        ({"KEY": "x" * 32769}, "secrets_too_large"),
        ({"A": "x" * 30000, "B": "x" * 30000}, "secrets_too_large"),
        ({f"K{number}": "x" for number in range(SECRETS_MAX + 1)}, "too_many_secrets"),
    ],
)
def test_what_cannot_be_set(desks: list[Desk], values: dict[str, str], code: str) -> None:
    ada = desks[0]
    service = ada.create()
    with pytest.raises(CollaError) as raised:
        ada.set(service, **values)
    assert raised.value.code == code


def test_values_are_never_shown() -> None:
    assert "value" not in repr(Hidden("value")) and "value" not in str([Hidden("value")])


class _Record(msgspec.Struct):
    key: Key
    body: bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        encode(SecretBody(1, (), b"short")),
        msgspec.msgpack.encode((0, (), b"")),
        msgspec.msgpack.encode((1, ((b"n" * 32, b"too short"),), b"x" * 32)),
        msgspec.msgpack.encode((1, ((b"n" * 32, b"w" * 80),) * 65, b"x" * 32)),
        msgspec.msgpack.encode((1, ((b"n" * 32, b"w" * 80),), b"")),
    ],
)
def test_malformed_records_are_not_held(body: bytes) -> None:
    with pytest.raises(ValueError):
        check_secret(_Record(secret_key(ServiceId(b"s" * 16), "KEY"), body))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        check_secret(_Record(Key(KIND_SECRET, b"s" * 16), encode(SecretBody(1))))  # type: ignore[arg-type]
