"""Who is here, for people: the members, whatever computers they come with. Reads views; changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from colla.client import types
from colla.node import clock
from colla.protocol.views import MemberInfo, NodeInfo

if TYPE_CHECKING:
    from colla.node.app import Node


def presence_reports(node: Node) -> tuple[types.PresenceReport, ...]:
    """All members, by name."""
    nodes = node.core.membership.nodes()
    reports = [
        _report(node, member, [info for info in nodes if info.member == member.id])
        for member in node.core.membership.members()
    ]
    return tuple(sorted(reports, key=lambda report: report.member))


def _report(node: Node, member: MemberInfo, computers: list[NodeInfo]) -> types.PresenceReport:
    core, me = node.core, node.identity.node
    here = [info for info in computers if info.id == me or core.presence.is_present(info.id)]
    entries = [entry for info in here if (entry := core.presence.entry(info.id)) is not None]
    gives = [entry.announcement.contribution for entry in entries]
    kinds = [kind for entry in entries for kind in entry.announcement.environments]
    seen_s = max((core.group.seen.at_s(info.id) for info in computers), default=0.0)
    since_s = min((_wall_s(entry.since_s) for entry in entries), default=0.0)
    return types.PresenceReport(
        member=member.name,
        role=member.role,
        here=bool(here),
        me=any(info.id == me for info in computers),
        since_s=since_s,
        seen_s=time.time() if here else seen_s,
        computers=tuple(sorted(info.name for info in here)),
        computers_away=tuple(sorted(info.name for info in computers if info not in here)),
        cpus=sum(each.cpus for each in gives if not each.paused),
        memory_bytes=sum(each.memory_bytes for each in gives if not each.paused),
        disk_bytes=sum(each.disk_bytes for each in gives if not each.paused),
        environments=tuple(sorted(dict.fromkeys(kinds))),
    )


def _wall_s(boot_s: float) -> float:
    """A moment of the boot clock as Unix time, to the second: what is told twice must be the same."""
    return float(round(time.time() - (clock.boot_s() - boot_s)))
