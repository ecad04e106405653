"""What the demo sees, and when: the laptop's view of the group asked again and again, and every node's notices.

Times come from two sources on one clock: notices carry the moment at which something happened, the laptop's view is seen
within `LOOK_S`. Invariant: a replica counts as running only on a computer that the demo has not unplugged, whatever any
node still believes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from colla.cli.demo.computers import Computer
from colla.client.client import Client
from colla.client.types import ComputerReport, NoticeReport, ServiceReport, StatusReport
from colla.model.errors import CollaError

LOOK_S = 0.1
AGAIN_S = 0.3
"""Before a node that did not answer is asked again."""
MOMENTS_MAX = 20_000
TOOK_OVER, TOLD_ABSENT = "took_over", "node_absent"
"""Notices of nodes."""
UNPLUGGED, RUNNING, MASTER_SEEN = "unplugged", "running", "master_seen"
"""What the demo does, and what it sees in the laptop's view; a computer's phase is a kind of moment too."""


class Moment(msgspec.Struct, frozen=True):
    """Something that happened. `seen_by` names the computer that told it; `about` the computer that it is about."""

    at_s: float
    kind: str
    text: str
    seen_by: str = ""
    service: str = ""
    about: str = ""


class Timeline:
    """All moments, in the order in which they were told."""

    def __init__(self, listen: Callable[[Moment], None] = lambda moment: None) -> None:
        self.moments: list[Moment] = []
        self._listen = listen

    def add(self, moment: Moment) -> None:
        """Keep it and tell the screen."""
        if len(self.moments) < MOMENTS_MAX:
            self.moments.append(moment)
        self._listen(moment)

    def first(
        self, kind: str, since_s: float, *, about: Iterable[str] = (), service: str = ""
    ) -> float | None:
        """When it first happened since then, on one of these computers and with this service, if they are named."""
        wanted = tuple(about)
        return min(
            (
                moment.at_s
                for moment in self.moments
                if moment.kind == kind
                and moment.at_s >= since_s
                and (not wanted or moment.about in wanted)
                and (not service or moment.service == service)
            ),
            default=None,
        )


def running(service: ServiceReport, computers: Mapping[str, Computer]) -> list[str]:
    """The computers on which replicas of the service really run: those that are on."""
    return sorted(each.node_name for each in service.locations if computers[each.node_name].on)


def find(report: StatusReport, name: str) -> ServiceReport | None:
    """The service of this name."""
    return next((each for each in report.services if each.name == name), None)


def is_present(report: StatusReport, name: str) -> bool:
    """Whether that computer is seen as present."""
    return any(each.name == name and each.phase == "present" for each in report.computers)


def is_absent(report: StatusReport, name: str) -> bool:
    """Whether that computer is known to be away."""
    return any(each.name == name and each.phase == "absent" for each in report.computers)


class Watcher:
    """Looks at the group through the laptop and listens to every node."""

    def __init__(self, laptop: Computer, computers: Mapping[str, Computer], timeline: Timeline) -> None:
        self.latest: StatusReport | None = None
        self._laptop = laptop
        self._computers = computers
        self._timeline = timeline
        self._changed = asyncio.Condition()
        self._names: dict[str, str] = {}
        self._told_s: dict[str, float] = {}

    async def look(self) -> None:
        """Ask the laptop until cancelled; while it is off there is no view."""
        while True:
            try:
                async with self._laptop.client() as client:
                    await self._look_often(client)
            except (CollaError, OSError):
                await self._see(None)
            await asyncio.sleep(AGAIN_S)

    async def _look_often(self, client: Client) -> None:
        while True:
            await self._see(await client.status())
            await asyncio.sleep(LOOK_S)

    async def _see(self, report: StatusReport | None) -> None:
        before, self.latest = self.latest, report
        if report is not None:
            self._names = {each.id: each.name for each in report.services} | self._names
            for moment in changes(before, report, self._computers, time.time()):
                self._timeline.add(moment)
        async with self._changed:
            self._changed.notify_all()

    async def listen(self, computer: Computer) -> None:
        """Take the notices of a node until cancelled, across its restarts."""
        while True:
            with suppress(CollaError, OSError):
                async with computer.client() as client:
                    async for notice in client.notices():
                        self._hear(computer.name, notice)
            await asyncio.sleep(AGAIN_S)

    def _hear(self, name: str, notice: NoticeReport) -> None:
        if notice.at_s <= self._told_s.get(name, 0.0):
            return
        self._told_s[name] = notice.at_s
        service = self._names.get(notice.service, "")
        self._timeline.add(Moment(notice.at_s, notice.kind, notice.text, name, service, notice.node))

    async def until(self, what: str, good: Callable[[StatusReport], bool], timeout_s: float) -> float:
        """Wait until the view is good; returns when. Raises `CollaError("timeout")` naming `what` was waited for."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.latest is not None and good(self.latest))
        except TimeoutError:
            text = f"{what}: not within {timeout_s:.0f} s."
            raise CollaError("timeout", text, describe(self.latest, self._computers)) from None
        return time.time()


def changes(
    before: StatusReport | None, now: StatusReport, computers: Mapping[str, Computer], at_s: float
) -> list[Moment]:
    """What is different in the laptop's view: presence of computers, running replicas of services."""
    moments: list[Moment] = []
    phases = {each.name: each.phase for each in before.computers} if before is not None else {}
    for each in now.computers:
        if each.name in phases and phases[each.name] != each.phase:
            moments.append(_presence_moment(each, at_s))
    for service in now.services:
        old = find(before, service.name) if before is not None else None
        here = running(service, computers)
        if old is not None and running(old, computers) != here:
            text = f"{service.name}: {len(here)} of {service.replicas_wanted} replicas, on {', '.join(here) or 'none'}"
            moments.append(Moment(at_s, RUNNING, text, service=service.name))
        if old is not None and old.master != service.master and service.master:
            text = f"{service.name}: {service.master} is its master"
            moments.append(Moment(at_s, MASTER_SEEN, text, service=service.name, about=service.master))
    return moments


def _presence_moment(computer: ComputerReport, at_s: float) -> Moment:
    return Moment(at_s, computer.phase, f"{computer.name} is {computer.phase}", about=computer.name)


def describe(report: StatusReport | None, computers: Mapping[str, Computer]) -> str:
    """The view in one line, for a wait that was in vain."""
    if report is None:
        return "The laptop does not answer."
    here = ", ".join(f"{each.name} {each.phase}" for each in report.computers)
    services = "; ".join(
        f"{each.name}: {len(running(each, computers))}/{each.replicas_wanted} by {each.master or 'no master'}"
        for each in report.services
    )
    return f"{here}. {services}."
