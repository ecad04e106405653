"""Messages and events reach everybody once and in order: those who were away, cut off, crashed, or came with an old disk."""

from __future__ import annotations

import msgspec
import pytest

from colla.agents.administration_requests import GroupChanged, RemoveMember
from colla.agents.communication_requests import (
    EventPublished,
    EventsFound,
    FindEvents,
    FindMessages,
    MarkRead,
    MessageSent,
    MessagesFound,
    PublishEvent,
    SendMessage,
    TakeEvents,
)
from colla.agents.requests import ModifyService, Written
from colla.kernel.effects import Effect, Persist
from colla.protocol.views import Election
from colla.sim.computer import Computer
from colla.sim.group import SimGroup

RETURN_S = 5.0
"""Who was away has everything so soon after coming back."""


@pytest.fixture
def election() -> Election:
    """Which election the group uses plays no part here."""
    return Election.HASHING


def send(group: SimGroup, author: Computer, to: tuple[Computer, ...], text: str) -> bytes:
    answer = group.answer(author, SendMessage(tuple(group.owner(one).id for one in to), text))
    assert isinstance(answer, MessageSent), answer
    return answer.message


def publish(group: SimGroup, author: Computer, data: bytes, topic: str = "shop.orders") -> None:
    answer = group.answer(author, PublishEvent(topic, data))
    assert isinstance(answer, EventPublished), answer


def inbox(computer: Computer) -> list[str]:
    """The texts in the order in which they came, as the member sees them."""
    mailbox = computer.core.communication.correspondence.mailbox
    return [message.content.text if message.content else "?" for message in mailbox.inbox(0)]


def received(group: SimGroup, computer: Computer, topic: str = "shop.orders") -> list[bytes]:
    """The data of all events of the topic at that computer, page by page as a program asks."""
    data: list[bytes] = []
    after = 0
    while True:
        found = group.answer(computer, FindEvents(after=after, topics=(topic,), limit=100))
        assert isinstance(found, EventsFound)
        data += [event.data for event in found.events]
        after = found.place
        if found.last:
            return data


def count(computer: Computer, kind: str = "published") -> int:
    journal = computer.core.communication.happenings.journal
    return sum(1 for _, record in journal.after(0) if record.key.kind == kind)


def kill_at_write(computer: Computer, number: int, *, power: bool) -> None:
    """Let the computer die before its `number`-th write to the disk from now on."""
    left = [number]

    def trap(effect: Effect) -> bool:
        if not isinstance(effect, Persist):
            return False
        left[0] -= 1
        if left[0] >= 0:
            return False
        computer.power_off() if power else computer.kill()
        return True

    assert computer.process is not None
    computer.process.trap = trap


def equal(group: SimGroup) -> bool:
    books = [computer.core.foundation.book for computer in group.up()]
    return len({book.fingerprint(book.topics) for book in books}) == 1


def test_who_was_away_has_everything_within_seconds(new_scenario):
    """The promise: 50 messages, 200 events and a renamed service, within 5 s of return, in order, once."""
    scenario = new_scenario(6, replicas=2)
    group = scenario.group
    away, authors = group[5], group.computers[:4]
    name = FindEvents(subscriber="bookkeeping", topics=("shop.orders",))
    group.answer(away, name)
    away.stop()
    group.run(4.0)
    for number in range(50):
        send(group, authors[number % 2], (away, group[4]), f"message {number}")
    for number in range(200):
        authors[number % 4].ask(PublishEvent("shop.orders", b"%d" % number))
        group.run(0.02)
    service = scenario.services["web"]
    owner = next(
        one
        for one in group.computers
        if group.owner(one).id == group[0].core.catalogue.service(service).owner
    )
    existing = owner.core.catalogue.service(service)
    renamed = msgspec.structs.replace(existing.specification, name="site")
    assert isinstance(group.answer(owner, ModifyService(service, renamed)), Written)
    group.run(2.0)

    away.start()

    def has_all() -> bool:
        return (
            away.runs
            and len(inbox(away)) == 50
            and count(away) == 200
            and away.core.catalogue.service(service) is not None
            and away.core.catalogue.service(service).name == "site"
        )

    group.until(has_all, RETURN_S, "the returned one has everything")
    for author in range(2):
        numbers = [int(text.split()[1]) for text in inbox(away) if int(text.split()[1]) % 2 == author]
        assert numbers == list(range(author, 50, 2))
    found = group.answer(away, name)
    assert isinstance(found, EventsFound) and found.last
    assert sorted(int(event.data) for event in found.events) == list(range(200))
    for author in range(4):
        own = [int(event.data) for event in found.events if event.author == authors[author].node]
        assert own == sorted(own) and len(own) == 50
    texts = [event.text for event in group.answer(away, FindEvents(topics=("group",))).events]
    assert len([text for text in texts if "renamed web to site" in text]) == 1


