"""What happens on the wires: cuts of every shape, loss, delay, repetition, links that break."""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.sim.network import PASS, Parcel, Partition, Rule, Verdict
from colla.sim.network import OneWay as OneWayRule
from colla.sim.scenario.act import Act, Fault, NodeAct, NodeName, Seconds, Share
from colla.sim.scenario.stage import Stage


class WireAct(Act, frozen=True, kw_only=True):
    """A rule for the wires that ends after `lasts_s`, or else when peace comes."""

    lasts_s: Seconds | None = None

    def rule(self, stage: Stage) -> Rule:
        """The rule that holds meanwhile."""
        raise NotImplementedError

    def do(self, stage: Stage) -> bool:
        stage.impose(self.rule(stage), self.lasts_s)
        return True


class CutInTwo(WireAct, frozen=True, kw_only=True):
    """`side` and all the others do not reach each other."""

    side: tuple[NodeName, ...]

    def nodes(self) -> tuple[str, ...]:
        return self.side

    def rule(self, stage: Stage) -> Rule:
        others = [one.name for one in stage.group.computers if one.name not in self.side]
        return Partition(self.side, others)


class Bridge(WireAct, frozen=True, kw_only=True):
    """`one` and `other` do not reach each other, but everybody else reaches both."""

    one: tuple[NodeName, ...]
    other: tuple[NodeName, ...]

    def nodes(self) -> tuple[str, ...]:
        return self.one + self.other

    def rule(self, stage: Stage) -> Rule:
        return Partition(self.one, self.other)


class OneWay(WireAct, frozen=True, kw_only=True):
    """Nothing gets from the sources to the targets (empty: to anybody else); the other direction works."""

    sources: tuple[NodeName, ...]
    targets: tuple[NodeName, ...] = ()

    def nodes(self) -> tuple[str, ...]:
        return self.sources + self.targets

    def rule(self, stage: Stage) -> Rule:
        others = [one.name for one in stage.group.computers if one.name not in self.sources]
        return OneWayRule(self.sources, self.targets or others)


class Deaf(WireAct, frozen=True, kw_only=True):
    """The computer can send but not hear."""

    node: NodeName

    def nodes(self) -> tuple[str, ...]:
        return (self.node,)

    def rule(self, stage: Stage) -> Rule:
        others = [one.name for one in stage.group.computers if one.name != self.node]
        return OneWayRule(others, (self.node,))


class Disturbance(Rule):
    """Random parcels are repeated or late. Late datagrams are overtaken by later ones; frames too, if `in_order` is not."""

    def __init__(self, rng: Random, repeated: float, late: float, late_s: float, *, in_order: bool) -> None:
        self._rng = rng
        self._repeated = repeated
        self._late = late
        self._late_s = late_s
        self._in_order = in_order

    def judge(self, parcel: Parcel) -> Verdict:
        repeated, late = self._rng.random() < self._repeated, self._rng.random() < self._late
        if not repeated and not late:
            return PASS
        return Verdict(1 + repeated, self._rng.random() * self._late_s if late else 0.0, self._in_order)


class Disturb(WireAct, frozen=True, kw_only=True):
    """A share of all messages is `repeated`; a share is `late` by up to `late_s`, so that datagrams change order.

    Unless `in_order`, so do messages on links, as if links had broken and been made again in between.
    """

    repeated: Share = 0.0
    late: Share = 0.0
    late_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 0.5
    in_order: bool = True

    def rule(self, stage: Stage) -> Rule:
        rng = stage.random(f"disturb/{self.at_s}")
        return Disturbance(rng, self.repeated, self.late, self.late_s, in_order=self.in_order)


class BadLine(Fault, frozen=True, kw_only=True):
    """The computer's line loses a share of its packets, is slow, or both. What is not said stays as it is."""

    loss: Annotated[float, Meta(ge=0.0, le=0.9)] | None = None
    delay_s: Annotated[float, Meta(ge=0.0, le=10.0)] | None = None
    jitter_s: Annotated[float, Meta(ge=0.0, le=10.0)] | None = None
    upload_bytes_s: Annotated[float, Meta(ge=100.0, le=1e12)] | None = None

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        names = ("loss", "delay_s", "jitter_s", "upload_bytes_s")
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        stage.set_line(computer, msgspec.structs.replace(computer.line, **said))
        stage.after(self.lasts_s, stage.restore_line, computer)
        return True


class BreakLinks(NodeAct, frozen=True, kw_only=True):
    """All links of the node break at once, with what was under way; new ones can be made."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or computer.links is None or not computer.up:
            return False
        computer.links.close_all("the link broke")
        return True
