"""Who watches whom: K rings over the present nodes, each ordered by a hash of the ids.

On every ring a node is watched by the next one that carries a group agent (if nobody else carries one, by the next
one), so cost per node does not grow with the group and everybody who knows the same nodes computes the same. The
overlay is that of Rapid (Suresh et al., ATC 2018); its links form an expander, over which news floods in a few hops.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from colla.model.ids import NodeId, digest

PLACE_BYTES = 8
RESORT_SHARE = 8
"""When more than one in so many came or went, sorting all anew is cheaper than putting each in its place."""


Ring = list[tuple[bytes, NodeId]]


class Rings:
    """The rings over one set of present nodes. Immutable; made anew when the set changes, out of the rings before.

    Who watches whom is looked up when somebody asks: in a large group one change must not cost every node a look at all.
    """

    def __init__(
        self,
        present: Sequence[NodeId],
        watching: Sequence[NodeId],
        watchers: int,
        places: Places,
        before: Rings | None = None,
    ) -> None:
        """`watching` are those of `present` that carry a group agent; `watchers` is the number of rings, K. All are sorted."""
        self._present = tuple(present)
        self._watching = tuple(watching)
        self._watchers = watchers
        self._places = places
        self._subjects: list[Ring] = self._order(
            self._present, (before._present, before._subjects) if before else ((), [])
        )
        if self._watching == self._present:
            self._eligible: list[Ring] = self._subjects
        else:
            old = (before._watching, before._eligible) if before else ((), [])
            self._eligible = self._order(self._watching, old)
        self._by_subject: dict[NodeId, tuple[NodeId, ...]] = {}

    def watchers_of(self, subject: NodeId) -> tuple[NodeId, ...]:
        """Those who watch it: at most K, all different."""
        chosen = self._by_subject.get(subject)
        if chosen is None:
            at = bisect_left(self._present, subject)
            if self._present[at : at + 1] != (subject,):
                return ()
            alone = self._watching in ((), (subject,))
            chosen = _choose(subject, self._places.of(subject), self._subjects if alone else self._eligible)
            self._by_subject[subject] = chosen
        return chosen

    def watched_by(self, watcher: NodeId) -> tuple[NodeId, ...]:
        """Those whom it watches, sorted."""
        reach = self._watchers + 1
        if len(self._watching) <= reach + 1:
            near = dict.fromkeys(self._present)
        elif watcher in self._watching:
            near = {}
            for number, place in enumerate(self._places.of(watcher)):
                # Nobody farther back passes over so many others: each chooses the next, but for those it has already.
                eligible, subjects = self._eligible[number], self._subjects[number]
                end = bisect_left(eligible, (place, watcher))
                begin = bisect_left(subjects, eligible[end - reach])
                end = bisect_left(subjects, (place, watcher))
                between = subjects[begin:end] if begin < end else subjects[begin:] + subjects[:end]
                near.update((node, None) for _, node in between)
        else:
            return ()
        return tuple(sorted(node for node in near if watcher in self.watchers_of(node)))

    def _order(self, nodes: tuple[NodeId, ...], before: tuple[tuple[NodeId, ...], list[Ring]]) -> list[Ring]:
        """The nodes in the order of each ring; those that were there before are not sorted again."""
        old, rings = before
        now, then = dict.fromkeys(nodes), dict.fromkeys(old)
        come = [node for node in nodes if node not in then]
        gone = [node for node in old if node not in now]
        if not rings or (len(come) + len(gone)) * RESORT_SHARE > len(nodes):
            places = [self._places.of(node) for node in nodes]
            return [
                sorted((place[number], node) for place, node in zip(places, nodes, strict=True))
                for number in range(self._watchers)
            ]
        if not come and not gone:
            return rings
        changed = [list(ring) for ring in rings]
        for node in gone:
            for ring, place in zip(changed, self._places.of(node), strict=True):
                del ring[bisect_left(ring, (place, node))]
        for node in come:
            for ring, place in zip(changed, self._places.of(node), strict=True):
                insort(ring, (place, node))
        return changed


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
