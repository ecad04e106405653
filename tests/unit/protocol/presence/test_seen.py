"""When each node was here last: kept on the disk, for members only, and never a reason to fail."""

from __future__ import annotations

from colla.kernel.durable import Durable
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId
from colla.protocol.presence.seen import CELL, LastSeen

ONE, TWO = NodeId(b"1" * 32), NodeId(b"2" * 32)


def at(seconds: float) -> Instant:
    return Instant(seconds, 1000.0 + seconds)


def test_it_is_found_again_after_a_restart() -> None:
    outbox, durable = Outbox(1), Durable({}, {})
    seen = LastSeen(outbox, durable)
    assert seen.at_s(ONE) == 0.0
    seen.note([ONE], [ONE, TWO], at(1.0))
    seen.note([TWO], [ONE, TWO], at(2.0))
    for effect in outbox.drain():
        durable.apply(effect.writes)  # type: ignore[attr-defined]
    again = LastSeen(outbox, durable)
    assert (again.at_s(ONE), again.at_s(TWO)) == (1001.0, 1002.0)


def test_who_belongs_no_more_is_forgotten_and_nothing_new_is_not_written() -> None:
    outbox = Outbox(1)
    seen = LastSeen(outbox, Durable({}, {}))
    seen.note([ONE, TWO], [ONE, TWO], at(1.0))
    seen.note([], [TWO], at(2.0))
    assert (seen.at_s(ONE), seen.at_s(TWO)) == (0.0, 1001.0)
    outbox.drain()
    seen.note([], [TWO], at(3.0))
    assert outbox.drain() == []


def test_a_damaged_cell_counts_as_none() -> None:
    assert LastSeen(Outbox(1), Durable({}, {CELL: b"\xff"})).at_s(ONE) == 0.0
