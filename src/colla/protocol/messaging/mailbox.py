"""The messages of this node's member: what came, what was read, what became of what was sent.

Owns: which messages the member has read (on any computer), and the receipts that are still to be written. A message is
delivered when a computer of the recipient holds it and can open it; that computer says so in a receipt, several at
once after a moment, and none when another computer of the member said so before.

What is held of a letter in memory is its record and whether it is for this computer; it is opened when somebody reads it.

Invariants: a message comes into the inbox once, in its author's order; whether it was read is known for as long as the
letter is kept, whatever became of the receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from colla.kernel.config import MessagingConfig
from colla.kernel.durable import Durable
from colla.kernel.effects import DropCell, StoreCell
from colla.kernel.outbox import Outbox
from colla.model.ids import RANDOM_ID_BYTES, MemberId, NodeId
from colla.model.record import TOPIC_RECEIPTS, Record
from colla.model.sealing import derive_decryption_key
from colla.protocol.journal.journal import Journal
from colla.protocol.messaging.bodies import (
    KIND_DELIVERED,
    KIND_LETTER,
    KIND_READ,
    Content,
    Letter,
    decode_letter,
    decode_receipt,
)
from colla.protocol.messaging.letters import is_for, open_letter
from colla.protocol.records.quarantine import NO_QUARANTINE, Quarantine
from colla.protocol.views import Identity, MembershipView, RecordChange, RecordsView

READ_PREFIX = "messages/read/"


class Received(msgspec.Struct, frozen=True):
    """One message. `content` is None when it cannot be read on this computer (it was sent before it joined)."""

    place: int
    id: bytes
    author: NodeId
    member: MemberId
    to: tuple[MemberId, ...]
    sent_ms: int
    content: Content | None
    read: bool


class _Entry(msgspec.Struct, frozen=True):
    """One message of an index: its letter's record, and whether that has a key for this computer."""

    message: bytes
    record: Record
    ours: bool


