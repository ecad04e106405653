"""One direction of a session: what this node still lacks of what its peer told it, and the next question.

First the gaps between the frontiers. Then, if the peer's summary has hashes, an inventory of every log that
still differs (a fork, or records ahead of a gap). One question is open at a time. Every answer shortens what
is left, else the peer is at fault: a pull ends, whatever the peer sends.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.kernel.config import RecordConfig
from colla.kernel.time import Instant
from colla.protocol.records.book import Received, RecordBook
from colla.protocol.records.summary import ENTRY_BYTES, NUMBER_BYTES, Frontier, Segment
from colla.protocol.sessions.messages import (
    Delta,
    Inventory,
    InventoryWanted,
    Question,
    RecordsWanted,
    Wanted,
)


class Misbehaviour(Exception):
    """The peer broke the rules of the session; the text says which."""


class Pull:
    """What is left to ask a peer that has the frontiers `theirs`."""

    def __init__(
        self,
        book: RecordBook,
        config: RecordConfig,
        session: int,
        topics: Sequence[str],
        theirs: Sequence[Frontier],
    ) -> None:
        self._book = book
        self._config = config
        self._session = session
        self._topics = topics
        self._gaps = book.gaps(theirs)
        self._unequal = [frontier for frontier in theirs if frontier.hash]
        self._after = 0
        self._page: Segment | None = None
        self._page_ends_log = False
        self._lacking: list[bytes] = []
        self._question: Question | None = None

    def next_question(self, now: Instant) -> Question | None:
        """The question to ask now; None when nothing is lacking any more."""
        if self._page is not None and not self._lacking:
            self._book.receive_segments((self._page,), (), self._topics, now)
            self._page = None
        self._question = self._choose()
        return self._question

    def delta(self, message: Delta, now: Instant) -> Received:
        """Merge the answer to the open question. Raises `Misbehaviour`."""
        match self._question:
            case Wanted(segments=asked):
                self._check_segments(message.segments, asked)
                received = self._merge(message, message.segments, now)
                self._close_gaps(message.segments)
            case RecordsWanted(digests=asked_digests):
                if message.segments or not 1 <= message.served <= len(asked_digests):
                    raise Misbehaviour("it served what was not asked for")
                received = self._merge(message, (), now)
                del self._lacking[: message.served]
                if received.rejected:
                    self._page = None
            case _:
                raise Misbehaviour("it sent records that nobody asked for")
        self._question = None
        return received

    def inventory(self, message: Inventory) -> None:
        """Note what the peer holds of a log and we lack. Raises `Misbehaviour`."""
        asked = self._question
        if not isinstance(asked, InventoryWanted) or (message.log, message.after) != (asked.log, asked.after):
            raise Misbehaviour("it sent an inventory that nobody asked for")
        if message.through < message.after or (message.more and message.through == message.after):
            raise Misbehaviour("its inventory does not go on")
        if len(message.entries) > ENTRY_BYTES * self._config.inventory_entries_max:
            raise Misbehaviour("its inventory is too long")
        digests = [
            message.entries[start + NUMBER_BYTES : start + ENTRY_BYTES]
            for start in range(0, len(message.entries), ENTRY_BYTES)
        ]
        self._lacking = self._book.lacking(message.log, digests)
        # Records ahead of the peer's frontier are in its inventory, but it does not know of all before them.
        through = min(message.through, self._unequal[0].number)
        self._page = Segment(message.log, message.after, through)
        self._page_ends_log = not message.more
        self._after = message.through
        self._question = None

    def _choose(self) -> Question | None:
        if self._gaps:
            return Wanted(self._session, tuple(self._gaps[: self._config.segments_asked_max]))
        if self._lacking:
            digests = tuple(self._lacking[: self._config.delta_records_max])
            return RecordsWanted(self._session, self._unequal[0].log, digests)
        while self._unequal:
            log = self._unequal[0]
            if not self._page_ends_log and self._book.hash_of(log.log) != log.hash:
                return InventoryWanted(self._session, log.log, self._after)
            del self._unequal[0]
            self._after, self._page_ends_log = 0, False
        return None

    def _merge(self, message: Delta, segments: Sequence[Segment], now: Instant) -> Received:
        if len(message.records) > self._config.delta_records_max:
            raise Misbehaviour("its delta has too many records")
        return self._book.receive_segments(segments, message.records, self._topics, now)

    def _check_segments(self, given: Sequence[Segment], asked: Sequence[Segment]) -> None:
        if len(given) > len(asked):
            raise Misbehaviour("it sent more segments than were asked for")
        for segment, want in zip(given, asked, strict=False):
            if (segment.log, segment.after) != (want.log, want.after):
                raise Misbehaviour("it sent other segments than were asked for")
            if not want.after <= segment.through <= want.through:
                raise Misbehaviour("a segment has another end than was asked for")

    def _close_gaps(self, given: Sequence[Segment]) -> None:
        """Only the last segment may be unfinished; an answer without any says that nothing is to be had."""
        last = self._gaps[len(given) - 1] if given else self._gaps[0]
        del self._gaps[: max(1, len(given))]
        if given and given[-1].after < given[-1].through < last.through:
            self._gaps.insert(0, Segment(last.log, given[-1].through, last.through))
