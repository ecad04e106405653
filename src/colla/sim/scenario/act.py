"""One timed act of a scenario: something that fails, or somebody who does something, at a moment.

An act is a value: all it needs is in its fields, so that a scenario can be written to a file, read again, and reduced act
by act. Invariants: an act that cannot be done when its time comes (its computer is off, its service does not exist) does
nothing and says so; it draws no randomness but what derives from the world's seed and its own fields; it never waits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from colla.sim.scenario.stage import Stage

Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
NodeName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]{0,15}$")]
"""`n0`, `n1`, … for those who are there from the beginning; any other name for one who joins."""
ServiceName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]{0,30}$")]


def act_name(class_name: str) -> str:
    """`PowerOff` is written `power-off`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", class_name).lower()


class Act(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="act",
    tag=act_name,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """The base of all acts. `at_s`: seconds after the group was formed."""

    at_s: Seconds

    def do(self, stage: Stage) -> bool:
        """Do it; whether there was anything to do."""
        raise NotImplementedError

    def nodes(self) -> tuple[str, ...]:
        """The computers that it names."""
        return ()

    def services(self) -> tuple[str, ...]:
        """The services that it names."""
        return ()

    @property
    def kind(self) -> str:
        """What it is called in files and tables."""
        return str(self.__struct_config__.tag)


class NodeAct(Act, frozen=True, kw_only=True):
    """An act upon one computer."""

    node: NodeName

    def nodes(self) -> tuple[str, ...]:
        return (self.node,)


class Fault(NodeAct, frozen=True, kw_only=True):
    """One that ends by itself after `lasts_s`, or else with all others when peace comes."""

    lasts_s: Seconds | None = None
