"""What the agents know, as the API's types. Reads views; changes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil

import colla
from colla.agents.router import Router
from colla.client import types
from colla.model.contribution import Contribution
from colla.model.ids import MemberId, NodeId
from colla.model.service import Service
from colla.node import clock
from colla.node.links.addresses import is_public, with_port
from colla.protocol.locations.messages import Explanation
from colla.protocol.views import NodeInfo, PresencePhase

RELAY_COMMAND = "`colla contribute --relay http://ITS-ADDRESS:3340`"

if TYPE_CHECKING:
    from colla.node.app import Node


def node_report(node: Node) -> types.NodeReport:
    """This computer's node."""
    core = node.core
    info = core.membership.node(node.identity.node)
    member = core.membership.member(info.member) if info is not None else None
    held = node.objects.list_objects()
    return types.NodeReport(
        node=node.identity.node.hex(),
        name=info.name if info is not None else node.settings.node_name,
        group=node.identity.group.hex(),
        group_name=core.membership.group_name or node.settings.group_name,
        election=core.membership.election.value,
        member=info.member.hex() if info is not None else "",
        member_name=member.name if member is not None else node.settings.member_name,
        joined=info is not None,
        join_problem=(node.join_problem if info is None else "") or core.administration.why_out(),
        join_again=node.join_again,
        version=colla.__version__,
        pid=os.getpid(),
        port=node.links.port,
        gateway=node.gateway_address,
        addresses=node.links.my_addresses(),
        contribution=core.contribution,
        environments=core.environments,
        replicas=node.replicas.count(),
        objects=len(held),
        object_bytes=node.objects.total_bytes(),
        resident_bytes=psutil.Process().memory_info().rss,
        uptime_s=time.time() - node.started_s,
    )


def member_reports(node: Node) -> tuple[types.MemberReport, ...]:
    """All members, by name."""
    core = node.core
    reports = []
    for member in core.membership.members():
        nodes = [info for info in core.membership.nodes() if info.member == member.id]
        present = any(core.presence.is_present(info.id) for info in nodes)
        names = tuple(sorted(info.name for info in nodes))
        me = any(info.id == node.identity.node for info in nodes)
        reports.append(types.MemberReport(member.id.hex(), member.name, member.role, names, present, me))
    return tuple(sorted(reports, key=lambda report: report.name))


def computer_reports(node: Node) -> tuple[types.ComputerReport, ...]:
    """All nodes of the group, by name."""
    reports = [_computer(node, info) for info in node.core.membership.nodes()]
    return tuple(sorted(reports, key=lambda report: report.name))


def _computer(node: Node, info: NodeInfo) -> types.ComputerReport:
    core = node.core
    entry = core.presence.entry(info.id)
    owner = core.membership.member(info.member)
    contribution = entry.announcement.contribution if entry is not None else Contribution(agents=())
    path = node.links.path(info.id)
    me = info.id == node.identity.node
    phase = entry.phase if entry is not None else PresencePhase.ABSENT
    since_s = time.time() - (clock.boot_s() - entry.since_s) if entry is not None else 0.0
    return types.ComputerReport(
        node=info.id.hex(),
        name=info.name,
        member=owner.name if owner is not None else "",
        phase=PresencePhase.PRESENT.value if me else phase.value,
        me=me,
        since_s=since_s,
        agents=tuple(agent.value for agent in contribution.agents),
        environments=entry.announcement.environments if entry is not None else (),
        draining=contribution.draining,
        paused=contribution.paused,
        cpus=contribution.cpus,
        memory_bytes=contribution.memory_bytes,
        disk_bytes=contribution.disk_bytes,
        labels=dict(contribution.labels),
        path="" if path is None else ("direct" if path.direct else "relayed"),
        rtt_ms=float(path.rtt_ms) if path is not None else 0.0,
        version=entry.announcement.version if entry is not None else "",
    )


