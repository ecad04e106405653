"""What members ask of this node, and what its mechanisms tell it, in words for the whole group."""

from __future__ import annotations

from typing import Any

import msgspec

from colla.agents.administration_requests import (
    AdoptService,
    Depart,
    GiveRole,
    RemoveMember,
    RenameComputer,
    RenameMember,
    RetireComputer,
)
from colla.agents.foundation import Foundation
from colla.agents.requests import (
    CreateService,
    EliminateService,
    ModifyService,
    SetActive,
    SetReplicas,
)
from colla.kernel.effects import Notice
from colla.model.ids import MemberId, NodeId, ServiceId
from colla.protocol.happenings.bodies import Happened

CREATED = "created"


def event_of_request(found: Foundation, request: Any) -> Happened | None:
    """The event that this request of the API becomes once it is done; None when it changes nothing of the kind."""
    me = found.membership.owner_of(found.identity.node)
    if me is None:
        return None
    names = _Names(found)
    return _change_of_service(names, me, request) or _change_of_group(names, me, request)


def _change_of_service(names: _Names, me: MemberId, request: Any) -> Happened | None:
    who = names.member(me)
    match request:
        case CreateService(specification=specification):
            return Happened(CREATED, f"{who} created {specification.name}", member=me)
        case ModifyService(service=service, specification=specification):
            before = names.service(service)
            if before == specification.name:
                return Happened("updated", f"{who} updated {before}", service, member=me)
            return Happened("renamed", f"{who} renamed {before} to {specification.name}", service, member=me)
        case SetActive(service=service, active=active):
            done = "activated" if active else "deactivated"
            return Happened(done, f"{who} {done} {names.service(service)}", service, member=me)
        case SetReplicas(service=service, replicas=replicas):
            text = f"{who} asked for {replicas} replicas of {names.service(service)}"
            return Happened("scaled", text, service, member=me)
        case EliminateService(service=service):
            return Happened("eliminated", f"{who} eliminated {names.service(service)}", service, member=me)
        case AdoptService(service=service, owner=owner):
            text = f"{names.service(service)} belongs to {names.member(owner)} now"
            return Happened("adopted", text, service, member=owner)
        case _:
            return None


def _change_of_group(names: _Names, me: MemberId, request: Any) -> Happened | None:
    who = names.member(me)
    match request:
        case GiveRole(member=member, role=role):
            text = f"{who} made {names.member(member)} {role.value}"
            return Happened("role_changed", text, member=member)
        case RemoveMember(member=member, reason=reason):
            why = f": {reason}" if reason else ""
            return Happened("removed", f"{who} removed {names.member(member)}{why}", member=member)
        case RetireComputer(node=node):
            return Happened("retired", f"{who} retired {names.node(node)}", node=node)
        case RenameMember(member=member, name=name):
            return Happened("renamed", f"{names.member(member)} is called {name} now", member=member)
        case RenameComputer(node=node, name=name):
            return Happened("renamed", f"{names.node(node)} is called {name} now", node=node)
        case Depart():
            node = names.here
            return Happened("left", f"{who} left with {names.node(node)}", node=node, member=me)
        case _:
            return None


def event_of_notice(found: Foundation, kind: str, notice: Notice) -> Happened:
    """The event of that kind that a notice of this node becomes."""
    names = _Names(found)
    # What names no node is about the one that tells it.
    about = notice.node or found.identity.node
    node, service = names.node(about), names.service(notice.service)
    owner = found.membership.owner_of(about)
    match kind:
        case "joined":
            others = [info for info in found.membership.nodes() if info.member == owner and info.id != about]
            who = names.member(owner) if owner is not None else "somebody"
            text = f"{who} added the computer {node}" if others else f"{who} joined with {node}"
        case "role_changed":
            text = f"{names.member(owner or MemberId(b''))} is administrator now, since none was left"
        case "runs":
            text = f"{service} runs on {node}"
        case "stopped":
            text = f"{notice.text} (on {node})"
        case "refused":
            text = f"{node} refused {notice.text}"
        case "took_over":
            text = f"{node} looks after {service} now"
        case _:
            text = f"{service}: {notice.text}" if notice.service else notice.text
    concerned = owner if notice.node or kind == "role_changed" else None
    return Happened(kind, text, notice.service, notice.node, concerned or MemberId(b""))


def with_service(found: Foundation, event: Happened) -> Happened:
    """A service that was just created has an id now."""
    if event.kind != CREATED or event.service:
        return event
    name = event.text.rpartition(" ")[2]
    ours = [one.id for one in found.catalogue.services() if one.name == name and one.owner == event.member]
    return msgspec.structs.replace(event, service=ours[0]) if ours else event


class _Names:
    """How people call members, computers and services; the beginning of the id where there is no name."""

    def __init__(self, found: Foundation) -> None:
        self._found = found
        self.here = found.identity.node

    def member(self, member: MemberId) -> str:
        info = self._found.membership.member(member)
        return info.name if info is not None else member.hex()[:10]

    def node(self, node: NodeId) -> str:
        info = self._found.membership.node(node)
        return info.name if info is not None else node.hex()[:10]

    def service(self, service: ServiceId) -> str:
        known = self._found.catalogue.service(service)
        return known.name if known is not None else service.hex()[:10]
