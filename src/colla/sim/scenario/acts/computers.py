"""What happens to computers: crashes at any place, sleep, standstill, disks that fail, clocks that are wrong."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from colla.kernel.effects import Effect, LaunchReplica, Persist, Send
from colla.sim.computer import Computer
from colla.sim.disk import USUAL, DiskSpeed
from colla.sim.scenario.act import Fault, NodeAct, Seconds
from colla.sim.scenario.stage import Stage

EffectNumber = Annotated[int, Meta(ge=0, le=100_000)]
EffectKind = Literal["any", "persist", "launch", "send"]
CRASH_EFFECTS: dict[EffectKind, type[Effect]] = {
    "any": Effect,
    "persist": Persist,
    "launch": LaunchReplica,
    "send": Send,
}


class PowerOff(Fault, frozen=True, kw_only=True):
    """The plug is pulled; after `lasts_s` the computer is switched on."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.powered:
            return False
        computer.power_off()
        stage.after(self.lasts_s, stage.start, computer)
        return True


class Kill(Fault, frozen=True, kw_only=True):
    """The node's process is killed, replicas go on; after `lasts_s` it is started."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.runs:
            return False
        computer.kill()
        stage.after(self.lasts_s, stage.start, computer)
        return True


class CrashAtEffect(Fault, frozen=True, kw_only=True):
    """The node dies just before its `number`-th effect of that kind from now on, as by `kill` or `power-off`."""

    number: EffectNumber
    effect: EffectKind = "any"
    power: bool = False

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or computer.process is None or computer.process.trap is not None:
            return False
        left, counted = self.number, CRASH_EFFECTS[self.effect]

        def trap(effect: Effect) -> bool:
            nonlocal left
            if not isinstance(effect, counted):
                return False
            left -= 1
            if left >= 0:
                return False
            crash(computer, power=self.power)
            stage.after(self.lasts_s, stage.start, computer)
            return True

        computer.process.trap = trap
        return True


def crash(computer: Computer, *, power: bool) -> None:
    """Pull the plug, or kill only the process."""
    if power:
        computer.power_off()
    else:
        computer.kill()


class Stop(Fault, frozen=True, kw_only=True):
    """The node is ended in order and says goodbye; after `lasts_s` it is started."""

    keep_replicas: bool = False

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.up:
            return False
        computer.stop(keep_replicas=self.keep_replicas)
        stage.after(self.lasts_s, stage.start, computer)
        return True


class Start(NodeAct, frozen=True, kw_only=True):
    """The node is started, its computer switched on or woken up for it."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        return computer is not None and not computer.up and stage.start(computer)


class Suspend(Fault, frozen=True, kw_only=True):
    """The lid closes, and opens after `lasts_s`."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.awake:
            return False
        computer.suspend()
        stage.after(self.lasts_s, computer.resume)
        return True


class Stall(NodeAct, frozen=True, kw_only=True):
    """The node's process gets no time for so many seconds."""

    seconds: Seconds

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.up:
            return False
        computer.stall(self.seconds)
        return True


class Slow(Fault, frozen=True, kw_only=True):
    """A starved computer: again and again its process stands still for `stall_s`, with `between_s` in between."""

    stall_s: Seconds = 0.8
    between_s: Annotated[float, Meta(ge=0.05, le=3600.0)] = 0.4

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.up:
            return False
        self._stall(stage, computer, float("inf") if self.lasts_s is None else stage.now_s + self.lasts_s)
        return True

    def _stall(self, stage: Stage, computer: Computer, until_s: float) -> None:
        if stage.now_s < until_s:
            computer.stall(self.stall_s)
            stage.after(self.stall_s + self.between_s, self._stall, stage, computer, until_s)


class Wipe(Fault, frozen=True, kw_only=True):
    """The disk breaks and is replaced by an empty one; the node's key and the others' addresses are kept."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        stage.introduce(computer)
        computer.wipe()
        stage.after(self.lasts_s, stage.start, computer)
        return True


class OldDisk(NodeAct, frozen=True, kw_only=True):
    """A backup of the disk is taken now; after `returns_s` the node is started with it, and forks its logs."""

    returns_s: Seconds

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.runs:
            return False
        durable, objects = computer.disk.snapshot(), dict(computer.objects.sizes)

        def restore() -> None:
            stage.introduce(computer)
            computer.restore_disk(durable, objects)
            stage.start(computer)

        stage.after(self.returns_s, restore)
        return True


class FullDisk(Fault, frozen=True, kw_only=True):
    """The disk takes no more; after `lasts_s` there is room again."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.disk.fill()
        stage.after(self.lasts_s, computer.disk.free)
        return True


class SlowDisk(Fault, frozen=True, kw_only=True):
    """Flushing takes `flush_s` at least and twice that on average: a crash then loses more."""

    flush_s: Annotated[float, Meta(ge=0.0, le=30.0)] = 0.5

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.disk.speed = DiskSpeed(flush_s=self.flush_s, slow_share=0.2, slow_s=2 * self.flush_s)
        stage.after(self.lasts_s, setattr, computer.disk, "speed", USUAL)
        return True


class LyingDisk(Fault, frozen=True, kw_only=True):
    """The disk says that it flushed when it did not: without power it loses the transactions of the last `lies_s`."""

    lies_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 2.0

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.disk.lies_s = self.lies_s
        stage.after(self.lasts_s, setattr, computer.disk, "lies_s", 0.0)
        return True


class DamageObjects(NodeAct, frozen=True, kw_only=True):
    """Bits rot in every object on the disk; nobody knows until somebody reads them."""

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.objects.sizes:
            return False
        for object_id in list(computer.objects.sizes):
            computer.objects.damage(object_id)
        return True


class Drift(NodeAct, frozen=True, kw_only=True):
    """The computer's oscillator is wrong by `ppm` from now on."""

    ppm: Annotated[float, Meta(ge=-100_000.0, le=100_000.0)]

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.clock.drift(self.ppm)
        return True


class Jump(NodeAct, frozen=True, kw_only=True):
    """Somebody sets the wall clock forward by so many seconds, or back."""

    seconds: Annotated[float, Meta(ge=-1e9, le=1e9)]

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.clock.jump(self.seconds)
        return True


class Move(NodeAct, frozen=True, kw_only=True):
    """The computer is at another address from now on, as when a router gives it a new one."""

    address: Annotated[str, Meta(pattern=r"^[0-9.]+:[0-9]+$")]

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or stage.group.network.at(self.address) is not None:
            return False
        computer.move(self.address)
        return True
