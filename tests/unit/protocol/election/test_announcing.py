"""What a dispatcher makes of what masters tell of themselves."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

from colla.kernel.config import Config
from colla.kernel.effects import Send
from colla.kernel.outbox import Outbox
from colla.kernel.time import Instant
from colla.model.ids import NodeId, ServiceId
from colla.model.location import Ballot
from colla.protocol.election.announcing import Announcing
from colla.protocol.election.book import MasterBook
from colla.protocol.election.echoes import Echoes
from colla.protocol.election.messages import MasterDelta, MasterKnowledge, MastershipAnswer, MasteryEntry

SERVICE = ServiceId(b"s" * 16)
ME, MASTER, OTHER = (NodeId(bytes([number]) * 32) for number in range(3))
BALLOT = Ballot(1, 7, MASTER)
NOW = Instant(100.0, 100.0)


class Follower:
    """One dispatcher that the master hears, and that was made a secondary in revision 1."""

    def __init__(self) -> None:
        presence = SimpleNamespace(entry=lambda node: None, echoed_s=lambda node, now_s: 0.0)
        self.outbox = Outbox(1)
        setting = SimpleNamespace(
            me=ME, config=Config(), rng=Random(1), outbox=self.outbox, presence=presence
        )
        echoes = Echoes(setting)  # type: ignore[arg-type]
        self.book = MasterBook(setting, echoes)  # type: ignore[arg-type]
        self.book.watch(SERVICE, NOW, activated=False)
        self.announcing = Announcing(setting, None, self.book, echoes)  # type: ignore[arg-type]
        self.tell(MasterKnowledge(SERVICE, BALLOT, 1, (ME, OTHER), (), 0, 0))

    def tell(self, message: MasterKnowledge | MasterDelta) -> list[object]:
        """What it answers."""
        if isinstance(message, MasterKnowledge):
            self.announcing.knowledge(MASTER, message, NOW)
        else:
            self.announcing.delta(MASTER, message, NOW)
        return [effect.message for effect in self.outbox.drain() if isinstance(effect, Send)]


def announced(revision: int) -> MasterDelta:
    """What a master tells whoever returns."""
    return MasterDelta((MasteryEntry(SERVICE, BALLOT, revision),), True, False, 0, 0)


def test_who_missed_that_it_is_no_secondary_any_more_asks() -> None:
    """It took itself for one on and on, and for a moment for the successor of a master that told it nothing any more."""
    follower = Follower()
    (asked,) = follower.tell(announced(2))
    assert isinstance(asked, MastershipAnswer) and asked.wants == (SERVICE,)
    follower.tell(MasterKnowledge(SERVICE, BALLOT, 2, (OTHER,), (), 0, 0))
    assert not follower.book.is_secondary(SERVICE)
    assert follower.tell(announced(3)) == []


def test_who_missed_nothing_asks_nothing() -> None:
    assert Follower().tell(announced(1)) == []
