"""What members do with each other: messages, events, names of objects; names and roles; retiring and removing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from colla.agents.administration_requests import (
    GiveRole,
    RemoveMember,
    RenameComputer,
    RetireComputer,
)
from colla.agents.communication_requests import PublishEvent, SendMessage
from colla.agents.requests import NameObject
from colla.model.ids import ObjectId, digest
from colla.protocol.naming.bodies import Named
from colla.protocol.views import Role
from colla.sim.scenario.act import NodeAct, NodeName
from colla.sim.scenario.stage import Stage

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Say(NodeAct, frozen=True, kw_only=True):
    """The computer's owner sends a message to the owners of others, or to everybody (`to` empty)."""

    to: tuple[NodeName, ...] = ()
    text: Text = "hello"

    def nodes(self) -> tuple[str, ...]:
        return (self.node, *self.to)

    def do(self, stage: Stage) -> bool:
        computer = stage.member(self.node)
        readers = [found for name in self.to if (found := stage.computer(name)) is not None]
        if computer is None or len(readers) < len(self.to):
            return False
        computer.ask(SendMessage(tuple(stage.group.owner(one).id for one in readers), self.text))
        return True


class Publish(NodeAct, frozen=True, kw_only=True):
    """A program on the computer publishes an event."""

    topic: Annotated[str, Meta(pattern=r"^[a-z]{1,20}$")] = "news"

    def do(self, stage: Stage) -> bool:
        computer = stage.member(self.node)
        if computer is None:
            return False
        computer.ask(PublishEvent(self.topic, b'{"at":%d}' % round(self.at_s)))
        return True


class NameAnObject(NodeAct, frozen=True, kw_only=True):
    """The owner puts a file of the group's: an object and a path to it."""

    path: Annotated[str, Meta(pattern=r"^[a-z0-9/]{1,60}$")]
    size_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 5000

    def do(self, stage: Stage) -> bool:
        computer = stage.member(self.node)
        if computer is None:
            return False
        object_id = ObjectId(digest(f"{self.path} at {self.at_s}".encode()))
        computer.put_object(object_id, self.size_bytes)
        size = self.size_bytes
        computer.ask(NameObject(Named(self.path, object_id, size, size, 1, False), replace=True))
        return True


class Administer(NodeAct, frozen=True, kw_only=True):
    """Something that `by` decides about a computer or its owner."""

    by: NodeName

    def nodes(self) -> tuple[str, ...]:
        return (self.node, self.by)


class Rename(Administer, frozen=True, kw_only=True):
    """The computer is called otherwise."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")]

    def do(self, stage: Stage) -> bool:
        computer, by = stage.computer(self.node), stage.member(self.by)
        if computer is None or by is None:
            return False
        by.ask(RenameComputer(computer.node, self.name))
        return True


class Appoint(Administer, frozen=True, kw_only=True):
    """The computer's owner has another role from now on."""

    role: Role

    def do(self, stage: Stage) -> bool:
        computer, by = stage.computer(self.node), stage.member(self.by)
        if computer is None or by is None:
            return False
        by.ask(GiveRole(stage.group.owner(computer).id, self.role))
        return True


class Retire(Administer, frozen=True, kw_only=True):
    """The computer is taken out of the group, its owner stays."""

    def do(self, stage: Stage) -> bool:
        computer, by = stage.computer(self.node), stage.member(self.by)
        if computer is None or by is None:
            return False
        by.ask(RetireComputer(computer.node))
        stage.out_of_the_group = True
        return True


class Remove(Administer, frozen=True, kw_only=True):
    """The computer's owner is removed from the group, with all computers."""

    def do(self, stage: Stage) -> bool:
        computer, by = stage.computer(self.node), stage.member(self.by)
        if computer is None or by is None:
            return False
        by.ask(RemoveMember(stage.group.owner(computer).id))
        stage.out_of_the_group = True
        return True
