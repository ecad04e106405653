"""Liveness: is the group consistent now, judged by the truth and not by what agents believe? (DESIGN section 12)

Over all nodes that are up and belong to the group: (a) all hold the same catalogue; (b) each active service has exactly
one master and all dispatchers agree who it is; (c) it has the replicas asked for, or as many as willing executors allow,
all on nodes that are up, and inactive or eliminated ones have none; (d) every location that a user agent would hand out
is live, and none hands out nothing while a replica lives.

*Up* is what the computers are, *lives* what answers in their environments, *willing* what their owners' settings say.
"""

from __future__ import annotations

from collections.abc import Sequence

from colla.agents.requests import LocateService
from colla.model.contribution import AgentKind
from colla.model.service import Service
from colla.sim.checkers import SafetyChecks, refusal_of
from colla.sim.computer import Computer
from colla.sim.group import Failed, SimGroup

WATCH_AGAIN_S = 60.0
"""A user agent goes on watching a service for longer than this after it was asked."""
LOOK_EVERY_S = 0.25


def problems(group: SimGroup) -> list[str]:
    """What is not consistent now, as sentences that begin with (a) to (d); empty when everything is."""
    members = members_of(group)
    if not members:
        return ["nobody is up"]
    found = _catalogues(members)
    return found or _services(group, members, members[0], asks_master=False)


def failing(group: SimGroup, connected: Sequence[Computer]) -> tuple[str, list[str]]:
    """Which of (a) to (d) do not hold over the connected nodes, as letters, and what is wrong, as `problems` says it.

    All four are judged, also where catalogues differ: then by the catalogue that most nodes hold. What a user agent
    would hand out of a service in which nobody there is interested yet is what the service's master would answer it.
    """
    members = [computer for computer in connected if group.joined(computer)]
    strangers = [computer.name for computer in connected if computer not in members]
    if strangers or not members:
        return "a", [f"(a) do not know that they belong: {', '.join(strangers)}"]
    held: dict[bytes, list[Computer]] = {}
    for computer in members:
        held.setdefault(computer.core.catalogue.fingerprint(), []).append(computer)
    reference = max(held.values(), key=len)[0]
    found = _catalogues(members) + _services(group, members, reference, asks_master=True)
    return "".join(kind for kind in "abcd" if any(text.startswith(f"({kind})") for text in found)), found


def _services(
    group: SimGroup, members: list[Computer], reference: Computer, *, asks_master: bool
) -> list[str]:
    found: list[str] = []
    services = reference.core.catalogue.services()
    for service in services:
        found += _masters(members, service)
        found += _replicas(group, members, service)
        found += _locations(members, service, asks_master=asks_master)
    known = {service.id for service in services}
    for computer in members:
        for running in computer.environment.replicas.values():
            if running.service not in known:
                found.append(f"(c) {computer.name} runs a replica of something that does not exist")
    return found


def members_of(group: SimGroup) -> list[Computer]:
    """Who is up and belongs. Whom the others took out, and told so, does not, whatever it still holds."""
    found = [computer for computer in group.up() if group.joined(computer)]
    return [one for one in found if not _is_out(one, [other for other in found if other is not one])]


def _is_out(one: Computer, others: list[Computer]) -> bool:
    """Whether the computer was told that it is out and nobody else takes it for a member, or somebody whom it takes for a
    member knows better: those who were taken out together still take each other for members.
    """
    told = bool(one.core.administration.why_out())
    if told and not any(other.core.membership.node(one.node) for other in others):
        return True
    return any(one.core.membership.node(other.node) and _knows_better(other, one) for other in others)


def _knows_better(other: Computer, one: Computer) -> bool:
    """Whether for `other` that one is out, or was let in by nobody while it takes for a member who is out."""
    theirs, mine = other.core.membership, one.core.membership
    stranger = theirs.node(one.node) is None
    return theirs.former(one.node) is not None or (
        stranger and any(theirs.former(info.id) is not None for info in mine.nodes())
    )


def _catalogues(members: list[Computer]) -> list[str]:
    # The same records, and the same made of them: merging might differ.
    first = (members[0].core.catalogue.fingerprint(), members[0].core.catalogue.services())
    others = [
        one.name
        for one in members
        if (one.core.catalogue.fingerprint(), one.core.catalogue.services()) != first
    ]
    return [f"(a) other catalogues than {members[0].name}: {', '.join(others)}"] if others else []


def _dispatchers(members: list[Computer]) -> list[Computer]:
    return [one for one in members if one.settings.contribution.carries(AgentKind.DISPATCHER)]


