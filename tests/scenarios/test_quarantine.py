"""A record that breaks whoever reads it costs its own matter only; everything else of the group goes on."""

from __future__ import annotations

from typing import Any

import pytest

from colla.agents import happenings
from colla.agents.administration_requests import RenameComputer
from colla.agents.communication_requests import EventsFound, FindEvents, PublishEvent, SendMessage
from colla.protocol.catalogue import bodies, catalogue
from colla.protocol.happenings.bodies import Published
from colla.protocol.membership import facts
from colla.protocol.messaging import mailbox
from colla.protocol.records.quarantine import QUARANTINED
from colla.protocol.views import Election
from colla.sim.computer import Computer


@pytest.fixture
def election() -> Election:
    """Which election the group uses plays no part here."""
    return Election.HASHING


@pytest.fixture
def seed() -> int:
    """Nor does chance."""
    return 0


def breaks(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, bad: Any) -> None:
    """Let a function of colla have a fault with some of its arguments."""
    original = getattr(owner, name)

    def faulty(*arguments: Any) -> Any:
        if bad(*arguments):
            raise ZeroDivisionError("a fault")
        return original(*arguments)

    monkeypatch.setattr(owner, name, faulty)


def told(computer: Computer) -> list[str]:
    return [notice.text for _, notice in computer.notices if notice.kind == QUARANTINED]


def test_a_service_that_cannot_be_read_breaks_no_other(new_scenario: Any, monkeypatch: Any) -> None:
    scenario = new_scenario(3, replicas=2)
    scenario.checks.faults_expected = True
    group = scenario.group
    web = scenario.services["web"]
    with monkeypatch.context() as broken:
        # Only this service of the test is created inactive.
        breaks(broken, catalogue, "decode_wanted", lambda body: not bodies.decode_wanted(body).active)
        poison = group.deploy("poison", replicas=1, active=False)
        group.run(20.0)
        for computer in group.up():
            assert computer.core.catalogue.service(poison) is None
            assert len(told(computer)) == 1 and "ZeroDivisionError: a fault" in told(computer)[0]
        assert group.running(web) == 2
        other = group.deploy("other", replicas=2)
        group.until(lambda: group.running(other) == 2, 30.0, "services can be deployed and run")
        group.crash(group[2])
        group.restart(group[2])
        group.run(20.0)
        assert group[2].core.catalogue.service(poison) is None
        assert group[2].core.catalogue.service(web) is not None
    # A version without the fault reads what was held all the time.
    group.crash(*group.computers)
    group.restart(*group.computers)
    group.until(lambda: all(one.core.catalogue.service(poison) for one in group.up()), 30.0, "it is read")
    scenario.settle(60.0)


def test_an_event_and_a_letter_that_cannot_be_read(new_scenario: Any, monkeypatch: Any) -> None:
    scenario = new_scenario(3, replicas=1)
    scenario.checks.faults_expected = True
    group = scenario.group
    breaks(
        monkeypatch,
        happenings,
        "topic_of",
        lambda event: isinstance(event, Published) and event.data == b"13",
    )
    breaks(monkeypatch, mailbox, "is_for", lambda letter, node: len(letter.to) == 2)
    everybody = tuple(group.owner(one).id for one in group.computers)
    for data in (b"12", b"13", b"14"):
        group.answer(group[0], PublishEvent("shop.orders", data))
    for to in (everybody[1:2], everybody[1:3], everybody[1:2]):
        group.answer(group[0], SendMessage(to, "hello"))
    group.run(3.0)
    found = group.answer(group[1], FindEvents(topics=("shop.orders",)))
    assert isinstance(found, EventsFound)
    assert [event.data for event in found.events] == [b"12", b"14"]
    assert len(list(group[1].core.communication.correspondence.mailbox.inbox(0))) == 2
    assert len(told(group[1])) == 2
    assert isinstance(group.answer(group[1], FindEvents()), EventsFound)


def test_a_fact_about_the_membership_that_cannot_be_read(new_scenario: Any, monkeypatch: Any) -> None:
    scenario = new_scenario(3, replicas=1)
    scenario.checks.faults_expected = True
    group = scenario.group
    breaks(monkeypatch, facts, "is_name", lambda name: name == "cursed")
    node = group[0].node
    for name in ("cursed", "blessed"):
        group.answer(group[0], RenameComputer(node, name))
        group.run(2.0)
        assert len({one.core.membership.node(node).name for one in group.up()}) == 1
    assert group[1].core.membership.node(node).name == "blessed"
    assert all(len(told(one)) == 1 for one in group.up())
    newcomer = group.join()
    group.until(lambda: newcomer.core.membership.node(node).name == "blessed", 10.0, "it knows the name")
    scenario.settle(60.0)
