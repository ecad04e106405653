"""Messages as the API asks for them: sent, found, followed, marked as read; and the receipts that answer them.

Every node holds all letters; this part finds among them those of its member, whatever other computer they were read on.
Receipts go out together after a moment. Of several computers of one member that are here the nearest to the message
by rendezvous is the first to say that it came; the others hear that, and are silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from colla.agents.communication_requests import (
    FindMessages,
    MarkedRead,
    MarkRead,
    MessageSent,
    MessagesFound,
    SendMessage,
)
from colla.agents.foundation import Foundation
from colla.agents.held_requests import HeldRequests
from colla.kernel.durable import Durable
from colla.kernel.effects import Answer, StoreCell
from colla.kernel.messages import Timer
from colla.kernel.time import Instant
from colla.model.errors import CollaError
from colla.model.ids import MemberId, NodeId, random_id
from colla.model.record import TOPIC_MESSAGES, TOPIC_RECEIPTS, Key, Record
from colla.protocol.journal.journal import Journal
from colla.protocol.messaging.bodies import KIND_DELIVERED, KIND_READ, Content, Receipt, encode
from colla.protocol.messaging.letters import seal_message
from colla.protocol.messaging.mailbox import Mailbox, Received
from colla.protocol.rendezvous import nearest
from colla.protocol.views import RecordChange

RECEIPTED_CELL = "messages/receipted"
PLACE_BYTES = 8


class ReceiptsDue(Timer, frozen=True):
    """Say which messages came. Harmless when nothing is owed any more."""


class _Sending(msgspec.Struct, frozen=True):
    """An answer that waits for the disks; `copies` is known then."""

    message: bytes
    computers: int


class Correspondence:
    """See the module's docstring."""

    TOPICS = (TOPIC_MESSAGES, TOPIC_RECEIPTS)
    TIMERS = (ReceiptsDue,)
    REQUESTS = (SendMessage, FindMessages, MarkRead)

    def __init__(self, foundation: Foundation, durable: Durable) -> None:
        found = self._foundation = foundation
        self._config = found.config.messaging
        self.journal = Journal(
            "messages",
            (TOPIC_MESSAGES,),
            found.book,
            lambda record: self._author_of(record) is not None,
            found.outbox,
            durable,
        )
        self.mailbox = Mailbox(
            found.identity,
            self._config,
            found.membership,
            found.book,
            self.journal,
            found.outbox,
            durable,
            self._author_of,
            found.quarantine,
        )
        bounds = found.config.happenings
        self.held: HeldRequests[FindMessages] = HeldRequests(
            bounds.waiting_max, bounds.wait_s_max, found.outbox
        )
        self._found_max, self._found_bytes_max = bounds.found_max, bounds.found_bytes_max
        self._sending: dict[int, _Sending] = {}
        self._marking: dict[int, int] = {}
        self._receipted = int.from_bytes(durable.cells.get(RECEIPTED_CELL, b""))
        self._alarm_set = False

    def start(self, now: Instant) -> None:
        """Letters whose receipt a crash prevented get it now."""
        self.take((), now)
        late = [(place, record) for place, record in self.journal.after(0) if place > self._receipted]
        if self.mailbox.owe(late):
            self._set_alarm(now)

    def take(self, changes: Sequence[RecordChange], now: Instant) -> None:
        """Records changed, or frontiers moved: file what came, answer who waits for it."""
        taken = self.journal.take(changes)
        self.mailbox.dropped(taken.gone)
        self.mailbox.receipts_changed(changes)
        if self.mailbox.arrived(taken.placed):
            self._set_alarm(now)
        if taken.placed:
            for request_id, request in self.held.all():
                found = self._find(request)
                if found.messages:
                    self.held.release(request_id)
                    self._answer(request_id, found)

    def membership_changed(self, now: Instant) -> None:
        """Authors may count now that did not, and this node may have become a member's."""
        self.mailbox.membership_changed()
        self.take((), now)

    def timer(self, now: Instant) -> None:
        """Receipts are due."""
        self._alarm_set = False
        found = self._foundation
        if not found.book.writable(TOPIC_RECEIPTS):
            self._set_alarm(now)
            return
        messages = self.mailbox.owed()
        if messages:
            try:
                found.tell(TOPIC_RECEIPTS, [self._receipt(KIND_DELIVERED, messages)], now)
            except CollaError:
                # Too much is on its way to the disk: again in a moment.
                self.mailbox.owe_again(messages)
        if self.mailbox.owes:
            self._set_alarm(now)
        else:
            self._receipted = self.journal.last
            found.outbox.persist(StoreCell(RECEIPTED_CELL, self._receipted.to_bytes(PLACE_BYTES)))

    def request(self, request_id: int, request: Any, now: Instant) -> None:
        """Carry out a request. Raises `CollaError`."""
        match request:
            case SendMessage():
                self._send(request_id, request, now)
            case FindMessages():
                found = self._find(request)
                if found.messages or not self.held.hold(request_id, request, request.wait_s, now):
                    self._answer(request_id, found)
            case MarkRead(messages=messages):
                self._mark(request_id, messages, now)
            case _:
                raise TypeError(f"not for correspondence: {request!r}")

    def due(self, request_id: int) -> bool:
        """A request was held for long enough; False when it is none of these."""
        request = self.held.release(request_id)
        if request is not None:
            self._answer(request_id, self._find(request))
        return request is not None

    def written(self, request_id: int, copies: int) -> None:
        """A write of this request is durable on so many nodes."""
        sending = self._sending.pop(request_id, None)
        if sending is not None:
            self._answer(request_id, MessageSent(sending.message, sending.computers, copies))
        marked = self._marking.pop(request_id, None)
        if marked is not None:
            self._answer(request_id, MarkedRead(marked))

    # Inside.

    def _author_of(self, record: Record) -> MemberId | None:
        return self._foundation.author_of(record)

    def _send(self, request_id: int, request: SendMessage, now: Instant) -> None:
        found = self._foundation
        me = found.membership.owner_of(found.identity.node)
        if me is None:
            raise CollaError("not_a_member", "This computer does not belong to the group.", "Join it first.")
        to = tuple(dict.fromkeys(request.to))
        self._check(to, request.text)
        nodes = self._computers(to, me)
        message = random_id(found.rng)
        items = seal_message(
            found.identity.group,
            found.identity.node,
            message,
            to,
            nodes,
            Content(request.text, request.reply_to),
            self._config.keys_per_letter_max,
            found.rng,
        )
        mine = sum(1 for node in nodes if found.membership.owner_of(node) == me)
        self._sending[request_id] = _Sending(message, len(nodes) - (0 if me in to else mine))
        try:
            found.submit(request_id, TOPIC_MESSAGES, items, now)
        except CollaError:
            del self._sending[request_id]
            raise

    def _check(self, to: tuple[MemberId, ...], text: str) -> None:
        if not text.strip():
            raise CollaError("empty_message", "The message is empty.", "Write something into it.")
        if len(text.encode()) > self._config.text_bytes_max:
            limit = f"It may have {self._config.text_bytes_max // 1024} KiB; `colla put` shares files of any size."
            raise CollaError("too_large", "The message is too long.", limit)
        if len(to) > self._config.recipients_named_max:
            raise CollaError("too_many_recipients", "The message names too many members.", "Send it to all.")
        for member in to:
            if self._foundation.membership.member(member) is None:
                raise CollaError("not_found", "There is no such member.", "`colla members` lists them.")

    def _computers(self, to: tuple[MemberId, ...], me: MemberId) -> list[NodeId]:
        """The computers of the recipients and of this member."""
        infos = self._foundation.membership.nodes()
        nodes = [info.id for info in infos if not to or info.member in to or info.member == me]
        if len(nodes) > self._config.computers_max:
            raise CollaError(
                "too_many_recipients",
                "The recipients have too many computers.",
                "Send it to fewer at a time.",
            )
        return nodes

    def _find(self, request: FindMessages) -> MessagesFound:
        every = (
            self.mailbox.sent(request.after)
            if request.sent
            else self.mailbox.inbox(request.after, unread=request.unread)
        )
        messages: list[Received] = []
        size = 0
        for message in every:
            size += len(message.content.text) if message.content is not None else 0
            full = (
                len(messages) >= max(1, min(request.limit, self._found_max)) or size > self._found_bytes_max
            )
            if messages and full:
                return MessagesFound(tuple(messages), messages[-1].place, last=False)
            messages.append(message)
        return MessagesFound(tuple(messages), self.journal.last, last=True)

    def _mark(self, request_id: int, messages: tuple[bytes, ...], now: Instant) -> None:
        found = self._foundation
        news = self.mailbox.mark(messages)
        step = self._config.receipt_ids_max
        items = [self._receipt(KIND_READ, tuple(news[at : at + step])) for at in range(0, len(news), step)]
        if not items:
            self._answer(request_id, MarkedRead(0))
            return
        self._marking[request_id] = len(news)
        try:
            found.submit(request_id, TOPIC_RECEIPTS, items, now)
        except CollaError:
            # It is read here all the same; only the author is not told.
            del self._marking[request_id]
            self._answer(request_id, MarkedRead(len(news)))

    def _receipt(self, kind: str, messages: tuple[bytes, ...]) -> tuple[Key, bytes]:
        return Key(kind, random_id(self._foundation.rng)), encode(Receipt(messages))

    def _set_alarm(self, now: Instant) -> None:
        if not self._alarm_set:
            self._alarm_set = True
            wait_s = self._config.receipt_delay_s * (1 + 2 * self._rank())
            self._foundation.outbox.wake_in(wait_s, ReceiptsDue(), now)

    def _rank(self) -> int:
        """This computer's place among the present ones of its member."""
        found = self._foundation
        me = found.identity.node
        owner = found.membership.owner_of(me)
        if owner is None:
            return 0
        mine = [node for node in found.presence.present() if found.membership.owner_of(node) == owner]
        ranked = nearest(owner, mine)
        return ranked.index(me) if me in ranked else 0

    def _answer(self, request_id: int, result: Any) -> None:
        self._foundation.outbox.put(Answer(request_id, result))
