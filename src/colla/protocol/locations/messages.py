"""How user agents ask dispatchers where the replicas of a service are, and why things are as they are."""

from __future__ import annotations

import msgspec

from colla.kernel.messages import Message
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.model.location import Location


class Locate(Message, frozen=True, tag="loc?"):
    """Where is the service? A `subscribe` asks the master to tell changes too, until the subscription expires
    (`AccessConfig.location_ttl_s`); asking again renews it.
    """

    service: ServiceId
    subscribe: bool = True


class Located(Message, frozen=True, tag="loc!"):
    """What a dispatcher knows: the master (b"" when it knows none) and, from the master or a secondary, the
    live locations. `authoritative` is true from the acting master only; others are asked again there.
    """

    service: ServiceId
    master: NodeId
    locations: tuple[Location, ...]
    authoritative: bool


class LocationFailed(Message, frozen=True, tag="loc-"):
    """A user agent's hint to the master: this location did not answer. The master checks; it does not obey."""

    service: ServiceId
    replica: ReplicaId


class AskWhy(Message, frozen=True, tag="why?"):
    """Why do the replicas of this service run where they run, and what is missing?"""

    service: ServiceId
    nonce: int


class WhyLine(msgspec.Struct, frozen=True, array_like=True):
    """One node's part in it: `verdict` is stable (`runs`, `chosen`, `refused`, `unfit`, `absent`, `spare`…)."""

    node: NodeId
    verdict: str
    reason: str
    score: float = 0.0


class Explanation(Message, frozen=True, tag="why!"):
    """The master's answer. `master` names who to ask when this node is not it (then the rest is empty)."""

    service: ServiceId
    nonce: int
    master: NodeId
    term: int
    wanted: int
    running: int
    lines: tuple[WhyLine, ...]
    history: tuple[str, ...] = ()
