"""Secrets reach the executors that were chosen, and nobody else, whoever is away."""

from __future__ import annotations

import msgspec

from colla.agents.administration_requests import RemoveMember
from colla.agents.requests import ExplainService, PlaceObject, RemoveSecrets, SetActive, SetSecrets, Written
from colla.kernel.effects import Refusal
from colla.kernel.events import MessageReceived
from colla.model.secret import Hidden
from colla.protocol.secrets.messages import KeysErrand, KeysQuery
from colla.protocol.views import Election
from colla.sim.group import OBJECT_BYTES, SimGroup


def shop(election, nodes=5, replicas=2, needs=("PASSWORD",)):
    """A group whose first computer, which runs nothing itself, owns a service that needs secrets."""
    group = SimGroup(7, election, replay="pytest tests/scenarios/test_secrets.py")
    group.grow(nodes)
    group.run(5.0)
    owner = group[0]
    owner.contribute(msgspec.structs.replace(owner.settings.contribution, paused=True))
    creation = group.creation("shop", owner, replicas)
    uses = tuple(f"secret:{name}" for name in needs)
    specification = msgspec.structs.replace(creation.specification, uses=uses)
    owner.put_object(specification.object, OBJECT_BYTES)
    group.answer(owner, PlaceObject(specification.object, OBJECT_BYTES))
    written = group.answer(owner, msgspec.structs.replace(creation, specification=specification))
    group.services[written.service] = "shop"
    return group, written.service


def set_secrets(group, service, at=None, **values):
    request = SetSecrets(service, tuple((name, Hidden(value)) for name, value in values.items()))
    return group.answer(at or group[0], request)


def secrets_of(group, service):
    """What each replica that answers was started with, by computer."""
    return {
        computer.name: running.secrets
        for computer in group.running_on(service)
        for running in computer.environment.of(service)
    }


def all_have(group, service, replicas=2, **values):
    found = secrets_of(group, service)
    return len(found) == replicas and all(secrets == values for secrets in found.values())


def can_read(group, service):
    """Who holds the keys of all secrets now."""
    return [one for one in group.up() if one.core.foundation.keyring.reveal(service)]


def why(group, service, at=None):
    explanation = group.answer(at or group[1], ExplainService(service), within_s=10.0)
    return " ".join([*(line.reason for line in explanation.lines), *explanation.history])


def test_a_service_waits_for_its_secrets_and_they_move_without_its_owner():
    group, service = shop(Election.HASHING)
    owner = group[0]
    group.run(5.0)
    assert group.running(service) == 0 and all(not one.environment.replicas for one in group.computers)
    assert "PASSWORD is not set: `colla secret set`" in why(group, service)

    assert isinstance(set_secrets(group, service, PASSWORD="one"), Written)
    group.until(lambda: all_have(group, service, PASSWORD="one"), 20.0, "it starts with its secret")
    assert can_read(group, service) == [owner, *group.running_on(service)], "nobody else can"

    died = group.running_on(service)[0]
    group.crash(owner, died)
    group.until(lambda: all_have(group, service, PASSWORD="one"), 30.0, "the one that runs passes the key on")

    # All power is lost, and the owner stays away: what executors kept is enough.
    others = [one for one in group.computers if one not in (owner, died)]
    group.crash(*others)
    group.run(5.0)
    group.restart(*others)
    group.until(lambda: all_have(group, service, PASSWORD="one"), 60.0, "it comes back by itself")

    group.restart(owner)
    group.run(10.0)
    set_secrets(group, service, PASSWORD="two", EXTRA="more")
    fewest = 2

    def replaced():
        nonlocal fewest
        fewest = min(fewest, group.running(service))
        return all_have(group, service, PASSWORD="two", EXTRA="more")

    group.until(replaced, 60.0, "the new values are everywhere")
    assert fewest >= 1, "one after the other"
    assert isinstance(group.answer(owner, RemoveSecrets(service, ("EXTRA",))), Written)
    group.until(lambda: all_have(group, service, PASSWORD="two"), 60.0, "what was taken away is gone")


def test_who_was_not_chosen_asks_in_vain():
    group, service = shop(Election.CONTENTION)
    owner = group[0]
    set_secrets(group, service, PASSWORD="one")
    group.until(lambda: all_have(group, service, PASSWORD="one"), 20.0, "it runs")
    holders = can_read(group, service)
    curious = next(one for one in group.computers if one not in holders)
    wanted = tuple(secret.id for secret in owner.core.catalogue.service(service).secrets)

    def pester():
        for holder in group.up():
            holder.post(MessageReceived(curious.node, KeysQuery(service, wanted, 1)))
            holder.post(MessageReceived(curious.node, KeysErrand(service, wanted, curious.node)))
        group.run(5.0)
        return can_read(group, service) != holders

    assert not pester(), "an executor that nobody chose"
    stranger = group.owner(curious)
    group.answer(owner, RemoveMember(stranger.id))
    group.run(3.0)
    master = group.master_of(service)
    for holder in holders:
        holder.post(MessageReceived(master.node, KeysErrand(service, wanted, curious.node)))
    group.run(5.0)
    assert not curious.core.foundation.keyring.reveal(service), "a member's that was removed"

    refused = set_secrets(group, service, at=group[1], PASSWORD="mine")
    assert isinstance(refused, Refusal) and refused.code == "not_owner"


def test_a_side_without_any_holder_waits_and_says_so():
    group, service = shop(Election.HASHING, replicas=1)
    owner = group[0]
    set_secrets(group, service, PASSWORD="one")
    group.until(lambda: all_have(group, service, 1, PASSWORD="one"), 20.0, "it runs")
    (runs,) = group.running_on(service)
    others = [one for one in group.computers if one not in (owner, runs)]
    group.partition([owner, runs], others)
    group.run(40.0)
    assert group.running_on(service) == [runs], "without its secret none starts"
    assert "one of n0" in why(group, service, others[0]) and "PASSWORD" in why(group, service, others[0])
    group.crash(runs)
    group.heal()
    group.until(lambda: all_have(group, service, 1, PASSWORD="one"), 60.0, "the owner gives the key again")
    group.answer(owner, SetActive(service, False))
    group.until(lambda: group.running(service) == 0, 10.0, "it stops")
