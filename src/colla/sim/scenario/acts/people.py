"""What members do: create, modify, activate, scale, eliminate; change what they give, drain, leave; come with tickets."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from colla.agents.requests import (
    EliminateService,
    InvitePerson,
    ModifyService,
    Request,
    SetActive,
    SetReplicas,
)
from colla.model.contribution import AgentKind, Contribution
from colla.model.ids import ServiceId
from colla.sim.scenario.act import Act, Fault, NodeAct, NodeName, ServiceName
from colla.sim.scenario.stage import Stage

ReplicaCount = Annotated[int, Meta(ge=0, le=64)]


class Create(NodeAct, frozen=True, kw_only=True):
    """The owner of the computer puts an object and creates a service with it."""

    service: ServiceName
    replicas: ReplicaCount = 1
    active: bool = True
    object_bytes: Annotated[int, Meta(ge=1, le=1 << 32)] = 200_000

    def services(self) -> tuple[str, ...]:
        return (self.service,)

    def do(self, stage: Stage) -> bool:
        computer = stage.member(self.node)
        if computer is None or self.service in stage.services or self.service in stage.creating:
            return False
        stage.create(self.service, computer, self.replicas, self.object_bytes, active=self.active)
        return True


class ServiceAct(Act, frozen=True, kw_only=True):
    """A change of a service, asked for at a node: its owner's, unless another is named."""

    service: ServiceName
    node: NodeName | None = None

    def nodes(self) -> tuple[str, ...]:
        return () if self.node is None else (self.node,)

    def services(self) -> tuple[str, ...]:
        return (self.service,)

    def request(self, stage: Stage, service: ServiceId) -> Request:
        """What is asked."""
        raise NotImplementedError

    def do(self, stage: Stage) -> bool:
        service = stage.services.get(self.service)
        if service is None:
            return False
        computer = stage.member(self.node or stage.owners[self.service])
        if computer is None:
            return False
        computer.ask(self.request(stage, service))
        return True


class Modify(ServiceAct, frozen=True, kw_only=True):
    """A new version of the service, with another object."""

    def do(self, stage: Stage) -> bool:
        service = stage.services.get(self.service)
        computer = stage.member(self.node or stage.owners.get(self.service, ""))
        if service is None or computer is None or computer.core.catalogue.service(service) is None:
            return False
        stage.modify(self.service, service, computer)
        return True

    def request(self, stage: Stage, service: ServiceId) -> Request:
        raise TypeError(f"{ModifyService.__name__} is asked for by the stage, once its object is placed")


class Scale(ServiceAct, frozen=True, kw_only=True):
    """Another number of replicas."""

    replicas: ReplicaCount

    def request(self, stage: Stage, service: ServiceId) -> Request:
        return SetReplicas(service, self.replicas)


class Activate(ServiceAct, frozen=True, kw_only=True):
    """The service shall run."""

    def request(self, stage: Stage, service: ServiceId) -> Request:
        return SetActive(service, True)


class Deactivate(ServiceAct, frozen=True, kw_only=True):
    """The service shall not run."""

    def request(self, stage: Stage, service: ServiceId) -> Request:
        return SetActive(service, False)


class Eliminate(ServiceAct, frozen=True, kw_only=True):
    """The service is removed for good."""

    def request(self, stage: Stage, service: ServiceId) -> Request:
        return EliminateService(service)


class Gives(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a computer gives, where it differs from giving everything. `agents` are names of `AgentKind`."""

    agents: tuple[AgentKind, ...] | None = None
    environments: tuple[str, ...] | None = None
    replicas_max: ReplicaCount | None = None
    cpus: Annotated[float, Meta(ge=0.0, le=65_536.0)] | None = None
    own_only: bool | None = None
    draining: bool | None = None
    paused: bool | None = None

    def applied_to(self, contribution: Contribution) -> Contribution:
        """The contribution with what is said here."""
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(contribution, **said)


class Contribute(Fault, frozen=True, kw_only=True):
    """The owner decides anew what the computer gives, for `lasts_s` or until peace."""

    gives: Gives

    def do(self, stage: Stage) -> bool:
        computer = stage.computer(self.node)
        if computer is None:
            return False
        computer.contribute(self.gives.applied_to(stage.gave(computer)))
        stage.after(self.lasts_s, stage.give_again, computer)
        return True


class Leave(NodeAct, frozen=True, kw_only=True):
    """The computer leaves as `colla leave` lets it: it drains for `drain_s`, says goodbye, and its files are deleted."""

    drain_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 5.0

    def do(self, stage: Stage) -> bool:
        computer = stage.member(self.node)
        if computer is None or computer.name in stage.left:
            return False
        stage.leave(computer, self.drain_s)
        return True


class Join(NodeAct, frozen=True, kw_only=True):
    """A new member gets a ticket from `via` and starts `node`, which is a new computer.

    With `own`, it is one more computer of the member who owns `via`.
    """

    via: NodeName
    own: bool = False
    gives: Gives = Gives()

    def nodes(self) -> tuple[str, ...]:
        return (self.node, self.via)

    def do(self, stage: Stage) -> bool:
        inviter = stage.member(self.via)
        if inviter is None or stage.computer(self.node) is not None:
            return False
        asked = inviter.ask(InvitePerson(self.own))
        stage.when_answered(asked, stage.let_join, self.node, inviter, self.own, self.gives)
        return True