def _masters(members: list[Computer], service: Service) -> list[str]:
    dispatchers = _dispatchers(members)
    masters = [one for one in dispatchers if service.id in one.core.dispatcher.masters()]
    if not service.active:
        return [f"(b) {one.name} masters {service.name}, which is not active" for one in masters]
    if not dispatchers:
        return []
    if len(masters) != 1:
        return [f"(b) {service.name} has {len(masters)} masters: {', '.join(one.name for one in masters)}"]
    master = masters[0].node
    others = [
        one.name
        for one in dispatchers
        if one.core.dispatcher.master_of(service.id, one.clock.now()) != master
    ]
    return [f"(b) {', '.join(others)} do not know the master of {service.name}"] if others else []


def willing(group: SimGroup, members: list[Computer], service: Service) -> list[Computer]:
    """Whose owners would let a replica of the service run."""
    return [
        one
        for one in members
        if not refusal_of(one.settings.contribution, group.owner(one).id, service.specification, group)
    ]


def _replicas(group: SimGroup, members: list[Computer], service: Service) -> list[str]:
    here = [one for one in members if one.environment.of(service.id)]
    if not service.active:
        return [f"(c) {one.name} runs {service.name}, which is not active" for one in here]
    may = willing(group, members, service)
    found = [f"(c) {one.name} runs {service.name} against its owner's will" for one in here if one not in may]
    version = service.specification.version
    sound = [
        one
        for one in here
        if any(run.serves and run.specification.version == version for run in one.environment.of(service.id))
    ]
    held = any(service.specification.object in one.objects.sizes for one in members)
    # Without its object nothing can be started; what runs goes on.
    wanted = min(service.replicas, len(here) + sum(_has_room(one) for one in may if one not in here))
    if not held:
        # Replicas of the version before may go on, but no more of them than are asked for.
        wanted = len(sound) if len(here) <= service.replicas else service.replicas
    if len(sound) != wanted or (held and len(here) != len(sound)):
        text = f"(c) {service.name}: {len(sound)} sound of {len(here)} replicas, {wanted} wanted"
        found.append(f"{text}, on {', '.join(one.name for one in here)}")
    return found


def _has_room(computer: Computer) -> bool:
    """Whether its owner lets one replica more run there, whatever it is of."""
    return len(computer.environment.replicas) < computer.settings.contribution.replicas_max


def _locations(members: list[Computer], service: Service, *, asks_master: bool) -> list[str]:
    if not service.active:
        return []
    found = []
    alive = {
        running.replica: None
        for one in members
        for running in one.environment.of(service.id)
        if running.serves
    }
    for one in members:
        if not one.settings.contribution.carries(AgentKind.USER):
            continue
        handed_out = one.core.user.locations(service.id)
        if asks_master and not one.core.user.is_watching(service.id):
            continue
        if any(location.replica not in alive for location in handed_out):
            found.append(f"(d) {one.name} hands out a location of {service.name} that is not live")
        if alive and not handed_out:
            found.append(f"(d) {one.name} hands out no location of {service.name}")
    for master in _dispatchers(members) if asks_master else ():
        answer = master.core.dispatcher.locations(service.id, master.clock.now())
        if answer is not None and (
            any(location.replica not in alive for location in answer) or (alive and not answer)
        ):
            found.append(f"(d) the master of {service.name} hands out what is not live, or nothing")
    return found


def watch(group: SimGroup, *, anew: bool) -> None:
    """Somebody at every node is interested in every active service; `anew`: also where somebody was before."""
    for computer in members_of(group):
        for service in computer.core.catalogue.services():
            if service.active and (anew or not computer.core.user.is_watching(service.id)):
                computer.ask(LocateService(service.id))


def settle(
    group: SimGroup, within_s: float, checks: SafetyChecks | None = None, stays_s: float = 0.0
) -> float:
    """Let time pass until the group is consistent (and stays so for `stays_s`); how long it took.

    Raises `Failed` with what is wrong. With `checks`, no acknowledged write may be lost then.
    """
    began_s = group.world.now_s
    watched_s = float("-inf")
    consistent_s: float | None = None
    found: list[str] = []
    while group.world.now_s - began_s <= within_s + stays_s:
        anew = group.world.now_s - watched_s >= WATCH_AGAIN_S
        watch(group, anew=anew)
        watched_s = group.world.now_s if anew else watched_s
        found = problems(group)
        if found:
            consistent_s = None
            if group.world.now_s - began_s > within_s:
                break
        elif consistent_s is None:
            consistent_s = group.world.now_s
        if consistent_s is not None and group.world.now_s - consistent_s >= stays_s:
            if checks is not None:
                checks.check_writes()
            return consistent_s - began_s
        group.run(LOOK_EVERY_S)
    raise Failed(
        group.describe(f"not consistent within {within_s:g} s:\n  " + "\n  ".join(found), group.computers)
    )
