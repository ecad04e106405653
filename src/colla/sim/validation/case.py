"""One run of the validation: phase 1, then phase 2, and when its group became consistent for good."""

from __future__ import annotations

import enum

import msgspec

from colla.model.ids import digest
from colla.protocol.views import Election
from colla.sim.consistency import failing
from colla.sim.gathering import gather
from colla.sim.group import SimGroup
from colla.sim.network import HOME, Partition
from colla.sim.validation.activity import Activity, People
from colla.sim.validation.profile import Profile, configuration

PARTED_TICKS = 3
"""For how long a group is parted before it heals."""
LOSS = 0.05
LOOK_EVERY_S = 0.5
"""Where there are no iterations, how often consistency is judged."""
PROBLEMS_KEPT = 3
PROBLEM_CHARS_MAX = 200
NEVER = -1


class Setting(enum.StrEnum):
    """What goes on besides the usual activity."""

    USUAL = "usual"
    RETURN = "return"
    """Everybody who was disconnected returns at the beginning of phase 2."""
    HEAL = "heal"
    """The group was parted in two for the last ticks of phase 1, and heals at the beginning of phase 2."""
    LOSSES = "losses"
    """A twentieth of all packets is lost, in both phases."""


class PaperCase(msgspec.Struct, frozen=True):
    """One run. The same seed, setting, size and number mean the same activity under every profile and election."""

    profile: Profile
    election: Election
    setting: Setting
    nodes: int
    number: int
    seed: int
    activity: Activity = Activity()

    @property
    def key(self) -> str:
        return f"{self.profile}/{self.election}/{self.setting}/{self.nodes}/{self.number}"

    @property
    def world_seed(self) -> int:
        """What all randomness of the run comes from."""
        name = f"{self.seed}/{self.setting}/{self.nodes}/{self.number}"
        return int.from_bytes(digest(name.encode())[:6])


class PaperResult(msgspec.Struct, frozen=True):
    """What came of it. `failing`: which of (a) to (d) did not hold, at the beginning of phase 2 and after each of its
    iterations (`aabd` is never written, each letter stands once); "" is consistent.
    """

    reached: int
    """After how many iterations the group was consistent and stayed so; 0: at the beginning already; -1: never."""
    reached_s: float | None
    """The same in seconds since the beginning of phase 2, where there are no iterations."""
    failing: tuple[str, ...]
    connected: int
    existing: int
    active: int
    messages: float
    """Per connected computer and iteration, in phase 2; `sent_bytes` likewise."""
    sent_bytes: float
    trace: str
    """The hash over all that happened."""
    problems: tuple[str, ...] = ()
    """What was wrong after the first iteration that was not consistent, shortened."""

    @property
    def last(self) -> str:
        """Which of (a) to (d) came last; "" for a group that was consistent from the beginning."""
        if self.reached == NEVER:
            return self.failing[-1]
        return self.failing[self.reached - 1] if self.reached > 0 else ""


def run_case(case: PaperCase) -> PaperResult:
    """Run it."""
    return Run(case).run()


class Run:
    """One run under way."""

    def __init__(self, case: PaperCase) -> None:
        self.case = case
        activity = case.activity
        line = msgspec.structs.replace(HOME, loss=LOSS) if case.setting is Setting.LOSSES else HOME
        config = configuration(case.profile, activity.tick_s)
        self.group = SimGroup(case.world_seed, case.election, config, line=line)
        gather(self.group, case.nodes)
        self.people = People(self.group, activity)

    def run(self) -> PaperResult:
        """Both phases."""
        self.begin()
        self.act()
        return self.be_quiet()

    def begin(self) -> None:
        """All computers start; the first tick begins with an iteration."""
        for computer in self.group.computers:
            computer.start()
        tick_s = self.case.activity.tick_s
        self.group.run(-self.group.world.now_s % tick_s + tick_s)

    def act(self) -> None:
        """Phase 1."""
        activity, group = self.case.activity, self.group
        ticks = max(1, round(activity.active_s / activity.tick_s))
        parted = None
        for tick in range(ticks):
            if self.case.setting is Setting.HEAL and tick == max(0, ticks - PARTED_TICKS):
                half = len(group.computers) // 2
                names = [one.name for one in group.computers]
                parted = group.network.add(Partition(names[:half], names[half:]))
            self.people.tick()
        if parted is not None:
            group.network.remove(parted)
        if self.case.setting is Setting.RETURN:
            self.people.reconnect_all()

    def be_quiet(self) -> PaperResult:
        """Phase 2."""
        case, group, network = self.case, self.group, self.group.network
        began_s = group.world.now_s
        sent, sent_bytes = network.frames + network.datagrams, network.bytes
        iterations = max(1, round(case.activity.quiet_s / case.activity.tick_s))
        found: list[str] = [self._failing()[0]]
        problems: tuple[str, ...] = ()
        wrong_s = began_s if found[0] else None
        for _ in range(iterations):
            if case.profile is Profile.PRODUCT:
                wrong_s = self._look_often(case.activity.tick_s, wrong_s)
            else:
                group.run(case.activity.tick_s)
            kinds, texts = self._failing()
            found.append(kinds)
            if kinds and not problems:
                problems = tuple(text[:PROBLEM_CHARS_MAX] for text in texts[:PROBLEMS_KEPT])
        connected = self.people.connected()
        share = max(1, len(connected)) * iterations
        services = connected[0].core.catalogue.services()
        reached = _reached(found)
        reached_s = None
        if case.profile is Profile.PRODUCT and reached != NEVER:
            reached_s = 0.0 if wrong_s is None else wrong_s - began_s + LOOK_EVERY_S
        return PaperResult(
            reached=reached,
            reached_s=reached_s,
            failing=tuple(found),
            connected=len(connected),
            existing=len(services),
            active=sum(1 for service in services if service.active),
            messages=(network.frames + network.datagrams - sent) / share,
            sent_bytes=(network.bytes - sent_bytes) / share,
            trace=group.world.trace.digest(),
            problems=problems,
        )

    def _failing(self) -> tuple[str, list[str]]:
        return failing(self.group, self.people.connected())

    def _look_often(self, seconds: float, wrong_s: float | None) -> float | None:
        """Let time pass; returns when the group was last seen not to be consistent."""
        for _ in range(round(seconds / LOOK_EVERY_S)):
            self.group.run(LOOK_EVERY_S)
            if self._failing()[0]:
                wrong_s = self.group.world.now_s
        return wrong_s


def _reached(found: list[str]) -> int:
    """From which iteration on nothing failed any more."""
    if found[-1]:
        return NEVER
    return max((number + 1 for number, kinds in enumerate(found) if kinds), default=0)
