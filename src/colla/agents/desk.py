"""The node's own requests: inviting, joining, contributing, reconnecting; and the queue before the first session.

After a start a node writes only after one session (section 4): requests that write wait here until then, bounded
in number and time.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from colla.agents.administration_requests import WRITING as ADMINISTRATION
from colla.agents.communication_requests import WRITING as COMMUNICATION
from colla.agents.executor import Executor
from colla.agents.foundation import Foundation
from colla.agents.requests import (
    Contribute,
    Contributed,
    CreateService,
    EliminateService,
    GroupJoined,
    InvitePerson,
    JoinGroup,
    ModifyService,
    NameObject,
    Reconnect,
    Reconnected,
    RemoveName,
    RemoveSecrets,
    SetActive,
    SetReplicas,
    SetSecrets,
    TicketIssued,
)
from colla.kernel.effects import Answer, Dial, Refusal
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.contribution import Contribution
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId
from colla.model.keys import SecretKey
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, TOPIC_MESSAGES
from colla.protocol.membership.bodies import consent, encode_body, key_of
from colla.protocol.membership.conclusions import AdmissionConclusion
from colla.protocol.membership.inviting import make_invitation
from colla.protocol.membership.tickets import Contact, read_ticket
from colla.protocol.views import Role

WRITING = (
    CreateService,
    ModifyService,
    SetActive,
    SetReplicas,
    SetSecrets,
    RemoveSecrets,
    EliminateService,
    InvitePerson,
    NameObject,
    RemoveName,
    *ADMINISTRATION,
    *COMMUNICATION,
)


class WaitingDue(Timer, frozen=True):
    """A request waited for the permission to write for long enough."""

    request: int


class Contributing(Protocol):
    """What the desk asks of the router."""

    def contribute(self, contribution: Contribution, now: Instant) -> None: ...


class Inviting(msgspec.Struct, frozen=True):
    """A ticket whose record is on its way to the disks."""

    text: str


class Desk:
    """See the module's docstring."""

    TIMERS = (WaitingDue,)

    def __init__(self, foundation: Foundation, executor: Executor) -> None:
        self._foundation = foundation
        self._executor = executor
        self._waiting: dict[int, Any] = {}
        self._inviting: dict[int, Inviting] = {}
        self._joining: int | None = None
        self._met_s: dict[NodeId, float] = {}

    # -- waiting for the permission to write ----------------------------------------------------------------

    def must_wait(self, request: Any) -> bool:
        """Whether the request writes, and this node may not write yet."""
        topic = TOPIC_MESSAGES if isinstance(request, COMMUNICATION) else TOPIC_CATALOGUE
        return isinstance(request, WRITING) and not self._foundation.book.writable(topic)

    def wait(self, request_id: int, request: Any, now: Instant) -> None:
        """Keep the request until writing is allowed."""
        config = self._foundation.config
        if len(self._waiting) >= config.requests_pending_max:
            refusal = Refusal("busy", "Too many requests wait for this node to start.", "Try again soon.")
            self._foundation.outbox.put(Answer(request_id, refusal))
            return
        self._waiting[request_id] = request
        self._foundation.outbox.wake_in(config.request_timeout_s, WaitingDue(request_id), now)

    def released(self) -> list[tuple[int, Any]]:
        """The requests that may be carried out now."""
        if not self._foundation.book.writable(TOPIC_CATALOGUE):
            return []
        released = list(self._waiting.items())
        self._waiting.clear()
        return released

    def timer(self, timer: Timer, now: Instant) -> None:
        if isinstance(timer, WaitingDue) and self._waiting.pop(timer.request, None) is not None:
            refusal = Refusal(
                "not_ready", "This computer has met nobody since it started.", "Try again in a few seconds."
            )
            self._foundation.outbox.put(Answer(timer.request, refusal))

    # -- requests -------------------------------------------------------------------------------------------

    def request(
        self, request_id: int, request: Any, router: Contributing, now: Instant
    ) -> list[AdmissionConclusion]:
        """Carry out one of the node's own requests."""
        try:
            match request:
                case InvitePerson():
                    self._invite(request_id, request, now)
                case JoinGroup():
                    return self._join(request_id, request, now)
                case Contribute(contribution=contribution):
                    router.contribute(contribution, now)
                    left = len(self._executor.replicas())
                    self._foundation.outbox.put(Answer(request_id, Contributed(contribution, left)))
                case Reconnect():
                    self._reconnect(request_id, request, now)
                case _:
                    raise CollaError("unknown_request", f"nobody knows {type(request).__name__}")
        except CollaError as error:
            refusal = Refusal(error.code, error.message, error.hint)
            self._foundation.outbox.put(Answer(request_id, refusal))
        return []

    def _invite(self, request_id: int, request: InvitePerson, now: Instant) -> None:
        found = self._foundation
        role = _role(request.role)
        own_computer = request.own_computer or bool(request.member)
        found.administering.may_invite(role, own_computer, request.member)
        invitation = make_invitation(
            found.identity,
            found.membership,
            [Contact(found.identity.node, found.own.addresses), *found.contacts()],
            own_computer,
            request.expiry_s,
            found.rng,
            now,
            role,
            request.uses,
            request.member,
        )
        self._inviting[request_id] = Inviting(invitation.text)
        items = [(key_of(invitation.body), encode_body(invitation.body))]
        found.submit(request_id, TOPIC_MEMBERSHIP, items, now)

    def _join(self, request_id: int, request: JoinGroup, now: Instant) -> list[AdmissionConclusion]:
        found = self._foundation
        ticket = read_ticket(request.ticket)
        if ticket.group != found.identity.group:
            raise CollaError("other_group", "The ticket is for another group.", "Ask for a new one.")
        claim = ticket.claim(
            found.identity.node, request.node_name, SecretKey(request.member_seed), request.member_name
        )
        claim = consent(found.identity.group, claim, found.identity.secret)
        self._joining = request_id
        return found.admission.join(claim, ticket.contacts, now)

    def joined(self, peer: NodeId) -> None:
        """The group admitted this node."""
        found = self._foundation
        if self._joining is not None:
            owner = found.membership.owner_of(found.identity.node) or MemberId(b"")
            found.outbox.put(Answer(self._joining, GroupJoined(owner, found.membership.group_name)))
            self._joining = None

    def join_refused(self, code: str, text: str) -> None:
        """The group did not admit this node."""
        if self._joining is not None:
            self._foundation.outbox.put(Answer(self._joining, Refusal(code, text)))
            self._joining = None

    def peer_found(self, node: NodeId, addresses: tuple[str, ...], now: Instant) -> None:
        """Somebody named a node that no record names (yet): meet it, the handshake decides; not too often.

        That is how a node whose disk was lost finds its group again, and how neighbours on a LAN meet a new member.
        """
        found = self._foundation
        config = found.config.membership
        if not node or found.membership.node(node) is not None or found.admission.has_link(node):
            return
        self._met_s = {
            other: at_s for other, at_s in self._met_s.items() if now.boot_s - at_s < config.unknown_dial_s
        }
        if node not in self._met_s and len(self._met_s) < config.peers_pending_max:
            self._met_s[node] = now.boot_s
            found.outbox.put(Dial(found.outbox.new_id(), node, addresses))

    def _reconnect(self, request_id: int, request: Reconnect, now: Instant) -> None:
        found = self._foundation
        nodes = [info.id for info in found.membership.nodes() if not found.presence.is_present(info.id)]
        targets = [request.node] if request.node else nodes
        for node in targets:
            found.outbox.put(Dial(found.outbox.new_id(), node, (request.address,)))
        found.outbox.put(Answer(request_id, Reconnected(request.address)))

    def written(self, request_id: int, copies: int) -> None:
        """A write of this request is durable on so many nodes."""
        inviting = self._inviting.pop(request_id, None)
        if inviting is not None:
            self._foundation.outbox.put(Answer(request_id, TicketIssued(inviting.text, copies)))


def _role(text: str) -> Role:
    """Raises `CollaError("bad_role")`."""
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(role.value for role in Role)
        raise CollaError("bad_role", f"{text!r} is no role.", f"Roles are: {roles}.") from None
