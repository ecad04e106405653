"""The checkers find what they are there for: mechanisms that were broken on purpose, and forbidden deeds one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from colla.kernel.effects import LaunchReplica, Send
from colla.kernel.events import MessageReceived
from colla.model.ids import ReplicaId
from colla.model.location import Ballot
from colla.model.record import TOPIC_CATALOGUE, SignedRecord
from colla.protocol.catalogue.bodies import KIND_REPLICAS
from colla.protocol.multicast.multicast import Multicast
from colla.protocol.presence.reconnect import Links
from colla.protocol.records import book
from colla.protocol.records.book import RecordBook
from colla.protocol.records.log import HeldLog
from colla.protocol.running import running
from colla.protocol.sessions.sessions import Sessions
from colla.protocol.supervision import judging
from colla.protocol.supervision.messages import Capacity, Offer, OfferAnswer
from colla.sim.checkers import CLAIMED_CELLS, OBEYED_CELLS, SafetyChecks, Violation
from colla.sim.consistency import settle
from colla.sim.disk import Disk
from colla.sim.group import Failed, SimGroup
from colla.sim.network import Losing

NOTHING = Capacity(0.0, 0.0, 0, 0, 0, 0, 0)


@pytest.fixture
def group() -> SimGroup:
    group = SimGroup(seed=2, replay="pytest this")
    group.grow(3)
    group.run(5.0)
    return group


@pytest.fixture
def checks(group: SimGroup) -> SafetyChecks:
    return SafetyChecks(group)


def accepts(checks: SafetyChecks, group: SimGroup, ballot: Ballot) -> None:
    """An executor was offered a replica by this ballot and says yes."""
    service, master, executor = next(iter(group.services)), group[0], group[1]
    offer = Offer(service, ballot, 1, ballot.term, 0, (), 0, 0)
    checks.will_step(executor, MessageReceived(master.node, offer))
    executor.disk._durable.cells[OBEYED_CELLS + service.hex()] = msgspec.msgpack.encode(ballot)
    answer = OfferAnswer(service, ballot.term, ReplicaId(b"r"), ballot, "", "", 0.0, NOTHING, 0, 0)
    checks.performed(executor, Send(master.node, answer))


def test_a_lower_ballot_is_obeyed(group: SimGroup, checks: SafetyChecks) -> None:
    group.deploy("web", replicas=1)
    accepts(checks, group, Ballot(7, 1, group[0].node))
    accepts(checks, group, Ballot(8, 1, group[0].node))
    with pytest.raises(Violation, match="obeys a offer"):
        accepts(checks, group, Ballot(6, 1, group[0].node))


def test_after_a_wipe_nothing_was_promised(group: SimGroup, checks: SafetyChecks) -> None:
    group.deploy("web", replicas=1)
    accepts(checks, group, Ballot(8, 1, group[0].node))
    group[1].wiped += 1
    accepts(checks, group, Ballot(6, 1, group[0].node))


def launch(group: SimGroup) -> LaunchReplica:
    web = next(iter(group.services))
    service = group[0].core.catalogue.service(web)
    assert service is not None
    return LaunchReplica(1, ReplicaId(b"another"), web, service.specification)


def test_a_second_replica_is_launched(group: SimGroup, checks: SafetyChecks) -> None:
    web = group.deploy("web", replicas=3)
    group.until(lambda: group.running(web) == 3, 10.0)
    with pytest.raises(Violation, match="second replica"):
        checks.performed(group[1], launch(group))


def test_something_eliminated_is_launched(group: SimGroup, checks: SafetyChecks) -> None:
    web = group.deploy("web", replicas=3)
    effect = launch(group)
    group.eliminate(web)
    group.run(2.0)
    with pytest.raises(Violation, match="knows to be eliminated"):
        checks.stepped(
            group[1],
            MessageReceived(group[0].node, Offer(web, Ballot(1, 1, group[0].node), 1, 1, 0, (), 0, 0)),
            [effect],
        )


def test_an_owners_refusal_is_ignored(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def anything(*arguments: Any, **named: Any) -> None:
        """Whoever asks is told that nothing speaks against it."""

    monkeypatch.setattr(running, "refuses_one_more", anything)
    monkeypatch.setattr(running, "refuses_service", anything)
    willing = judging.judge

    def judge(candidates: Any, *rest: Any) -> Any:
        paused = [msgspec.structs.replace(one, contribution=group[0].core.contribution) for one in candidates]
        return willing(paused, *rest)

    monkeypatch.setattr(judging, "judge", judge)
    gives = group[1].settings.contribution
    group[1].contribute(msgspec.structs.replace(gives, paused=True))
    with pytest.raises(Violation, match="n1 launches web though it is paused"):
        group.deploy("web", replicas=3)
        group.run(10.0)


def test_the_highest_number_is_taken_for_the_frontier(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(held: HeldLog, number: int) -> None:
        held._complete = max(held._complete, number)

    monkeypatch.setattr(HeldLog, "note", note)
    sessions = group.network.add(Losing(Sessions.MESSAGES, targets=["n2"]))
    losing = group.network.add(Losing(Multicast.MESSAGES, targets=["n2"]))
    group.deploy("lost", replicas=1, active=False)
    group.network.remove(losing)
    group.deploy("arrives", replicas=1, active=False)
    with pytest.raises(Violation, match="n2 claims a log of catalogue"):
        group.run(5.0)
    group.network.remove(sessions)


def test_the_disk_forgets_to_flush(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "_apply", lambda disk, writes: True)
    group.deploy("web", replicas=1, active=False)
    group.crash(*group.computers)
    group.run(2.0)
    monkeypatch.undo()
    group.restart(*group.computers)
    group.run(20.0)
    with pytest.raises(Violation, match="acknowledged on 2 nodes and is lost"):
        checks.check_writes()


def test_a_tombstone_is_dropped(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = group.deploy("web", replicas=1)
    group.eliminate(web)
    group.run(5.0)
    restore = RecordBook._restore

    def forgetful(book: RecordBook, topic: Any, slot: bytes, signed: Any) -> bool:
        return b"gone" in signed.payload or restore(book, topic, slot, signed)

    monkeypatch.setattr(RecordBook, "_restore", forgetful)
    group.crash(*group.computers)
    group.restart(*group.computers)
    with pytest.raises(Violation, match="again, which was eliminated"):
        group.run(5.0)


def test_the_absent_are_forgotten(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Links, "seek", lambda *arguments: None)
    group.partition(group.computers[:1], group.computers[1:])
    group.run(60.0)
    group.deploy("left", replicas=1, at=group[0])
    group.heal()
    with pytest.raises(Failed, match="other catalogues than n0") as failed:
        settle(group, 60.0, checks)
    text = str(failed.value)
    assert "seed 2" in text and "replay: pytest this" in text and "story of n0" in text


def test_a_sound_group_passes(group: SimGroup, checks: SafetyChecks) -> None:
    web = group.deploy("web", replicas=2)
    settle(group, 15.0, checks)
    group.eliminate(web)
    settle(group, 15.0, checks)
    assert checks.checked > 100
    assert checks.check_writes() >= 2


def test_a_ballot_counts_before_it_is_on_disk(group: SimGroup, checks: SafetyChecks) -> None:
    web = group.deploy("web", replicas=1)
    group.until(lambda: bool(group.masters(web)), 10.0)
    master = group.master_of(web)
    checks.look_at(master)
    del master.disk._durable.cells[CLAIMED_CELLS + web.hex()]
    with pytest.raises(Violation, match=r"rules by .* which is not on its disk"):
        checks.look_at(master)


def test_a_forged_record_is_held(
    group: SimGroup, checks: SafetyChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "verify", lambda *arguments: True)
    group.deploy("web", replicas=1)
    records = group[1].core.foundation.book
    last = records.all_records(TOPIC_CATALOGUE)[-1]
    checks.look_at(group[1])
    payload = msgspec.structs.replace(last.content, number=last.number + 1)
    forged = SignedRecord(msgspec.msgpack.encode(payload), bytes(64))
    assert records.receive([forged], group[1].clock.now()).changes
    with pytest.raises(Violation, match=r"n1 holds record .* which its author never wrote down"):
        checks.look_at(group[1])


def test_what_was_replaced_meanwhile_is_not_missed(group: SimGroup, checks: SafetyChecks) -> None:
    """A peer gave all that was live up to a number, and what replaces the rest has not come yet."""
    web = group.deploy("web", replicas=1, active=False)
    group.run(2.0)
    group.network.add(Losing((*Sessions.MESSAGES, *Multicast.MESSAGES), targets=["n2"]))
    group.scale(web, 2, group[0])
    group.run(1.0)
    records = group[2].core.foundation.book
    topic = records._topics[TOPIC_CATALOGUE]
    (held,) = [held for held in topic.logs() if held.log.node == group[0].node]
    (old,) = [record for record in held.records() if record.key.kind == KIND_REPLICAS]
    held._remove(old)
    topic._by_key[old.key].remove(old)
    assert held.frontier >= old.number
    checks.look_at(group[2])
