"""Requests about who belongs and whose a service is: a part of every node, whatever agents it carries.

What a request asks becomes one record, made by `membership/administering` or the catalogue, written and acknowledged like
every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colla.agents.administration_requests import (
    WRITING,
    AdoptService,
    Depart,
    GiveRole,
    GroupChanged,
    NameDelegates,
    RemoveMember,
    RenameComputer,
    RenameMember,
    RetireComputer,
    RevokeTicket,
)
from colla.agents.agent import Agent, Context
from colla.agents.foundation import Foundation
from colla.kernel.effects import Answer, Refusal
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, Key
from colla.protocol.membership.bodies import Body, encode_body, key_of

OUT_CODES = ("removed", "retired", "left", "ticket_raced", "ticket_revoked", "ticket_void")
"""Why nodes are refused that belonged once."""


class Administration(Agent):
    """See the module's docstring."""

    REQUESTS = WRITING

    def __init__(self, context: Context, foundation: Foundation) -> None:
        super().__init__(context)
        self._foundation = foundation
        self._writing: dict[int, None] = {}
        self._belongs = context.membership.node(context.identity.node) is not None
        self._refusal: tuple[str, str] | None = None

    # Whether this node belongs.

    def membership_changed(self) -> bool:
        """Whether this node belongs now and did not before, or the other way round."""
        before = self._belongs
        self._belongs = self.context.membership.node(self.context.identity.node) is not None
        return before != self._belongs

    def refused(self, code: str, text: str) -> None:
        """A peer does not let this node speak, and says why."""
        self._refusal = (code, text)

    def accepted(self) -> None:
        """A peer lets this node speak."""
        self._refusal = None

    def why_out(self) -> str:
        """Why this node does not belong to the group any more; empty when it does, as far as it knows.

        By the records that it holds, or by the word of whom it met last, if nobody else lets it in.
        """
        former = self._foundation.membership.former(self.context.identity.node)
        if former is not None:
            return former.text
        alone = not self._foundation.admission.peers()
        if alone and self._refusal is not None and self._refusal[0] in OUT_CODES:
            return self._refusal[1]
        return ""

    # Requests.

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        try:
            match request:
                case AdoptService(service=service, owner=owner):
                    items = self._foundation.catalogue.adopt(service, owner, self._me())
                    self._write(request_id, TOPIC_CATALOGUE, items, now)
                case NameDelegates(service=service, delegates=delegates):
                    items = self._foundation.catalogue.delegate(service, delegates, self._me())
                    self._write(request_id, TOPIC_CATALOGUE, items, now)
                case _:
                    body = self._body(request, now)
                    self._write(request_id, TOPIC_MEMBERSHIP, [(key_of(body), encode_body(body))], now)
        except CollaError as error:
            self._writing.pop(request_id, None)
            refusal = Refusal(error.code, error.message, error.hint)
            self.context.outbox.put(Answer(request_id, refusal))

    def written(self, request_id: int, copies: int) -> None:
        """The write of this request is durable on so many nodes."""
        if request_id in self._writing:
            del self._writing[request_id]
            self.context.outbox.put(Answer(request_id, GroupChanged(copies)))

    def _body(self, request: Any, now: Instant) -> Body:
        administering = self._foundation.administering
        match request:
            case GiveRole(member=member, role=role):
                return administering.appoint(member, role)
            case RemoveMember(member=member, reason=reason):
                return administering.remove(member, reason, now)
            case RetireComputer(node=node, reason=reason):
                return administering.retire(node, reason, now)
            case RenameMember(member=member, name=name):
                return administering.rename_member(member, name)
            case RenameComputer(node=node, name=name):
                return administering.rename_computer(node, name)
            case RevokeTicket(author=author, ticket=ticket):
                return administering.revoke(author, ticket)
            case Depart(anyway=anyway):
                return administering.leave(now, anyway=anyway)
            case _:
                raise TypeError(f"not about who belongs: {request!r}")

    def _write(self, request_id: int, topic: str, items: Sequence[tuple[Key, bytes]], now: Instant) -> None:
        self._writing[request_id] = None
        self._foundation.submit(request_id, topic, items, now)

    def _me(self) -> MemberId:
        owner = self.context.membership.owner_of(self.context.identity.node)
        if owner is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        return owner