def service_report(node: Node, service: Service) -> types.ServiceReport:
    """One service with the locations known now."""
    core = node.core
    if service.active:
        core.user.watch(service.id, clock.now())
    specification = service.specification
    owner = core.membership.member(service.owner)
    name = core.shown_name(service)
    port = node.gateway_address.rpartition(":")[2]
    master = core.user.master_of(service.id)
    locations = tuple(
        types.ReplicaReport(item.replica.hex(), item.node.hex(), core.node_name(item.node))
        for item in core.user.locations(service.id)
    )
    return types.ServiceReport(
        id=service.id.hex(),
        name=name,
        owner=owner.name if owner is not None else _former_name(core, service.owner),
        active=service.active,
        replicas_wanted=service.replicas,
        version=specification.version,
        environment=specification.environment,
        object=specification.object.hex(),
        object_bytes=specification.object_bytes,
        public=specification.public,
        domains=specification.domains,
        url=f"http://{name}.localhost:{port}/",
        master=core.node_name(master) if master and service.active else "",
        locations=locations if service.active else (),
        conflicts=service.conflicts,
        secrets_missing=service.lacking,
    )


def service_reports(node: Node) -> tuple[types.ServiceReport, ...]:
    """All existing services, by name."""
    reports = [service_report(node, service) for service in node.core.catalogue.services()]
    return tuple(sorted(reports, key=lambda report: report.name))


def _former_name(core: Router, member: MemberId) -> str:
    """How a member was called that does not belong any more."""
    former = core.membership.former_member(member)
    return former.name if former is not None else ""


def status_report(node: Node) -> types.StatusReport:
    """The group at a glance, with what deserves attention."""
    computers, services = computer_reports(node), service_reports(node)
    warnings = []
    if node.join_problem and not node.joined:
        again = " It goes on trying." if node.join_again else ""
        warnings.append(f"This computer could not join the group: {node.join_problem}{again}")
    elif out := node.core.administration.why_out():
        warnings.append(
            f"This computer does not belong to the group any more. {out} `colla leave` puts its folder aside; with a new"
            " ticket it can join again, as a new computer."
        )
    elif not node.joined and not node.settings.ticket:
        warnings.append(
            "The group does not know this node: its key is another one, or its files are gone. Restore its folder from"
            " a backup, or join again with a ticket (`colla invite --my-computer` on another computer of yours)."
        )
    warnings += node.notices.alarms()
    if node.runner.trouble is not None:
        warnings.append(str(node.runner.trouble))
    for existing in node.core.catalogue.services():
        former = node.core.membership.former_member(existing.owner)
        if former is not None:
            name = node.core.shown_name(existing)
            warnings.append(f"{name} has stopped: {former.text} `colla adopt {name}` lets it run on.")
    for service in services:
        running = len(service.locations)
        if service.active and service.secrets_missing:
            missing = " ".join(service.secrets_missing)
            warnings.append(
                f"{service.name} waits for its secrets: `colla secret set {service.name} {missing}`."
            )
        elif service.active and running < service.replicas_wanted:
            warnings.append(
                f"{service.name}: {running} of {service.replicas_wanted} replicas run"
                f" (`colla why {service.name}` tells why)."
            )
        if service.conflicts:
            kinds = ", ".join(service.conflicts)
            warnings.append(f"{service.name}: concurrent changes of {kinds}; the later one holds.")
    return types.StatusReport(node_report(node), computers, services, tuple(warnings))


def why_report(node: Node, service: Service, explanation: Explanation) -> types.WhyReport:
    """The master's explanation with names."""
    core = node.core
    lines = tuple(
        types.WhyLineReport(core.node_name(NodeId(line.node)), line.verdict, line.reason, line.score)
        for line in explanation.lines
    )
    return types.WhyReport(
        service=core.shown_name(service),
        master=core.node_name(explanation.master),
        term=explanation.term,
        wanted=explanation.wanted,
        running=explanation.running,
        lines=lines,
        history=explanation.history,
    )


def doctor_lines(node: Node) -> tuple[types.DoctorLine, ...]:
    """Health and connections as this node sees them."""
    lines = []
    core = node.core
    lines += _connections(node)
    lines += _reachability(node)
    for kind in core.contribution.environments:
        if kind in node.replicas.kinds():
            lines.append(types.DoctorLine("ok", f"environment {kind}", "It is attached and works."))
        else:
            lines.append(
                types.DoctorLine(
                    "problem", f"environment {kind}", "It does not start.", "`colla log` tells why."
                )
            )
    if node.runner.trouble is not None:
        trouble = node.runner.trouble
        lines.append(types.DoctorLine("problem", "agents", trouble.message, trouble.hint))
    drops = node.links.counters().drops
    if drops:
        shown = ", ".join(f"{why} {count}" for why, count in sorted(drops.items()))
        lines.append(
            types.DoctorLine("ok", "dropped", f"Refused or lost on the way since the start: {shown}.")
        )
    return tuple(lines)


