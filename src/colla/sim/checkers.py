"""Safety, checked while a simulation runs: what must never happen, whatever fails.

* An executor never obeys a lower ballot after a higher one, nor one that is not on its disk.
* A dispatcher never rules by a ballot that is not on its disk, or that it claimed in an earlier life.
* A node never runs two replicas of one service.
* No executor launches a service whose elimination its own node knows, and what a node knows eliminated never returns.
* An executor never launches what its owner refuses.
* A frontier never claims what is not held (looked at now and then).
* Nothing is held that its author never wrote (looked at now and then).
* A write acknowledged as durable on n nodes is not lost while fewer than n were wiped (looked at when all are back).

The checkers know the truth (what was sent, what is on disks, what runs) and keep their own account of it, so that they
share no mistake with the agents. A breach raises `Violation` at once, with seed, replay command and stories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from colla.agents.requests import Written
from colla.kernel.config import Config
from colla.kernel.effects import (
    Answer,
    DropCell,
    Effect,
    LaunchReplica,
    Notify,
    Persist,
    Send,
    StoreCell,
    StoreRecord,
)
from colla.kernel.events import Event, MessageReceived
from colla.kernel.messages import Message
from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import LogId, MemberId, NodeId, ReplicaId, ServiceId
from colla.model.keys import verify
from colla.model.location import NO_BALLOT, Ballot
from colla.model.record import (
    TOPIC_CATALOGUE,
    TOPIC_EVENTS,
    TOPIC_HAPPENINGS,
    TOPIC_MESSAGES,
    TOPIC_RECEIPTS,
    Key,
    Record,
    parse_record,
)
from colla.model.service import Specification
from colla.protocol.catalogue.bodies import KIND_GONE
from colla.protocol.election.messages import Claim
from colla.protocol.records.book import slot_of
from colla.protocol.records.quarantine import QUARANTINED
from colla.protocol.records.summary import log_name
from colla.protocol.supervision.messages import Offer, OfferAnswer, StopAnswer, StopOrder
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

LOOK_EVERY_S = 2.0
"""What is too dear to check after every step is checked so often."""
OBEYED_CELLS = "obeyed-ballot/"
CLAIMED_CELLS = "claimed-ballot/"


JUDGED: tuple[type[Message], ...] = (OfferAnswer, StopAnswer, Offer, StopOrder, Claim)
"""Messages that say whom a node obeys, or by what it rules. Most others are heartbeats."""


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(slots=True)
class Acknowledged:
    """A write that somebody was told is durable on `copies` nodes; `wiped` computers there were then."""

    records: list[Record]
    copies: int
    wiped: int


@dataclass(slots=True)
class Account:
    """What the checkers remember of one computer."""

    obeyed: dict[ServiceId, Ballot] = field(default_factory=dict)
    offers: dict[tuple[NodeId, int], Ballot] = field(default_factory=dict)
    stops: dict[tuple[NodeId, ReplicaId], Ballot] = field(default_factory=dict)
    gone: dict[ServiceId, None] = field(default_factory=dict)
    unacknowledged: dict[ServiceId, list[list[Record]]] = field(default_factory=dict)
    """The writes on their way, of each service in order. Those of agents that died are answered by nobody."""
    claimed: dict[ServiceId, Ballot] = field(default_factory=dict)
    """By the agents that run now."""
    agents: object = None
    wiped: int = 0


class SafetyChecks:
    """All of them, for one group. Made once, before anything interesting happens."""

    def __init__(self, group: SimGroup) -> None:
        self.group = group
        self.checked = 0
        self.faults_expected = False
        """Whether the scenario itself makes colla fail to read records."""
        self.acknowledged: list[Acknowledged] = []
        self._accounts: dict[str, Account] = {}
        self._records: dict[LogId, dict[bytes, Record]] = {}
        """What each author wrote: what was there before these checks, and what was persisted since."""
        for computer in group.computers:
            for signed in computer.disk.snapshot().records.values():
                record = parse_record(signed)
                self._records.setdefault(record.log.id, {})[record.digest] = record
        group.observers.append(self)
        group.world.after(LOOK_EVERY_S, self._look)

    # -- computer.Observer ----------------------------------------------------------------------------------

    def will_step(self, computer: Computer, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            return
        account, message = self._account(computer), event.message
        if isinstance(message, Offer):
            account.offers[event.peer, message.offer] = message.ballot
        elif isinstance(message, StopOrder):
            account.stops[event.peer, message.replica] = message.ballot

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        self.checked += 1
        for effect in effects:
            if isinstance(effect, LaunchReplica):
                self._may_launch(computer, effect)
            elif (
                isinstance(effect, Notify) and effect.notice.kind == QUARANTINED and not self.faults_expected
            ):
                self._violated(f"records cannot be read: {effect.notice.text}", computer)

    def performed(self, computer: Computer, effect: Effect) -> None:
        if isinstance(effect, Send) and type(effect.message) not in JUDGED:
            return
        account = self._account(computer)
        match effect:
            case Send(to=to, message=OfferAnswer() as answer) if answer.accepted:
                self._obeys(
                    computer, answer.service, account.offers.get((to, answer.offer), NO_BALLOT), "offer"
                )
            case Send(to=to, message=StopAnswer() as answer) if not answer.code:
                # A slow disk holds answers back: this one may be to an order from before the newest.
                ballot = min(account.stops.get((to, answer.replica), NO_BALLOT), answer.ballot)
                self._obeys(computer, answer.service, ballot, "stop order")
            case Send(message=Offer() | StopOrder() | Claim() as order):
                self._rules(computer, account, order.service, order.ballot)
            case LaunchReplica():
                self._one_replica(computer, effect)
            case Persist():
                self._persists(computer, account, effect)
            case Answer(result=Written(service=service, copies=copies)):
                self._written(account, service, copies)
            case _:
                pass

    def _account(self, computer: Computer) -> Account:
        account = self._accounts.get(computer.name)
        if account is None:
            account = self._accounts[computer.name] = Account()
        if account.wiped != computer.wiped:
            # Another disk: what was promised on the old one is forgotten with it.
            account = self._accounts[computer.name] = Account(wiped=computer.wiped)
        if computer.process is not None and account.agents is not computer.process.core:
            account.agents = computer.process.core
            account.unacknowledged.clear()
            account.claimed.clear()
        return account

    def _violated(self, why: str, *computers: Computer) -> None:
        raise Violation(self.group.describe(f"safety violated: {why}", list(computers)))

    # -- ballots --------------------------------------------------------------------------------------------

    def _obeys(self, computer: Computer, service: ServiceId, ballot: Ballot, what: str) -> None:
        if ballot == NO_BALLOT:
            return
        obeyed = self._account(computer).obeyed
        highest = obeyed.get(service, NO_BALLOT)
        if ballot < highest:
            text = f"{computer.name} obeys a {what} of {ballot} after {highest}"
            self._violated(text, computer, self.group.of(ballot.node))
        obeyed[service] = ballot
        if self._on_disk(computer, OBEYED_CELLS, service) < ballot and not _is_over(computer, service):
            self._violated(f"{computer.name} obeys a {what} of {ballot}, which is not on its disk", computer)

    def _rules(self, computer: Computer, account: Account, service: ServiceId, ballot: Ballot) -> None:
        if self._on_disk(computer, CLAIMED_CELLS, service) < ballot and not _is_over(computer, service):
            self._violated(f"{computer.name} rules by {ballot}, which is not on its disk", computer)
        if account.claimed.get(service, NO_BALLOT) < ballot:
            self._violated(
                f"{computer.name} rules by {ballot}, which it claimed in an earlier life", computer
            )

    def _on_disk(self, computer: Computer, cells: str, service: ServiceId) -> Ballot:
        cell = computer.disk.cell(cells + service.hex())
        return NO_BALLOT if cell is None else _ballot(cell)

    def _persists(self, computer: Computer, account: Account, effect: Persist) -> None:
        own: dict[ServiceId, list[Record]] = {}
        for write in effect.writes:
            match write:
                case StoreRecord(record=signed):
                    record = parse_record(signed)
                    if record.log.node == computer.node and self._genuine(record):
                        self._records.setdefault(record.log.id, {})[record.digest] = record
                        if record.log.topic == TOPIC_CATALOGUE:
                            own.setdefault(ServiceId(record.key.subject), []).append(record)
                case StoreCell(name=name, value=value) if name.startswith(OBEYED_CELLS):
                    before = computer.disk.cell(name)
                    if before is not None and _ballot(value) < _ballot(before):
                        self._violated(f"{computer.name} lowers {name} to {_ballot(value)}", computer)
                case StoreCell(name=name, value=value) if name.startswith(CLAIMED_CELLS):
                    service = ServiceId(bytes.fromhex(name.removeprefix(CLAIMED_CELLS)))
                    account.claimed[service] = _ballot(value)
                case DropCell(name=name) if name.startswith((OBEYED_CELLS, CLAIMED_CELLS)):
                    service = ServiceId(bytes.fromhex(name.partition("/")[2]))
                    if not _is_over(computer, service):
                        self._violated(f"{computer.name} forgets {name} of a service that exists", computer)
                case _:
                    pass
        for service, records in own.items():
            account.unacknowledged.setdefault(service, []).append(records)

    # -- replicas -------------------------------------------------------------------------------------------

    def _may_launch(self, computer: Computer, effect: LaunchReplica) -> None:
        core, specification = computer.core, effect.specification
        if core.catalogue.eliminated(effect.service):
            text = f"{computer.name} launches {specification.name}, which it knows to be eliminated"
            self._violated(text, computer)
        owner = core.membership.owner_of(computer.node)
        why = refusal_of(core.contribution, owner, specification, self.group, accepted=True)
        if why:
            self._violated(f"{computer.name} launches {specification.name} though {why}", computer)

    def _one_replica(self, computer: Computer, effect: LaunchReplica) -> None:
        others = [
            running
            for running in computer.environment.replicas.values()
            if running.service == effect.service and running.replica != effect.replica
        ]
        if others:
            text = f"{computer.name} starts a second replica of {effect.specification.name}"
            self._violated(text, computer)

    # -- now and then ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.group.world.after(LOOK_EVERY_S, self._look)
        for computer in self.group.up():
            self.look_at(computer)

    def look_at(self, computer: Computer) -> None:
        """The dear checks of one node that is up."""
        account, catalogue = self._account(computer), computer.core.catalogue
        for service in computer.core.dispatcher.masters():
            self._rules(computer, account, service, computer.core.dispatcher.ballot_of(service) or NO_BALLOT)
        for service in account.gone:
            if catalogue.service(service) is not None or not catalogue.eliminated(service):
                self._violated(
                    f"{computer.name} has {service.hex()[:10]} again, which was eliminated", computer
                )
        for service in self.group.services:
            # What a crash may still take away is not known for good yet.
            if (
                service not in account.gone
                and catalogue.eliminated(service)
                and _is_flushed(computer, service)
            ):
                account.gone[service] = None
        self._frontiers(computer)

    def _frontiers(self, computer: Computer) -> None:
        book = computer.core.foundation.book
        for topic in book.topics:
            held_of: dict[LogId, list[Record]] = {}
            for record in book.all_records(topic):
                held_of.setdefault(record.log.id, []).append(record)
            names = {frontier.log: frontier.number for frontier in book.summary((topic,))}
            for log, held in held_of.items():
                forged = [one for one in held if one.digest not in self._records.get(log, {})]
                if forged and forged[0].log.node in self._authors():
                    text = f"{computer.name} holds record {forged[0].number} of {forged[0].log.topic}"
                    self._violated(f"{text}, which its author never wrote down", computer)
                frontier = names.get(log_name(held[0].log), 0)
                kept = _kept_of(topic, computer.config)
                existing = list(self._records.get(log, {}).values())
                if kept:
                    # Of a stream the newest are kept; an author may keep fewer of its own, and says so.
                    floor = max(one.number for one in [*existing, *held]) - kept
                    claims = [seen.number for one in existing for seen in one.seen if seen.log == log]
                    existing = [one for one in existing if one.number > max([floor, *claims])]
                # What a later record replaces is not claimed, even where that one has not come yet: a peer that
                # held it already gave all that was live up to this frontier.
                lost = missing(missing(existing, held, frontier), existing, frontier, replaced_only=True)
                if lost and not self._forked(log):
                    text = (
                        f"{computer.name} claims a log of {topic} up to {frontier} but lacks {lost[0].number}"
                    )
                    self._violated(text, computer)

    def _genuine(self, record: Record) -> bool:
        """Whether its author signed it; checked here again, and not as the agents do it."""
        signed = self.group.group + record.signed.payload
        return verify(record.log.node, signed, record.signed.signature)

    def _authors(self) -> dict[NodeId, str]:
        """Those whose every write is seen here."""
        return {computer.node: computer.name for computer in self.group.computers}

    def _forked(self, log: LogId) -> bool:
        """Whether an old disk gave this log two branches: then numbers mean two records each."""
        records = self._records.get(log, {}).values()
        return len({record.number for record in records}) < len(records)

    # -- acknowledged writes --------------------------------------------------------------------------------

    def _written(self, account: Account, service: ServiceId, copies: int) -> None:
        waiting = account.unacknowledged.get(service)
        if waiting:
            records = waiting.pop(0)
            if copies >= 2:
                self.acknowledged.append(Acknowledged(records, copies, self._wiped()))

    def _wiped(self) -> int:
        return sum(computer.wiped for computer in self.group.computers)

    def check_writes(self) -> int:
        """When all computers are back and have met: no acknowledged write is lost. Returns how many were checked."""
        checked = 0
        books = [computer.core.foundation.book for computer in self.group.up()]
        held = [record for book in books for record in book.all_records(TOPIC_CATALOGUE)]
        for write in self.acknowledged:
            if self._wiped() - write.wiped >= write.copies:
                continue
            checked += 1
            for record in write.records:
                of_log = [other for other in held if other.log.id == record.log.id]
                if missing([record], of_log, record.number):
                    text = (
                        f"record {record.number} about {record.key} was acknowledged on {write.copies} nodes"
                    )
                    self._violated(f"{text} and is lost", self.group.of(record.log.node))
        return checked


def _kept_of(topic: str, config: Config) -> int:
    """How many records of each log of a stream are kept; 0 for a topic that is none."""
    return {
        TOPIC_MESSAGES: config.messaging.letters_kept,
        TOPIC_RECEIPTS: config.messaging.receipts_kept,
        TOPIC_EVENTS: config.happenings.events_kept,
        TOPIC_HAPPENINGS: config.happenings.group_kept,
    }.get(topic, 0)


def _is_flushed(computer: Computer, service: ServiceId) -> bool:
    """Whether all that the node knows of the service is flushed."""
    held = computer.disk.snapshot().records
    about = [
        record
        for record in computer.core.foundation.book.all_records(TOPIC_CATALOGUE)
        if record.key.subject == service
    ]
    return all(held.get((TOPIC_CATALOGUE, slot_of(record.signed))) == record.signed for record in about)


def _is_over(computer: Computer, service: ServiceId) -> bool:
    """Whether the node knows the service to be eliminated: its ballots mean nothing any more, and leave the disk."""
    return computer.core.catalogue.eliminated(service)


def _ballot(cell: bytes) -> Ballot:
    return msgspec.msgpack.decode(cell, type=Ballot)


def missing(
    existing: Iterable[Record], held: list[Record], through: int, *, replaced_only: bool = False
) -> list[Record]:
    """Which of a log's existing records up to that number are neither held nor replaced by what is held.

    `replaced_only`: those that are held are missing too, unless replaced.
    """
    digests = {} if replaced_only else {record.digest: None for record in held}
    return [
        record
        for record in existing
        if record.number <= through and record.digest not in digests and not _replaced(record, held)
    ]


def _replaced(record: Record, held: list[Record]) -> bool:
    """Whether a later record of the same log, which says so or is a tombstone, stands in its place."""
    for later in held:
        if later.number <= record.number or later.key.subject != record.key.subject:
            continue
        if later.log.topic == TOPIC_CATALOGUE and later.key == Key(KIND_GONE, record.key.subject):
            return True
        if later.key == record.key and any(
            seen.log == record.log.id and seen.number >= record.number for seen in later.seen
        ):
            return True
    return False


def refusal_of(
    gives: Contribution,
    owner: MemberId | None,
    specification: Specification,
    group: SimGroup,
    *,
    accepted: bool = False,
) -> str:
    """Why the owner of a computer does not let a new replica of this start, or nothing. Their own words count.

    A computer that drains refuses new replicas; one that was `accepted` before may still start, and then moves.
    """
    names = {person.id: person.name for person in group.people}
    if gives.paused:
        return "it is paused"
    if gives.draining and not accepted:
        return "it is draining"
    if not gives.carries(AgentKind.EXECUTOR):
        return "it carries no executor"
    if specification.environment not in gives.environments:
        return "it does not give the environment"
    if gives.own_only and specification.owner != owner:
        return "it runs only its owner's services"
    allowed = (specification.owner.hex(), names.get(specification.owner, ""))
    if gives.members and not any(member in gives.members for member in allowed):
        return "it does not run this member's services"
    if any(member in gives.denied_members for member in allowed):
        return "it refuses this member's services"
    if gives.only_labels and not any(label in gives.only_labels for label in specification.labels):
        return "it runs only services with other labels"
    if any(label in gives.denied_labels for label in specification.labels):
        return "it refuses services with this label"
    return ""
