"""Mechanisms of the product, broken on purpose: each function replaces a method of one for the time of a test."""

from __future__ import annotations

from typing import Any

import msgspec
from pytest import MonkeyPatch

from colla.agents.dispatcher import Dispatcher
from colla.kernel.effects import StoreRecord
from colla.kernel.outbox import Outbox
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot
from colla.protocol.catalogue import catalogue
from colla.protocol.catalogue.bodies import KIND_GONE
from colla.protocol.election.candidacy import Candidacies, Won
from colla.protocol.election.contention import Negotiation
from colla.protocol.election.floors import BallotFloors
from colla.protocol.election.rule import VacancyKind
from colla.protocol.presence.presence import Presence
from colla.protocol.presence.reconnect import Links
from colla.protocol.records import book, shelf
from colla.protocol.records.book import RecordBook
from colla.protocol.records.log import HeldLog
from colla.protocol.records.topic import Topic
from colla.protocol.running import running
from colla.protocol.running.obeying import Obeying
from colla.protocol.running.running import Running
from colla.protocol.supervision import judging, supervisor
from colla.protocol.supervision.decision import Decision, Situation, decide
from colla.protocol.supervision.roster import Mastered
from colla.protocol.supervision.supervisor import Supervisor


def skips_the_ballot_check(patch: MonkeyPatch) -> None:
    refused_order = Obeying._refused_order

    def lenient(obeying: Obeying, *arguments: Any) -> str:
        code = refused_order(obeying, *arguments)
        return "" if code == "lower_ballot" else code

    patch.setattr(Obeying, "_refused_order", lenient)


def forgets_what_it_obeyed(patch: MonkeyPatch) -> None:
    raise_to = BallotFloors.raise_to

    def forgetful(floors: BallotFloors, service: ServiceId, ballot: Ballot) -> Any:
        if "obeyed" not in floors._prefix:
            return raise_to(floors, service, ballot)
        floors._pledged[service] = ballot
        return None

    patch.setattr(BallotFloors, "raise_to", forgetful)


def takes_the_highest_number(patch: MonkeyPatch) -> None:
    def note(held: HeldLog, number: int) -> None:
        held._complete = max(held._complete, number)

    patch.setattr(HeldLog, "note", note)


def moves_to_the_end_of_a_truncated_session(patch: MonkeyPatch) -> None:
    segments = shelf.Shelf.segments

    def whole(held: Any, wanted: Any, *arguments: Any) -> Any:
        given = segments(held, wanted, *arguments)
        ends = tuple(
            msgspec.structs.replace(one, through=want.through)
            for one, want in zip(given.segments, wanted, strict=False)
        )
        return msgspec.structs.replace(given, segments=ends)

    patch.setattr(shelf.Shelf, "segments", whole)


def drops_tombstones(patch: MonkeyPatch) -> None:
    restore = RecordBook._restore

    def forgetful(records: RecordBook, topic: Any, slot: bytes, signed: Any) -> bool:
        return KIND_GONE.encode() in signed.payload or restore(records, topic, slot, signed)

    patch.setattr(RecordBook, "_restore", forgetful)


def sends_before_it_is_durable(patch: MonkeyPatch) -> None:
    send = Outbox.send

    def hasty(outbox: Outbox, *arguments: Any, **named: Any) -> None:
        send(outbox, *arguments, **{**named, "unbarriered": True})

    patch.setattr(Outbox, "send", hasty)


def forgets_to_store(patch: MonkeyPatch) -> None:
    persist = Outbox.persist

    def forgetful(outbox: Outbox, *writes: Any) -> int:
        return persist(outbox, *(write for write in writes if not isinstance(write, StoreRecord)))

    patch.setattr(Outbox, "persist", forgetful)


def ignores_refusals(patch: MonkeyPatch) -> None:
    def nothing(*arguments: Any, **named: Any) -> None:
        """Whoever asks is told that nothing speaks against it."""

    patch.setattr(running, "refuses_one_more", nothing)
    patch.setattr(running, "refuses_service", nothing)
    judge = judging.judge

    def lenient(candidates: Any, *rest: Any) -> Any:
        willing = [
            msgspec.structs.replace(one, contribution=msgspec.structs.replace(one.contribution, paused=False))
            for one in candidates
        ]
        return judge(willing, *rest)

    patch.setattr(judging, "judge", lenient)


