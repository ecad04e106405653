"""The handshake: who is accepted, who is refused and why, and how joiners come in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from colla.kernel.config import MembershipConfig
from colla.model.ids import GroupId, digest
from colla.model.keys import SecretKey
from colla.model.record import Key, Payload, Stamp, sign_record
from colla.protocol.membership.bodies import Admitted, Settled, check_record, encode_body
from colla.protocol.membership.conclusions import (
    Joined,
    JoinRefused,
    PeerAccepted,
    PeerDropped,
    RefusedByPeer,
)
from colla.protocol.membership.messages import (
    Greeting,
    JoinRefusal,
    JoinRequest,
    Proof,
    ProofWanted,
    Versions,
    Welcome,
)


def test_a_founder_is_the_only_member(world: Any) -> None:
    ada = world.found()
    (member,) = ada.membership.members()
    (node,) = ada.membership.nodes()
    assert (member.name, member.role, member.seniority) == ("ada-owner", "administrator", 0)
    assert (node.id, node.name, node.member) == (ada.id, "ada", member.id)
    assert ada.membership.group_name == "book-club"


def test_joining_makes_a_member_and_both_accept_each_other(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    assert bob.of(Joined) == [Joined(ada.id)]
    assert bob.admission.accepted(ada.id) and ada.admission.accepted(bob.id)
    assert bob.membership.nodes() == ada.membership.nodes()
    assert [member.role for member in bob.membership.members()].count("member") == 1
    assert "admitted" in ada.notices


def test_an_own_computer_belongs_to_the_inviter(world: Any) -> None:
    ada = world.found()
    laptop = world.joined("laptop", ada, own_computer=True)
    assert laptop.of(Joined)
    assert len(laptop.membership.members()) == 1
    assert laptop.membership.owner_of(laptop.id) == ada.membership.owner_of(ada.id)
    # The inviter's second computer may invite as well.
    bob = world.joined("bob", laptop)
    assert bob.of(Joined)


def test_known_members_accept_each_other_by_one_greeting_each(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    world.disconnect(ada, bob)
    assert not ada.admission.accepted(bob.id)
    world.sent.clear()
    world.connect(ada, bob)
    world.settle()
    assert ada.admission.accepted(bob.id) and bob.admission.accepted(ada.id)
    assert [type(message) for _, _, message in world.sent] == [Greeting, Greeting]


def test_a_new_member_is_no_stranger_to_a_node_that_had_not_heard_of_it(world: Any) -> None:
    ada = world.found()
    bob, eve = world.joined("bob", ada), world.joined("eve", ada)
    assert bob.membership.node(eve.id) is None
    world.connect(bob, eve)
    world.settle()
    assert bob.admission.accepted(eve.id) and eve.admission.accepted(bob.id)
    assert bob.membership.node(eve.id) is not None
    asked = [to for _, to, message in world.sent if isinstance(message, ProofWanted)]
    assert eve.id in asked


def test_a_stranger_is_refused_and_makes_nobody_store_anything(world: Any) -> None:
    ada = world.found()
    mallory = world.stranger("mallory", ada.identity.group)
    mallory.book.write(Settled(bytes(32), mallory.id), world.now)
    held = dict(ada.book.held)
    world.lost = lambda sender, to, message: False
    world.connect(ada, mallory)
    world.settle()
    assert not ada.admission.accepted(mallory.id)
    assert PeerDropped(mallory.id, "stranger") in ada.concluded
    assert [one.code for one in mallory.of(RefusedByPeer)] == ["stranger"]
    assert ada.book.held == held
    assert (ada.id, mallory.id) not in world.links


def test_a_strangers_forged_or_foreign_proof_is_refused(world: Any, make_world: Any) -> None:
    ada = world.found()
    other = make_world()
    other.rng.seed(99)
    foreign = other.found("zoe")
    mallory = world.stranger("mallory", ada.identity.group)
    world.connect(ada, mallory)
    greeting = Greeting(ada.identity.group, Versions(1, 1), 1, b"other")
    ada.conclude(ada.admission.message(mallory.id, greeting, world.now))
    for record in foreign.book.held.values():
        message = Proof((record.signed,), True)
        ada.conclude(ada.admission.message(mallory.id, message, world.now))
    assert [one.code for one in ada.of(PeerDropped)] == ["bad_proof"]


def test_a_record_whose_key_names_another_body_proves_nothing(world: Any) -> None:
    ada = world.found()
    mallory = world.stranger("mallory", ada.identity.group)
    body = encode_body(Settled(bytes(32), mallory.id))
    key = Key("settled", digest(b"something else")[:16])
    record = sign_record(
        ada.identity.group, mallory.secret, Payload(mallory.book.log, 1, key, Stamp(1), (), body)
    )
    with pytest.raises(ValueError, match="digest"):
        check_record(record)
    world.connect(ada, mallory)
    greeting = Greeting(ada.identity.group, Versions(1, 1), 1, b"other")
    ada.conclude(ada.admission.message(mallory.id, greeting, world.now))
    ada.conclude(ada.admission.message(mallory.id, Proof((record.signed,), False), world.now))
    assert ada.of(PeerDropped) == [PeerDropped(mallory.id, "bad_proof")]


def test_another_group_and_another_version_are_refused(world: Any) -> None:
    ada = world.found()
    lost = world.stranger("lost", GroupId(bytes(32)))
    world.connect(ada, lost)
    world.settle()
    assert PeerDropped(lost.id, "other_group") in ada.concluded
    bob = world.joined("bob", ada)
    world.disconnect(ada, bob)
    bob.admission._versions = Versions(2, 3)
    world.connect(ada, bob)
    world.settle()
    assert "other_version" in [one.code for one in ada.of(PeerDropped)]


def test_neighbouring_versions_interoperate(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    world.disconnect(ada, bob)
    bob.admission._versions = Versions(1, 2)
    world.connect(ada, bob)
    world.settle()
    assert ada.admission.accepted(bob.id) and bob.admission.accepted(ada.id)


def test_too_many_strangers_and_too_frequent_ones_are_sent_away(make_world: Any) -> None:
    world = make_world(MembershipConfig(peers_pending_max=3, strangers_per_address_max=2))
    ada = world.found()
    strangers = [world.stranger(f"s{number}", ada.identity.group) for number in range(6)]
    for number, stranger in enumerate(strangers[:4]):
        ada.conclude(ada.admission.link_opened(stranger.id, [f"10.1.0.{number}:1"], world.now))
    assert PeerDropped(strangers[3].id, "busy") in ada.concluded
    for stranger in strangers:
        ada.conclude(ada.admission.link_closed(stranger.id, world.now))
    ada.concluded.clear()
    for port, stranger in enumerate(strangers[:3]):
        ada.conclude(ada.admission.link_opened(stranger.id, [f"10.2.0.1:{port}"], world.now))
        ada.conclude(ada.admission.link_closed(stranger.id, world.now))
    assert ada.concluded == [PeerDropped(strangers[2].id, "busy")]
    world.now = world.now.later(61.0)
    ada.concluded.clear()
    ada.conclude(ada.admission.link_opened(strangers[3].id, ["10.2.0.1:9"], world.now))
    assert ada.concluded == []


def test_a_proof_that_is_too_long_is_cut_off(make_world: Any) -> None:
    world = make_world(MembershipConfig(proof_bytes_max=600))
    ada = world.found()
    mallory = world.stranger("mallory", ada.identity.group)
    for number in range(8):
        mallory.book.write(Settled(bytes([number]) * 32, mallory.id), world.now)
    world.connect(ada, mallory)
    signed = tuple(record.signed for record in mallory.book.held.values())
    ada.conclude(
        ada.admission.message(mallory.id, Greeting(ada.identity.group, Versions(1, 1), 1, b""), world.now)
    )
    ada.conclude(ada.admission.message(mallory.id, Proof(signed, False), world.now))
    assert PeerDropped(mallory.id, "proof_too_long") in ada.concluded


def test_a_handshake_of_endless_messages_ends(world: Any) -> None:
    ada = world.found()
    mallory = world.stranger("mallory", ada.identity.group)
    ada.conclude(ada.admission.link_opened(mallory.id, ["10.9.9.9:1"], world.now))
    for _ in range(world.config.handshake_messages_max + 1):
        ada.conclude(ada.admission.message(mallory.id, ProofWanted(), world.now))
    assert ada.of(PeerDropped) == [PeerDropped(mallory.id, "busy")]


def test_a_silent_peer_is_given_up(world: Any) -> None:
    ada = world.found()
    mute = world.stranger("mute", ada.identity.group)
    world.lost = lambda sender, to, message: sender == mute.id
    world.connect(ada, mute)
    world.wait(world.config.greeting_timeout_s + 2.0)
    assert PeerDropped(mute.id, "silent") in ada.concluded


@pytest.mark.parametrize("count", [1, 2, 3])
def test_lost_greetings_and_proofs_are_repeated(world: Any, count: int) -> None:
    ada = world.found()
    bob, eve = world.joined("bob", ada), world.joined("eve", ada)
    left = {"messages": count}

    def lost(sender: bytes, to: bytes, message: object) -> bool:
        left["messages"] -= 1
        return left["messages"] >= 0

    world.lost = lost
    world.connect(bob, eve)
    world.wait(4.0)
    assert bob.admission.accepted(eve.id) and eve.admission.accepted(bob.id)


def test_a_restart_on_the_same_link_is_told(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    ada.concluded.clear()
    again = Greeting(ada.identity.group, Versions(1, 1), 1, b"")
    ada.conclude(ada.admission.message(bob.id, again, world.now.later(1)))
    ada.conclude(ada.admission.message(bob.id, msgspec.structs.replace(again, start=2), world.now.later(2)))
    assert ada.of(PeerAccepted) == [PeerAccepted(bob.id, 2)]


def test_refusals_of_joins(world: Any) -> None:
    ada = world.found()
    expired = ada.invite(valid_s=10.0)
    used = ada.invite()
    bob = world.stranger("bob", ada.identity.group)
    bob.join(used, ada)
    world.settle()
    world.wait(60.0)
    codes: dict[str, str] = {}
    unknown = msgspec.structs.replace(used, seed=bytes(32))
    for name, ticket in (("expired", expired), ("used", used), ("unknown", unknown)):
        joiner = world.stranger(f"j-{name}", ada.identity.group)
        joiner.join(ticket, ada)
        world.settle()
        world.wait(15.0)
        (refused,) = joiner.of(JoinRefused)
        codes[name] = refused.code
        assert ada.membership.node(joiner.id) is None
        assert not ada.admission.accepted(joiner.id)
    assert codes == {"expired": "clocks_differ", "used": "ticket_used", "unknown": "ticket_unknown"}


def test_a_wrong_clock_keeps_nobody_out_while_another_computer_lets_in(world: Any) -> None:
    ada = world.found()
    bob = world.stranger("bob", ada.identity.group)
    bob.join(ada.invite(), ada)
    world.settle()
    assert bob.of(Joined)
    ticket = ada.invite()
    world.settle()
    bob.ahead_s = 30 * 86400.0
    carol = world.stranger("carol", ada.identity.group)
    carol.join(ticket, bob, ada)
    world.settle()
    world.wait(5.0)
    assert carol.of(Joined) and not carol.of(JoinRefused)


def test_a_claim_of_another_node_or_with_a_wrong_signature_is_refused(world: Any) -> None:
    ada = world.found()
    ticket = ada.invite()
    bob, thief = world.stranger("bob", ada.identity.group), world.stranger("thief", ada.identity.group)
    claim = ticket.claim(bob.id, "bob", bob.member, "bob-owner")
    stolen = thief.admission.join(claim, [ada.contact()], world.now)
    thief.conclude(stolen)
    world.settle()
    assert [one.code for one in thief.of(JoinRefused)] == ["bad_signature"]
    forged = msgspec.structs.replace(claim, node_name="better-name")
    bob.conclude(bob.admission.join(forged, [ada.contact()], world.now))
    world.settle()
    assert [one.code for one in bob.of(JoinRefused)] == ["bad_signature"]
    bob.join(ticket, ada)
    world.settle()
    assert bob.of(Joined)


def test_repeating_a_join_changes_nothing(world: Any) -> None:
    ada = world.found()
    ticket = ada.invite()
    bob = world.stranger("bob", ada.identity.group)
    world.lost = lambda sender, to, message: isinstance(message, Welcome)
    bob.join(ticket, ada)
    world.settle()
    assert not bob.of(Joined)
    world.lost = lambda sender, to, message: False
    world.wait(3.0)
    assert bob.of(Joined) == [Joined(ada.id)]
    kinds = [record.key.kind for record in ada.book.held.values()]
    assert kinds.count("admitted") == 1


def test_a_node_without_group_agent_sends_the_joiner_on(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    ticket = ada.invite()
    bob.learn(list(ada.book.held.values()))
    bob.admits = False
    eve = world.stranger("eve", ada.identity.group)
    eve.join(ticket, bob, ada)
    world.settle()
    assert eve.of(Joined) == [Joined(ada.id)]


def test_a_node_without_group_agent_tells_where_those_are_that_have_one(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    ticket = ada.invite()
    bob.learn(list(ada.book.held.values()))
    bob.admits, bob.others = False, [ada.contact()]
    eve = world.stranger("eve", ada.identity.group)
    eve.join(ticket, bob)
    world.settle()
    assert eve.dialled == [bob.id, ada.id]
    assert eve.of(Joined) == [Joined(ada.id)]


def test_who_has_no_good_ticket_is_told_of_nobody(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    ticket = ada.invite()
    bob.admits, bob.others = False, [ada.contact()]
    eve = world.stranger("eve", ada.identity.group)
    eve.join(ticket, bob)
    world.settle()
    assert eve.dialled == [bob.id]
    refusals = [message for _, to, message in world.sent if to == eve.id and isinstance(message, JoinRefusal)]
    assert [(refusal.code, refusal.contacts) for refusal in refusals] == [("not_admitting", ())]


def test_a_node_that_may_not_write_yet_lets_in_a_moment_later(world: Any) -> None:
    ada = world.found()
    ticket = ada.invite()
    ada.book.ready = False
    bob = world.stranger("bob", ada.identity.group)
    bob.join(ticket, ada)
    world.settle()
    assert not bob.of(Joined)
    ada.book.ready = True
    world.wait(3.0)
    assert bob.of(Joined)


def test_nobody_answers(world: Any) -> None:
    ada = world.found()
    ticket = ada.invite()
    world.reachable = lambda sender, to: False
    bob = world.stranger("bob", ada.identity.group)
    bob.join(ticket, ada)
    world.wait(world.config.join_timeout_s + 3.0)
    (refused,) = bob.of(JoinRefused)
    assert refused.code == "nobody_answered"


def test_a_joiner_does_not_believe_a_fake_group(world: Any, make_world: Any) -> None:
    ada = world.found()
    ticket = ada.invite()
    mallory = world.stranger("mallory", ada.identity.group)
    other = make_world()
    other.rng.seed(5)
    foreign = other.found("zoe")
    bob = world.stranger("bob", ada.identity.group)
    bob.join(ticket, mallory)
    greeting = Greeting(ada.identity.group, Versions(1, 1), 1, b"")
    bob.conclude(bob.admission.message(mallory.id, greeting, world.now))
    assert any(isinstance(message, JoinRequest) for _, to, message in world.sent if to == mallory.id)
    records = tuple(record.signed for record in foreign.book.held.values())
    bob.conclude(bob.admission.message(mallory.id, Welcome(records, True), world.now))
    assert not bob.of(Joined) and not bob.book.held
    assert PeerDropped(mallory.id, "false_group") in bob.concluded
    # Even the true founding record does not make an admission of somebody else's ticket.
    bob.join(ticket, mallory)
    bob.conclude(bob.admission.message(mallory.id, greeting, world.now))
    founding = tuple(record.signed for record in ada.book.held.values())
    bob.conclude(bob.admission.message(mallory.id, Welcome(founding, True), world.now))
    assert not bob.of(Joined) and not bob.book.held


def test_a_raced_ticket_is_settled_by_the_inviter_and_the_loser_is_told(world: Any) -> None:
    ada = world.found()
    bob, eve = world.joined("bob", ada), world.joined("eve", ada)
    for node in (ada, bob, eve):
        for other in (ada, bob, eve):
            node.learn(list(other.book.held.values()))
    ticket = ada.invite()
    for node in (bob, eve):
        node.learn(list(ada.book.held.values()))
    first, second = world.stranger("first", ada.identity.group), world.stranger("second", ada.identity.group)
    first.join(ticket, bob)
    world.settle()
    world.now = world.now.later(1.0)
    second.join(ticket, eve)
    world.settle()
    # Each side believes its own; both are provisionally in where both are known.
    assert bob.membership.node(first.id) and eve.membership.node(second.id)
    eve.learn(list(bob.book.held.values()))
    assert eve.membership.node(first.id) and eve.membership.node(second.id)
    # The inviter hears of one side first and names its holder.
    ada.learn(list(eve.book.held.values()))
    settled = [record for record in ada.book.held.values() if record.key.kind == "settled"]
    assert len(settled) == 1
    for node in (bob, eve, first, second):
        node.learn(list(ada.book.held.values()))
    holders = {node.membership.ticket(ada.id, ticket_key(ticket)).holders for node in (ada, bob, eve)}
    assert len(holders) == 1
    loser = second if holders == {(first.id,)} else first
    gone = eve if loser is second else bob
    assert not gone.admission.accepted(loser.id)
    assert [one.code for one in loser.of(RefusedByPeer)] == ["ticket_raced"]
    assert ada.membership.void_authors() == (loser.id,)
    assert ada.membership.through(loser.book.log) == 0
    assert ada.membership.through(bob.book.log) is None


def ticket_key(ticket: Any) -> bytes:
    return SecretKey(ticket.seed).public


def test_an_admission_after_expiry_does_not_count(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    ticket = ada.invite(valid_s=10.0)
    bob.learn(list(ada.book.held.values()))
    eve = world.stranger("eve", ada.identity.group)
    claim = ticket.claim(eve.id, "eve", eve.member, "eve-owner")
    bob.book.write(Admitted(claim, world.now.wall_s + 11.0), world.now)
    bob.membership.refresh()
    assert bob.membership.node(eve.id) is None
    bob.book.write(Admitted(claim, world.now.wall_s + 9.0), world.now)
    bob.membership.refresh()
    assert bob.membership.node(eve.id) is not None


def test_a_copied_ticket_does_not_steal_a_computer(world: Any) -> None:
    ada = world.found()
    mallory = world.joined("mallory", ada)
    ticket = ada.invite(own_computer=True)
    mallory.learn(list(ada.book.held.values()))
    owner = mallory.membership.owner_of(mallory.id)
    (real,) = [fact.body for fact in mallory.membership.ticket(ada.id, ticket_key(ticket)).offers]
    mallory.book.write(msgspec.structs.replace(real, inviter=owner), world.now)
    laptop = world.stranger("laptop", ada.identity.group)
    laptop.join(ticket, ada)
    world.settle()
    mallory.learn(list(ada.book.held.values()))
    assert mallory.membership.owner_of(laptop.id) == ada.membership.owner_of(ada.id)


def test_a_body_of_an_unknown_kind_is_ignored(world: Any) -> None:
    ada = world.found()
    before = ada.membership.nodes()
    body = encode_body(Settled(bytes(32), ada.id)) + b"x"
    key = Key("removed", digest(body)[:16])
    payload = Payload(ada.book.log, 77, key, Stamp(1), (), body)
    ada.learn([sign_record(ada.identity.group, ada.secret, payload)])
    assert ada.membership.nodes() == before
    assert len(ada.book.held) == 2


def test_the_younger_of_two_equal_names_gets_a_suffix(world: Any) -> None:
    ada = world.found()
    bob = world.joined("bob", ada)
    world.now = world.now.later(1.0)
    twin = world.stranger("bob", ada.identity.group)
    twin.join(ada.invite(), ada)
    world.settle()
    names = {node.id: node.name for node in ada.membership.nodes()}
    assert names[bob.id] == "bob"
    assert names[twin.id] == f"bob-{twin.id.hex()[:4]}"
    members = sorted(member.name for member in ada.membership.members())
    assert len(set(members)) == 3
