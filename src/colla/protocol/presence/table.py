"""What this node knows of who is here: one row a node, and the comparison of whole tables.

Rows only grow: (start, revision, rank of the phase) never falls, except that a suspicion lapses. Whatever two nodes
exchange in whatever order, both end with the same rows. Suspicions are not compared, since they pass in seconds.

Transitions of one row:

    -          a genuine announcement                            -> present    the node appeared
    present    the watchers agree on its silence, or told so     -> suspected  it is told, and may refute
    present    its goodbye                                       -> left
    suspected  a newer announcement, or the suspicion lapses     -> present    refuted
    suspected  `refutation_s` over, and nobody here hears it     -> absent
    suspected  its goodbye                                       -> left
    absent     a newer announcement                              -> present    it is back
    absent     its goodbye, late                                 -> left
    left       a newer announcement                              -> present    it is back
    present, suspected, absent, left  it is no member any more   -> -
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colla.kernel.config import PresenceConfig
from colla.model.contribution import AgentKind
from colla.model.ids import NodeId, digest
from colla.protocol.presence.messages import RANKED, Claim, SignedAnnouncement, TableIndex, TableRow
from colla.protocol.views import Announcement, NodeInfo, PresenceEntry, PresencePhase

DIGEST_BYTES = 8
LAST_ID = b"\xff" * 32

HERE: tuple[PresencePhase, ...] = (PresencePhase.PRESENT, PresencePhase.SUSPECTED)
"""The phases that count as present."""


@dataclass(slots=True)
class Row:
    """How one node stands, as of the newest announcement that it signed."""

    signed: SignedAnnouncement
    entry: PresenceEntry
    suspected_s: float = 0.0

    @property
    def phase(self) -> PresencePhase:
        return self.entry.phase

    @property
    def here(self) -> bool:
        return self.entry.phase in HERE

    @property
    def version(self) -> tuple[int, int]:
        return (self.entry.announcement.start, self.entry.announcement.revision)

    def claim(self) -> Claim:
        """The row as others hear of it."""
        return Claim(self.entry.node, self.version[0], self.version[1], RANKED.index(self.phase))


class Table:
    """The rows. The one writer is `Presence`; this node's own row is among them."""

    def __init__(self, config: PresenceConfig) -> None:
        self._config = config
        self._rows: dict[NodeId, Row] = {}
        self._here: dict[NodeId, None] = {}
        self._present: tuple[NodeId, ...] | None = None
        self._carrying: dict[AgentKind, tuple[NodeId, ...]] = {}
        self._away: tuple[NodeId, ...] | None = None
        self._members: tuple[NodeInfo, ...] = ()
        self._digest: bytes | None = None
        self.changes = 0
        """Counts changes of who is present and of what they carry."""

    def row(self, node: NodeId) -> Row | None:
        return self._rows.get(node)

    def entry(self, node: NodeId) -> PresenceEntry | None:
        row = self._rows.get(node)
        return row.entry if row else None

    def here(self, node: NodeId) -> bool:
        return node in self._here

    def present(self) -> tuple[NodeId, ...]:
        """Sorted."""
        if self._present is None:
            self._present = tuple(sorted(self._here))
        return self._present

    def carrying(self, agent: AgentKind) -> tuple[NodeId, ...]:
        """Those present that carry the agent, sorted."""
        known = self._carrying.get(agent)
        if known is None:
            known = tuple(
                node
                for node in self.present()
                if self._rows[node].entry.announcement.contribution.carries(agent)
            )
            self._carrying[agent] = known
        return known

    def away(self, members: tuple[NodeInfo, ...]) -> tuple[NodeId, ...]:
        """Those of the members' nodes that are not present, in their order."""
        if self._away is None or self._members is not members:
            self._members = members
            self._away = tuple(node.id for node in members if node.id not in self._here)
        return self._away

    def announce(self, announcement: Announcement, signed: SignedAnnouncement, now_s: float) -> Row:
        """Put in a newer announcement: the node is present."""
        node = announcement.node
        row = self._rows.get(node)
        same = False
        if row is None:
            entry = PresenceEntry(node, PresencePhase.PRESENT, now_s, announcement)
            row = self._rows[node] = Row(signed, entry)
        else:
            before = row.entry.announcement
            same = row.here and announcement.contribution.agents == before.contribution.agents
            stays = row.here and announcement.start == before.start
            since_s = row.entry.since_s if stays else now_s
            row.entry = _changed(row.entry, PresencePhase.PRESENT, since_s, announcement)
            row.signed = signed
        self._here[node] = None
        self._digest = None
        if not same:
            self._note_change()
        return row

    def put(self, node: NodeId, phase: PresencePhase, now_s: float) -> None:
        """Let the node stand so; the row must exist."""
        row = self._rows[node]
        absences, was_here = row.entry.absences, row.here
        if was_here and phase not in HERE:
            absences = (*absences, now_s)[-self._config.absences_kept_max :]
        if phase is PresencePhase.SUSPECTED:
            row.suspected_s = now_s
        # A node that is suspected has been here since it appeared, so `since_s` outlives the suspicion.
        since_s = row.entry.since_s if phase in HERE and was_here else now_s
        row.entry = _changed(row.entry, phase, since_s, absences=absences)
        self._digest = None
        if row.here != was_here:
            if was_here:
                del self._here[node]
            else:
                self._here[node] = None
            self._note_change()

    def suspect_anew(self, now_s: float) -> None:
        """All suspicions begin now."""
        for node in self._here:
            row = self._rows[node]
            if row.phase is PresencePhase.SUSPECTED:
                row.suspected_s = now_s

    def keep_only(self, members: Iterable[NodeId]) -> list[NodeId]:
        """Forget all others; returns those of them that were present."""
        kept = dict.fromkeys(members)
        gone = [node for node in self._rows if node not in kept]
        were_here = [node for node in gone if self._rows[node].here]
        for node in gone:
            del self._rows[node]
            self._here.pop(node, None)
        # Members that are gone for good would fill the table of a group that lives for decades.
        away = [node for node, row in self._rows.items() if not row.here]
        excess = len(away) - self._config.departed_kept_max
        if excess > 0:
            away.sort(key=lambda node: (self._rows[node].entry.since_s, node))
            for node in away[:excess]:
                del self._rows[node]
        if gone or excess > 0:
            self._digest = None
            self._note_change()
        return sorted(were_here)

    # Comparing tables.

    def digest(self) -> bytes:
        """Equal for equal tables, suspicions aside."""
        if self._digest is None:
            parts = [
                node + b"%d,%d,%d;" % (*row.version, _compared(row.phase))
                for node, row in sorted(self._rows.items(), key=lambda item: item[0])
            ]
            self._digest = digest(b"".join(parts))[:DIGEST_BYTES]
        return self._digest

    def index(self) -> list[TableIndex]:
        """All rows without announcements, in pages that cover all ids without a gap."""
        size = self._config.table_index_max
        nodes = sorted(self._rows)
        pages: list[TableIndex] = []
        after = b""
        for begin in range(0, max(1, len(nodes)), size):
            page = nodes[begin : begin + size]
            through = LAST_ID if begin + size >= len(nodes) else page[-1]
            pages.append(TableIndex(after, through, tuple(self._rows[node].claim() for node in page)))
            after = through
        return pages

    def compare(self, index: TableIndex) -> tuple[list[NodeId], list[NodeId]]:
        """The nodes of which this table knows more than that page, and those of which it knows less."""
        theirs = {claim.node: (*claim.version, _compared(claim.phase)) for claim in index.claims}
        newer: list[NodeId] = []
        older: list[NodeId] = []
        for node in sorted(self._rows):
            if index.after < node <= index.through:
                row = self._rows[node]
                mine = (*row.version, _compared(row.phase))
                if mine > theirs.get(node, (-1,)):
                    newer.append(node)
                elif mine < theirs[node]:
                    older.append(node)
        older += [node for node in theirs if node not in self._rows]
        return newer, sorted(older)

    def rows_of(self, nodes: Sequence[NodeId]) -> tuple[TableRow, ...]:
        """The rows of those nodes that are known."""
        rows = [self._rows[node] for node in nodes if node in self._rows]
        return tuple(TableRow(row.claim(), row.signed) for row in rows)

    def _note_change(self) -> None:
        self._present = None
        self._carrying = {}
        self._away = None
        self.changes += 1


def _compared(phase: PresencePhase) -> int:
    return 0 if phase in HERE else RANKED.index(phase)


def _changed(
    entry: PresenceEntry,
    phase: PresencePhase | None = None,
    since_s: float | None = None,
    announcement: Announcement | None = None,
    absences: tuple[float, ...] | None = None,
) -> PresenceEntry:
    return PresenceEntry(
        entry.node,
        entry.phase if phase is None else phase,
        entry.since_s if since_s is None else since_s,
        entry.announcement if announcement is None else announcement,
        entry.absences if absences is None else absences,
    )
