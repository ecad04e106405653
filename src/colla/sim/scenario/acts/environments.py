"""What execution environments and their replicas do wrong."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.sim.environment import Behaviour
from colla.sim.scenario.act import Act, Fault, NodeAct, NodeName, Seconds, ServiceName, Share
from colla.sim.scenario.stage import Stage


class ReplicaAct(Act, frozen=True, kw_only=True):
    """An act upon the replicas of a service, on one computer or on all (no `node`)."""

    service: ServiceName
    node: NodeName | None = None

    def nodes(self) -> tuple[str, ...]:
        return () if self.node is None else (self.node,)

    def services(self) -> tuple[str, ...]:
        return (self.service,)


class CrashReplicas(ReplicaAct, frozen=True, kw_only=True):
    """They end by themselves."""

    def do(self, stage: Stage) -> bool:
        found = stage.with_replicas(self.service, self.node)
        for computer, service in found:
            computer.environment.crash(service)
        return bool(found)


class HangReplicas(ReplicaAct, frozen=True, kw_only=True):
    """They still run but answer nobody, for `lasts_s` or until peace."""

    lasts_s: Seconds | None = None

    def do(self, stage: Stage) -> bool:
        found = stage.with_replicas(self.service, self.node)
        for computer, service in found:
            computer.environment.hang(service)
            stage.after(self.lasts_s, computer.environment.recover, service)
        return bool(found)


class BadEnvironment(Fault, frozen=True, kw_only=True):
    """Whatever is started on this computer behaves so. It crashes or hangs so long after it was ready, each time anew, or
    `flap_s`: answers for so long, then hangs for so long, and so on.
    """

    prepare_s: Annotated[float, Meta(ge=0.0, le=600.0)] = 0.05
    ready_s: Annotated[float, Meta(ge=0.0, le=600.0)] = 0.25
    stop_s: Annotated[float, Meta(ge=0.0, le=600.0)] = 0.05
    fails_to_launch: str = ""
    fails_share: Share = 1.0
    never_listens: bool = False
    ignores_stop: bool = False
    crash_after_s: Seconds | None = None
    hang_after_s: Seconds | None = None
    flap_s: tuple[Seconds, Seconds] | None = None

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        names = {field.name for field in msgspec.structs.fields(Behaviour)}
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if name in names}
        stage.mend_environment(computer)
        computer.environment.behaviour = Behaviour(**said)
        stage.after(self.lasts_s, stage.mend_environment, computer)
        return True


class DetachEnvironments(NodeAct, frozen=True, kw_only=True):
    """The environments' own programs die and are attached again after `seconds`; replicas go on meanwhile."""

    seconds: Seconds

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None or not computer.environment.attached:
            return False
        computer.detach_environments(self.seconds)
        return True