def test_both_sides_of_a_partition_hear_of_each_other(new_scenario):
    scenario = new_scenario(5, replicas=0)
    group = scenario.group
    left, right = group.computers[:2], group.computers[2:]
    group.partition(left, right)
    group.run(8.0)
    for number in range(10):
        send(group, group[0], (group[4],), f"left {number}")
        send(group, group[4], (group[0],), f"right {number}")
        publish(group, group[1], b'"left %d"' % number)
        publish(group, group[3], b'"right %d"' % number)
    assert inbox(group[4]) == [] and inbox(group[0]) == []
    group.heal()
    group.until(lambda: len(inbox(group[4])) == 10 and len(inbox(group[0])) == 10, 60.0, "letters crossed")
    group.until(lambda: equal(group), 60.0, "all hold the same")
    assert inbox(group[4]) == [f"left {number}" for number in range(10)]
    assert inbox(group[0]) == [f"right {number}" for number in range(10)]
    for computer in group.computers:
        data = received(group, computer)
        for side in (b"left", b"right"):
            assert [one for one in data if side in one] == [
                b'"%s %d"' % (side, number) for number in range(10)
            ]


def test_an_old_disk_comes_back_and_no_event_is_lost_or_told_twice(new_scenario):
    """The author's log is forked: what it said on either branch is heard once, by those who knew one of them too."""
    scenario = new_scenario(4, replicas=0)
    group = scenario.group
    author, others = group[1], [group[0], group[2], group[3]]
    for number in range(3):
        publish(group, author, b'"before %d"' % number)
    group.run(12.0)
    backup, objects = author.disk.snapshot(), dict(author.objects.sizes)
    for number in range(5):
        publish(group, author, b'"lost %d"' % number)
    send(group, author, (group[0],), "before the disk died")
    group.run(2.0)
    author.power_off()
    group.run(3.0)
    cut = group.partition([author, group[3]], others[:2])
    author.restore_disk(backup, objects)
    # One who knows the first branch is out of reach, one who knows it too comes later: at first it writes alone.
    group.crash(group[3])
    author.start()
    group.run(8.0)
    for number in range(5):
        publish(group, author, b'"new %d"' % number)
    send(group, author, (group[0],), "after the disk died")
    group.run(1.0)
    group.network.remove(cut)
    group.restart(group[3])
    group.until(lambda: equal(group), 120.0, "all hold the same")
    expected = [b'"%s %d"' % (b"before", number) for number in range(3)]
    expected += [b'"%s %d"' % (word, number) for word in (b"lost", b"new") for number in range(5)]
    for computer in group.computers:
        data = received(group, computer)
        assert sorted(data) == sorted(expected), computer.name
        for word in (b"before", b"lost", b"new"):
            branch = [one for one in data if word in one]
            assert branch == sorted(branch)
    assert sorted(inbox(group[0])) == ["after the disk died", "before the disk died"]
    publish(group, author, b'"later"')
    group.run(2.0)
    assert all(received(group, computer)[-1] == b'"later"' for computer in group.computers)


