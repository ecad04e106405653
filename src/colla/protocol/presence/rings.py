"""Who watches whom: K rings over the present nodes, each ordered by a hash of the ids.

On every ring a node is watched by the next one that carries a group agent (if nobody else carries one, by the next
one), so cost per node does not grow with the group and everybody who knows the same nodes computes the same. The
overlay is that of Rapid (Suresh et al., ATC 2018); its links form an expander, over which news floods in a few hops.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from colla.model.ids import NodeId, digest

PLACE_BYTES = 8


class Rings:
    """The rings over one set of present nodes. Immutable; made anew when the set changes."""

    def __init__(
        self, present: Sequence[NodeId], watching: Sequence[NodeId], watchers: int, places: Places
    ) -> None:
        """`watching` are those of `present` that carry a group agent; `watchers` is the number of rings, K."""
        self._by_subject: dict[NodeId, tuple[NodeId, ...]] = {}
        self._by_watcher: dict[NodeId, list[NodeId]] = {}
        rings = [sorted((places.of(node)[ring], node) for node in watching) for ring in range(watchers)]
        everybody: list[list[tuple[bytes, NodeId]]] = []
        for subject in present:
            eligible = rings
            if not watching or list(watching) == [subject]:
                everybody = everybody or [
                    sorted((places.of(node)[ring], node) for node in present) for ring in range(watchers)
                ]
                eligible = everybody
            chosen = _choose(subject, places.of(subject), eligible)
            self._by_subject[subject] = chosen
            for watcher in chosen:
                self._by_watcher.setdefault(watcher, []).append(subject)

    def watchers_of(self, subject: NodeId) -> tuple[NodeId, ...]:
        """Those who watch it: at most K, all different."""
        return self._by_subject.get(subject, ())

    def watched_by(self, watcher: NodeId) -> tuple[NodeId, ...]:
        """Those whom it watches, in the order of `present`."""
        return tuple(self._by_watcher.get(watcher, ()))


class Places:
    """Where each node stands on the rings; remembered, since hashing is most of the work."""

    def __init__(self, rings: int) -> None:
        self._rings = rings
        self._known: dict[NodeId, tuple[bytes, ...]] = {}

    def of(self, node: NodeId) -> tuple[bytes, ...]:
        """The node's place on each ring."""
        places = self._known.get(node)
        if places is None:
            places = tuple(digest(bytes([ring]) + node)[:PLACE_BYTES] for ring in range(self._rings))
            self._known[node] = places
        return places

    def forget(self, node: NodeId) -> None:
        """The node is no member any more."""
        self._known.pop(node, None)


def _choose(
    subject: NodeId, places: tuple[bytes, ...], rings: Sequence[Sequence[tuple[bytes, NodeId]]]
) -> tuple[NodeId, ...]:
    """The next eligible node on each ring that was not chosen on another one."""
    chosen: dict[NodeId, None] = {}
    for place, ring in zip(places, rings, strict=True):
        begin = bisect_right(ring, (place, subject))
        for step in range(min(len(ring), len(rings) + 1)):
            candidate = ring[(begin + step) % len(ring)][1]
            if candidate != subject and candidate not in chosen:
                chosen[candidate] = None
                break
    return tuple(chosen)
