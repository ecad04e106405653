"""Two-way anti-entropy between two nodes (Golding, 1992; DESIGN sections 4 and 6).

Owns: the sessions that are open, at most one per peer. Each side pulls what it lacks (see `pull`); the two
directions are independent, and both sides conclude alike, since both compare the same two fingerprints.

Transitions of one session with one peer:

    -        open                                     -> opening  the peer is sent the fingerprint
    -        Opening of the peer, equal fingerprints  -> -        concluded: equal
    -        Opening of the peer, others              -> pulling  the peer is sent a summary
    opening  Opening of the peer, it comes first      -> pulling  both opened at once: the lower node's counts
    opening  Closing: equal, or refused               -> -        concluded
    opening  Summary                                  -> pulling  a summary goes back, then questions
    pulling  Summary, Delta, Inventory, questions     -> pulling  merged, answered, asked on
    pulling  both finished, fingerprints differ       -> pulling  one more round, `ROUNDS_MAX` at most
    pulling  both finished                            -> -        concluded
    pulling  misbehaviour                             -> -        concluded: not complete
    opening, pulling  silence, sleep, a new Opening   -> -        concluded: not complete

Invariants: a session ends, whatever the peer sends (rounds, messages and silence are bounded); it touches only
the topics that both sides allow; a lost message costs time, never records.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar

import msgspec

from colla.kernel.config import RecordConfig
from colla.kernel.messages import Message, Timer
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, short
from colla.model.record import TOPIC_MEMBERSHIP, SignedRecord
from colla.protocol.records.book import Received, RecordBook
from colla.protocol.records.order import NUMBER_MAX
from colla.protocol.records.summary import DIGEST_BYTES, NAME_BYTES, Frontier
from colla.protocol.sessions.messages import (
    Closing,
    Delta,
    Finished,
    Inventory,
    InventoryWanted,
    Opening,
    RecordsWanted,
    SessionStalled,
    Summary,
    Wanted,
)
from colla.protocol.sessions.pull import Misbehaviour, Pull
from colla.protocol.views import Identity, RecordChange

ROUNDS_MAX = 2
SESSION_BITS = 48


class RecordsMerged(msgspec.Struct, frozen=True):
    """A session brought news: these keys have new live records."""

    changes: tuple[RecordChange, ...]


class SessionEnded(msgspec.Struct, frozen=True):
    """The session with `peer` is over. `complete`: both sides got all that the other had when it told.
    `equal`: the fingerprints over `topics` were equal at the end.
    """

    peer: NodeId
    topics: tuple[str, ...]
    equal: bool
    complete: bool


SessionConclusion = RecordsMerged | SessionEnded


class _Session:
    """One open session. `round` is 0 until the peer's first summary has come."""

    def __init__(self, peer: NodeId, number: int, topics: tuple[str, ...], initiated: bool) -> None:
        self.peer = peer
        self.number = number
        self.topics = topics
        self.initiated = initiated
        self.round = 0
        self.heard = 0
        self.opening_fingerprint = b""
        self.pull: Pull | None = None
        self.own_finish: bytes | None = None
        self.their_finish: bytes | None = None
        self.summaries_sent = 0


