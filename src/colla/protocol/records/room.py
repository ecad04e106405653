"""How many bytes of whose records are held: a member's within a bound, those of authors that nobody knows within a small one.

Both bounds depend on what came first (see `quota` for those that do not): they are the last resort against who fills
disks and memories. Nobody is bounded before `judge_authors` and `bound_members` were called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from colla.model.ids import NodeId
from colla.model.record import Record
from colla.protocol.records.quota import ANY
from colla.protocol.records.topic import Topic

RESERVED = 64
"""One part of so many."""


class Rooms:
    """See the module."""

    def __init__(self, topics: dict[str, Topic], unknown_bytes_max: int) -> None:
        self._topics = topics
        self._unknown_bytes_max = unknown_bytes_max
        self._knows_author: Callable[[NodeId], bool] | None = None
        self._unknown_bytes: dict[NodeId, int] = {}
        self._nodes_of_member: Callable[[NodeId], Sequence[NodeId]] = lambda node: (node,)
        self._member_bytes_max = ANY

    def judge_authors(self, known: Callable[[NodeId], bool], held: Iterable[Record]) -> None:
        """From now on, records of authors that `known` denies are taken within a bound only; `held` are there already."""
        self._knows_author = known
        for record in held:
            self.take_unknown(record)

    def bound_members(self, nodes_of_member: Callable[[NodeId], Sequence[NodeId]], bytes_max: int) -> None:
        """From now on, of the nodes that belong to one member no more is taken than that, all together."""
        self._nodes_of_member, self._member_bytes_max = nodes_of_member, bytes_max

    @property
    def reserve(self) -> int:
        """Of what a member may fill so much is left for changing what there is already."""
        return self._member_bytes_max // RESERVED

    def has_room(self, node: NodeId, size: int) -> bool:
        """Whether the member of that node may fill so many bytes more."""
        topics = self._topics.values()
        if sum(topic.bytes_held for topic in topics) + size <= self._member_bytes_max:
            return True
        nodes = self._nodes_of_member(node)
        held = sum(topic.bytes_of.get(one, 0) for topic in topics for one in nodes)
        return held + size <= self._member_bytes_max

    def take_unknown(self, record: Record) -> bool:
        """Count the record against the bound if its author is unknown; False when there is no room for it."""
        known = self._knows_author
        if known is None or known(record.log.node):
            return True
        bytes_max = self._unknown_bytes_max
        if sum(self._unknown_bytes.values()) + record.size > bytes_max:
            still = {node: size for node, size in self._unknown_bytes.items() if not known(node)}
            self._unknown_bytes = still
        if sum(self._unknown_bytes.values()) + record.size > bytes_max:
            return False
        self._unknown_bytes[record.log.node] = self._unknown_bytes.get(record.log.node, 0) + record.size
        return True