def merges_by_arrival(patch: MonkeyPatch) -> None:
    patch.setattr(Topic, "versions", lambda topic, key: list(topic._by_key.get(key, ())))
    for module in (shelf, catalogue):
        patch.setattr(module, "undominated", lambda records: list(reversed(records)))


def accepts_any_signature(patch: MonkeyPatch) -> None:
    patch.setattr(book, "verify", lambda *arguments: True)


def any_message_silences(patch: MonkeyPatch) -> None:
    def silenced(negotiation: Negotiation, peer: NodeId, message: Any, now: Any) -> float:
        negotiation.end(message.service)
        return float(now.boot_s + message.wait_s + negotiation._config.contention_hold_s)

    patch.setattr(Negotiation, "heard", silenced)


def forgets_the_absent(patch: MonkeyPatch) -> None:
    patch.setattr(Links, "seek", lambda *arguments: None)


def asks_no_witness(patch: MonkeyPatch) -> None:
    patch.setattr(Candidacies, "_witnesses", lambda candidacies, service: ())
    patch.setattr(Candidacies, "_heard_by_witness", lambda candidacies, candidacy, now: None)


def takes_no_inventory(patch: MonkeyPatch) -> None:
    def at_once(supervisor_: Supervisor, mastered: Mastered, now: Any) -> bool:
        mastered.acting, mastered.survey = True, None
        return True

    patch.setattr(Supervisor, "_inventory_done", at_once)


def adopts_nothing(patch: MonkeyPatch) -> None:
    patch.setattr(Supervisor, "_adopt", lambda *arguments: None)


def _decides(patch: MonkeyPatch, **changed: Any) -> None:
    def otherwise(situation: Situation) -> Decision:
        return msgspec.structs.replace(decide(situation), **changed)

    patch.setattr(supervisor, "decide", otherwise)


def never_trims(patch: MonkeyPatch) -> None:
    _decides(patch, trims=())


def refutes_nothing(patch: MonkeyPatch) -> None:
    patch.setattr(Presence, "_refute", lambda *arguments: None)


def spares_without_bounds(patch: MonkeyPatch) -> None:
    patch.setattr(Supervisor, "_spares_left", lambda supervisor_, now: 99)
    patch.setattr(Supervisor, "_may_spare", lambda supervisor_, now: True)
    real = supervisor.decide

    def generous(situation: Situation) -> Decision:
        doubtful = sum(1 for item in situation.replicas if item.doubtful)
        return msgspec.structs.replace(real(situation), spares=doubtful)

    patch.setattr(supervisor, "decide", generous)


def leaves_strays(patch: MonkeyPatch) -> None:
    judge = Running._judge

    def blind(here: Running, item: Any, now: Any) -> None:
        if here.table.by_id(item.replica) is not None or item.replica in here.table.remembered:
            judge(here, item, now)

    patch.setattr(Running, "_judge", blind)


def keeps_masterships_over_restarts(patch: MonkeyPatch) -> None:
    begin = Dispatcher._begin

    def remembering(dispatcher: Dispatcher, now: Any) -> None:
        begin(dispatcher, now)
        floors = dispatcher._candidacies.floors
        for service in floors.services():
            survey = dispatcher._surveys.begin(service, (), NodeId(b""), now)
            dispatcher._won(Won(service, floors.obeyed(service), VacancyKind.RELEASED, survey), now)

    patch.setattr(Dispatcher, "_begin", remembering)


def waits_for_orders_to_stop(patch: MonkeyPatch) -> None:
    patch.setattr(Running, "enforce", lambda here, now: here._fill_slots(now))


def tells_nobody_of_moves(patch: MonkeyPatch) -> None:
    patch.setattr("colla.protocol.supervision.answering.Answering.flush", lambda answering, now: None)