def _connections(node: Node) -> list[types.DoctorLine]:
    """Who is here, and how this computer is linked with them."""
    core, links = node.core, node.links
    others = [info for info in core.membership.nodes() if info.id != node.identity.node]
    present = [info for info in others if core.presence.is_present(info.id)]
    lines = []
    text = f"{len(present)} of {len(others)} other computers of the group are here."
    if present or not others:
        lines.append(types.DoctorLine("ok", "group", text))
    else:
        hint = "Is this computer online? `colla connect ADDRESS` tries another address."
        lines.append(types.DoctorLine("warning", "group", text, hint))
    relayed = [info.name for info in present if (path := links.path(info.id)) is not None and not path.direct]
    if relayed:
        text = f"Reached through a member's relay, not directly: {', '.join(sorted(relayed))}."
        lines.append(types.DoctorLine("ok", "links", text))
    unreached = dict.fromkeys(links.unreached())
    apart = sorted(info.name for info in present if info.id in unreached)
    if apart:
        text = f"They are here, but no link from this computer gets through to them: {', '.join(apart)}."
        lines.append(types.DoctorLine("warning", "links", text, _relay_hint(node)))
    if not relayed and not apart:
        lines.append(types.DoctorLine("ok", "links", "All open links are direct."))
    return lines


def _reachability(node: Node) -> list[types.DoctorLine]:
    """Whether others can get through to this computer, or else to any that is here."""
    core, port = node.core, node.links.port
    seen = [one for one in node.links.my_addresses() if is_public(one.rpartition(":")[0].strip("[]"))]
    reachable = [
        info.name
        for info in core.membership.nodes()
        if info.id != node.identity.node
        and core.presence.is_present(info.id)
        and (entry := core.presence.entry(info.id)) is not None
        and entry.announcement.reachable
    ]
    lines = []
    if node.links.reachable():
        told = core.contribution.address
        at = (
            f"at {told}, as its owner says"
            if told
            else f"at {', '.join(seen)}"
            if seen
            else "from the Internet"
        )
        here = with_port(told, port) if told else next(iter(seen), "")
        command = RELAY_COMMAND.replace("ITS-ADDRESS", here.rpartition(":")[0] or "ITS-ADDRESS")
        hint = "" if _relays(node) else f"Homes whose routers keep them apart could meet here: {command}."
        lines.append(types.DoctorLine("ok", "reachable", f"Others reach this computer {at}.", hint))
    elif reachable:
        outside = f", which others see at {', '.join(seen)}" if seen else ""
        text = f"This computer is behind a router{outside}; others get in at: {', '.join(sorted(reachable))}."
        lines.append(types.DoctorLine("ok", "reachable", text))
    else:
        text = "No computer of the group that is here is known to be reachable from other homes."
        hint = (
            "Two homes behind routers need one reachable computer in the group to meet. Forward UDP port"
            f" {port} of your router to this computer and say where: `colla contribute --address NAME:{port}`."
            " Or let a computer with a public address join."
        )
        lines.append(types.DoctorLine("warning", "reachable", text, hint))
    if node.relaying.problem:
        lines.append(
            types.DoctorLine("problem", "relay", node.relaying.problem, "It is tried again by itself.")
        )
    return lines


def _relay_hint(node: Node) -> str:
    if _relays(node):
        return "They do not get through to the relays of the group either, or only just began to use them."
    return f"A computer of the group with a public address can carry the packets: there, {RELAY_COMMAND}."


def _relays(node: Node) -> list[str]:
    """The relays that members contribute who are here."""
    presence = node.core.presence
    entries = [entry for one in presence.present() if (entry := presence.entry(one)) is not None]
    return [
        entry.announcement.contribution.relay for entry in entries if entry.announcement.contribution.relay
    ]