class Program:
    """Works through events page by page; only a page whose taking was not confirmed may come a second time."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.unconfirmed: list[int] = []

    def work(self, found: EventsFound) -> None:
        numbers = [int(event.data) for event in found.events]
        again = [number for number in numbers if number in self.taken]
        assert all(number in self.unconfirmed for number in again)
        self.taken += [number for number in numbers if number not in again]
        self.unconfirmed = numbers

    def confirmed(self) -> None:
        self.unconfirmed = []


def test_a_subscriber_takes_each_event_once_whenever_its_computer_dies(new_scenario):
    """The computer dies before its n-th write; the program goes on with what was not confirmed to it."""
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    reader, program, published = group[2], Program(), 0
    ask = FindEvents(subscriber="program", topics=("shop.orders",), limit=4)
    group.answer(reader, ask)
    for round_number in range(8):
        kill_at_write(reader, round_number, power=bool(round_number % 2))
        for _ in range(6):
            group[0].ask(PublishEvent("shop.orders", b"%d" % published))
            published += 1
            if reader.runs and round_number > 2:
                found = reader.ask(ask)
                group.run(0.1)
                if isinstance(found.result, EventsFound):
                    program.work(found.result)
                    taking = reader.ask(TakeEvents("program", found.result.place))
                    group.run(0.1)
                    if taking.answered and taking.refusal is None:
                        program.confirmed()
            group.run(0.2)
        reader.power_off()
        reader.start()
        group.run(3.0)
    group.until(lambda: all(one.up for one in group.computers) and equal(group), 60.0, "all hold the same")
    while True:
        found = group.answer(reader, ask)
        assert isinstance(found, EventsFound)
        program.work(found)
        group.answer(reader, TakeEvents("program", found.place))
        program.confirmed()
        if found.last:
            break
    stored = [int(data) for data in received(group, reader)]
    assert program.taken == stored == list(range(published))


def test_one_receipt_for_all_computers_of_a_member_and_read_on_one_is_read_on_all(new_scenario):
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    second = group.join_own(group[2])
    group.run(5.0)
    message = send(group, group[0], (group[2],), "for both of your computers")
    group.run(3.0)
    assert inbox(group[2]) == inbox(second) == ["for both of your computers"]
    receipts = [record.key.kind for record in group[0].core.foundation.book.all_records("receipts")]
    assert receipts == ["delivered"]
    group.answer(second, MarkRead((message,)))
    group.run(2.0)
    unread = group.answer(group[2], FindMessages(unread=True))
    assert isinstance(unread, MessagesFound) and unread.messages == ()
    group[2].power_off()
    group[2].start()
    group.run(3.0)
    unread = group.answer(group[2], FindMessages(unread=True))
    assert isinstance(unread, MessagesFound) and unread.messages == ()
    times = group[0].core.communication.correspondence.mailbox.receipts()[message]
    assert sorted(kind for _, kind in times) == ["delivered", "read"]


def test_only_the_recipients_can_read_it(new_scenario):
    scenario = new_scenario(4, replicas=0)
    group = scenario.group
    send(group, group[0], (group[1],), "the secret of the cake")
    group.run(5.0)
    assert inbox(group[1]) == ["the secret of the cake"]
    for computer in group.computers:
        held = computer.core.foundation.book.all_records("messages")
        assert len(held) == 1 and b"the secret" not in held[0].body
        assert not any(b"the secret" in value for value in computer.disk.snapshot().cells.values())
    assert inbox(group[2]) == inbox(group[3]) == []


def test_who_was_away_longer_than_is_kept_gets_the_newest(new_scenario):
    scenario = new_scenario(3, replicas=0)
    group = scenario.group
    kept = group.config.happenings.events_kept
    group[2].stop()
    group.run(3.0)
    for number in range(kept + 100):
        group[0].ask(PublishEvent("shop.orders", b"%d" % number))
        if number % 20 == 0:
            group.run(0.1)
    group.run(2.0)
    group[2].start()
    group.until(lambda: group[2].runs and count(group[2]) == kept, RETURN_S, "the newest came")
    assert [int(data) for data in received(group, group[2])] == list(range(100, kept + 100))
    group.until(lambda: equal(group), 30.0, "all hold the same")


def test_the_group_tells_each_event_once(new_scenario):
    scenario = new_scenario(5, replicas=3)
    group = scenario.group
    service = scenario.services["web"]
    group.join_own(group[0])
    victim = group.running_on(service)[0]
    group.crash(victim)
    group.until(lambda: group.running(service) == 3, 20.0, "repaired")
    group.run(15.0)
    group.restart(victim)
    group.until(lambda: victim.up and equal(group), 60.0, "all hold the same")
    told = {}
    for computer in group.computers:
        found = group.answer(computer, FindEvents(topics=("group",)))
        assert isinstance(found, EventsFound)
        told[computer.name] = sorted((event.kind, event.text, event.author) for event in found.events)
    assert len({str(each) for each in told.values()}) == 1
    kinds = [kind for kind, _, _ in told["n0"]]
    assert kinds.count("joined") == 5 and kinds.count("created") == 1
    texts = [text for _, text, _ in told["n0"]]
    assert "m4 joined with n4" in texts and "m0 added the computer n5" in texts
    assert "repaired" in kinds and "runs" in kinds


def test_what_a_removed_member_wrote_after_the_removal_vanishes(new_scenario):
    """Its side of a partition hears it; when all meet again, only what it wrote before counts, everywhere."""
    scenario = new_scenario(5, replicas=0)
    group = scenario.group
    removed = group[4]
    send(group, removed, (group[3],), "before")
    publish(group, removed, b'"before"')
    group.run(12.0)
    group.partition(group.computers[:3], group.computers[3:])
    group.run(8.0)
    assert isinstance(group.answer(group[0], RemoveMember(group.owner(removed).id, "rude")), GroupChanged)
    send(group, removed, (group[3],), "after")
    publish(group, removed, b'"after"')
    group.run(2.0)
    assert inbox(group[3]) == ["before", "after"] and received(group, group[3]) == [b'"before"', b'"after"']
    group.heal()
    group.until(lambda: inbox(group[3]) == ["before"], 60.0, "what was written after is gone")
    for computer in group.computers[:4]:
        assert received(group, computer) == [b'"before"']
    told = group.answer(group[3], FindEvents(topics=("group",)))
    assert isinstance(told, EventsFound)
    assert [event.text for event in told.events if event.kind == "removed"] == ["m0 removed m4: rude"]


def test_the_same_seed_gives_the_same_trace(new_scenario):
    def run() -> bytes:
        group = SimGroup(7)
        group.grow(3)
        group.run(3.0)
        send(group, group[0], (group[1], group[2]), "sealed the same way")
        publish(group, group[2], b"1")
        group.run(5.0)
        return group.world.trace.digest()

    assert run() == run()
