"""A member with a program of its own floods the group: all drop the same, and everybody else goes on."""

from __future__ import annotations

from random import Random

from colla.agents.requests import NameObject, ObjectNamed
from colla.kernel.config import Config, QuotaConfig, RecordConfig
from colla.kernel.effects import Refusal
from colla.kernel.events import MessageReceived
from colla.model.ids import LogId, ObjectId, digest
from colla.model.record import TOPIC_CATALOGUE, TOPIC_OBJECTS, Key, Log, Payload, Stamp, sign_record
from colla.protocol.naming.bodies import Named, encode, key_of
from colla.protocol.records.writes import RecordsNews
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

TIGHT = Config(quotas=QuotaConfig(names=4, services=4), records=RecordConfig(logs_per_node_max=2))
OBJECT = ObjectId(digest(b"notes"))


def group_of(nodes: int) -> SimGroup:
    """Without the checkers: they know what every author wrote down, and a liar writes nothing down."""
    group = SimGroup(0, config=TIGHT)
    group.grow(nodes)
    group.deploy("web", replicas=1)
    group.run(5.0)
    return group


def named(path: str) -> Named:
    return Named(path, OBJECT, 10, 10, 1, False)


def flood(liar: Computer, victims: list[Computer], rng: Random) -> None:
    """Names and services in many logs, to each of the others in another order, some of it to nobody."""
    identity = liar.settings.identity
    records = []
    for nth in range(4):
        for number in range(1, 9):
            path = f"spam/{nth}/{number}"
            for topic, key, body in (
                (TOPIC_OBJECTS, key_of(path), encode(named(path))),
                (TOPIC_CATALOGUE, Key("unheard", digest(path.encode())[:16]), b"anything"),
            ):
                log = Log(liar.node, LogId(bytes([nth]) * 16), topic)
                payload = Payload(log, number, key, Stamp(number), (), body)
                records.append(sign_record(identity.group, identity.secret, payload).signed)
    for victim in victims:
        for record in rng.sample(records, len(records) * 3 // 4):
            victim.post(MessageReceived(liar.node, RecordsNews((record,), False)))


def test_a_flood_is_dropped_alike_and_everybody_else_goes_on() -> None:
    group = group_of(4)
    *honest, liar = group.computers
    flood(liar, honest, Random(1))
    group.run(1.0)
    assert isinstance(group.answer(honest[0], NameObject(named("notes/mine"))), ObjectNamed)
    other = group.deploy("other", replicas=1, at=honest[1])

    def all_hold_the_same() -> bool:
        books = [one.core.foundation.book for one in group.up()]
        return len({book.fingerprint(book.topics) for book in books}) == 1

    group.until(all_hold_the_same, 60.0, "sessions end in equality")
    for one in honest:
        book = one.core.foundation.book
        for topic in (TOPIC_OBJECTS, TOPIC_CATALOGUE):
            spam = [record for record in book.all_records(topic) if record.log.node == liar.node]
            assert len(spam) == 8 and len({record.log for record in spam}) == 2
        assert one.core.foundation.names.find("notes/mine") is not None
        assert [notice.node for _, notice in one.notices if notice.kind == "quota_exceeded"] == [liar.node]
        assert all(notice.kind != "records_rejected" for _, notice in one.notices)
    group.until(lambda: group.running(other) == 1, 30.0, "services are deployed and run")


def test_who_writes_too_much_is_told_by_the_own_computer() -> None:
    group = group_of(3)
    answers = [group.answer(group[0], NameObject(named(f"n/{number}"))) for number in range(5)]
    assert all(isinstance(answer, ObjectNamed) for answer in answers[:4])
    assert isinstance(answers[4], Refusal) and answers[4].code == "quota_reached" and answers[4].hint
    assert isinstance(group.answer(group[0], NameObject(named("n/0"), replace=True)), ObjectNamed)
    assert isinstance(group.answer(group[1], NameObject(named("n/4"))), ObjectNamed)
    assert not any(notice.kind == "quota_exceeded" for one in group.up() for _, notice in one.notices)
