"""What admission concludes; the router hands it to presence, the sessions and whoever waits for a join."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from colla.model.ids import NodeId


class PeerAccepted(msgspec.Struct, frozen=True):
    """The peer is a member's node and may speak. Comes again when the peer has started anew on the same link."""

    peer: NodeId
    start: int


class PeerDropped(msgspec.Struct, frozen=True):
    """The peer was refused by this node, now or after having been accepted."""

    peer: NodeId
    code: str


class RefusedByPeer(msgspec.Struct, frozen=True):
    """The peer refused this node."""

    peer: NodeId
    code: str
    text: str


class MembershipChanged(msgspec.Struct, frozen=True):
    """Admission itself changed who belongs (a proof, a join)."""


class Joined(msgspec.Struct, frozen=True):
    """This node belongs to the group now; `peer` let it in."""

    peer: NodeId


class JoinRefused(msgspec.Struct, frozen=True):
    """The attempt to join is over: `code` is stable, `text` tells a person what to do."""

    code: str
    text: str


AdmissionConclusion: TypeAlias = (
    PeerAccepted | PeerDropped | RefusedByPeer | MembershipChanged | Joined | JoinRefused
)
