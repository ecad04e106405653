"""The text of a ticket: what comes back, and what people do to it on the way."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import GroupId, NodeId
from colla.model.keys import SecretKey
from colla.protocol.membership.bodies import claim_holds
from colla.protocol.membership.founding import found
from colla.protocol.membership.tickets import (
    CONTACTS_MAX,
    Contact,
    TicketText,
    choose_contacts,
    read_ticket,
    write_ticket,
)
from colla.protocol.views import Election


def make_ticket(contacts: int = 2, own_computer: bool = False) -> TicketText:
    rng = Random(3)
    return TicketText(
        group=GroupId(rng.randbytes(32)),
        group_name="book-club",
        seed=rng.randbytes(32),
        author=NodeId(rng.randbytes(32)),
        own_computer=own_computer,
        expires_s=1_800_000_000.5,
        contacts=tuple(
            Contact(NodeId(rng.randbytes(32)), (f"192.0.2.{number}:7000", "home.example.org:7000"))
            for number in range(contacts)
        ),
    )


def code_of(text: str) -> str:
    with pytest.raises(CollaError) as caught:
        read_ticket(text)
    assert caught.value.hint
    return caught.value.code


def test_a_ticket_survives_case_and_line_breaks() -> None:
    text = write_ticket(make_ticket())
    assert text.startswith("colla1")
    lines = "\n  ".join(text[at : at + 60] for at in range(0, len(text), 60))
    assert read_ticket(f" {lines.upper()} \n") == make_ticket()


def test_a_ticket_fits_into_a_chat_message() -> None:
    assert len(write_ticket(make_ticket(CONTACTS_MAX))) < 900


def test_every_truncation_is_called_truncated() -> None:
    text = write_ticket(make_ticket())
    for length in range(1, len(text)):
        assert code_of(text[:length]) == "ticket_truncated", length


def test_what_is_no_ticket_is_called_mangled() -> None:
    text = write_ticket(make_ticket())
    for wrong in (
        "",
        "hello",
        "https://example.org/colla1",
        text + "qq",
        text + text,
        "x" * 100_000,
        text[1:],
    ):
        assert code_of(wrong) == "ticket_mangled", wrong[:40]


def test_no_other_text_means_the_same_ticket() -> None:
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    for length in range(1, 9):
        # Base 32 leaves up to four spare bits at the end, and forgives a character that makes no whole byte.
        text = write_ticket(msgspec.structs.replace(make_ticket(), group_name="a" * length))
        others = [text[:-1] + last for last in alphabet] + [text + last for last in alphabet]
        for other in others:
            if other != text:
                assert code_of(other) in ("ticket_mangled", "ticket_truncated"), (length, other[-2:])


def test_a_ticket_of_another_version_is_called_so() -> None:
    text = write_ticket(make_ticket())
    assert code_of("colla2" + text[6:]) == "ticket_version"


def test_contacts_are_bounded() -> None:
    many = [Contact(NodeId(bytes(32)), tuple(f"10.0.0.{n}:1" for n in range(40))) for _ in range(9)]
    chosen = choose_contacts(many)
    assert len(chosen) == CONTACTS_MAX
    assert (
        read_ticket(write_ticket(msgspec.structs.replace(make_ticket(), contacts=chosen))).contacts == chosen
    )
    long = [Contact(NodeId(bytes(32)), tuple(f"{n}" * 250 for n in range(6))) for _ in range(4)]
    with pytest.raises(CollaError) as caught:
        write_ticket(msgspec.structs.replace(make_ticket(), contacts=choose_contacts(long)))
    assert caught.value.code == "ticket_too_long"


def test_claims_hold_and_any_change_breaks_them() -> None:
    ticket = make_ticket()
    node, member = NodeId(bytes([1]) * 32), SecretKey(bytes([2]) * 32)
    claim = ticket.claim(node, "bobs-laptop", member, "bob")
    assert claim_holds(ticket.group, claim)
    assert not claim_holds(GroupId(bytes(32)), claim)
    for field, value in (
        ("author", bytes(32)),
        ("node", bytes(32)),
        ("member", bytes(32)),
        ("member_name", "eve"),
        ("node_name", "eves-laptop"),
        ("certificate", bytes(64)),
        ("signature", bytes(64)),
    ):
        assert not claim_holds(ticket.group, msgspec.structs.replace(claim, **{field: value})), field
    own = make_ticket(own_computer=True).claim(node, "laptop", member, "bob")
    assert own.own_computer and claim_holds(ticket.group, own)


@pytest.mark.parametrize("name", ["", "Ada", "a--b", "-a", "a-", "ä", "a b", "a" * 64, "a.b"])
def test_bad_names_are_refused_when_founding_and_joining(name: str) -> None:
    rng, now = Random(1), Instant(0.0, 1.0)
    member, node = SecretKey(bytes([1]) * 32), SecretKey(bytes([2]) * 32)
    for names in ((name, "ada", "desk"), ("club", name, "desk"), ("club", "ada", name)):
        with pytest.raises(CollaError) as caught:
            found(names[0], Election.HASHING, member, node, names[1], names[2], rng, now)
        assert caught.value.code == "bad_name"
        assert caught.value.hint
    with pytest.raises(CollaError):
        make_ticket().claim(NodeId(node.public), name, member, "bob")