class Mailbox:
    """See the module's docstring."""

    def __init__(
        self,
        identity: Identity,
        config: MessagingConfig,
        membership: MembershipView,
        records: RecordsView,
        journal: Journal,
        outbox: Outbox,
        durable: Durable,
        author_of: Callable[[Record], MemberId | None],
        quarantine: Quarantine = NO_QUARANTINE,
    ) -> None:
        """`author_of` names the member whose word a record is; None when it does not count."""
        self._identity = identity
        self._config = config
        self._membership = membership
        self._records = records
        self._journal = journal
        self._outbox = outbox
        self._author_of = author_of
        self._quarantine = quarantine
        self._key = derive_decryption_key(identity.secret.seed)
        self._me: MemberId | None = None
        self._inbox: dict[int, _Entry] = {}
        self._sent: dict[int, _Entry] = {}
        self._places: dict[bytes, int] = {}
        self._read: dict[bytes, None] = {}
        self._owed: dict[bytes, None] = {}
        for name in sorted(durable.cells):
            if name.startswith(READ_PREFIX):
                self._read[bytes.fromhex(name.removeprefix(READ_PREFIX))] = None
        self.membership_changed()

    def membership_changed(self) -> None:
        """This node may belong to a member only now."""
        me = self._membership.owner_of(self._identity.node)
        if me != self._me:
            self._me = me
            self._inbox, self._sent, self._places = {}, {}, {}
            for place, record in self._journal.after(0):
                self._file(place, record)

    # Reading.

    def inbox(self, after: int, *, unread: bool = False) -> Iterable[Received]:
        """The messages to this member behind that place, in order; with `unread` only those not read yet."""
        for place, entry in self._inbox.items():
            if place <= after or (unread and entry.message in self._read):
                continue
            # Whoever was removed wrote nothing any more from some place on, however long ago that came.
            if self._author_of(entry.record) is not None:
                yield self._received(place, entry)

    def sent(self, after: int) -> Iterable[Received]:
        """The messages of this member behind that place, in order."""
        return (self._received(place, entry) for place, entry in self._sent.items() if place > after)

    def find(self, message: bytes) -> Received | None:
        """A message that came or was sent, by its id."""
        place = self._places.get(message)
        entry = None if place is None else self._inbox.get(place) or self._sent.get(place)
        return None if place is None or entry is None else self._received(place, entry)

    def receipts(self) -> dict[bytes, dict[tuple[MemberId, str], int]]:
        """When (ms of Unix time, by the recipients' clocks) messages were delivered to whom, and read by whom."""
        found: dict[bytes, dict[tuple[MemberId, str], int]] = {}
        for record in self._records.all_records(TOPIC_RECEIPTS):
            member = self._author_of(record)
            if member is None or record.key.kind not in (KIND_DELIVERED, KIND_READ):
                continue
            for message in self._confirmed(record):
                times = found.setdefault(message, {})
                at_ms = record.stamp.wall_ms
                which = (member, record.key.kind)
                times[which] = min(at_ms, times.get(which, at_ms))
        return found

    # What comes.

    def arrived(self, taken: Sequence[tuple[int, Record]]) -> bool:
        """Letters have got these places; returns whether receipts are owed now."""
        return self._owe(
            [entry for place, record in taken if (entry := self._file(place, record)) is not None]
        )

    def owe(self, taken: Sequence[tuple[int, Record]]) -> bool:
        """As `arrived`, for letters that were filed before: a crash may have prevented their receipts."""
        return self._owe([self._inbox[place] for place, _ in taken if place in self._inbox])

    def owe_again(self, messages: Iterable[bytes]) -> None:
        """The receipt could not be written."""
        self._owed.update(dict.fromkeys(messages))

    @property
    def owes(self) -> bool:
        return bool(self._owed)

    def dropped(self, records: Sequence[Record]) -> None:
        """These letters are kept no more."""
        for record in records:
            letter = _letter(record)
            place = None if letter is None else self._places.get(letter.message)
            if letter is None or place is None:
                continue
            entry = self._inbox.get(place) or self._sent.get(place)
            if entry is None or entry.record.digest != record.digest:
                continue
            self._unfile(letter.message, place)
            if letter.message in self._read:
                del self._read[letter.message]
                self._outbox.persist(DropCell(READ_PREFIX + letter.message.hex()))

    def receipts_changed(self, changes: Sequence[RecordChange]) -> None:
        """Another computer of this member may have received or read something."""
        for change in changes:
            if change.topic != TOPIC_RECEIPTS or change.key.kind not in (KIND_READ, KIND_DELIVERED):
                continue
            for record in self._records.versions(TOPIC_RECEIPTS, change.key):
                if self._author_of(record) == self._me is not None:
                    messages = self._confirmed(record)
                    if change.key.kind == KIND_READ:
                        self.mark(messages)
                    for message in messages:
                        self._owed.pop(message, None)

    def mark(self, messages: Iterable[bytes]) -> list[bytes]:
        """These messages are read; returns those that are in the inbox and were not read before."""
        news = []
        for message in dict.fromkeys(messages):
            if self._places.get(message) in self._inbox and message not in self._read:
                self._read[message] = None
                news.append(message)
        if news:
            self._outbox.persist(*[StoreCell(READ_PREFIX + message.hex(), b"") for message in news])
        return news

    def owed(self) -> tuple[bytes, ...]:
        """The messages whose delivery is to be confirmed now; they count as confirmed from here on."""
        owed = tuple(self._owed)[: self._config.receipt_ids_max]
        for message in owed:
            del self._owed[message]
        return owed

    # Inside.

    def _owe(self, entries: Sequence[_Entry]) -> bool:
        """Note that these messages came, unless this member said so before, or cannot read them here."""
        mine = [
            entry
            for entry in entries
            if entry.ours and self._author_of(entry.record) != self._me and self._opened(entry) is not None
        ]
        said = self._said_by_me() if mine else {}
        for entry in mine:
            if entry.message not in said and len(self._owed) < self._config.receipts_pending_max:
                self._owed[entry.message] = None
        return bool(self._owed)

    def _confirmed(self, record: Record) -> tuple[bytes, ...]:
        """The messages that a receipt is about."""
        return self._quarantine.read(
            "the receipt", record.digest, lambda: decode_receipt(record.body).messages, ()
        )

    def _file(self, place: int, record: Record) -> _Entry | None:
        return self._quarantine.read(
            "the letter", record.digest, lambda: self._file_letter(place, record), None
        )

    def _file_letter(self, place: int, record: Record) -> _Entry | None:
        """Put a letter where it belongs; None when nobody else wrote it to this member, or it was there before."""
        letter = _letter(record)
        if letter is None or self._me is None:
            return None
        entry = _Entry(letter.message, record, is_for(letter, self._identity.node))
        by_me = self._author_of(record) == self._me
        to_me = self._me in letter.to or (not letter.to and not by_me)
        before = self._places.get(letter.message)
        if before is not None:
            # A message to many has several letters, of which at most one is for this computer.
            known = self._inbox.get(before) or self._sent.get(before)
            if known is None or known.ours or not entry.ours:
                return None
            self._unfile(letter.message, before)
        if to_me:
            self._inbox[place] = entry
        if by_me:
            self._sent[place] = entry
        if to_me or by_me:
            self._places[letter.message] = place
        return entry if to_me and not by_me else None

    def _unfile(self, message: bytes, place: int) -> None:
        self._places.pop(message, None)
        self._inbox.pop(place, None)
        self._sent.pop(place, None)

    def _said_by_me(self) -> dict[bytes, None]:
        """What receipts of this member, of any computer, confirm already."""
        return {
            message: None
            for message, times in self.receipts().items()
            if any(member == self._me for member, _ in times)
        }

    def _received(self, place: int, entry: _Entry) -> Received:
        letter, record = decode_letter(entry.record.body), entry.record
        return Received(
            place=place,
            id=entry.message,
            author=record.log.node,
            member=self._author_of(record) or MemberId(b""),
            to=letter.to,
            sent_ms=record.stamp.wall_ms,
            content=self._opened(entry),
            read=entry.message in self._read,
        )

    def _opened(self, entry: _Entry) -> Content | None:
        if not entry.ours:
            return None
        return self._quarantine.read("the letter", entry.record.digest, lambda: self._open(entry), None)

    def _open(self, entry: _Entry) -> Content | None:
        letter, author = decode_letter(entry.record.body), entry.record.log.node
        return open_letter(self._identity.group, author, letter, self._identity.node, self._key)


def _letter(record: Record) -> Letter | None:
    if record.key.kind != KIND_LETTER or len(record.key.subject) != RANDOM_ID_BYTES:
        return None
    return decode_letter(record.body)