class Sessions:
    """All open sessions of a node."""

    MESSAGES: ClassVar[tuple[type[Message], ...]] = (
        Opening,
        Summary,
        Wanted,
        InventoryWanted,
        RecordsWanted,
        Delta,
        Inventory,
        Finished,
        Closing,
    )
    TIMERS: ClassVar[tuple[type[Timer], ...]] = (SessionStalled,)

    def __init__(
        self, identity: Identity, config: RecordConfig, rng: Random, outbox: Outbox, book: RecordBook
    ) -> None:
        self._node = identity.node
        self._config = config
        self._rng = rng
        self._outbox = outbox
        self._book = book
        self._sessions: dict[NodeId, _Session] = {}

    def open(self, peer: NodeId, topics: tuple[str, ...], now: Instant) -> None:
        """Begin a session; nothing happens when one with that peer is open, or too many are."""
        if (
            peer == self._node
            or peer in self._sessions
            or len(self._sessions) >= self._config.sessions_open_max
        ):
            return
        session = self._begin(peer, self._rng.getrandbits(SESSION_BITS), topics, True, now)
        session.opening_fingerprint = self._book.fingerprint(topics)
        self._send_opening(session)

    def is_open(self, peer: NodeId) -> bool:
        return peer in self._sessions

    def message(
        self, peer: NodeId, message: Message, now: Instant, topics_allowed: tuple[str, ...] | None = None
    ) -> list[SessionConclusion]:
        """A message of a session arrived. With this peer, only `topics_allowed` (None: all) may be shared now."""
        if topics_allowed is None:
            topics_allowed = self._book.topics
        if isinstance(message, Opening):
            return self._opened(peer, message, now, topics_allowed)
        session = self._sessions.get(peer)
        if session is None or getattr(message, "session", None) != session.number:
            return []
        session.heard += 1
        try:
            if session.heard > self._config.session_messages_max:
                raise Misbehaviour("the session has too many messages")
            if any(topic not in topics_allowed for topic in session.topics):
                session.topics = tuple(topic for topic in session.topics if topic in topics_allowed)
                return self._end(session, equal=False, complete=False, reason="no longer allowed")
            return self._heard(session, message, now)
        except Misbehaviour as fault:
            text = f"A session with {short(peer)} was ended: {fault}."
            self._outbox.notify("peer_misbehaved", text, node=peer)
            return self._end(session, equal=False, complete=False, reason="misbehaviour")

    def timer(self, timer: Timer, now: Instant) -> list[SessionConclusion]:
        """A session may have stalled."""
        if not isinstance(timer, SessionStalled):
            return []
        session = self._sessions.get(timer.peer)
        if session is None or session.number != timer.session:
            return []
        if session.heard == timer.heard:
            return self._end(session, equal=False, complete=False, reason="timed out")
        self._watch(session, now)
        return []

    def resumed(self) -> list[SessionConclusion]:
        """The computer slept: no peer waits for us any more."""
        ended: list[SessionConclusion] = []
        for session in list(self._sessions.values()):
            ended += self._end(session, equal=False, complete=False, reason="slept")
        return ended

    def proof_for(
        self, their_summary: Sequence[Frontier], bytes_max: int, topics: tuple[str, ...] = (TOPIC_MEMBERSHIP,)
    ) -> tuple[SignedRecord, ...]:
        """Records of the membership that a stranger with that summary lacks, in order, at most `bytes_max`.

        To be given to `RecordBook.receive` there: they prove themselves, and move frontiers only without gaps.
        """
        records = self._book.segments_after(their_summary, topics, bytes_max, bytes_max).records
        room = bytes_max
        for place, record in enumerate(records):
            room -= len(record.payload) + len(record.signature)
            if room < 0:
                return records[:place]
        return records

    def _opened(
        self, peer: NodeId, message: Opening, now: Instant, topics_allowed: tuple[str, ...]
    ) -> list[SessionConclusion]:
        open_one = self._sessions.get(peer)
        conclusions: list[SessionConclusion] = []
        if open_one is not None:
            if not open_one.initiated and open_one.number == message.session:
                return []
            if not open_one.initiated or open_one.round > 0:
                # The peer knows nothing of that session any more, else it would not open another.
                conclusions += self._end(open_one, equal=False, complete=False)
            elif self._node < peer:
                # Both opened at once, and the lower node's session counts. The peer may have missed our opening.
                self._send_opening(open_one)
                return []
            else:
                del self._sessions[peer]
        topics = tuple(topic for topic in topics_allowed if topic in message.topics)
        if not topics or len(self._sessions) >= self._config.sessions_open_max:
            self._outbox.send(peer, Closing(message.session, reason="refused"))
            return conclusions
        if len(topics) == len(message.topics) and self._book.fingerprint(topics) == message.fingerprint:
            self._outbox.send(peer, Closing(message.session, message.fingerprint))
            self._concluded(topics, equal=True)
            return [*conclusions, SessionEnded(peer, topics, equal=True, complete=True)]
        session = self._begin(peer, message.session, topics, False, now)
        self._send_summary(session, 1)
        return conclusions

    def _heard(self, session: _Session, message: Message, now: Instant) -> list[SessionConclusion]:
        match message:
            case Summary():
                return self._summary(session, message, now)
            case Wanted(segments=wanted):
                if len(wanted) > self._config.segments_asked_max:
                    raise Misbehaviour("it asks for too many segments")
                config = self._config
                found = self._book.segments(
                    wanted, session.topics, config.delta_bytes_max, config.delta_records_max
                )
                self._outbox.send(session.peer, Delta(session.number, found.segments, found.records))
            case InventoryWanted(log=log, after=after):
                if not 0 <= after <= NUMBER_MAX:
                    raise Misbehaviour("it asks for an impossible number")
                page = self._book.page(log, after, session.topics)
                answer = Inventory(session.number, log, after, page.through, page.entries, page.more)
                self._outbox.send(session.peer, answer)
            case RecordsWanted(log=log, digests=digests):
                if not 1 <= len(digests) <= self._config.delta_records_max:
                    raise Misbehaviour("it asks for too many records")
                served, records = self._book.chosen(
                    log, digests, session.topics, self._config.delta_bytes_max
                )
                self._outbox.send(session.peer, Delta(session.number, (), records, served))
            case Delta():
                if session.pull is None:
                    raise Misbehaviour("it sent records that nobody asked for")
                received = session.pull.delta(message, now)
                return self._merged(session, received) + self._go_on(session, now)
            case Inventory():
                if session.pull is None:
                    raise Misbehaviour("it sent an inventory that nobody asked for")
                session.pull.inventory(message)
                return self._go_on(session, now)
            case Finished(round=number, fingerprint=fingerprint):
                if number != session.round or len(fingerprint) > 2 * DIGEST_BYTES:
                    raise Misbehaviour("it finished another round")
                session.their_finish = fingerprint
                return self._conclude(session, now)
            case Closing(fingerprint=fingerprint):
                equal = bool(fingerprint) and fingerprint == session.opening_fingerprint
                return self._end(session, equal=equal, complete=equal)
            case _:
                pass
        return []

    def _send_opening(self, session: _Session) -> None:
        opening = Opening(session.number, session.topics, session.opening_fingerprint)
        self._outbox.send(session.peer, opening)

    def _summary(self, session: _Session, message: Summary, now: Instant) -> list[SessionConclusion]:
        if message.round != session.round + 1 or message.round > ROUNDS_MAX:
            raise Misbehaviour("it sent a summary out of turn")
        self._check_summary(session, message)
        session.topics = message.topics
        session.round = message.round
        session.own_finish = session.their_finish = None
        if session.summaries_sent < message.round:
            self._send_summary(session, message.round)
        session.pull = Pull(self._book, self._config, session.number, session.topics, message.frontiers)
        return self._go_on(session, now)

    def _check_summary(self, session: _Session, message: Summary) -> None:
        narrowed = session.initiated and message.round == 1
        if not message.topics or any(topic not in session.topics for topic in message.topics):
            raise Misbehaviour("its summary is about other topics")
        if not narrowed and message.topics != session.topics:
            raise Misbehaviour("it changed the topics")
        if len(message.frontiers) > self._config.summary_logs_max:
            raise Misbehaviour("its summary is too long")
        for frontier in message.frontiers:
            if len(frontier.log) != NAME_BYTES or not 0 <= frontier.number <= NUMBER_MAX:
                raise Misbehaviour("its summary is malformed")

    def _send_summary(self, session: _Session, number: int) -> None:
        frontiers = self._book.summary(session.topics, hashes=number > 1)
        most = self._config.summary_logs_max
        if len(frontiers) > most:
            start = self._rng.randrange(len(frontiers))
            frontiers = (frontiers[start:] + frontiers[:start])[:most]
        session.summaries_sent = number
        self._outbox.send(session.peer, Summary(session.number, number, session.topics, frontiers))

    def _go_on(self, session: _Session, now: Instant) -> list[SessionConclusion]:
        """Ask the next question of the pull, or say that it is finished."""
        if session.pull is None:
            return []
        question = session.pull.next_question(now)
        if question is not None:
            self._outbox.send(session.peer, question)
            return []
        session.pull = None
        session.own_finish = self._book.fingerprint(session.topics)
        self._outbox.send(session.peer, Finished(session.number, session.round, session.own_finish))
        return self._conclude(session, now)

    def _conclude(self, session: _Session, now: Instant) -> list[SessionConclusion]:
        """Both sides compare the same two fingerprints, so they decide alike."""
        if session.own_finish is None or session.their_finish is None:
            return []
        if session.own_finish == session.their_finish:
            return self._end(session, equal=True, complete=True)
        if session.round == ROUNDS_MAX:
            return self._end(session, equal=False, complete=True)
        if session.summaries_sent == session.round:
            self._send_summary(session, session.round + 1)
        return []

    def _merged(self, session: _Session, received: Received) -> list[SessionConclusion]:
        if received.rejected:
            text = f"{received.rejected} records from {short(session.peer)} were rejected."
            self._outbox.notify("records_rejected", text, node=session.peer)
        return [RecordsMerged(tuple(received.changes))] if received.changes else []

    def _begin(
        self, peer: NodeId, number: int, topics: tuple[str, ...], initiated: bool, now: Instant
    ) -> _Session:
        session = self._sessions[peer] = _Session(peer, number, topics, initiated)
        self._watch(session, now)
        return session

    def _watch(self, session: _Session, now: Instant) -> None:
        timer = SessionStalled(session.peer, session.number, session.heard)
        self._outbox.wake_in(self._config.session_timeout_s, timer, now)

    def _end(
        self, session: _Session, *, equal: bool, complete: bool, reason: str = ""
    ) -> list[SessionConclusion]:
        del self._sessions[session.peer]
        if reason:
            self._outbox.send(session.peer, Closing(session.number, reason=reason))
        if complete:
            self._concluded(session.topics, equal)
        return [SessionEnded(session.peer, session.topics, equal, complete)]

    def _concluded(self, topics: tuple[str, ...], equal: bool) -> None:
        self._book.opened(topics)
        if equal:
            self._book.session_confirmed(topics)
