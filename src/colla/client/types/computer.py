"""Types of the local API about this computer."""

from __future__ import annotations

import msgspec

from colla.model.contribution import Contribution


class NodeReport(msgspec.Struct, frozen=True):
    """This computer's node. `joined` is false while the group has not admitted it: `join_problem` says why, and
    `join_again` whether it goes on trying.
    """

    node: str
    name: str
    group: str
    group_name: str
    election: str
    member: str
    member_name: str
    joined: bool
    join_problem: str
    version: str
    pid: int
    port: int
    gateway: str
    addresses: tuple[str, ...]
    contribution: Contribution
    environments: tuple[str, ...]
    replicas: int
    objects: int
    object_bytes: int
    resident_bytes: int
    uptime_s: float
    join_again: bool = False


class ContributeRequest(msgspec.Struct, frozen=True):
    """The whole contribution as it shall be from now on."""

    contribution: Contribution


class ContributeAnswer(msgspec.Struct, frozen=True):
    """What holds now, and how many replicas still have to move or stop."""

    contribution: Contribution
    replicas_left: int


class ConnectRequest(msgspec.Struct, frozen=True):
    """An address (`host:port`) where a node of the group may be reached."""

    address: str


class LeaveRequest(msgspec.Struct, frozen=True):
    """Leave for good. `now`: do not wait until the replicas have moved; `anyway`: also as the only administrator."""

    now: bool = False
    anyway: bool = False


class ShutDownRequest(msgspec.Struct, frozen=True):
    """Stop the node; its replicas stop too unless they are to be kept."""

    keep_replicas: bool = False


class NoticeReport(msgspec.Struct, frozen=True):
    """Something that happened, as told on this node."""

    at_s: float
    kind: str
    text: str
    service: str = ""
    node: str = ""


class DoctorLine(msgspec.Struct, frozen=True):
    """One check: `ok`, `warning` or `problem`, what was seen, what to do."""

    verdict: str
    subject: str
    text: str
    hint: str = ""
