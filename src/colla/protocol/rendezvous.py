"""Rendezvous hashing (Thaler and Ravishankar, 1998): everybody ranks the same nodes alike, with no table.

The hash also gives the *proximity* of a dispatcher's id to a service's id in the hashing election, and the
order of the monitoring rings of presence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from colla.model.ids import NodeId, digest
from colla.model.sharing import sharing

RANKINGS_MAX = 1024
"""Of large groups, one takes 16 KB."""
PROXIMITY_BYTES = 7
"""56 bits: a proximity fits a signed 64-bit integer everywhere."""


def proximity(subject: bytes, node: NodeId) -> int:
    """How near `node` is to `subject`; the greatest is the nearest. 0 to 2**56 - 1."""
    return int.from_bytes(digest(subject + node)[:PROXIMITY_BYTES])


def nearest(subject: bytes, nodes: Iterable[NodeId]) -> list[NodeId]:
    """The nodes, nearest to `subject` first; ties are broken by id."""
    return list(_ranked(subject, tuple(nodes)))


@sharing(RANKINGS_MAX)
def _ranked(subject: bytes, nodes: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes, key=lambda node: (-proximity(subject, node), node)))


def nearest_spread(
    subject: bytes, nodes: Iterable[NodeId], owner_of: Callable[[NodeId], bytes | None]
) -> list[NodeId]:
    """As `nearest`, but nodes of distinct members come first: one of each, then the second of each, and so on."""
    rounds: dict[bytes | None, int] = {}
    ranked: list[tuple[int, int, NodeId]] = []
    for place, node in enumerate(nearest(subject, nodes)):
        owner = owner_of(node)
        turn = rounds.get(owner, 0)
        rounds[owner] = turn + 1
        ranked.append((turn, place, node))
    return [node for _, _, node in sorted(ranked)]
