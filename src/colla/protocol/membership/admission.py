"""Who may speak: the handshake on every new link, and letting joiners in (DESIGN section 10).

On every link both sides send a `Greeting`. A known member's node is accepted at once. An unknown one is asked for the
chain of records by which it belongs; they are judged before any of them is kept, so a stranger cannot make this node
store anything, and what is kept is at most `proof_bytes_max`. Acceptance holds for one link and is judged again
when the membership changes. The router drops everything but admission messages from peers that are not accepted.

A joiner has a ticket and no records. Any node with a group agent judges the ticket, writes the admission and answers
with the chains by which both belong; the joiner follows them down to the founding record, whose digest is the group id
in its ticket, and believes nothing else. Nothing of this depends on what carries the links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colla.kernel.config import MembershipConfig
from colla.kernel.effects import AcceptPeer, CloseLink, Dial
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, short
from colla.model.record import Record, SignedRecord
from colla.protocol.membership import joining
from colla.protocol.membership.administering import Administering
from colla.protocol.membership.bodies import HEADS_MAX, Admitted, JoinClaim, Settled
from colla.protocol.membership.conclusions import (
    AdmissionConclusion,
    Joined,
    JoinRefused,
    MembershipChanged,
    PeerAccepted,
    PeerDropped,
    RefusedByPeer,
)
from colla.protocol.membership.guard import StrangerGuard
from colla.protocol.membership.handshake import Ledger, Link
from colla.protocol.membership.membership import Membership
from colla.protocol.membership.messages import (
    ADMISSION_MESSAGES,
    ADMISSION_TIMERS,
    Farewell,
    Greeting,
    GreetingDue,
    JoinDue,
    JoinRefusal,
    JoinRequest,
    Proof,
    ProofWanted,
    Refused,
    Versions,
    Welcome,
)
from colla.protocol.membership.proofs import Collector, pages, proof
from colla.protocol.membership.tickets import Contact, choose_contacts
from colla.protocol.views import Identity

PROTOCOL_VERSIONS = Versions(1, 1)


class Admission:
    """The handshake, on every node. Each call returns what it concluded; effects go to the outbox."""

    MESSAGES = ADMISSION_MESSAGES
    TIMERS = ADMISSION_TIMERS

    def __init__(
        self,
        identity: Identity,
        config: MembershipConfig,
        outbox: Outbox,
        membership: Membership,
        ledger: Ledger,
        start_number: int,
        admits: Callable[[], bool],
        who_admits: Callable[[], Sequence[Contact]],
        versions: Versions = PROTOCOL_VERSIONS,
    ) -> None:
        """`admits` tells whether this node carries a group agent now and so may let joiners in, `who_admits` who else."""
        self._identity = identity
        self._config = config
        self._outbox = outbox
        self._membership = membership
        self._ledger = ledger
        self._start_number = start_number
        self._admits = admits
        self._who_admits = who_admits
        self._administering = Administering(identity.node, membership, ledger.seen)
        self._versions = versions
        self._links: dict[NodeId, Link] = {}
        self._guard = StrangerGuard(config)
        self._serial = 0
        self._attempt: joining.Attempt | None = None

    def accepted(self, peer: NodeId) -> bool:
        """Whether the peer may say more than admission messages; the node itself always may."""
        link = self._links.get(peer)
        if link is not None and link.accepted:
            return True
        return peer == self._identity.node

    def has_link(self, peer: NodeId) -> bool:
        """Whether a link to the peer is open, accepted or not."""
        return peer in self._links

    def peers(self) -> tuple[NodeId, ...]:
        """The accepted peers, sorted."""
        return tuple(sorted(peer for peer, link in self._links.items() if link.accepted))

    # Links.

    def link_opened(self, peer: NodeId, addresses: Sequence[str], now: Instant) -> list[AdmissionConclusion]:
        """A link is up: greet. A stranger beyond the bounds is sent away at once."""
        self._links.pop(peer, None)
        if self._membership.node(peer) is None and self._attempt is None:
            pending = sum(
                not link.accepted and self._membership.node(other) is None
                for other, link in self._links.items()
            )
            if not self._guard.lets_in(addresses, pending, now):
                return self._refuse(peer, "busy", "Too many strangers are at the door; try again later.")
        self._serial += 1
        self._links[peer] = Link(self._serial, now.boot_s, now.boot_s)
        self._greet(peer, now, answer=True)
        self._outbox.wake_in(self._config.greeting_repeat_s, GreetingDue(peer, self._serial), now)
        return []

    def link_closed(self, peer: NodeId, now: Instant) -> list[AdmissionConclusion]:
        """The link is gone, and the acceptance with it."""
        self._links.pop(peer, None)
        if self._attempt is not None:
            self._attempt.greeted.pop(peer, None)
            self._ask_next(now)
        return []

    def membership_changed(self, now: Instant) -> list[AdmissionConclusion]:
        """Who belongs changed: judge all links again, and settle this node's tickets that others admitted with."""
        self._settle(now)
        concluded: list[AdmissionConclusion] = []
        for peer in list(self._links):
            link = self._links[peer]
            belongs = self._membership.node(peer) is not None
            if link.accepted and not belongs:
                concluded += self._send_away(peer)
            elif not link.accepted and belongs and link.greeting is not None:
                concluded += self._accept(peer, link)
        return concluded

    # Joining.

    def join(self, claim: JoinClaim, contacts: Sequence[Contact], now: Instant) -> list[AdmissionConclusion]:
        """Try to join with a ticket: dial its contacts and ask them in turn. Ends in Joined or JoinRefused."""
        number = (self._attempt.number if self._attempt else 0) + 1
        received = Collector(self._identity.group, self._config)
        until_s = now.boot_s + self._config.join_timeout_s
        self._attempt = joining.Attempt(number, claim, until_s, received)
        for contact in contacts:
            if contact.node in self._links:
                self._greet(contact.node, now, answer=True)
        self._meet(contacts)
        self._outbox.wake_in(self._config.join_repeat_s, JoinDue(number), now)
        return []

    def _meet(self, contacts: Sequence[Contact]) -> None:
        for contact in contacts:
            if contact.node not in self._links:
                self._outbox.put(Dial(self._outbox.new_id(), contact.node, contact.addresses))

    # Timers.

    def timer(self, timer: Timer, now: Instant) -> list[AdmissionConclusion]:
        """One of `TIMERS` is due."""
        match timer:
            case GreetingDue(peer=peer, serial=serial):
                return self._greeting_due(peer, serial, now)
            case JoinDue(attempt=number):
                return self._join_due(number, now)
            case _:
                return []

    def _greeting_due(self, peer: NodeId, serial: int, now: Instant) -> list[AdmissionConclusion]:
        link = self._links.get(peer)
        if link is None or link.serial != serial or link.accepted:
            return []
        if self._attempt is not None and peer in self._attempt.greeted:
            # The attempt itself has a time limit; the link stays until then.
            self._outbox.wake_in(self._config.greeting_timeout_s, GreetingDue(peer, serial), now)
            return []
        waits_to_join = link.greeting is not None and link.greeting.joining
        patience_s = self._config.join_timeout_s if waits_to_join else self._config.greeting_timeout_s
        if now.boot_s - link.opened_s >= patience_s:
            return self._refuse(peer, "silent", "The handshake was not finished in time.")
        self._greet(peer, now, answer=link.greeting is None)
        if link.greeting is not None and not waits_to_join:
            self._ask_proof(peer, link)
        self._outbox.wake_in(self._config.greeting_repeat_s, GreetingDue(peer, serial), now)
        return []

    def _join_due(self, number: int, now: Instant) -> list[AdmissionConclusion]:
        attempt = self._attempt
        if attempt is None or attempt.number != number:
            return []
        if now.boot_s >= attempt.until_s:
            return self._give_up(*attempt.outcome)
        # Nodes that could not admit a moment ago may have heard of the ticket meanwhile.
        attempt.refused.clear()
        attempt.asked = None if attempt.asked not in attempt.greeted else attempt.asked
        self._ask_next(now, anew=True)
        self._outbox.wake_in(self._config.join_repeat_s, JoinDue(number), now)
        return []

    # Messages.

    def message(self, peer: NodeId, message: Message, now: Instant) -> list[AdmissionConclusion]:
        """One of `MESSAGES` arrived from the peer, accepted or not."""
        link = self._links.get(peer)
        if link is None:
            return []
        link.heard += 0 if link.accepted else 1
        if link.heard > self._config.handshake_messages_max and not link.accepted:
            return self._refuse(peer, "busy", "The handshake takes too many messages.")
        match message:
            case Greeting():
                return self._greeted(peer, link, message, now)
            case ProofWanted():
                self._send_proof(peer)
                return []
            case Proof(records=records, last=last):
                return self._proof(peer, link, records, last, now)
            case Refused(code=code, text=text):
                return self._refused_by(peer, code, text)
            case Farewell(records=records, last=last):
                return self._farewell(link, records, last, now)
            case JoinRequest(claim=claim):
                return self._join_request(peer, link, claim, now)
            case Welcome(records=records, last=last):
                return self._welcomed(peer, link, records, last, now)
            case JoinRefusal(code=code, text=text, contacts=contacts):
                self._meet(contacts if self._attempt is not None else ())
                return self._join_refused(peer, code, text, now)
            case _:
                return []

    def _greeted(
        self, peer: NodeId, link: Link, greeting: Greeting, now: Instant
    ) -> list[AdmissionConclusion]:
        if greeting.group != self._identity.group:
            return self._refuse(peer, "other_group", "This node belongs to another group.")
        if not greeting.versions.meets(self._versions):
            mine = self._versions
            text = f"This node speaks versions {mine.oldest} to {mine.newest} of the protocol; update colla."
            return self._refuse(peer, "other_version", text)
        before, link.greeting = link.greeting, greeting
        if greeting.answer and (before is not None or link.greeted_s < now.boot_s):
            self._greet(peer, now, answer=False)
        if self._attempt is not None:
            self._attempt.greeted[peer] = None
            self._ask_next(now)
            return []
        if link.accepted:
            restarted = before is not None and before.start != greeting.start
            return [PeerAccepted(peer, greeting.start)] if restarted else []
        if self._membership.node(peer) is not None:
            return self._accept(peer, link)
        if not greeting.joining and link.proof is None:
            if greeting.membership == self._membership.fingerprint():
                return self._send_away(peer)
            self._ask_proof(peer, link)
        return []

    def _proof(
        self, peer: NodeId, link: Link, records: Sequence[SignedRecord], last: bool, now: Instant
    ) -> list[AdmissionConclusion]:
        if link.accepted or link.proof is None:
            return []
        wrong = link.proof.add(records)
        if wrong:
            return self._refuse(peer, wrong, "The proof of membership does not hold, or is too long.")
        if not last:
            return []
        kept, link.proof = link.proof.records, None
        if not self._keep_if_valid((peer,), kept, now):
            return self._send_away(peer)
        return [MembershipChanged(), *self._accept(peer, link), *self.membership_changed(now)]

    def _refused_by(self, peer: NodeId, code: str, text: str) -> list[AdmissionConclusion]:
        self._links.pop(peer, None)
        shown = text[: self._config.refusal_chars_max]
        self._outbox.notify("refused_by_peer", f"Node {short(peer)} refused: {shown}", node=peer)
        concluded: list[AdmissionConclusion] = [RefusedByPeer(peer, code, shown)]
        if self._attempt is not None:
            self._attempt.greeted.pop(peer, None)
            self._attempt.refuse(peer, code, shown)
        return concluded

    def _farewell(
        self, link: Link, records: Sequence[SignedRecord], last: bool, now: Instant
    ) -> list[AdmissionConclusion]:
        """Somebody shows why this node does not belong any more: nothing is kept unless the records say so."""
        link.farewell = link.farewell or Collector(self._identity.group, self._config)
        me = self._identity.node
        if link.farewell.add(records) or not last or self._membership.node(me) is None:
            return []
        kept = link.farewell.records
        if me in self._membership.suppose(kept).nodes:
            return []
        self._ledger.receive([record.signed for record in kept], now)
        self._membership.refresh()
        return [MembershipChanged()]

    # Letting others in.

    def _join_request(
        self, peer: NodeId, link: Link, claim: JoinClaim, now: Instant
    ) -> list[AdmissionConclusion]:
        if link.greeting is None or self._membership.node(self._identity.node) is None:
            return []
        config = self._config
        verdict = joining.judge_join(
            self._membership, claim, peer, config.members_max, now, config.computers_per_member_max
        )
        if not self._admits():
            # Since the ticket was made they may have moved. Whoever holds no good one is told of nobody.
            contacts = () if verdict.code else choose_contacts(self._who_admits())
            text = "This computer lets nobody in; ask another one."
            return self._deny(peer, joining.NOT_ADMITTING, text, contacts)
        if verdict.code:
            return self._deny(peer, verdict.code, verdict.text)
        concluded: list[AdmissionConclusion] = []
        if not verdict.again:
            admitted = Admitted(claim, now.wall_s, self._membership.heads()[:HEADS_MAX])
            if not self._ledger.write(admitted, now):
                return self._deny(peer, joining.NOT_READY, "This computer has just started; try again.")
            self._membership.refresh()
            concluded.append(MembershipChanged())
            self._outbox.notify("admitted", f"Node {short(peer)} joined the group.", node=peer)
        chains = self._membership.proof_of(self._identity.node, peer)
        for page, last in pages(chains, self._config):
            self._outbox.send(peer, Welcome(page, last))
        accepted = [] if link.accepted else self._accept(peer, link)
        return concluded + accepted + self.membership_changed(now)

    def _deny(
        self, peer: NodeId, code: str, text: str, contacts: tuple[Contact, ...] = ()
    ) -> list[AdmissionConclusion]:
        self._outbox.send(peer, JoinRefusal(code, text, contacts))
        return []

    def _settle(self, now: Instant) -> None:
        """Name the holders of this node's own tickets with which others admitted somebody; inherit if need be."""
        for ticket, node in self._membership.unsettled(self._identity.node):
            if self._ledger.write(Settled(ticket, node), now):
                self._membership.refresh()
        inherited = self._administering.inherit()
        if inherited is not None and self._ledger.write(inherited, now):
            self._membership.refresh()
            self._outbox.notify("inherited", "No administrator was left: this computer's member is one now.")

    # Being let in.

    def _ask_next(self, now: Instant, anew: bool = False) -> None:
        attempt = self._attempt
        if attempt is None or (attempt.asked in attempt.greeted and not anew):
            return
        node = attempt.next_node()
        if node is not None:
            attempt.asked, attempt.asked_s = node, now.boot_s
            attempt.received = Collector(self._identity.group, self._config)
            self._outbox.send(node, JoinRequest(attempt.claim))

    def _join_refused(self, peer: NodeId, code: str, text: str, now: Instant) -> list[AdmissionConclusion]:
        attempt = self._attempt
        if attempt is None or peer not in attempt.greeted:
            return []
        if code == joining.TICKET_EXPIRED:
            code, text = joining.CLOCKS_DIFFER, joining.CLOCKS_DIFFER_TEXT
        if code in joining.FINAL_CODES:
            return self._give_up(code, text[: self._config.refusal_chars_max])
        attempt.refuse(peer, code, text[: self._config.refusal_chars_max])
        if attempt.asked == peer:
            attempt.asked = None
            self._ask_next(now)
        return []

    def _welcomed(
        self, peer: NodeId, link: Link, records: Sequence[SignedRecord], last: bool, now: Instant
    ) -> list[AdmissionConclusion]:
        attempt = self._attempt
        if attempt is None or attempt.asked != peer:
            return []
        if not attempt.received.add(records):
            if not last:
                return []
            if self._keep_if_valid((self._identity.node, peer), attempt.received.records, now):
                return self._joined(peer, link, now)
        text = "The node that answered could not prove that it belongs to the group; it was not believed."
        attempt.greeted.pop(peer, None)
        attempt.refuse(peer, joining.FALSE_GROUP, text)
        attempt.asked = None
        self._ask_next(now)
        return self._refuse(peer, joining.FALSE_GROUP, text)

    def _joined(self, peer: NodeId, link: Link, now: Instant) -> list[AdmissionConclusion]:
        self._attempt = None
        accepted = self._accept(peer, link)
        concluded = [MembershipChanged(), Joined(peer), *accepted, *self.membership_changed(now)]
        for other in [other for other, link in self._links.items() if not link.accepted]:
            # They took this node for a joiner; now it can prove that it belongs.
            self._greet(other, now, answer=False)
        return concluded

    def _give_up(self, code: str, text: str) -> list[AdmissionConclusion]:
        self._attempt = None
        for peer in [peer for peer, link in self._links.items() if not link.accepted]:
            self._links.pop(peer)
            self._outbox.put(CloseLink(peer, "the attempt to join is over"))
        return [JoinRefused(code, text)]

    # Common to both.

    def _greet(self, peer: NodeId, now: Instant, answer: bool) -> None:
        link = self._links[peer]
        link.greeted_s = now.boot_s
        greeting = Greeting(
            self._identity.group,
            self._versions,
            self._start_number,
            self._membership.fingerprint(),
            joining=self._attempt is not None,
            answer=answer and link.greeting is None,
        )
        self._outbox.send(peer, greeting)

    def _accept(self, peer: NodeId, link: Link) -> list[AdmissionConclusion]:
        link.accepted, link.proof = True, None
        start = link.greeting.start if link.greeting else 0
        self._outbox.put(AcceptPeer(peer))
        return [PeerAccepted(peer, start)]

    def _send_away(self, peer: NodeId) -> list[AdmissionConclusion]:
        """The peer does not belong by all that is known: tell it why."""
        former = self._membership.former(peer)
        if former is not None:
            for page, last in pages(self._membership.proof_against(peer), self._config):
                self._outbox.send(peer, Farewell(page, last))
            return self._refuse(peer, former.code, former.text)
        return self._refuse(peer, "stranger", "This group does not know the node; it needs a ticket to join.")

    def _refuse(self, peer: NodeId, code: str, text: str) -> list[AdmissionConclusion]:
        self._links.pop(peer, None)
        self._outbox.send(peer, Refused(code, text))
        self._outbox.put(CloseLink(peer, code))
        return [PeerDropped(peer, code)]

    def _ask_proof(self, peer: NodeId, link: Link) -> None:
        link.proof = Collector(self._identity.group, self._config)
        self._outbox.send(peer, ProofWanted())

    def _send_proof(self, peer: NodeId) -> None:
        for page, last in pages(self._membership.proof_of(self._identity.node), self._config):
            self._outbox.send(peer, Proof(page, last))

    def _keep_if_valid(self, nodes: Sequence[NodeId], records: Sequence[Record], now: Instant) -> bool:
        """Keep of the records what proves that all the nodes belong; keep nothing if they do not prove it."""
        roster = self._membership.suppose(records)
        if any(node not in roster.nodes for node in nodes):
            return False
        kept = proof(roster, nodes)
        if any(node not in self._membership.suppose(kept).nodes for node in nodes):
            kept = tuple(records)
        self._ledger.receive([record.signed for record in kept], now)
        self._membership.refresh()
        return True
