"""Membership is a pure function of the set of records, and tickets do not survive mangling."""

from __future__ import annotations

from functools import cache
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import GroupId, LogId, NodeId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_MEMBERSHIP, Log, Payload, Record, Stamp, sign_record
from colla.protocol.membership.bodies import (
    Admitted,
    Body,
    Settled,
    Ticket,
    encode_body,
    key_of,
    sign_claim,
)
from colla.protocol.membership.founding import found
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.tickets import Contact, TicketText, read_ticket, write_ticket
from colla.protocol.views import Election

EXPIRES_S = 2_000_000_000.0


class Held:
    """Records in a given order, without a book."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def all_records(self, topic: str) -> tuple[Record, ...]:
        return tuple(self.records)


class Author:
    """A node that writes records of its own log, each a second after the one before."""

    def __init__(self, group: GroupId, secret: SecretKey, member: SecretKey) -> None:
        self.group, self.secret, self.member = group, secret, member
        self.id = NodeId(secret.public)
        self.log = Log(self.id, LogId(secret.seed[:16]), TOPIC_MEMBERSHIP)
        self.number = 1

    def write(self, body: Body, wall_ms: int) -> Record:
        self.number += 1
        payload = Payload(self.log, self.number, key_of(body), Stamp(wall_ms), (), encode_body(body))
        return sign_record(self.group, self.secret, payload)


def key(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32))


@cache
def history() -> tuple[GroupId, tuple[Record, ...], bytes]:
    """Two members besides the founder; a ticket of the founder's raced by both; the loser admits another node."""
    member, node = key(1), key(2)
    founded = found("club", Election.HASHING, member, node, "ada", "desk", Random(1), Instant(0.0, 1.0))
    group = founded.group
    ada = Author(group, node, member)
    records = list(founded.records)
    clock = iter(range(10_000, 99_000_000, 1000))

    def invite(inviter: Author, ticket: SecretKey) -> None:
        body = Ticket(ticket.public, inviter.member.public, EXPIRES_S, False)
        records.append(inviter.write(body, next(clock)))

    def admit(by: Author, inviter: Author, ticket: SecretKey, number: int) -> Author:
        joiner = Author(group, key(number), key(number + 1))
        name = f"n{number}"
        claim = sign_claim(group, ticket, inviter.id, joiner.id, name, joiner.member, f"m{number}")
        records.append(by.write(Admitted(claim, 5.0), next(clock)))
        return joiner

    for ticket in (10, 11, 12):
        invite(ada, key(ticket))
    bob = admit(ada, ada, key(10), 100)
    eve = admit(ada, ada, key(11), 110)
    winner = admit(bob, ada, key(12), 120)
    loser = admit(eve, ada, key(12), 130)
    invite(loser, key(13))
    admit(loser, loser, key(13), 140)
    invite(winner, key(14))
    admit(bob, winner, key(14), 150)
    records.append(ada.write(Settled(key(12).public, winner.id), next(clock)))
    # Said later in the same log, so it does not count; and by one who has no say.
    records.append(ada.write(Settled(key(12).public, loser.id), next(clock)))
    records.append(eve.write(Settled(key(12).public, loser.id), next(clock)))
    return group, tuple(records), loser.id


@given(st.permutations(range(len(history()[1]))), st.integers(0, 5))
@settings(max_examples=60)
def test_any_order_of_arrival_gives_the_same_members(order: list[int], refresh_every: int) -> None:
    group, records, loser = history()
    held = Held()
    membership = Membership(group, held)
    for count, index in enumerate(order):
        held.records.append(records[index])
        if refresh_every and count % refresh_every == 0:
            membership.refresh()
    membership.refresh()
    assert {node.name for node in membership.nodes()} == {"desk", "n100", "n110", "n120", "n150"}
    assert loser in membership.void_authors()
    reference = Held()
    reference.records = list(records)
    expected = Membership(group, reference)
    assert membership.nodes() == expected.nodes()
    assert membership.members() == expected.members()
    assert membership.fingerprint() == expected.fingerprint()


@given(st.sets(st.integers(0, len(history()[1]) - 1)))
@settings(max_examples=60)
def test_every_member_can_prove_it_with_part_of_the_records(chosen: set[int]) -> None:
    group, records, _ = history()
    held = Held()
    held.records = [records[index] for index in sorted(chosen)]
    membership = Membership(group, held)
    for node in membership.nodes():
        alone = Held()
        alone.records = list(membership.proof_of(node.id))
        assert Membership(group, alone).node(node.id) is not None
    if 0 not in chosen:
        assert membership.nodes() == ()


@cache
def ticket_text() -> str:
    rng = Random(5)
    contact = Contact(NodeId(rng.randbytes(32)), ("198.51.100.7:7000",))
    group, author = GroupId(rng.randbytes(32)), NodeId(rng.randbytes(32))
    return write_ticket(TicketText(group, "club", rng.randbytes(32), author, False, 2e9, (contact,)))


@given(st.data())
@settings(max_examples=300)
def test_a_mangled_ticket_is_never_read_as_another(data: st.DataObject) -> None:
    original = ticket_text()
    characters = list(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(characters) - 1))
        match data.draw(st.sampled_from(["replace", "insert", "delete", "swap"])):
            case "replace":
                characters[at] = data.draw(st.characters(codec="utf-8"))
            case "insert":
                characters.insert(at, data.draw(st.characters(codec="utf-8")))
            case "delete":
                del characters[at]
            case _:
                characters[at - 1], characters[at] = characters[at], characters[at - 1]
    mangled = "".join(characters)
    try:
        ticket = read_ticket(mangled)
    except CollaError as error:
        assert error.code in ("ticket_mangled", "ticket_truncated", "ticket_version")
    else:
        assert ticket == read_ticket(original)
        assert "".join(mangled.split()).lower() == original


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    for candidate in (text, "colla1" + text):
        try:
            read_ticket(candidate)
        except CollaError:
            continue
        raise AssertionError("arbitrary text was read as a ticket")
